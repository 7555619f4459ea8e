"""`python -m sekisho.lab.stream ADDRESS PORT SECONDS`: one TCP connection that sends as fast as it may.

Prints `{"bytes": …, "seconds": …}` as the receiver (`… stream listen PORT`) acknowledged them at the end: bytes that
only lie in buffers do not count.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import time

_PIECE = bytes(1 << 16)


def listen(port: int) -> None:
    """Takes one connection, and answers its end with the number of bytes received and the seconds from the first
    to the last."""
    with socket.create_server(("0.0.0.0", port)) as server:  # noqa: S104 - the laboratory's namespace is no network
        print("listening", flush=True)  # noqa: T201 - the laboratory waits for it
        connection, _ = server.accept()
        with connection:
            received, begun, last = 0, 0.0, 0.0
            room = bytearray(1 << 20)
            while size := connection.recv_into(room):
                last = time.perf_counter()
                begun = begun or last
                received += size
            connection.sendall(struct.pack(">Qd", received, last - begun))


def send(address: str, port: int, seconds: float) -> dict[str, float]:
    with socket.create_connection((address, port)) as connection:
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            connection.sendall(_PIECE)
        connection.shutdown(socket.SHUT_WR)
        received, took = struct.unpack(">Qd", connection.recv(16, socket.MSG_WAITALL))
    return {"bytes": received, "seconds": took}


def main() -> None:
    match sys.argv[1:]:
        case ["listen", port]:
            listen(int(port))
        case [address, port, seconds]:
            print(json.dumps(send(address, int(port), float(seconds))))  # noqa: T201 - its answer
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
