"""TLS on both sides, pins, and the PROXY protocol."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import ssl
import struct
from pathlib import Path

import msgspec
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sekisho.federation.model import Federation, UpstreamTls
from sekisho.gateway.settings import ListenTls
from sekisho.kernel.classes import DataClass
from support import background
from support.gateway import QUIET, Checkpoint, Place, Who, compiled, federation
from support.upstream import Upstream, answers, message, whole
from support.wire import Wire, chat, request


def _pin(certificate: trustme.LeafCert) -> str:
    key = x509.load_pem_x509_certificate(certificate.cert_chain_pems[0].bytes()).public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return "sha256:" + hashlib.sha256(spki).hexdigest()


class _SecureEndpoint:
    """One answer a connection, over TLS."""

    def __init__(self, certificate: trustme.LeafCert) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(self.context)
        self.requests = 0
        self.server = background.run(asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.context))
        self.port: int = self.server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            self.requests += 1
            writer.write(whole(message("over TLS")))
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        writer.close()

    def stop(self) -> None:
        background.loop().call_soon_threadsafe(self.server.close)


def _one(port: int, tls: UpstreamTls) -> Federation:
    source = federation([Place("a", f"https://localhost:{port}/v1")], [Who("hospital", DataClass.CONFIDENTIAL)])
    (endpoint,) = source.endpoints
    return msgspec.structs.replace(source, endpoints=(msgspec.structs.replace(endpoint, tls=tls),))


@pytest.mark.parametrize("case", ["ca", "pin", "ca and pin", "wrong pin", "unknown ca", "wrong name"])
def test_an_endpoint_is_who_it_should_be_or_gets_nothing(case: str, tmp_path: Path) -> None:
    authority, other = trustme.CA(), trustme.CA()
    certificate = authority.issue_cert("localhost")
    (tmp_path / "ca.pem").write_bytes(authority.cert_pem.bytes())
    (tmp_path / "other.pem").write_bytes(other.cert_pem.bytes())
    ca, pin = str(tmp_path / "ca.pem"), _pin(certificate)
    tls = {
        "ca": UpstreamTls(ca=ca),
        "pin": UpstreamTls(pins=(pin,)),
        "ca and pin": UpstreamTls(ca=ca, pins=(pin,)),
        "wrong pin": UpstreamTls(ca=ca, pins=(_pin(other.issue_cert("localhost")),)),
        "unknown ca": UpstreamTls(ca=str(tmp_path / "other.pem")),
        "wrong name": UpstreamTls(ca=ca, server_name="elsewhere.example"),
    }[case]
    endpoint = _SecureEndpoint(certificate)
    with Checkpoint(tmp_path / "g", compiled(_one(endpoint.port, tls))) as gateway, Wire(gateway.port) as wire:
        answer = wire.ask(request(chat(), key="sk-hospital"))
        if case in ("ca", "pin", "ca and pin"):
            assert answer.status == 200
            assert endpoint.requests == 1
        else:
            assert (answer.status, answer.code) == (503, "upstream.unavailable")
            assert endpoint.requests == 0
    endpoint.stop()


def test_clients_speak_tls_and_are_asked_for_a_certificate_where_that_is_set(tmp_path: Path) -> None:
    authority = trustme.CA()
    served = authority.issue_cert("localhost")
    served.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    (tmp_path / "cert.pem").write_bytes(b"".join(pem.bytes() for pem in served.cert_chain_pems))
    (tmp_path / "ca.pem").write_bytes(authority.cert_pem.bytes())
    settings = msgspec.structs.replace(
        QUIET,
        tls=ListenTls(
            certificate=str(tmp_path / "cert.pem"), key=str(tmp_path / "key.pem"), client_ca=str(tmp_path / "ca.pem")
        ),
    )
    upstream = Upstream(answers()).start()
    source = federation([Place("a", upstream.url)], [Who("dev")])
    with Checkpoint(tmp_path / "g", compiled(source), settings=settings) as gateway:
        context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))

        def ask() -> bytes:
            with (
                socket.create_connection(("127.0.0.1", gateway.port), 10) as plain,
                context.wrap_socket(plain, server_hostname="localhost") as secure,
            ):
                secure.sendall(request(chat(), key="sk-dev", headers=("connection: close",)))
                data = b""
                while part := secure.recv(1 << 16):
                    data += part
                return data

        # In TLS 1.3 the client finishes its handshake first, and learns of the refusal when it reads.
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            assert ask() == b"", "an answer without a certificate of ours"
        assert upstream.received == []
        authority.issue_cert("client@example.org").configure_cert(context)
        assert ask().startswith(b"HTTP/1.1 200 OK\r\n")
    upstream.stop()


def test_the_proxy_protocol_is_read_where_it_is_set_and_nothing_else_is_let_in(tmp_path: Path) -> None:
    upstream = Upstream(answers()).start()
    settings = msgspec.structs.replace(QUIET, proxy_protocol=True)
    source = federation([Place("a", upstream.url)], [Who("dev")])
    # PROXY protocol 2.2: signature, version 2 + PROXY, TCP over IPv4, 12 bytes of addresses and a TLV to skip
    addresses = socket.inet_aton("203.0.113.9") + socket.inet_aton("192.0.2.1") + struct.pack("!HH", 4711, 443)
    head = b"\r\n\r\n\0\r\nQUIT\n" + struct.pack("!BBH", 0x21, 0x11, len(addresses) + 4) + addresses + b"\x04\0\x01x"
    with Checkpoint(tmp_path, compiled(source), settings=settings) as gateway:
        for cut in (0, 1, 11, 15, 20, len(head) - 1, len(head)):
            with Wire(gateway.port) as wire:
                wire.send(head[:cut], head[cut:], pause_s=0.02)
                assert wire.ask(request(chat(), key="sk-dev")).status == 200
        with Wire(gateway.port) as wire:
            wire.send(request(chat(), key="sk-dev"))
            assert wire.closed()
        with Wire(gateway.port) as wire:
            wire.send(b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\n" + request(chat(), key="sk-dev"))
            assert wire.closed()
        assert len(upstream.received) == 7
    upstream.stop()
