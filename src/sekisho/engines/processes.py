"""Engines as processes of this machine, each on a leash.

A replica is alive while somebody holds the lock in its folder. The lock is taken before the fork and inherited, so a
crash at any instant leaves either a free lock and no process, or a held lock and a process that ends with its lease.
A port is held by a socket that never listens, next to which the engine listens (SO_REUSEPORT): nobody else gets it.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from sekisho.capacity.workloads.model import REPLICA, Order
from sekisho.engines.adapter import EngineFault, Status
from sekisho.engines.leash import EXIT, LEASE, LEASH, start_time

ALONE_S = 600.0
_NAME = re.compile(REPLICA)
_ASK_S = 2.0
_RENEW_EVERY_S = 3.0
# The leash has its own five seconds for the engine; after this it is not believed to do it any more.
_KILL_AFTER_S = 15.0
_LOG_BYTES = 1 << 20
_BUSY = re.compile(rb"^llamacpp:requests_processing\s+(\d+)", re.MULTILINE)

# The words of an engine's command; `{port}` stands for the port of 127.0.0.1 on which it answers, with /health and
# llama.cpp's /metrics.
Command = Callable[[Order], Sequence[str]]
PORT = "{port}"


class _Lease(msgspec.Struct, frozen=True):
    ends_at: float
    left_s: float
    alone_s: float
    tied_to: tuple[int, int] | None


class LocalProcesses:
    """`commands` by model. `alone_s`: how long a replica goes on when its agent is gone and does not come back.
    `tied_to`: a process with which replicas end, whatever their lease says."""

    def __init__(
        self, root: Path, commands: Mapping[str, Command], *, alone_s: float = ALONE_S, tied_to: int | None = None
    ) -> None:
        self._root = root
        self._commands = dict(commands)
        self._alone_s = alone_s
        self._tied_to = None if tied_to is None else (tied_to, start_time(tied_to))
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._renewed: dict[str, tuple[float, float]] = {}
        self._asked_to_end: dict[str, float] = {}
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
        folder = self._root / order.replica
        folder.mkdir(mode=0o700, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            for name in (LEASH, EXIT):
                (folder / name).unlink(missing_ok=True)
            self._write_lease(order)
            log = folder / "engine.log"
            if log.exists() and log.stat().st_size > _LOG_BYTES:
                log.replace(folder / "engine.log.1")
            with _held_port() as held, log.open("ab") as output:
                port = held.getsockname()[1]
                (folder / "port").write_text(str(port))
                self._children[order.replica] = subprocess.Popen(  # noqa: S603 - our own program
                    [
                        *(sys.executable, "-P", "-m", "sekisho.engines.leash", str(folder), str(lock)),
                        *(word.replace(PORT, str(port)) for word in command(order)),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    pass_fds=(lock, held.fileno()),
                    start_new_session=True,
                )
            self._asked_to_end.pop(order.replica, None)
        finally:
            os.close(lock)

    def status(self, replica: str) -> Status:
        child = self._children.get(replica)
        if child is not None and child.poll() is not None:
            self._children.pop(replica)
        folder = self._root / replica
        if not self._alive(folder):
            return Status(alive=False, last_exit=_read(folder / EXIT))
        port = int(_read(folder / "port") or 0)
        ready = _get(port, "/health") is not None
        busy = _busy(_get(port, "/metrics")) if ready else None
        return Status(alive=True, ready=ready, port=port, busy=busy)

    def renew(self, order: Order) -> None:
        at, ends_at = self._renewed.get(order.replica, (0.0, 0.0))
        if ends_at != order.ends_at or not 0 <= time.monotonic() - at < min(_RENEW_EVERY_S, self._alone_s / 4):
            self._write_lease(order)

    def stop(self, replica: str) -> None:
        """Ends the leash that its folder names, if it is still that very process."""
        folder = self._root / replica
        if not self._alive(folder):
            return
        pid, _, started = _read(folder / LEASH).partition(" ")
        if not (pid.isdigit() and started.isdigit()):
            return  # it has just begun, and says who it is in a moment
        first = self._asked_to_end.setdefault(replica, time.monotonic())
        late = time.monotonic() - first > _KILL_AFTER_S
        with contextlib.suppress(ProcessLookupError):
            held = os.pidfd_open(int(pid))
            try:
                # The descriptor stays with the process that it was opened for, so what is true of it now stays true.
                if start_time(int(pid)) == int(started):
                    signal.pidfd_send_signal(held, signal.SIGKILL if late else signal.SIGTERM)
            finally:
                os.close(held)

    def forget(self, replica: str) -> None:
        if self._alive(self._root / replica):
            raise EngineFault(f"{replica} is alive", hint="it is ended first")
        shutil.rmtree(self._root / replica, ignore_errors=True)
        self._renewed.pop(replica, None)
        self._asked_to_end.pop(replica, None)

    def close(self) -> None:
        self._children.clear()

    def _alive(self, folder: Path) -> bool:
        try:
            lock = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def _write_lease(self, order: Order) -> None:
        now = time.time()
        left_s = max(order.ends_at - now, 0.0)
        lease = _Lease(ends_at=order.ends_at, left_s=left_s, alone_s=self._alone_s, tied_to=self._tied_to)
        file = self._root / order.replica / LEASE
        temporary = file.with_suffix(".new")
        temporary.write_bytes(msgspec.json.encode(lease))
        temporary.replace(file)
        self._renewed[order.replica] = (time.monotonic(), order.ends_at)


def _held_port() -> socket.socket:
    """A free port, for as long as this socket is open somewhere: here, and then in the leash."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.bind(("127.0.0.1", 0))
    return held


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


def _get(port: int, path: str) -> bytes | None:
    """The body of a 200, or None."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ASK_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.read() if answer.status == 200 else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _busy(metrics: bytes | None) -> int | None:
    found = _BUSY.search(metrics or b"")
    return None if found is None else int(found[1])
