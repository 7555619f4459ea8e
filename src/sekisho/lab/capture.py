"""Captures what passes a site's interfaces, in a process of its own: `python -m sekisho.lab.capture` (see packet(7)).

It asks the kernel, not the router: what it writes down is independent of what the router counted. One file a line,
`<site>--<peer>.pcap`, with both directions. When its standard input closes it writes what it has and ends, and says
on standard output how many packets the kernel had to drop (0, or the capture proves nothing).
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
import time
from pathlib import Path

import msgspec

from sekisho.lab.namespaces import enter, in_thread, interface_name
from sekisho.lab.pcap import Writer

_ETH_P_ALL = 3  # if_ether.h
_SOL_PACKET, _PACKET_STATISTICS = 263, 6  # if_packet.h
_SO_TIMESTAMPNS = 35  # asm-generic/socket.h
_SO_RCVBUFFORCE = 33
_BUFFER_BYTES = 16 << 20
_SNAP_BYTES = 96  # IPv4, TCP and their options; no word of a prompt
_FLUSH_EVERY_S = 0.05


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """Where to listen: the namespace's file, the site, and the site at the other end of the line."""

    namespace: str
    site: str
    peer: str


class Captured(msgspec.Struct, frozen=True, kw_only=True):
    """Its last words: packets that the kernel could not hand over, by `site--peer`."""

    dropped: dict[str, int]


def file_name(site: str, peer: str) -> str:
    return f"{site}--{peer}.pcap"


def _listen(point: Point) -> socket.socket:
    def work() -> socket.socket:
        enter(Path(point.namespace))
        listening = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        listening.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        listening.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        listening.bind((interface_name(point.peer), _ETH_P_ALL))
        listening.setblocking(False)
        return listening

    return in_thread(work)


def _drops(listening: socket.socket) -> int:
    """Packets dropped since it was last asked (tpacket_stats: packets, drops)."""
    drops: int = struct.unpack("II", listening.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))[1]
    return drops


def _drain(listening: socket.socket, writer: Writer) -> None:
    while True:
        try:
            data, ancillary, flags, _ = listening.recvmsg(_SNAP_BYTES, 64, socket.MSG_TRUNC)
        except BlockingIOError:
            return
        at_ns = time.time_ns()
        for level, kind, value in ancillary:
            if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
                seconds, nanoseconds = struct.unpack("qq", value)
                at_ns = seconds * 1_000_000_000 + nanoseconds
        # The length on the wire is in the IP header: what was asked for is the head alone.
        length = int.from_bytes(data[2:4], "big") if data and data[0] >> 4 == 4 else len(data)
        del flags
        writer.add(at_ns, data, length)


def main() -> None:
    folder = Path(sys.argv[1])
    points = msgspec.json.decode(sys.argv[2], type=tuple[Point, ...])
    listening = {f"{point.site}--{point.peer}": _listen(point) for point in points}
    files = {point: (folder / f"{point}.pcap").open("wb") for point in listening}
    writers = {point: Writer(file, snap_bytes=_SNAP_BYTES) for point, file in files.items()}
    for writer in writers.values():
        writer.flush()
    print("listening", flush=True)  # noqa: T201 - the laboratory waits for it
    poller = select.epoll()
    poller.register(sys.stdin.fileno(), select.EPOLLIN | select.EPOLLHUP)
    by_fd = {each.fileno(): point for point, each in listening.items()}
    for fd in by_fd:
        poller.register(fd, select.EPOLLIN)
    going = True
    while going:
        for fd, _ in poller.poll():
            if fd in by_fd:
                _drain(listening[by_fd[fd]], writers[by_fd[fd]])
            elif not os.read(fd, 1):
                going = False
        for writer in writers.values():
            writer.flush()
        if going:
            time.sleep(_FLUSH_EVERY_S)  # one look at many packets; the kernel keeps them meanwhile
    for point, each in listening.items():
        _drain(each, writers[point])
    for file in files.values():
        file.close()
    drops = {point: _drops(each) for point, each in listening.items()}
    print(msgspec.json.encode(Captured(dropped=drops)).decode(), flush=True)  # noqa: T201 - its answer


if __name__ == "__main__":
    main()
