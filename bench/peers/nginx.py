"""nginx proxy_pass, tuned as one would for an API: the practical floor."""

from __future__ import annotations

import subprocess

from bench.peers.base import Peer
from bench.processes import PROXY_CORE, Process, wait_for

_CONFIG = """
daemon off;
worker_processes 1;
error_log {folder}/error.log error;
pid {folder}/nginx.pid;
events {{ worker_connections 16384; }}
http {{
  access_log {folder}/access.log combined buffer=64k flush=1s;
  keepalive_timeout 3600s;
  keepalive_requests 1000000000;
  client_max_body_size 64m;
  client_body_buffer_size 1m;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream endpoint {{
    server 127.0.0.1:{upstream};
    keepalive 1024;
    keepalive_requests 1000000000;
    keepalive_timeout 3600s;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://endpoint;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""


class Nginx(Peer):
    name = "nginx"
    what_is_on = "proxy_pass, keep-alive, proxy_buffering off, access log (buffered); no keys, no JSON"

    def start(self, port: int, upstream: int) -> None:
        self.port = port
        path = self.folder / "nginx.conf"
        path.write_text(_CONFIG.format(folder=self.folder, port=port, upstream=upstream))
        self.process = Process(
            ["nginx", "-c", str(path), "-p", str(self.folder)],
            core=PROXY_CORE,
            log=self.folder / "nginx.log",
        )
        wait_for(port, seconds=self.start_limit_s, process=self.process)

    @classmethod
    def version(cls) -> str:
        told = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=True)
        return told.stderr.strip().rpartition("/")[2]
