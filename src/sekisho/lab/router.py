"""The lines between the sites: `python -m sekisho.lab.router` (started by `network.Lab`).

One process reads every packet that a site puts into a line, and writes it to the other end when its time has come.
It looks into no packet. It talks with the laboratory over one socket: a JSON question, a JSON answer.

The life of a packet: (1) a site's kernel puts it into the TUN device of a line; (2) the router reads it and takes
the time; (3) a cut line, loss or a full queue drop it, counted by cause; (4) bandwidth gives the moment at which its
last bit is out, delay and jitter the moment at which it is over; (5) at that moment it is written to the other end.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import random
import select
import socket
import sys
import time
from collections.abc import Callable, Mapping
from heapq import heappop, heappush
from typing import Any

import msgspec

from sekisho.runtime.children import die_with_parent

_NS_PER_MS = 1_000_000
# The last moment before a packet is due is waited out awake: a timer of the kernel is up to 0.1 ms late on an idle
# machine, and a kernel that is busy with something else keeps even a real-time process from its core for longer.
_AWAKE_NS = 500_000
# What a packet has waited when it is read by a process that slept: until the kernel has woken it. Half of what the
# error of 1,000 round trips was in the middle (0.2 to 0.3 ms on five lines) before it was taken off.
_READ_LATE_NS = 100_000
# What this process and the kernels need for each packet besides, awake or not. A machine that needs less makes a line
# shorter than it is set, by 0.03 ms of a round trip where that was seen.
_HANDLING_NS = 60_000
_BATCH = 64  # packets read from one line before others have their turn
_MAX_PACKET_BYTES = 65_535
_PRIORITY = 10  # SCHED_FIFO: a model that computes on every core must not make a line longer
_CLOCK_MONOTONIC, _TFD_NONBLOCK, _TFD_ABSTIME = 1, 0o4000, 1  # timerfd_create(2)

_libc = ctypes.CDLL(None, use_errno=True)


class Character(msgspec.Struct, frozen=True, kw_only=True):
    """What one direction of a line does to packets."""

    delay_ns: int
    jitter_ns: int = 0
    loss: float = 0.0
    mbit: float | None = None
    queue_ns: int = 100 * _NS_PER_MS
    cut: bool = False


class LineSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One line as the router gets it: descriptors of the two TUN devices."""

    a: str
    b: str
    fd_a: int
    fd_b: int
    character: Character


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    parent_pid: int
    control_fd: int
    seed: int
    lines: tuple[LineSpec, ...]


class DirectionCounters(msgspec.Struct, frozen=True, kw_only=True):
    """Packets and bytes of one direction, from the start: what came out of the sender's interface (`entered`), what
    was written to the receiver's (`left`), and what the line lost on the way, by cause."""

    entered_packets: int
    entered_bytes: int
    left_packets: int
    left_bytes: int
    lost_packets: int
    cut_packets: int
    overflowed_packets: int
    refused_packets: int  # the receiver's kernel did not take it: interface down


class Direction:
    """One way of one line."""

    __slots__ = (
        "cut_packets", "entered_bytes", "entered_packets", "free_at", "last_due", "left_bytes", "left_packets",
        "lost_packets", "ns_per_byte", "out", "overflowed_packets", "random", "refused_packets", "the",
    )  # fmt: skip

    def __init__(self, character: Character, out: int, seed: int) -> None:
        self.out = out
        self.random = random.Random(seed).random  # noqa: S311 - a line's loss is no secret, and must be repeatable
        self.free_at = self.last_due = 0
        self.entered_packets = self.entered_bytes = self.left_packets = self.left_bytes = 0
        self.lost_packets = self.cut_packets = self.overflowed_packets = self.refused_packets = 0
        self.be(character)

    def be(self, character: Character) -> None:
        self.the = character
        self.ns_per_byte = 8_000 / character.mbit if character.mbit else 0.0

    def due(self, size: int, now: int) -> int:
        """When a packet of this size that enters now is over (ns), or 0 when the line drops it."""
        the = self.the
        self.entered_packets += 1
        self.entered_bytes += size
        if the.cut:
            self.cut_packets += 1
            return 0
        if the.loss and self.random() < the.loss:
            self.lost_packets += 1
            return 0
        out_at = now
        if self.ns_per_byte:
            if self.free_at > now:
                if self.free_at - now > the.queue_ns:
                    self.overflowed_packets += 1
                    return 0
                out_at = self.free_at
            self.free_at = out_at = out_at + int(size * self.ns_per_byte)
        due = out_at + the.delay_ns
        if the.jitter_ns:
            due += int(self.random() * the.jitter_ns)
        # A line does not put packets out of order, whatever its jitter and whenever its delay was changed.
        self.last_due = due = max(due, self.last_due)
        return due

    def counters(self) -> DirectionCounters:
        return DirectionCounters(**{name: getattr(self, name) for name in DirectionCounters.__struct_fields__})


