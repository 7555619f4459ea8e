"""Envoy 1.40 with what a gateway for AI needs of it: keys, routing on the body's `model`, a JSON access log."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from bench import content
from bench.peers import installed
from bench.peers.base import Peer
from bench.processes import PROXY_CORE, Process, wait_for

_HTTP = "type.googleapis.com/envoy.extensions.filters.http"


def _binary() -> str:
    return str(installed.site_packages() / "envoy" / "_bin" / "envoy")


class Envoy(Peer):
    name = "envoy"
    authenticates = True
    routes_by_model = True
    what_is_on = "api_key_auth, json_to_metadata from `model`, route on metadata, JSON access log; concurrency 1"

    def start(self, port: int, upstream: int) -> None:
        self.port = port
        path = self.folder / "envoy.json"
        path.write_text(json.dumps(self._config(port, upstream), indent=1))
        command = [_binary(), "--config-path", str(path), "--concurrency", "1", "--disable-hot-restart"]
        command += ["--log-level", "warning"]
        self.process = Process(command, core=PROXY_CORE, log=self.folder / "envoy.log")
        wait_for(port, seconds=self.start_limit_s, process=self.process)

    @classmethod
    def version(cls) -> str:
        told = subprocess.run([_binary(), "--version"], capture_output=True, text=True, check=True)
        return told.stdout.strip().split("/")[1]

    def _config(self, port: int, upstream: int) -> dict[str, Any]:
        def address(number: int) -> dict[str, Any]:
            return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

        keys = {
            "@type": f"{_HTTP}.api_key_auth.v3.ApiKeyAuth",
            "credentials": [{"key": self.key, "client": "bench"}],
            "key_sources": [{"header": "Authorization"}],
        }
        metadata = {"metadata_namespace": "gateway", "key": "model"}
        body = {
            "@type": f"{_HTTP}.json_to_metadata.v3.JsonToMetadata",
            "request_rules": {
                "rules": [
                    {
                        "selectors": [{"key": "model"}],
                        "on_present": metadata,
                        "on_missing": {**metadata, "value": "none"},
                    }
                ]
            },
        }
        is_model = {
            "filter": "gateway",
            "path": [{"key": "model"}],
            "value": {"string_match": {"exact": content.MODEL}},
        }
        routes = {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [
                        {
                            "match": {"prefix": "/v1/", "dynamic_metadata": [is_model]},
                            "route": {"cluster": "endpoint", "timeout": "0s"},
                        },
                        {
                            "match": {"prefix": "/"},
                            "direct_response": {"status": 404, "body": {"inline_string": "unknown model"}},
                        },
                    ],
                }
            ]
        }
        fields = {
            "time": "%START_TIME%",
            "client": "%DYNAMIC_METADATA(envoy.filters.http.api_key_auth:client)%",
            "model": "%DYNAMIC_METADATA(gateway:model)%",
            "status": "%RESPONSE_CODE%",
            "flags": "%RESPONSE_FLAGS%",
            "received": "%BYTES_RECEIVED%",
            "sent": "%BYTES_SENT%",
            "duration_ms": "%DURATION%",
            "upstream": "%UPSTREAM_HOST%",
            "request_id": "%REQ(X-REQUEST-ID)%",
        }
        log = {
            "name": "file",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                "path": str(self.folder / "access.log"),
                "log_format": {"json_format": fields},
            },
        }
        router = {"@type": f"{_HTTP}.router.v3.Router"}
        manager = {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3"
            ".HttpConnectionManager",
            "stat_prefix": "gateway",
            "codec_type": "HTTP1",
            "route_config": routes,
            "access_log": [log],
            "http_filters": [
                {"name": "keys", "typed_config": keys},
                {"name": "model", "typed_config": body},
                {"name": "router", "typed_config": router},
            ],
        }
        listener = {
            "name": "gateway",
            "address": address(port),
            "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
        }
        endpoint = {"endpoint": {"address": address(upstream)}}
        # the default circuit breaker (1,024) would refuse streams at high concurrency
        limits = {"max_connections": 16384, "max_pending_requests": 16384, "max_requests": 16384}
        cluster = {
            "name": "endpoint",
            "type": "STATIC",
            "connect_timeout": "2s",
            "circuit_breakers": {"thresholds": [limits]},
            "load_assignment": {"cluster_name": "endpoint", "endpoints": [{"lb_endpoints": [endpoint]}]},
        }
        return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}
