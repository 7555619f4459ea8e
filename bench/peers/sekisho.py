"""Ourselves, one worker, with everything on: keys, classes, admission, metering, a journal that is fsynced."""

from __future__ import annotations

import socket
import sys
import time
from importlib.metadata import version
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bench import tables
from bench.peers.base import Peer
from bench.processes import PROXY_CORE, Process, wait_for
from sekisho.gateway.settings import GatewaySettings, WorkerSnapshot, WorkerSpec
from sekisho.residency.table import sign_table


class Sekisho(Peer):
    name = "sekisho"
    authenticates = True
    routes_by_model = True
    what_is_on = "everything: keys, classes (confidential), admission with limits, metering, fsynced journal"

    def __init__(
        self, *, folder: Path, key: str, settings: GatewaySettings | None = None, control: ControlAt | None = None
    ) -> None:
        super().__init__(folder=folder, key=key)
        self.settings = settings or GatewaySettings()
        self.control = control
        self.signing = control.signing if control else Ed25519PrivateKey.generate()
        self.admin = folder / "admin.sock"

    def start(self, port: int, upstream: int) -> None:
        self.port = port
        folder = self.folder.absolute()
        now = time.time()
        table = tables.compiled(tables.federation(key=self.key, upstream=upstream), version=1, now=now)
        (folder / "table.bin").write_bytes(sign_table(table, self.signing))
        (folder / "journal").mkdir()
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind(("127.0.0.1", port))
            listener.listen(self.settings.backlog)
            spec = WorkerSpec(
                index=0,
                workers=1,
                settings=msgspec.structs.replace(self.settings, listen=f"127.0.0.1:{port}", workers=1),
                listen_fds=(listener.fileno(),),
                table_file=str(folder / "table.bin"),
                control_public_key=tables.public_key_hex(self.signing),
                control_url=self.control.url if self.control else None,
                control_token_file=str(self.control.token_file.absolute()) if self.control else None,
                journal_dir=str(folder / "journal"),
                limits_file=str(folder / "limits.shm"),
                admin_socket=str(folder / "admin.sock"),
            )
            (folder / "spec.json").write_bytes(msgspec.json.encode(spec))
            self.process = Process(
                [sys.executable, "-m", "sekisho.assembly.worker", str(folder / "spec.json")],
                core=PROXY_CORE,
                log=folder / "worker.log",
                pass_fds=(listener.fileno(),),
            )
        # the backlog accepts before the worker does: `verify` asks until there is an answer
        wait_for(port, seconds=self.start_limit_s, process=self.process)

    def snapshot(self) -> WorkerSnapshot:
        """What the worker says of itself."""
        with socket.socket(socket.AF_UNIX) as asked:
            asked.settimeout(5)
            asked.connect(str(self.admin.absolute()))
            parts = []
            while part := asked.recv(1 << 16):
                parts.append(part)
        return msgspec.json.decode(b"".join(parts), type=WorkerSnapshot)

    @classmethod
    def version(cls) -> str:
        return version("sekisho")


class ControlAt:
    """A control plane to poll: where it is, its token, and the key that signs its tables."""

    def __init__(self, *, url: str, token_file: Path, signing: Ed25519PrivateKey) -> None:
        self.url = url
        self.token_file = token_file
        self.signing = signing
