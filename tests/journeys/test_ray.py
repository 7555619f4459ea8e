"""A window opens a real endpoint through Ray Serve, and closes it. `make ray` installs Ray and runs this; the cluster
is one node on the loopback address, started and ended here."""

from __future__ import annotations

import importlib.util
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from running import chat, free_ports, until

from sekisho.assembly.schema import migrate
from sekisho.assembly.site_home import RawEngine
from sekisho.assembly.site_workloads import adapters
from sekisho.capacity.life import LifeService
from sekisho.capacity.model import Wanted
from sekisho.capacity.service import CapacityService
from sekisho.capacity.workloads.model import Spec
from sekisho.capacity.workloads.service import WorkloadService
from sekisho.engines.runner import Replica, Runner
from sekisho.kernel.clock import SystemClock
from sekisho.runtime.database import Database, sqlite_url

pytestmark = [
    pytest.mark.journey,
    pytest.mark.model,
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason="Ray is not installed: `make ray` installs it and runs this"
    ),
]
# Ray replaces 127.0.0.1 by the machine's outer address; this one it leaves as it is.
LOOPBACK = "127.0.0.2"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """The head's address, and a port for Serve."""
    port, http_port, *agents = free_ports(6)
    # Ports that are known spare Ray its own wait of 15 s for its agents, which a slow machine does not keep.
    options = (
        "dashboard-agent-listen-port",
        "dashboard-agent-grpc-port",
        "metrics-export-port",
        "runtime-env-agent-port",
    )
    sockets = f"/tmp/ray-{secrets.token_hex(4)}"  # pytest's own folder is too long for Unix sockets
    command = [
        *(str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", f"--port={port}"),
        *(f"--node-ip-address={LOOPBACK}", "--include-dashboard=false", "--disable-usage-stats"),
        *("--num-cpus=2", "--num-gpus=0", "--object-store-memory=100000000", f"--temp-dir={sockets}"),
        *(f"--{name}={number}" for name, number in zip(options, agents, strict=True)),
    ]
    with (tmp_path / "head.log").open("wb") as log:
        head = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"},
        )
    try:
        until(
            lambda: "monitored" in (tmp_path / "head.log").read_text() or head.poll() is not None,
            within_s=180,
            what="the head",
        )
        if head.poll() is not None:
            pytest.skip("Ray's head did not start within Ray's own 15 and 30 seconds: this machine is too busy")
        yield f"{LOOPBACK}:{port}", http_port
    finally:
        os.killpg(head.pid, signal.SIGTERM)
        try:
            head.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(head.pid, signal.SIGKILL)
            head.wait()


class Site:
    """A site's runner with Ray, and the control plane's services, on a pool of one GPU."""

    def __init__(self, root: Path, cluster: tuple[str, int]) -> None:
        self.root = root
        self.engine = RawEngine(kind="ray", model="smollm2-135m", address=cluster[0], http_port=cluster[1])
        self.database = Database(sqlite_url(root / "control.sqlite"))
        migrate(self.database)
        clock = SystemClock()
        self.capacity = CapacityService(
            self.database,
            allowed_sites=lambda _tenant, _class: frozenset({"here"}),
            tenants=lambda: frozenset({"hospital"}),
            sites=lambda: frozenset({"here"}),
            clock=clock,
            new_id=lambda: f"rv-{secrets.token_hex(8)}",
        )
        self.life = LifeService(self.capacity, clock=clock, new_id=lambda: f"rv-{secrets.token_hex(8)}")
        self.workloads = WorkloadService(
            self.database, names=lambda _tenant, _name: None, clock=clock, new_id=lambda: f"wl-{secrets.token_hex(8)}"
        )
        self.capacity.set_pool(site="here", gpu="h100", gpus=1, tenant_limit=None, yen_per_gpu_hour=0, who="admin")
        self.restart()

    def restart(self) -> None:
        """The agent that was before is gone, and another begins from its disk."""
        self.runner = Runner(self.root / "site", adapters(self.root / "site", [self.engine], tied_to=None))

    def turn(self) -> None:
        self.runner.step(now=time.time())
        told = self.workloads.exchange("here", self.runner.report(_url))
        self.runner.obey(told.orders, now=time.time())

    def served(self) -> str:
        self.turn()
        return next((each.url for each in self.workloads.opened()), "")


def _url(replica: Replica) -> str:
    return f"http://127.0.0.1:{replica.port}{replica.path}/v1"


@pytest.mark.timeout(600)
def test_a_window_opens_a_real_endpoint_through_ray_and_closes_it(tmp_path: Path, cluster: tuple[str, int]) -> None:
    site = Site(tmp_path, cluster)
    site.turn()
    here = int(time.time()) // 900
    wanted = Wanted(
        tenant="hospital", data_class="internal", gpu_models=(), gpus=1, gpus_min=1, first=here, latest=here, slots=8
    )
    held = site.capacity.book(wanted, who="admin")
    spec = Spec(engine="ray", model="smollm2-135m", name="hospital-llm", grace_s=5)
    workload = site.workloads.define(held.id, spec, who="admin")
    until(site.served, within_s=240, what="the endpoint")
    url = site.served()
    answer = httpx.post(f"{url}/chat/completions", json=chat(model="hospital-llm"), timeout=120, trust_env=False)
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"].strip()
    # The agent goes without a word and another comes: the application is adopted, not started a second time.
    site.runner.close()
    site.restart()
    until(site.served, within_s=120, what="the endpoint again")
    assert site.served() == url
    assert site.workloads.get(workload.id).body.replicas[0].restarts == 0
    site.life.cancel(held.id, version=None, who="admin")

    def ended() -> bool:
        site.turn()
        return site.workloads.get(workload.id).body.state == "ended"

    until(ended, within_s=120, what="the end")
    gone = httpx.get(f"{url}/models", timeout=60, trust_env=False)
    assert gone.status_code == 404
    site.runner.close()
    site.database.close()
