"""The tunnel of a site's agent: every byte, to nobody but the gateways, and the end of one side is the end of
both."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from sekisho.assembly.identity import certificate, fits, new_key, read_key
from sekisho.assembly.site_tunnel import USUAL, Tunnel, TunnelSettings, server_context

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Party:
    """Somebody with a key and a certificate."""

    def __init__(self, directory: Path, name: str) -> None:
        pem = new_key()
        key = read_key(pem)
        assert key is not None
        self.key, self.certificate = directory / f"{name}.key", directory / f"{name}.crt"
        self.key.write_bytes(pem)
        self.certificate.write_bytes(certificate(key, name=name))
        self.pem = self.certificate.read_text()

    def context(self) -> ssl.SSLContext:
        """As a gateway connects: what the other side shows is pinned later."""
        context = anonymous()
        context.load_cert_chain(self.certificate, self.key)
        return context


def anonymous() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@pytest.fixture
def gateway(tmp_path: Path) -> Party:
    return Party(tmp_path, "gateway")


@contextlib.asynccontextmanager
async def tunnel(
    tmp_path: Path, serve: Serve, *gateways: Party, settings: TunnelSettings = USUAL
) -> AsyncIterator[Tunnel]:
    agent = Party(tmp_path, "agent")
    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 16)
    certificates = [each.pem for each in gateways]
    made = Tunnel(
        listen=("127.0.0.1", 0),
        server=("127.0.0.1", server.sockets[0].getsockname()[1]),
        context=server_context(agent.certificate, agent.key, certificates),
        gateways=certificates,
        settings=settings,
    )
    await made.start()
    try:
        yield made
    finally:
        await made.stop(grace_s=0)
        server.close()


async def connect(made: Tunnel, context: ssl.SSLContext) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", made.port, ssl=context, server_hostname="x", limit=1 << 16)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()


def test_every_byte_goes_through_in_both_directions(tmp_path: Path, gateway: Party) -> None:
    async def main() -> None:
        async with tunnel(tmp_path, echo, gateway) as made:
            reader, writer = await connect(made, gateway.context())
            sent = random.Random(7).randbytes(5 << 20)

            async def send() -> None:
                for start in range(0, len(sent), 100_003):
                    writer.write(sent[start : start + 100_003])
                    await writer.drain()

            sending = asyncio.create_task(send())
            assert await reader.readexactly(len(sent)) == sent
            await sending
            assert made.connections == 1
            writer.close()

    asyncio.run(main())


@pytest.mark.parametrize("who", ["nobody", "stranger", "signed by the gateway"])
def test_nobody_else_reaches_the_model_server(tmp_path: Path, gateway: Party, who: str) -> None:
    reached = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.append(1)
        await echo(reader, writer)

    async def main() -> None:
        async with tunnel(tmp_path, serve, gateway) as made:
            context = anonymous()
            if who == "stranger":
                context = Party(tmp_path, "stranger").context()
            elif who == "signed by the gateway":
                context.load_cert_chain(*_signed_by(gateway, tmp_path))
            with contextlib.suppress(OSError, ssl.SSLError):
                reader, writer = await connect(made, context)
                writer.write(b"GET / HTTP/1.1\r\n\r\n")
                await writer.drain()
                assert await reader.read() == b""
            await asyncio.sleep(0.05)
            assert reached == []
            assert made.connections == 0

    asyncio.run(main())


def test_what_the_server_said_arrives_whole_before_its_close(tmp_path: Path, gateway: Party) -> None:
    said = bytes(3 << 20)

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await writer.drain()
        writer.close()

    async def main() -> None:
        async with tunnel(tmp_path, serve, gateway) as made:
            reader, writer = await connect(made, gateway.context())
            got = 0
            while data := await reader.read(10_000):
                got += len(data)
                if got < 200_000:
                    await asyncio.sleep(0.001)
            assert got == len(said)
            writer.close()

    asyncio.run(main())


def test_a_gateway_that_leaves_frees_the_model_server_at_once(tmp_path: Path, gateway: Party) -> None:
    gone = asyncio.Event()

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while True:  # tokens, for as long as somebody listens
                writer.write(b"token ")
                await writer.drain()
                await asyncio.sleep(0.001)
        gone.set()

    async def main() -> None:
        async with tunnel(tmp_path, serve, gateway) as made:
            reader, writer = await connect(made, gateway.context())
            await reader.readexactly(6)
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            async with asyncio.timeout(2):
                await gone.wait()
            await asyncio.sleep(0.05)
            assert made.connections == 0

    asyncio.run(main())


def test_a_reader_that_stalls_holds_the_server_back_and_not_our_memory(tmp_path: Path, gateway: Party) -> None:
    written = 0

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        with contextlib.suppress(OSError, asyncio.CancelledError):
            while True:
                writer.write(bytes(1 << 16))
                await writer.drain()
                written += 1 << 16

    async def main() -> None:
        nonlocal written
        settings = TunnelSettings(stall_s=0.5)
        async with tunnel(tmp_path, serve, gateway, settings=settings) as made:
            reader, writer = await connect(made, gateway.context())
            await reader.readexactly(1)
            writer.transport.pause_reading()
            await asyncio.sleep(0.3)
            held = written
            await asyncio.sleep(0.1)
            assert written == held < 64 << 20  # buffers of sockets, nothing beyond them
            await asyncio.sleep(0.6)
            assert made.connections == 0  # and not for ever
            writer.transport.abort()

    asyncio.run(main())


def test_a_model_server_that_is_not_there_is_a_closed_connection(tmp_path: Path, gateway: Party) -> None:
    async def main() -> None:
        async with tunnel(tmp_path, echo, gateway) as made:
            made._server = ("127.0.0.1", 1)
            reader, writer = await connect(made, gateway.context())
            with contextlib.suppress(OSError):
                assert await reader.read() == b""
            writer.close()

    asyncio.run(main())


def test_too_many_connections_are_refused(tmp_path: Path, gateway: Party) -> None:
    async def main() -> None:
        async with tunnel(tmp_path, echo, gateway, settings=TunnelSettings(max_connections=1)) as made:
            reader, writer = await connect(made, gateway.context())
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
            other, second = await connect(made, gateway.context())
            with contextlib.suppress(OSError):
                second.write(b"x")
                assert await other.read() == b""
            writer.write(b"y")
            assert await reader.readexactly(1) == b"y"
            writer.close()

    asyncio.run(main())


def test_a_certificate_is_of_its_key(tmp_path: Path, gateway: Party) -> None:
    own, other = read_key(gateway.key.read_bytes()), read_key(new_key())
    assert own is not None
    assert other is not None
    assert fits(gateway.certificate.read_bytes(), own)
    assert not fits(gateway.certificate.read_bytes(), other)
    assert not fits(b"nonsense", own)
    assert read_key(b"nonsense") is None


def _signed_by(issuer: Party, directory: Path) -> tuple[Path, Path]:
    """A certificate for another key, signed with the gateway's: of the right family, and not the one that was
    named."""
    import datetime  # noqa: PLC0415

    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.x509.oid import NameOID  # noqa: PLC0415

    parent = x509.load_pem_x509_certificate(issuer.certificate.read_bytes())
    parent_key, pem = read_key(issuer.key.read_bytes()), new_key()
    key = read_key(pem)
    assert parent_key is not None
    assert key is not None
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "child")]))
        .issuer_name(parent.subject)
        .public_key(key.public_key())
        .serial_number(2)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(parent_key, hashes.SHA256())
    )
    files = (directory / "child.crt", directory / "child.key")
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(pem)
    return files
