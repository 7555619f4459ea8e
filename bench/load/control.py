"""A stand-in for the control plane's one endpoint that gateways use: it hands out tables from a folder."""

from __future__ import annotations

import argparse
import asyncio
import re
from pathlib import Path

import uvloop

_AFTER = re.compile(rb"GET /internal/v1/table\?after=(\d+) ")


def newest(shelf: Path) -> tuple[int, Path] | None:
    return max(((int(path.stem), path) for path in shelf.glob("*.table")), default=None)


async def answer(shelf: Path, token: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        asked = _AFTER.match(head)
        if asked is None or b"Bearer " + token not in head:
            writer.write(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            return
        for _ in range(2_500):  # 25 s, as the control plane does
            found = newest(shelf)
            if found is not None and found[0] > int(asked[1]):
                data = found[1].read_bytes()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(data))
                writer.write(data)
                await writer.drain()
                return
            await asyncio.sleep(0.01)
        writer.write(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
    except (OSError, EOFError):
        pass
    finally:
        writer.close()


async def serve(port: int, shelf: Path, token: bytes) -> None:
    server = await asyncio.start_server(
        lambda reader, writer: answer(shelf, token, reader, writer), "127.0.0.1", port
    )
    async with server:
        await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--shelf", type=Path, required=True)
    parser.add_argument("--token-file", type=Path, required=True)
    options = parser.parse_args()
    uvloop.run(serve(options.port, options.shelf, options.token_file.read_bytes().strip()))


if __name__ == "__main__":
    main()
