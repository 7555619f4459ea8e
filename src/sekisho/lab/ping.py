"""`python -m sekisho.lab.ping ADDRESS COUNT INTERVAL_MS`: ICMP echo (RFC 792) from where it is run.

Prints one JSON array: the round trips in milliseconds, null for an answer that did not come within two seconds. The
other side is the kernel of the other site: nothing but the line and two kernels is measured. It runs at real-time
priority where that is allowed, and waits for an answer awake from shortly before the fastest one so far on, so that
what else the machine does is not measured with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import sys
import time

_ECHO, _ECHO_REPLY = 8, 0
_WAIT_S = 2.0
_AWAKE_S = 1e-3
_PRIORITY = 5


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def echo(identifier: int, sequence: int) -> bytes:
    payload = b"sekisho lab ping"
    bare = struct.pack(">BBHHH", _ECHO, 0, 0, identifier, sequence) + payload
    return struct.pack(">BBHHH", _ECHO, 0, checksum(bare), identifier, sequence) + payload


def ping(address: str, *, count: int, interval_s: float) -> list[float | None]:
    """Round trips in milliseconds, one after the other."""
    identifier = os.getpid() & 0xFFFF
    found: list[float | None] = []
    fastest_s = _WAIT_S
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        raw.connect((address, 0))
        for number in range(count):
            sequence = number & 0xFFFF
            packet = echo(identifier, sequence)
            sent = time.perf_counter()
            raw.send(packet)
            trip = _answer(raw, identifier, sequence, sent, asleep_s=max(0.0, fastest_s - _AWAKE_S))
            found.append(trip)
            if trip is not None:
                fastest_s = min(fastest_s, trip / 1000)
            time.sleep(max(0.0, sent + interval_s - time.perf_counter()))
    return found


def _answer(raw: socket.socket, identifier: int, sequence: int, sent: float, *, asleep_s: float) -> float | None:
    """Sleeps for the first `asleep_s` unless the answer comes sooner; looks without a pause after that."""
    while (passed := time.perf_counter() - sent) < _WAIT_S:
        raw.settimeout(asleep_s - passed if passed < asleep_s else 0.0)
        try:
            answer = raw.recv(2048)
        except (TimeoutError, BlockingIOError):
            continue
        at = time.perf_counter()
        header = (answer[0] & 15) * 4
        kind, _, _, theirs, number = struct.unpack_from(">BBHHH", answer, header)
        if (kind, theirs, number) == (_ECHO_REPLY, identifier, sequence):
            return (at - sent) * 1000
    return None


def main() -> None:
    address, count, interval_ms = sys.argv[1:]
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_PRIORITY))
    trips = ping(address, count=int(count), interval_s=float(interval_ms) / 1000)
    print(json.dumps(trips))  # noqa: T201 - its answer


if __name__ == "__main__":
    main()
