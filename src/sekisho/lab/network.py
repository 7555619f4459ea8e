"""The laboratory's network: namespaces, lines and their counts, from `with` to the end of it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import msgspec

from sekisho.kernel.errors import SekishoError
from sekisho.lab import namespaces, pcap
from sekisho.lab.capture import Captured, Point, file_name
from sekisho.lab.namespaces import InterfaceStatistics, Namespace
from sekisho.lab.router import Character, DirectionCounters, LineSpec, Spec
from sekisho.lab.topology import JAPAN, Line, Topology, check, check_line

_NS_PER_MS = 1_000_000
_ANSWER_TIMEOUT_S = 10.0
_STOP_TIMEOUT_S = 5.0
MTU = 1500


class LabFailed(SekishoError):
    """A part of the laboratory ended or does not answer."""

    code = "lab.failed"


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """Packets and bytes (of whole IP packets)."""

    packets: int = 0
    bytes: int = 0


Directed = tuple[str, str]
"""One way of a line: from, to."""


class LineHandle:
    """One line, to be changed while packets are on it."""

    def __init__(self, lab: Lab, line: Line) -> None:
        self._lab = lab
        self.line = line
        self.character = _character(line)

    def set(
        self,
        *,
        delay_ms: float | None = None,
        jitter_ms: float | None = None,
        loss: float | None = None,
        mbit: float | None = None,
        cut: bool | None = None,
    ) -> None:
        """Change what is given, in both directions. `delay_ms` is one way. TopologyRefused for what can't be."""
        the = self.character
        delay_ms = the.delay_ns / _NS_PER_MS if delay_ms is None else delay_ms
        jitter_ms = the.jitter_ns / _NS_PER_MS if jitter_ms is None else jitter_ms
        loss = the.loss if loss is None else loss
        mbit = the.mbit if mbit is None else mbit
        check_line(delay_ms=delay_ms, jitter_ms=jitter_ms, loss=loss, mbit=mbit)
        self.character = Character(
            delay_ns=round(delay_ms * _NS_PER_MS),
            jitter_ns=round(jitter_ms * _NS_PER_MS),
            loss=loss,
            mbit=mbit,
            queue_ns=the.queue_ns,
            cut=the.cut if cut is None else cut,
        )
        for a, b in ((self.line.a, self.line.b), (self.line.b, self.line.a)):
            self._lab.ask("set", a=a, b=b, character=msgspec.to_builtins(self.character))


