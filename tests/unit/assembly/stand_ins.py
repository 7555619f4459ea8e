"""Stand-ins for the real processes, so that the supervisor is tried without a model and a gateway.

FAKE: these serve a few lines of HTTP on the sockets that they inherit. `python -m stand_ins fleet HOME …` runs a
real Supervisor over them; `python -m stand_ins child …` is one of its children. Every child puts its pid into a
file when it is ready, and a worker's `/stream` sends a chunk each 50 ms for as long as it was asked.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from sekisho.assembly.fleet import Event, Fleet, Planned
from sekisho.assembly.home import Home, create, ensure_secrets, lock
from sekisho.assembly.processes import ChildSpec, Kind
from sekisho.assembly.ready import Probe, http
from sekisho.assembly.sockets import Listeners, url_of
from sekisho.assembly.supervisor import Supervisor
from sekisho.kernel.errors import SekishoError

CHUNK_EVERY_S = 0.05


def say(text: object) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def child(ready: Path, behaviour: str, fd: int) -> None:
    match behaviour:
        case "refuses":
            say("the key file is missing [worker.key]")
            sys.exit(2)
        case "crashes":
            say("something broke")
            sys.exit(1)
        case "ignores-sigterm":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        case _:
            pass
    server: ThreadingHTTPServer | None = None
    if fd >= 0:
        server = ThreadingHTTPServer(("", 0), _Handler, bind_and_activate=False)
        server.socket.close()
        server.socket = socket.socket(fileno=fd)
        server.daemon_threads = False  # so that server_close() waits for streams
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    stop = threading.Event()
    if behaviour != "ignores-sigterm":
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGHUP, lambda *_: say("reloaded"))
    ready.write_text(str(os.getpid()))
    say(f"pid {os.getpid()} serves")
    while not stop.wait(0.05):
        pass
    if server is not None:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        if self.path.startswith("/stream/"):
            ends = time.monotonic() + float(self.path.removeprefix("/stream/"))
            while time.monotonic() < ends:
                self.wfile.write(b"chunk\n")
                time.sleep(CHUNK_EVERY_S)
            self.wfile.write(b"end\n")
        else:
            self.wfile.write(str(os.getpid()).encode())

    def log_message(self, *_: object) -> None:
        pass


class _Silent:
    def tell(self, event: Event) -> None:
        pass


def fleet(root: Path, *, behaviour: str, grace_s: float, ready_file: Path) -> int:
    home = Home.at(root)
    create(home)
    held = lock(home)
    ensure_secrets(home)
    listeners = Listeners()
    gateway = listeners.shared("127.0.0.1:0", count=2, backlog=64)
    control = listeners.alone("127.0.0.1:0")

    def planned(name: str, kind: Kind, does: str, fd: int = -1) -> Planned:
        note = home.run / f"{name}.pid"

        async def ask(pid: int) -> bool:
            return note.exists() and note.read_text() == str(pid)

        probe: Probe = ask
        spec = ChildSpec(
            name=name,
            kind=kind,
            module="stand_ins",
            arguments=("child", str(note), does, str(fd)),
            log=home.log(name),
            pass_fds=(fd,) if fd >= 0 else (),
        )
        return Planned(spec=spec, probe=probe)

    def reload() -> str:
        if (home.root / "broken").exists():
            raise SekishoError("line 3 is wrong", code="config.refused")
        return ""

    supervisor = Supervisor(
        Fleet(
            control=planned("control", Kind.CONTROL, "serves", control.fileno()),
            workers=(
                planned("worker-0", Kind.WORKER, behaviour, gateway[0].fileno()),
                planned("worker-1", Kind.WORKER, "serves", gateway[1].fileno()),
            ),
            sites=(planned("site-here", Kind.SITE, "serves"),),
            site_ids=("here",),
            gateway_probe=http(f"{url_of(gateway[0])}/readyz"),
            gateway_url=url_of(gateway[0]),
            console_url=url_of(control),
            admin_token="not-a-secret",
            api_keys={"hospital": "sk-not-a-secret"},
            models=("m",),
            drain_grace_s=grace_s,
        ),
        home=home,
        config=None,
        ready_file=ready_file,
        reload=reload,
        close_listeners=listeners.close,
        rest_listeners=listeners.rest,
        reporter=_Silent(),
    )
    try:
        return asyncio.run(supervisor.run())
    except SekishoError as error:
        say(error)
        return 2
    finally:
        os.close(held)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["fleet", root, behaviour, grace_s, ready_file]:
            sys.exit(fleet(Path(root), behaviour=behaviour, grace_s=float(grace_s), ready_file=Path(ready_file)))
        case ["child", ready, behaviour, fd]:
            child(Path(ready), behaviour, int(fd))
        case other:
            sys.exit(f"unknown: {other}")
