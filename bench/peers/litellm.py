"""LiteLLM's proxy with a master key; no database, no telemetry, and nothing fetched from outside."""

from __future__ import annotations

import json

from bench import content
from bench.peers import installed
from bench.peers.base import Peer
from bench.processes import PROXY_CORE, Process, wait_for


class LiteLlm(Peer):
    name = "litellm"
    authenticates = True
    routes_by_model = True
    what_is_on = "master key, one worker (uvicorn), defaults; no database, no budgets, telemetry off"
    refuses_with = frozenset({400, 401})  # without a database an unknown key gets 400 `No connected db.`
    start_limit_s = 90.0
    slow = True

    def start(self, port: int, upstream: int) -> None:
        self.port = port
        config = {
            "model_list": [
                {
                    "model_name": content.MODEL,
                    "litellm_params": {
                        "model": f"openai/{content.MODEL}",
                        "api_base": f"http://127.0.0.1:{upstream}/v1",
                        "api_key": "none",
                    },
                }
            ],
            "general_settings": {"master_key": self.key},
            "litellm_settings": {"telemetry": False},
        }
        path = self.folder / "config.yaml"
        path.write_text(json.dumps(config))  # JSON is YAML
        quiet = {
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "True",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
            "LITELLM_LOCAL_BLOG_POSTS": "True",
            "LITELLM_LOCAL_AUTOROUTER_PRESETS": "True",
            "LITELLM_LOCAL_POLICY_TEMPLATES": "True",
            "LITELLM_LOG": "ERROR",
            "LITELLM_MODE": "PRODUCTION",
            "DO_NOT_TRACK": "1",
            # whatever else it may want from outside meets a closed door at once
            "HTTP_PROXY": "http://127.0.0.1:9",
            "HTTPS_PROXY": "http://127.0.0.1:9",
            "NO_PROXY": "127.0.0.1,localhost",
        }
        command = [str(installed.PYTHON), "-m", "litellm.proxy.proxy_cli", "--config", str(path)]
        command += ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
        self.process = Process(command, core=PROXY_CORE, log=self.folder / "litellm.log", env=quiet)
        wait_for(port, seconds=self.start_limit_s, process=self.process)

    @classmethod
    def version(cls) -> str:
        return installed.version_of("litellm")
