"""`python -m sekisho.assembly.control --home HOME [--config FILE] [--fd N]`: the control plane's process.

Listens on `control.listen`, or on the socket that it inherits as file descriptor N. SIGHUP reads the configuration
again; SIGTERM answers every waiting long poll and ends.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import uvicorn
import uvloop

from sekisho.assembly.app import build_app
from sekisho.assembly.configured import loader
from sekisho.assembly.home import Home, HomeRefused, create, ensure_secrets
from sekisho.assembly.plane import ControlPlane
from sekisho.assembly.processes import EXIT_REFUSED
from sekisho.kernel.clock import SystemClock
from sekisho.kernel.errors import SekishoError

_log = logging.getLogger("sekisho.control")
DRAIN_S = 5
_LOCK_TRIES = 40
_LOCK_PAUSE_S = 0.25


class _Server(uvicorn.Server):
    """Ends in order at SIGTERM, with exit code 0 (uvicorn raises the signal once more after its own end).

    Waiting long polls are answered as soon as the signal comes: uvicorn waits for open answers before it tells the
    application that it ends.
    """

    def __init__(self, config: uvicorn.Config, plane: ControlPlane) -> None:
        super().__init__(config)
        self._plane = plane

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end, number)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def _end(self, number: int) -> None:
        self._plane.publisher.close()
        self.handle_exit(number, None)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sekisho.assembly.control", description=__doc__)
    parser.add_argument("--home", type=Path, default=Path(".sekisho"), help="the home directory")
    parser.add_argument("--config", type=Path, help="a federation (TOML); without it, the demonstration")
    parser.add_argument("--fd", type=int, help="an inherited listening socket")
    options = parser.parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    # Every long poll and every page's refresh would be a line; the gateways' own records say what happened.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        home = Home.at(options.home)
        create(home)
        ensure_secrets(home)
        lock = _lock(home)
        load = loader(home, options.config)
        plane = ControlPlane(home, load=load, clock=SystemClock())
        listening = _listening(plane.listen, options.fd)
    except SekishoError as error:
        _log.error("not started: %s", error)
        return EXIT_REFUSED
    for warning in plane.warnings():
        _log.warning("%s", warning)
    try:
        uvloop.run(_serve(plane, listening))
    finally:
        os.close(lock)
    return 0


async def _serve(plane: ControlPlane, listening: socket.socket) -> None:
    config = uvicorn.Config(
        build_app(plane),
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=DRAIN_S,
    )
    # What lives as long as the process is not looked at again: a whole collection took a tenth of a second.
    gc.collect()
    gc.freeze()
    loop = asyncio.get_running_loop()
    reloads: set[asyncio.Task[bool]] = set()

    def reload() -> None:
        task = loop.create_task(plane.reload())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    loop.add_signal_handler(signal.SIGHUP, reload)
    await _Server(config, plane).serve(sockets=[listening])


def _lock(home: Home) -> int:
    """One control plane a home: two would publish past each other. Waits for one that is on its way out."""
    descriptor = os.open(home.run / "control.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for _ in range(_LOCK_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOCK_PAUSE_S)
        else:
            return descriptor
    os.close(descriptor)
    raise HomeRefused(
        f"another control plane runs on {home.root}",
        code="home.in_use",
        hint="look at it with `sekisho status`, or choose another --home",
    )


def _listening(address: str, fd: int | None) -> socket.socket:
    if fd is not None:
        try:
            return socket.socket(fileno=fd)
        except OSError as error:
            raise HomeRefused(
                f"file descriptor {fd} is not a socket: {error.strerror}",
                code="control.listen",
                hint="--fd is for a supervisor that hands a listening socket down",
            ) from error
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, int(port)))
        listening.listen(512)
    except OSError as error:
        listening.close()
        raise HomeRefused(
            f"the control plane can't listen on {address}: {error.strerror}",
            code="control.listen",
            hint="change `listen` in [control], or stop what listens there",
        ) from error
    return listening


if __name__ == "__main__":
    sys.exit(main())
