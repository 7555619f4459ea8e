"""Mutually authenticated TLS in front of a model server: bytes in, bytes out, nothing read.

The life of a connection: (1) a gateway connects, TLS 1.3, and shows a certificate that the control plane named; (2)
its key is compared once more; (3) the agent connects to the model server on its own side; (4) bytes go both ways,
each side no faster than the other takes them; (5) the end of either side is the end of both, and a reset stays a
reset, so that an aborted request stops costing a GPU at once.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Sequence
from pathlib import Path

import msgspec

_log = logging.getLogger(__name__)
_READ_BYTES = 64 << 10


class TunnelSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`stall_s`: how long a side may take nothing of what waits for it. `reuse_port`: another process holds the port
    for this one (with SO_REUSEPORT, and does not listen)."""

    handshake_s: float = 10.0
    connect_s: float = 5.0
    stall_s: float = 600.0
    max_connections: int = 4096
    reuse_port: bool = False


USUAL = TunnelSettings()


def server_context(certificate: Path, key: Path, gateways: Sequence[str]) -> ssl.SSLContext:
    """TLS 1.3 for these gateways' certificates (PEM) and no others. Raises ssl.SSLError or OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(certificate, key)
    context.verify_mode = ssl.CERT_REQUIRED
    for pem in gateways:
        context.load_verify_locations(cadata=pem)
    # A resumed session would skip the certificate, and with it the question whether it is still let in.
    context.num_tickets = 0
    return context


class Tunnel:
    """One listening address in front of one model server."""

    def __init__(
        self,
        *,
        listen: tuple[str, int],
        server: tuple[str, int],
        context: ssl.SSLContext,
        gateways: Sequence[str],
        settings: TunnelSettings = USUAL,
    ) -> None:
        self._listen = listen
        self._server = server
        self._context = context
        self._allowed = frozenset(map(ssl.PEM_cert_to_DER_cert, gateways))
        self._settings = settings
        self._listener: asyncio.Server | None = None
        self.port = 0
        self._open: set[asyncio.Task[None]] = set()

    @property
    def connections(self) -> int:
        return len(self._open)

    async def start(self) -> None:
        """Raises OSError when the address can't be listened on."""
        host, port = self._listen
        self._listener = await asyncio.start_server(
            self._accept,
            host,
            port,
            ssl=self._context,
            ssl_handshake_timeout=self._settings.handshake_s,
            limit=_READ_BYTES,
            backlog=1024,
            reuse_address=True,
            reuse_port=self._settings.reuse_port or None,
        )
        self.port = self._listener.sockets[0].getsockname()[1]

    async def stop(self, *, grace_s: float) -> None:
        """No new connections; those that are open have this long."""
        if self._listener is not None:
            self._listener.close()
        if self._open and grace_s > 0:
            await asyncio.wait(self._open, timeout=grace_s)
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:  # asyncio runs this callback in a task of its own
            raise RuntimeError("a connection was accepted outside of a task")
        self._open.add(task)
        try:
            shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            if shown not in self._allowed or len(self._open) > self._settings.max_connections:
                writer.transport.abort()
                return
            await self._serve(reader, writer)
        except (OSError, TimeoutError, asyncio.CancelledError) as error:
            _log.debug("a connection ended: %r", error)
            writer.transport.abort()
        finally:
            self._open.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(self._settings.connect_s):
                inner_reader, inner_writer = await asyncio.open_connection(*self._server, limit=_READ_BYTES)
        except (OSError, TimeoutError) as error:
            _log.warning("the model server at %s:%d can't be reached: %s", *self._server, error)
            writer.transport.abort()
            return
        inward = asyncio.create_task(self._pump(reader, inner_writer))
        outward = asyncio.create_task(self._pump(inner_reader, writer))
        try:
            done, _ = await asyncio.wait((inward, outward), return_when=asyncio.FIRST_COMPLETED)
            # The server has said all: what it said goes out whole. The gateway has gone: nobody waits for the rest.
            if outward in done and outward.exception() is None:
                writer.close()
                async with asyncio.timeout(self._settings.stall_s):
                    await writer.wait_closed()
            else:
                writer.transport.abort()
        finally:
            for task in (inward, outward):
                task.cancel()
            inner_writer.transport.abort()
            await asyncio.gather(inward, outward, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_READ_BYTES):
            writer.write(data)
            async with asyncio.timeout(self._settings.stall_s):
                await writer.drain()
