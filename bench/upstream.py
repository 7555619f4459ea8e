"""What stands behind every peer: nginx with a canned answer, and a server that paces the chunks of a stream."""

from __future__ import annotations

import contextlib
import os
import sys
import urllib.request
from pathlib import Path

from bench import content
from bench.processes import LOAD_CORE, Process, free_port, wait_for

# `mirror` makes nginx read the whole body before it answers (a bare `return` answers a 220 KB prompt halfway
# through, which no inference server does); it costs 10 % of the upstream's throughput, which nobody is charged for.
_NGINX = """
daemon off;
worker_processes 1;
error_log {folder}/error.log error;
pid {folder}/nginx.pid;
events {{ worker_connections 16384; }}
http {{
  access_log off;
  log_not_found off;
  default_type application/json;
  keepalive_timeout 3600s;
  keepalive_requests 1000000000;
  client_max_body_size 64m;
  client_body_buffer_size 1m;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    root {folder};
    error_page 404 405 =200 @canned;
    location = /body-was-read {{ internal; return 204; }}
    location = /v1/models {{ return 200 '{models}'; }}
    location = /v1/chat/completions/render {{ return 404 '{{}}'; }}
    location / {{ return 200 '{{}}'; }}
    location = /v1/chat/completions {{ mirror /body-was-read; mirror_request_body on; }}
    location @canned {{ return 200 '{answer}'; }}
  }}
}}
"""
MODELS = '{"object":"list","data":[{"id":"canned","object":"model","created":1795000000,"owned_by":"bench"}]}'


class JsonUpstream:
    """nginx that reads the request and answers with the canned completion."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        path = folder / "nginx.conf"
        path.write_text(_NGINX.format(folder=folder, port=self.port, models=MODELS, answer=content.answer().decode()))
        self.process = Process(
            ["nginx", "-c", str(path), "-p", str(folder)], core=LOAD_CORE, log=folder / "nginx.log"
        )
        wait_for(self.port, seconds=10, process=self.process)

    def stop(self) -> None:
        self.process.stop()


class StreamUpstream:
    """`bench.load.stream_server` in a process of its own: one write a chunk, `pace_ms` between two."""

    def __init__(self, folder: Path, *, pace_ms: float, chunks: int = content.CHUNKS) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        command = [sys.executable, "-m", "bench.load.stream_server", "--port", str(self.port)]
        command += ["--pace-ms", str(pace_ms), "--chunks", str(chunks)]
        self.process = Process(
            command, core=LOAD_CORE, log=folder / "stream_server.log", cwd=Path(__file__).parents[1]
        )
        wait_for(self.port, seconds=10, process=self.process)

    def pace(self, pace_ms: float) -> None:
        """Of the streams that follow."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/pace/{pace_ms:g}", timeout=10) as answer:
            answer.read()

    def stop(self) -> None:
        self.process.stop()


def raise_file_limit() -> int:
    """The soft limit of open files becomes the hard one; children inherit it."""
    import resource  # noqa: PLC0415 - Unix only, and only here

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return os.sysconf("SC_OPEN_MAX")
