"""The Rust router of vLLM (wheel `vllm-router`)."""

from __future__ import annotations

from bench.peers import installed
from bench.peers.base import Peer
from bench.processes import PROXY_CORE, Process, free_port, wait_for


class Vllm(Peer):
    name = "vllm"
    what_is_on = (
        "defaults (cache-aware policy, which first asks the endpoint to render the prompt: 404 here), Prometheus; "
        "passes keys on unchecked"
    )

    def start(self, port: int, upstream: int) -> None:
        self.port = port
        command = [str(installed.PYTHON), "-m", "vllm_router.launch_router", "--host", "127.0.0.1"]
        command += ["--port", str(port), "--worker-urls", f"http://127.0.0.1:{upstream}"]
        command += ["--prometheus-port", str(free_port()), "--prometheus-host", "127.0.0.1"]
        command += ["--log-level", "warning"]
        self.process = Process(command, core=PROXY_CORE, log=self.folder / "vllm.log")
        wait_for(port, seconds=self.start_limit_s, process=self.process)

    @classmethod
    def version(cls) -> str:
        return installed.version_of("vllm-router")
