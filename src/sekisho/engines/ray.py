"""Engines as Ray Serve applications on a site's cluster: one application for each replica, named like it.

The cluster's own record of applications is what keeps a replica single: to deploy one that is there changes nothing.
Which applications are ours says a folder on the agent's disk, written before the first deployment: a cluster may have
other users. A replica ends by itself with its lease (`ray_app.py`).
"""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from sekisho.capacity.workloads.model import REPLICA, Order
from sekisho.engines.adapter import EngineFault, Status
from sekisho.engines.processes import Command
from sekisho.engines.ray_bridge import Answer, Asked, Delete, Deploy, Look

_NAME = re.compile(REPLICA)
_ANSWER_S = 30.0
_CONNECT_S = 120.0
_MAX_LINE = 1 << 20


class RayServe:
    """`commands` by model, for the cluster's nodes. `address`: the cluster's head."""

    def __init__(self, root: Path, commands: Mapping[str, Command], *, address: str, http_port: int) -> None:
        self._root = root
        self._commands = dict(commands)
        self._address = address
        self._http_port = http_port
        self._bridge: subprocess.Popen[bytes] | None = None
        self._deployed: dict[str, float] = {}  # replica → the end of the window that it was told by this process
        root.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(sorted(self._commands))

    def found(self) -> frozenset[str]:
        return frozenset(each.name for each in self._root.iterdir() if _NAME.fullmatch(each.name))

    def start(self, order: Order) -> None:
        command = self._commands.get(order.model)
        if command is None:
            raise EngineFault(f"this site does not offer {order.model}", hint="look at agent.toml")
        (self._root / order.replica).mkdir(mode=0o700, exist_ok=True)
        self._ask(Deploy(order=order, command=tuple(command(order))))
        self._deployed[order.replica] = order.until

    def status(self, replica: str) -> Status:
        if not (self._root / replica).exists():
            return Status(alive=False)
        found = self._ask(Look(replica=replica))
        if not found.status:
            return Status(alive=False, last_exit="its application is gone")
        ready = found.up and found.status in ("RUNNING", "DEPLOYING")
        said = "" if found.status in ("RUNNING", "DEPLOYING") else f"{found.status}: {found.message}"
        return Status(
            alive=True, ready=ready, port=self._http_port, path=f"/{replica}", busy=found.busy, last_exit=said[:300]
        )

    def renew(self, order: Order) -> None:
        """Serve holds the lease: it is told when the end of the window changes."""
        if self._deployed.get(order.replica) != order.until:
            self.start(order)

    def stop(self, replica: str) -> None:
        self._deployed.pop(replica, None)
        self._ask(Delete(replica=replica))

    def forget(self, replica: str) -> None:
        (self._root / replica).rmdir() if (self._root / replica).exists() else None

    def close(self) -> None:
        bridge, self._bridge = self._bridge, None
        if bridge is not None:
            bridge.kill()
            bridge.wait()

    def _ask(self, asked: Asked) -> Answer:
        said = self._talk(self._connected(), msgspec.json.encode(asked) + b"\n", within_s=_ANSWER_S)
        if said.error:
            raise EngineFault(f"the Ray cluster at {self._address}: {said.error}", hint="it is asked again")
        return said

    def _connected(self) -> subprocess.Popen[bytes]:
        if self._bridge is not None and self._bridge.poll() is None:
            return self._bridge
        with (self._root / "bridge.log").open("ab") as log:
            self._bridge = subprocess.Popen(  # noqa: S603 - our own program
                [
                    *(sys.executable, "-P", "-m", "sekisho.assembly.launch", str(os.getpid())),
                    *("sekisho.engines.ray_bridge", self._address, str(self._http_port)),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"},
            )
        self._talk(self._bridge, b"", within_s=_CONNECT_S)
        return self._bridge

    def _talk(self, bridge: subprocess.Popen[bytes], line: bytes, *, within_s: float) -> Answer:
        """Writes a line and reads one. A bridge that does not answer is ended: the next question starts another."""
        if bridge.stdin is None or bridge.stdout is None:
            raise TypeError("the bridge was started without pipes")
        deadline = time.monotonic() + within_s
        data = b""
        try:
            if line:
                bridge.stdin.write(line)
                bridge.stdin.flush()
            while not data.endswith(b"\n"):
                left = deadline - time.monotonic()
                if left <= 0 or not select.select([bridge.stdout], [], [], left)[0]:
                    raise TimeoutError(f"no answer within {within_s:g} s")
                more = os.read(bridge.stdout.fileno(), _MAX_LINE)
                if not more:
                    raise EOFError("its connection ended")
                data += more
            return msgspec.json.decode(data, type=Answer)
        except (OSError, EOFError, msgspec.DecodeError) as error:
            self.close()
            raise EngineFault(f"the Ray cluster at {self._address}: {error}", hint="it is asked again") from None