class _Timer(ctypes.Structure):
    """struct itimerspec: no interval, then seconds and nanoseconds."""

    _fields_ = (
        ("interval_s", ctypes.c_long), ("interval_ns", ctypes.c_long),
        ("at_s", ctypes.c_long), ("at_ns", ctypes.c_long),
    )  # fmt: skip


class Router:
    """All lines. `run` returns when the laboratory closes its end of the control socket."""

    def __init__(self, spec: Spec) -> None:
        self._control = socket.socket(fileno=spec.control_fd)
        self._directions: dict[tuple[str, str], Direction] = {}
        self._by_fd: dict[int, Direction] = {}
        for number, line in enumerate(spec.lines):
            for sender, receiver, source, target in (
                (line.a, line.b, line.fd_a, line.fd_b),
                (line.b, line.a, line.fd_b, line.fd_a),
            ):
                direction = Direction(line.character, target, spec.seed * 10_007 + number * 2 + (source == line.fd_b))
                self._directions[sender, receiver] = self._by_fd[source] = direction
        # (due, order of arrival, …): a heap
        self._waiting: list[tuple[int, int, Direction, bytes]] = []
        self._order = 0

    def run(self) -> None:
        waiting, by_fd = self._waiting, self._by_fd
        control = self._control.fileno()
        timer = _libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK)
        at = _Timer()
        armed = 0
        poller = select.epoll()
        for fd in (*by_fd, control):
            poller.register(fd, select.EPOLLIN)
        poller.register(timer, select.EPOLLIN | select.EPOLLET)  # an edge needs no read to be forgotten
        while True:
            now = self._deliver()
            timeout = -1.0
            if waiting:
                wake = waiting[0][0] - _AWAKE_NS
                if wake <= now:
                    timeout = 0.0
                elif armed <= now or wake < armed:
                    armed = wake
                    at.at_s, at.at_ns = divmod(wake, 1_000_000_000)
                    _libc.timerfd_settime(timer, _TFD_ABSTIME, ctypes.byref(at), None)
            found = poller.poll(timeout)
            # Who was awake has read at once what came.
            late = _HANDLING_NS
            if timeout and time.monotonic_ns() - now > _READ_LATE_NS:
                late += _READ_LATE_NS
            for fd, _ in found:
                if fd in by_fd:
                    self._take(fd, late)
                    late = _HANDLING_NS
                elif fd == timer:
                    armed = 0
                elif not self._answer():
                    return

    def _deliver(self) -> int:
        """Write out what is due; returns the time after it (ns)."""
        waiting, clock, write = self._waiting, time.monotonic_ns, os.write
        now = clock()
        while waiting and waiting[0][0] <= now:
            _, _, direction, packet = heappop(waiting)
            try:
                write(direction.out, packet)
            except OSError:
                direction.refused_packets += 1
            else:
                direction.left_packets += 1
                direction.left_bytes += len(packet)
            now = clock()
        return now

    def _take(self, fd: int, late: int) -> None:
        """Read what a site has put into a line; the first of it came `late` ns ago."""
        direction, waiting = self._by_fd[fd], self._waiting
        clock, read = time.monotonic_ns, os.read
        with contextlib.suppress(BlockingIOError):
            for _ in range(_BATCH):
                packet = read(fd, _MAX_PACKET_BYTES)
                due = direction.due(len(packet), clock() - late)
                late = _HANDLING_NS
                if due:
                    self._order += 1
                    heappush(waiting, (due, self._order, direction, packet))

    def _answer(self) -> bool:
        """One question of the laboratory; False when it is gone."""
        asked = self._control.recv(1 << 16)
        if not asked:
            return False
        question = json.loads(asked)
        self._control.send(msgspec.json.encode(_QUESTIONS[question.pop("ask")](self, question)))
        return True

    def _set(self, question: Mapping[str, Any]) -> None:
        self._directions[question["a"], question["b"]].be(msgspec.convert(question["character"], Character))

    def _counters(self, _: Mapping[str, Any]) -> list[tuple[str, str, DirectionCounters]]:
        return [(a, b, direction.counters()) for (a, b), direction in self._directions.items()]

    def _cpu(self, _: Mapping[str, Any]) -> float:
        return time.process_time()


_QUESTIONS: dict[str, Callable[[Router, dict[str, Any]], object]] = {
    "set": Router._set,
    "counters": Router._counters,
    "cpu": Router._cpu,
}


def main() -> None:
    spec = msgspec.json.decode(sys.argv[1], type=Spec)
    die_with_parent(spec.parent_pid)
    with contextlib.suppress(OSError):  # a container may forbid it: then a busy machine makes lines longer
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_PRIORITY))
    router = Router(spec)
    gc.collect()
    gc.freeze()
    gc.disable()  # nothing here makes cycles
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C is for the laboratory, which closes the socket
        router.run()


if __name__ == "__main__":
    main()
