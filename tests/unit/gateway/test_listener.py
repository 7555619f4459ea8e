# ruff: noqa: E501 - a corpus of headers: one a line
"""The way in and the way out: PROXY protocol, TLS on both sides with a pin, draining."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import signal
import socket
import ssl
import struct
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from sekisho.federation.model import Federation, UpstreamTls
from sekisho.gateway.settings import ListenTls
from sekisho.kernel.classes import DataClass
from support.background import until
from support.gateway import QUIET, Checkpoint, Place, Who, compiled, federation
from support.upstream import DONE, LAST_CHUNK, STREAM_HEAD, Turn, Upstream, answers, chunk, event, message, whole
from support.wire import Cut, chat, request

OK = request(chat(), key="sk-hospital")
SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
PROXY = (
    SIGNATURE
    + struct.pack("!BBH", 0x21, 0x11, 12)
    + bytes([203, 0, 113, 7, 127, 0, 0, 1])
    + struct.pack("!HH", 4711, 443)
)
LOCAL = SIGNATURE + struct.pack("!BBH", 0x20, 0, 0)


def source(url: str) -> Federation:
    return federation((Place("jp", url),), (Who("hospital", DataClass.CONFIDENTIAL),))


@pytest.fixture
def upstream() -> Upstream:
    return Upstream(answers()).start()


def test_with_the_proxy_protocol_nobody_else_is_served(tmp_path: Path, upstream: Upstream) -> None:
    settings = msgspec.structs.replace(QUIET, proxy_protocol=True, head_timeout_s=1.0)
    with Checkpoint(tmp_path, compiled(source(upstream.url)), settings=settings) as gateway:
        for header in (PROXY, LOCAL):
            with gateway.wire() as wire:
                wire.send(*[(header + OK)[n : n + 1] for n in range(len(header))], (header + OK)[len(header) :])
                assert wire.answer().status == 200
                assert wire.ask(OK).status == 200, "it is said once a connection"
        for wrong in (OK, b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + OK, SIGNATURE + b"\x31\x11\x00\x0c" + bytes(12) + OK,
                      SIGNATURE + b"\x21\x11\xff\xff" + OK, PROXY[:-1] + b"", SIGNATURE[:5]):  # fmt: skip
            with gateway.wire() as wire:
                wire.send(wrong)
                assert wire.closed()
        assert len(gateway.decisions()) == 4
    upstream.stop()


@pytest.mark.parametrize("stream", [True, False])
def test_sigterm_lets_what_is_under_way_finish(tmp_path: Path, upstream: Upstream, stream: bool) -> None:
    go_on = threading.Event()

    async def slowly(turn: Turn) -> None:
        if not stream:
            while not go_on.is_set():
                await turn.pause(0.01)
            await turn.send(whole(message()))
            return
        await turn.send(STREAM_HEAD, chunk(event("a")))
        while not go_on.is_set():
            await turn.pause(0.01)
        await turn.send(chunk(DONE) + LAST_CHUNK)

    upstream.script = slowly
    settings = msgspec.structs.replace(QUIET, drain_grace_s=20.0)
    with Checkpoint(tmp_path, compiled(source(upstream.url)), settings=settings) as gateway:
        with gateway.wire() as idle, gateway.wire() as wire:
            idle.ask(b"GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n")
            wire.send(request(chat(stream=stream), key="sk-hospital"))
            until(lambda: upstream.received)
            gateway.processes[0].send_signal(signal.SIGTERM)
            assert idle.closed(), "idle connections end at once"
            time.sleep(0.2)
            assert gateway.processes[0].poll() is None
            go_on.set()
            answer = wire.answer()
            assert answer.status == 200
            assert wire.closed()
        assert gateway.processes[0].wait(10) == 0
        assert [(each.id, each.outcome) for each in gateway.decisions()] == [(answer.decision, "completed")]
    upstream.stop()


def test_the_grace_time_has_an_end_and_what_is_cut_is_recorded(tmp_path: Path, upstream: Upstream) -> None:
    async def for_ever(turn: Turn) -> None:
        await turn.send(STREAM_HEAD, chunk(event("a")))
        await turn.gone()

    upstream.script = for_ever
    with Checkpoint(tmp_path, compiled(source(upstream.url))) as gateway, gateway.wire() as wire:
        wire.send(request(chat(stream=True), key="sk-hospital"))
        _, headers = wire.head()
        gateway.processes[0].send_signal(signal.SIGTERM)
        with pytest.raises(Cut):
            list(iter(wire.chunk, b""))
        assert gateway.processes[0].wait(10) == 0
        decision = gateway.decision(headers["x-sekisho-decision"])
        assert decision.outcome != "completed"
        assert decision.partial
    upstream.stop()


@dataclass
class Certificate:
    """Self-signed, for 127.0.0.1; made for one test."""

    certificate: str
    key: str
    pin: str


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, SHA256())
    )
    (tmp_path / "cert.pem").write_bytes(made.public_bytes(Encoding.PEM))
    (tmp_path / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pin = "sha256:" + hashlib.sha256(spki).hexdigest()
    return Certificate(str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"), pin)


class TlsFront:
    """TLS in front of a scripted endpoint: takes the ciphertext off and passes on what is inside."""

    def __init__(self, certificate: Certificate, port: int) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate.certificate, certificate.key)
        self._behind = port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                raw, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass, args=(raw,), daemon=True).start()

    def _pass(self, raw: socket.socket) -> None:
        try:
            with self._context.wrap_socket(raw, server_side=True) as outer:
                inner = socket.create_connection(("127.0.0.1", self._behind))
                with inner:
                    while data := outer.recv(65536):
                        inner.sendall(data)
                        outer.sendall(inner.recv(1 << 20))
        except OSError:
            pass


@pytest.mark.parametrize("trust", ["pin", "ca", "wrong pin", "nothing"])
def test_tls_to_the_endpoint_holds_to_its_pin(
    tmp_path: Path, upstream: Upstream, certificate: Certificate, trust: str
) -> None:
    front = TlsFront(certificate, upstream.port)
    tls = {
        "pin": UpstreamTls(pins=(certificate.pin,)),
        "ca": UpstreamTls(ca=certificate.certificate, server_name="localhost"),
        "wrong pin": UpstreamTls(pins=("sha256:" + "0" * 64,)),
        "nothing": None,
    }[trust]
    plain = federation(
        (Place("jp", f"https://127.0.0.1:{front.port}/v1"),), (Who("hospital", DataClass.CONFIDENTIAL),)
    )
    endpoint = msgspec.structs.replace(plain.endpoints[0], tls=tls)
    with Checkpoint(tmp_path / "g", compiled(msgspec.structs.replace(plain, endpoints=(endpoint,)))) as gateway:
        answer = gateway.ask(OK)
    if trust in ("pin", "ca"):
        assert (answer.status, answer.body) == (200, message())
    else:
        assert (answer.status, answer.code) == (503, "upstream.unavailable")
        assert upstream.received == []
    front.listener.close()
    upstream.stop()


def test_tls_from_the_client(tmp_path: Path, upstream: Upstream, certificate: Certificate) -> None:
    settings = msgspec.structs.replace(QUIET, tls=ListenTls(certificate=certificate.certificate, key=certificate.key))
    with Checkpoint(tmp_path / "g", compiled(source(upstream.url)), settings=settings) as gateway:
        context = ssl.create_default_context(cafile=certificate.certificate)
        with gateway.wire() as wire:
            wire.socket = context.wrap_socket(wire.socket, server_hostname="localhost")
            assert wire.ask(OK).body == message()
            assert wire.ask(request(chat(), key="sk-wrong", headers=("connection: close",))).status == 401
            assert wire.closed()
        with gateway.wire() as wire:
            wire.send(OK)
            with contextlib.suppress(Cut):
                assert not wire.more().startswith(b"HTTP/")
        assert len(gateway.decisions()) == 2
    upstream.stop()