class Capture:
    """A capture that runs. `counts` reads the files as they are; `stop` ends it."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path, points: Sequence[tuple[str, str]]) -> None:
        self._process = process
        self._offsets = dict.fromkeys(points, 0)
        self._counts: dict[Directed, Count] = {}
        for site, peer in points:
            self._counts[site, peer] = self._counts[peer, site] = Count()
        self._folder = folder
        self.addresses: dict[str, str] = {}
        self.dropped: dict[str, int] | None = None

    def counts(self) -> dict[Directed, Count]:
        """What has been captured so far, by direction; what is no packet between these two counts in neither."""
        for (site, peer), offset in self._offsets.items():
            for after, packet in pcap.read(self._folder / file_name(site, peer), offset):
                self._offsets[site, peer] = after
                ends = packet.source, packet.target
                for direction in ((site, peer), (peer, site)):
                    if ends == (self.addresses[direction[0]], self.addresses[direction[1]]):
                        before = self._counts[direction]
                        self._counts[direction] = Count(
                            packets=before.packets + 1, bytes=before.bytes + packet.length
                        )
        return dict(self._counts)

    def stop(self) -> dict[Directed, Count]:
        """End it and count everything. LabFailed when the kernel had to drop packets: then it proves nothing."""
        if self.dropped is None:
            try:
                output, _ = self._process.communicate(timeout=_STOP_TIMEOUT_S)
                self.dropped = msgspec.json.decode(output.splitlines()[-1], type=Captured).dropped
            except (subprocess.TimeoutExpired, IndexError, msgspec.DecodeError):
                self._process.kill()
                raise LabFailed("the capture ended without its last words", hint="look at its output above") from None
        if any(self.dropped.values()):
            raise LabFailed(f"the capture lost packets: {self.dropped}", hint="repeat on a quieter machine")
        return self.counts()


class Lab:
    """An Internet on this machine, for as long as the `with` block lasts. LabUnavailable where there can be none."""

    def __init__(self, topology: Topology = JAPAN, *, seed: int = 1, mtu: int = MTU) -> None:
        self.topology = check(topology)
        self._seed = seed
        self._mtu = mtu
        self._namespaces: dict[str, Namespace] = {}
        self._lines: dict[frozenset[str], LineHandle] = {}
        self._control: socket.socket | None = None
        self._asking = threading.Lock()
        self._router: subprocess.Popen[bytes] | None = None
        self._processes: list[subprocess.Popen[bytes]] = []
        self._captures: list[Capture] = []
        self._files: list[IO[bytes]] = []

    def __enter__(self) -> Lab:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- its life

    def start(self) -> None:
        """Build it. Leftovers of laboratories that were killed are removed first."""
        namespaces.require()
        namespaces.sweep()
        try:
            for site in self.topology.sites:
                peers = {
                    peer: self.topology.address(peer)
                    for line in self.topology.lines
                    if site.id in line.ends
                    for peer in line.ends - {site.id}
                }
                self._namespaces[site.id] = namespaces.create(
                    f"{namespaces.PREFIX}{os.getpid()}-{site.id}",
                    address=self.topology.address(site.id),
                    peers=peers,
                    mtu=self._mtu,
                )
            self._start_router()
        except BaseException:
            self.stop()
            raise

    def _start_router(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(_ANSWER_TIMEOUT_S)
        lines = []
        for line in self.topology.lines:
            self._lines[line.ends] = LineHandle(self, line)
            ends = (self._namespaces[line.a].tuns[line.b], self._namespaces[line.b].tuns[line.a])
            lines.append(LineSpec(a=line.a, b=line.b, fd_a=ends[0], fd_b=ends[1], character=_character(line)))
        spec = Spec(parent_pid=os.getpid(), control_fd=theirs.fileno(), seed=self._seed, lines=tuple(lines))
        self._router = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-P", "-m", "sekisho.lab.router", msgspec.json.encode(spec).decode()],
            pass_fds=(theirs.fileno(), *(fd for line in lines for fd in (line.fd_a, line.fd_b))),
            start_new_session=True,
        )
        theirs.close()
        self._control = ours
        self.ask("cpu")  # it answers: the lines are up

    def stop(self) -> None:
        """End every process of it and remove what it made. May be called twice."""
        for process in reversed(self._processes):
            end(process)
        self._processes.clear()
        for capture in self._captures:
            with contextlib.suppress(LabFailed):
                capture.stop()
        self._captures.clear()
        if self._control is not None:
            self._control.close()  # the router ends by that
            self._control = None
        if self._router is not None:
            end(self._router)
            self._router = None
        for namespace in self._namespaces.values():
            for descriptor in namespace.tuns.values():
                os.close(descriptor)
            namespace.devices.close()
            namespaces.remove(namespace.path)
        self._namespaces.clear()
        for file in self._files:
            file.close()
        self._files.clear()

    # -- what happens in it

    def address(self, site: str) -> str:
        return self.topology.address(site)

    def run(
        self,
        site: str,
        argv: Sequence[str],
        *,
        log: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: int | None = subprocess.DEVNULL,
        stdout: int | None = None,
        pass_fds: Sequence[int] = (),
    ) -> subprocess.Popen[bytes]:
        """Start a program at a site; it ends with the laboratory at the latest. `log` takes what it says."""
        self.topology.site(site)
        output: IO[bytes] | int | None = stdout
        errors: int | None = None
        if log is not None:
            output = log.open("ab")
            errors = subprocess.STDOUT
            self._files.append(output)
        process = subprocess.Popen(  # noqa: S603 - what the caller wants
            [
                *(sys.executable, "-P", "-m", "sekisho.lab.enter"),
                *(str(self._namespaces[site].path), str(os.getpid())),
                *argv,
            ],
            stdin=stdin,
            stdout=output,
            stderr=errors,
            pass_fds=tuple(pass_fds),
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
            start_new_session=True,
        )
        self._processes.append(process)
        return process

    def python(self, site: str, module: str, *arguments: str, **more: Any) -> subprocess.Popen[bytes]:
        """Start `python -m MODULE` at a site."""
        return self.run(site, (sys.executable, "-P", "-m", module, *arguments), **more)

    def result(self, site: str, module: str, *arguments: str, within_s: float = 60.0) -> bytes:
        """What `python -m MODULE` at a site prints. LabFailed when it fails or takes too long."""
        process = self.python(site, module, *arguments, stdout=subprocess.PIPE)
        try:
            output, _ = process.communicate(timeout=within_s)
        except subprocess.TimeoutExpired:
            end(process)
            raise LabFailed(
                f"{module} at {site} took longer than {within_s:g} s", hint="repeat on a quieter machine"
            ) from None
        finally:
            self._processes.remove(process)
        if process.returncode != 0:
            raise LabFailed(
                f"{module} at {site} ended with exit code {process.returncode}", hint="its own words stand above"
            )
        return output

    @contextlib.contextmanager
    def inside(
        self, site: str, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM
    ) -> Iterator[socket.socket]:
        """A socket of the site, used from here: a socket stays in the namespace that it was made in."""
        path = self._namespaces[site].path

        def made() -> socket.socket:
            namespaces.enter(path)
            return socket.socket(family, kind)

        with namespaces.in_thread(made) as there:
            yield there

    # -- lines

    def link(self, a: str, b: str) -> LineHandle:
        return self._lines[self.topology.line(a, b).ends]

    def partition(self, a: str, b: str) -> None:
        """Cut a line: packets that enter it are dropped; those on their way still arrive."""
        self.link(a, b).set(cut=True)

    def heal(self, a: str, b: str) -> None:
        self.link(a, b).set(cut=False)

    def isolate(self, site: str) -> None:
        """Cut every line of a site."""
        for line in self.topology.lines:
            if site in line.ends:
                self.partition(line.a, line.b)

    def rejoin(self, site: str) -> None:
        for line in self.topology.lines:
            if site in line.ends:
                self.heal(line.a, line.b)

    # -- counts, three of them, each by another hand

    def line_counters(self) -> dict[Directed, DirectionCounters]:
        """By the router, with what the lines lost and why."""
        answer = msgspec.convert(self.ask("counters"), list[tuple[str, str, DirectionCounters]])
        return {(a, b): counters for a, b, counters in answer}

    def counters(self) -> dict[Directed, Count]:
        """By the router: what entered each direction of each line."""
        return {
            direction: Count(packets=counters.entered_packets, bytes=counters.entered_bytes)
            for direction, counters in self.line_counters().items()
        }

    def interface_statistics(self) -> dict[Directed, InterfaceStatistics]:
        """By the kernels of the sites: (site, peer) → the site's interface on the line to that peer."""
        return {
            (site, peer): statistics
            for site, namespace in self._namespaces.items()
            for peer, statistics in namespace.statistics().items()
        }

    def capture(self, folder: Path, points: Sequence[tuple[str, str]] | None = None) -> Capture:
        """By packet sockets: one pcap file for each (site, peer); by default at the inner end of each border line."""
        points = [(line.a, line.b) for line in self.topology.border] if points is None else points
        folder.mkdir(parents=True, exist_ok=True)
        asked = [Point(namespace=str(self._namespaces[site].path), site=site, peer=peer) for site, peer in points]
        process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-P", "-m", "sekisho.lab.capture", str(folder), msgspec.json.encode(asked).decode()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdout is not None  # noqa: S101 - PIPE above
        if process.stdout.readline() != b"listening\n":
            process.kill()
            raise LabFailed("the capture did not start", hint="its own words stand above")
        capture = Capture(process, folder, points)
        capture.addresses = {site: self.address(site) for site in self.topology.ids}
        self._captures.append(capture)
        return capture

    def ask(self, question: str, **more: Any) -> Any:
        """Ask the router. LabFailed when it is gone."""
        try:
            # Faults and counts come from threads of their own: each gets the answer to its own question.
            with self._asking:
                if self._control is None:
                    raise ConnectionError("not started")
                self._control.send(json.dumps({"ask": question, **more}).encode())
                answer = self._control.recv(1 << 20)
        except OSError as error:
            raise LabFailed(f"the laboratory's router does not answer: {error}", hint="start it again") from None
        if not answer:
            raise LabFailed("the laboratory's router is gone", hint="start it again")
        return json.loads(answer)


def end(process: subprocess.Popen[bytes], *, within_s: float = _STOP_TIMEOUT_S) -> None:
    """SIGTERM, then SIGKILL; returns when it is reaped."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(within_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _character(line: Line) -> Character:
    return Character(
        delay_ns=round(line.rtt_ms / 2 * _NS_PER_MS),
        jitter_ns=round(line.jitter_ms * _NS_PER_MS),
        loss=line.loss,
        mbit=line.mbit,
        queue_ns=round(line.queue_ms * _NS_PER_MS),
    )
