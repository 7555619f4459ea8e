"""A gateway worker: `python -m sekisho.assembly.worker SPECFILE` (made by the supervisor)."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import msgspec
import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from sekisho.gateway.control import ControlAddress
from sekisho.gateway.feed import Feed
from sekisho.gateway.gateway import Gateway
from sekisho.gateway.limits import Board
from sekisho.gateway.listener import ClientConnection
from sekisho.gateway.receipts import Receipts
from sekisho.gateway.settings import ListenTls, WorkerSpec
from sekisho.kernel.errors import SekishoError
from sekisho.ledger.journal import Journal
from sekisho.ledger.model import Decision

_log = logging.getLogger("sekisho.worker")


def listen_context(tls: ListenTls) -> ssl.SSLContext:
    """TLS ≥ 1.2 towards clients, with client certificates where a CA for them is given."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.certificate, tls.key)
        if tls.client_ca is not None:
            context.load_verify_locations(tls.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise SekishoError(
            f"the gateway's TLS material can't be used: {error}",
            code="gateway.tls",
            hint="check [gateway.tls] certificate, key and client_ca",
        ) from None
    context.set_alpn_protocols(["http/1.1"])
    return context


async def serve(spec: WorkerSpec) -> None:
    """Run until SIGTERM or SIGINT, then drain."""
    loop = asyncio.get_running_loop()
    settings = spec.settings
    context = listen_context(settings.tls) if settings.tls is not None else None
    board = Board(Path(spec.limits_file), worker=spec.index, workers=spec.workers)
    journal = Journal(
        Path(spec.journal_dir),
        gateway=f"{settings.id}/w{spec.index}",
        segment_bytes=settings.journal_segment_bytes,
        sync_s=settings.journal_sync_s,
    )
    journal.open(loop)
    gateway = Gateway(index=spec.index, settings=settings, journal=journal, board=board, loop=loop)
    gateway.metrics.worker_lost = journal.recovered
    stop_tracing = None
    if settings.otlp_endpoint is not None:
        gateway.on_decision, stop_tracing = _tracing(settings.otlp_endpoint, gateway.name)
    if journal.error:
        _log.error("the journal can't be written: %s", journal.error)
    control = None
    if spec.control_url is not None:
        token_file = Path(spec.control_token_file) if spec.control_token_file else None
        control = ControlAddress(spec.control_url, token_file)
        gateway.receipts = Receipts(control)
    feed = Feed(
        table_file=Path(spec.table_file),
        public_key=Ed25519PublicKey.from_public_bytes(bytes.fromhex(spec.control_public_key)),
        control=control,
        adopt=gateway.adopt,
    )
    following = loop.create_task(feed.run())
    admin = await _admin(gateway, Path(spec.admin_socket))
    servers = [
        await loop.create_server(
            lambda: cast(asyncio.Protocol, ClientConnection(gateway)),
            sock=socket.socket(fileno=fd),
            ssl=context,
            backlog=settings.backlog,
        )
        for fd in spec.listen_fds
    ]
    # What lives now lives long: keep the collector from walking over it.
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(0.001)  # so that a busy loop does not keep the journal's thread from the disk
    gc.set_threshold(50_000, 20, 50)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    _log.info("worker %d serves, pid %d", spec.index, gateway.snapshot().pid)
    await stop.wait()
    for server in servers:
        server.close()
    following.cancel()
    await gateway.drain(settings.drain_grace_s)
    admin.close()
    with contextlib.suppress(OSError):
        Path(spec.admin_socket).unlink()
    journal.close()
    board.close()
    if stop_tracing is not None:
        stop_tracing()


def _tracing(endpoint: str, name: str) -> tuple[Callable[[Decision, bytes | None], None], Callable[[], None]]:
    try:
        from sekisho.assembly.tracing import otlp_exporter, tracer  # noqa: PLC0415 - needs the extra `otel`
    except ImportError:
        raise SekishoError(
            "otlp_endpoint is set, but the OpenTelemetry SDK is not installed",
            code="telemetry.missing",
            hint="install sekisho with the extra `otel`, or take the setting out",
        ) from None
    return tracer(otlp_exporter(endpoint), gateway=name)


async def _admin(gateway: Gateway, path: Path) -> asyncio.AbstractServer:
    """A read-only window: whoever may open the socket gets one snapshot. Nothing is read from them."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            writer.write(msgspec.json.encode(gateway.snapshot()))
            await writer.drain()
        writer.close()

    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    server = await asyncio.start_unix_server(answer, path)
    path.chmod(0o600)
    return server


def main() -> int:
    spec = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=WorkerSpec)
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        filename=spec.log_file,
    )
    try:
        uvloop.run(serve(spec))
    except SekishoError as error:
        _log.error("%s", error)
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
