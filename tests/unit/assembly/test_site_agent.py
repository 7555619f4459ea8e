"""The agent's own side: what it believes, what it reads, and what it refuses to start with."""

from __future__ import annotations

import asyncio
import base64
import http.server
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sekisho.assembly.site_agent import SiteAgent
from sekisho.assembly.site_control import ControlAway, ControlClient, counters
from sekisho.assembly.site_home import (
    Enrolment,
    SiteHome,
    SiteRefused,
    control_address,
    load_enrolment,
    load_gateways,
    load_key,
    load_served,
    prepare,
    prepare_next_key,
    save_enrolment,
    save_gateways,
    take_next_key,
)
from sekisho.federation.errors import AgentRefused
from sekisho.federation.report import Challenged, Heartbeat, HeartbeatAnswer, Inventory, Taken
from sekisho.federation.signing import agent_signed, answer_text, request_text, spki_of
from sekisho.runtime.toml import ConfigRefused

KEY = ec.generate_private_key(ec.SECP256R1())
CONTROL = Ed25519PrivateKey.generate()
ANSWER = msgspec.json.encode(HeartbeatAnswer(site="s", suspended=False, gateways=(), every_s=1.0, validity_s=6.0))
Reply = Callable[[http.server.BaseHTTPRequestHandler, bytes], tuple[int, bytes, str]]


def signed(handler: http.server.BaseHTTPRequestHandler, body: bytes, *, key: Ed25519PrivateKey = CONTROL) -> str:
    text = answer_text(site="s", counter=int(handler.headers["X-Sekisho-Counter"]), body=body)
    return base64.b64encode(key.sign(text)).decode()


class FakeControl:
    """FAKE: a control plane's door that answers as it is told."""

    def __init__(self) -> None:
        self.reply: Reply = lambda handler, _: (200, ANSWER, signed(handler, ANSWER))
        self.seen: list[tuple[dict[str, str], bytes]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.seen.append((dict(self.headers), body))
                status, data, signature = outer.reply(self, body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.send_header("X-Sekisho-Signature", signature)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_arguments: Any) -> None:
                """Silent."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def control() -> Iterator[FakeControl]:
    made = FakeControl()
    yield made
    made.server.shutdown()
    made.server.server_close()


def client(control: FakeControl) -> ControlClient:
    hex_key = CONTROL.public_key().public_bytes_raw().hex()
    return ControlClient(Enrolment(site="s", control=control.url, control_key=hex_key))


def beat(made: ControlClient) -> HeartbeatAnswer:
    return made.call(KEY, "/agent/v1/heartbeat", Heartbeat(), HeartbeatAnswer)


def test_a_request_is_signed_over_all_of_it_and_no_two_are_the_same(control: FakeControl) -> None:
    made = client(control)
    beat(made)
    beat(made)
    counted = []
    for headers, body in control.seen:
        counter = int(headers["X-Sekisho-Counter"])
        text = request_text(method="POST", path="/agent/v1/heartbeat", site="s", counter=counter, body=body)
        assert agent_signed(KEY.public_key(), base64.b64decode(headers["X-Sekisho-Signature"]), text)
        counted.append(counter)
    assert counted[0] < counted[1]
    assert abs(counted[0] / 1e6 - time.time()) < 60


def test_only_the_control_plane_that_invited_is_believed(control: FakeControl) -> None:
    made = client(control)
    first: list[str] = []

    def replayed(handler: http.server.BaseHTTPRequestHandler, _body: bytes) -> tuple[int, bytes, str]:
        first.append(signed(handler, ANSWER))
        return 200, ANSWER, first[0]

    other = Ed25519PrivateKey.generate()
    for reply in (
        lambda handler, _: (200, ANSWER, signed(handler, ANSWER, key=other)),
        lambda handler, _: (200, ANSWER + b" ", signed(handler, ANSWER)),
        lambda _handler, _: (200, ANSWER, ""),
        lambda _handler, _: (200, ANSWER, "é".encode("latin-1").decode("latin-1")),
    ):
        control.reply = reply
        with pytest.raises(ControlAway) as caught:
            beat(made)
        assert caught.value.code == "site.control_unbelieved"
    control.reply = replayed
    beat(made)
    with pytest.raises(ControlAway):
        beat(made)  # yesterday's answer to today's question


def test_what_control_says_no_to_has_its_own_words(control: FakeControl) -> None:
    made = client(control)
    control.reply = lambda *_: (401, b'{"detail":"no","code":"agent.replayed","hint":"wait"}', "")
    with pytest.raises(AgentRefused) as refused:
        beat(made)
    assert (refused.value.code, refused.value.hint) == ("agent.replayed", "wait")
    for status, body in ((500, b""), (502, b"<html>"), (404, b"\xff"), (503, b'{"code":"database.unavailable"}')):
        control.reply = lambda *_, status=status, body=body: (status, body, "")
        with pytest.raises(ControlAway):
            beat(made)


def test_a_control_plane_that_is_away_is_no_traceback(control: FakeControl) -> None:
    control.server.server_close()
    with pytest.raises(ControlAway) as caught:
        beat(client(control))
    assert caught.value.hint


def test_counters_grow_even_when_the_clock_does_not() -> None:
    count = counters()
    seen = [count() for _ in range(10_000)]
    assert seen == sorted(set(seen))


# -- the directory


def test_the_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    home = SiteHome(tmp_path / "agent")
    first = prepare(home)
    assert spki_of(prepare(home).public_key()) == spki_of(first.public_key())
    assert os.stat(home.key).st_mode & 0o077 == 0
    assert os.stat(home.root).st_mode & 0o077 == 0


def test_the_next_key_takes_its_place_with_its_certificate(tmp_path: Path) -> None:
    home = SiteHome(tmp_path / "agent")
    prepare(home)
    new = prepare_next_key(home)
    assert spki_of(prepare_next_key(home).public_key()) == spki_of(new.public_key())  # a second try has the same one
    take_next_key(home)
    assert spki_of(load_key(home.key).public_key()) == spki_of(new.public_key())
    assert spki_of(prepare(home).public_key()) == spki_of(new.public_key())
    assert not home.next_key.exists()


@pytest.mark.parametrize(
    "damage", [b"", b"nonsense", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_a_damaged_key_is_said_to_be(tmp_path: Path, damage: bytes) -> None:
    home = SiteHome(tmp_path)
    home.key.write_bytes(damage)
    with pytest.raises(SiteRefused) as caught:
        load_key(home.key)
    assert caught.value.hint


def test_an_agent_that_was_not_enrolled_says_so(tmp_path: Path) -> None:
    home = SiteHome(tmp_path)
    with pytest.raises(SiteRefused):
        load_enrolment(home)
    home.enrolment.write_bytes(b"[]")
    with pytest.raises(SiteRefused):
        load_enrolment(home)
    save_enrolment(home, Enrolment(site="s", control="https://x", control_key="00"))
    assert load_enrolment(home).site == "s"


def test_gateways_are_remembered(tmp_path: Path) -> None:
    home = SiteHome(tmp_path)
    assert load_gateways(home) == ()
    prepare(home)
    pem = home.certificate.read_text()
    save_gateways(home, (pem, pem))
    assert load_gateways(home) == (pem, pem)


@pytest.mark.parametrize(
    "url", ["http://control.example.jp", "ftp://x", "https://169.254.169.254", "https://a@b", ""]
)
def test_a_token_is_not_sent_in_the_clear(url: str) -> None:
    with pytest.raises(SiteRefused) as caught:
        control_address(url)
    assert caught.value.code == "site.control_url"


def test_a_control_plane_over_tls_or_on_this_machine_is_taken() -> None:
    assert control_address("https://control.example.jp/") == "https://control.example.jp"
    assert control_address("http://127.0.0.1:8081") == "http://127.0.0.1:8081"


GOOD = """
[[endpoint]]
id = "a"
listen = "0.0.0.0:9443"
url = "https://gpu.example.jp:9443/v1"
server = "http://127.0.0.1:8000"
"""


def test_what_is_served_is_read(tmp_path: Path) -> None:
    home = SiteHome(tmp_path)
    home.settings.write_text(GOOD)
    (served,) = load_served(home)
    assert (served.listen, served.server) == (("0.0.0.0", 9443), ("127.0.0.1", 8000))  # noqa: S104 - as people write it
    assert served.models == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "serve nothing"),
        (GOOD.replace("https://gpu", "http://gpu"), "not https"),
        (GOOD.replace("https://gpu.example.jp:9443/v1", "https://169.254.169.254/v1"), "metadata"),
        (GOOD.replace("http://127.0.0.1:8000", "https://127.0.0.1:8000"), "model server"),
        (GOOD.replace("http://127.0.0.1:8000", "http://127.0.0.1:8000/v2"), "model server"),
        (GOOD + "slot = 1", "no field"),
        (GOOD + GOOD, "twice"),
        ("[[endpoint]\n", ""),
        (GOOD.replace('id = "a"', 'id = "A b"'), "id"),
    ],
)
def test_a_mistake_in_the_agents_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    home = SiteHome(tmp_path)
    home.settings.write_text(text)
    with pytest.raises(ConfigRefused) as caught:
        load_served(home)
    assert said in str(caught.value)


# -- evidence beside heart-beats


def test_heartbeats_go_on_while_the_hardware_signs(tmp_path: Path, control: FakeControl) -> None:
    home = SiteHome(tmp_path / "agent")
    prepare(home)
    hex_key = CONTROL.public_key().public_bytes_raw().hex()
    save_enrolment(home, Enrolment(site="s", control=control.url, control_key=hex_key))
    home.settings.write_text(
        '[[endpoint]]\nid = "e"\nlisten = "127.0.0.1:0"\nurl = "https://127.0.0.1:1/v1"\n'
        'server = "http://127.0.0.1:1"\nmodels = ["m"]\n'
    )
    signing, done = threading.Event(), threading.Event()

    class Slow:
        """FAKE: hardware that takes its time."""

        kind = "simulated"

        def collect(self, nonce: bytes, public_key: bytes) -> bytes:
            signing.set()
            assert done.wait(60)
            return nonce + public_key

    beats_while_signing = 0

    def reply(handler: http.server.BaseHTTPRequestHandler, _body: bytes) -> tuple[int, bytes, str]:
        nonlocal beats_while_signing
        kinds: dict[str, msgspec.Struct] = {
            "/agent/v1/challenge": Challenged(nonce=b"n" * 32, expires_at=0.0),
            "/agent/v1/evidence": Taken(accepted=True, level="affirming"),
        }
        answer = kinds.get(
            handler.path,
            HeartbeatAnswer(site="s", suspended=False, gateways=(), every_s=0.1, validity_s=0.6, attest=True),
        )
        if handler.path == "/agent/v1/heartbeat" and signing.is_set() and not done.is_set():
            beats_while_signing += 1
            if beats_while_signing == 3:
                done.set()
        data = msgspec.json.encode(answer)
        return 200, data, signed(handler, data)

    control.reply = reply

    async def until_handed_in() -> None:
        agent = SiteAgent(home, attester=Slow(), count=lambda: Inventory(simulated=True))
        stopping = asyncio.Event()
        running = asyncio.create_task(agent.run(stopping))
        while not any(b'"evidence"' in body for _, body in control.seen):
            assert not running.done()
            await asyncio.sleep(0.02)
        stopping.set()
        await running

    asyncio.run(asyncio.wait_for(until_handed_in(), 60))
    assert beats_while_signing >= 3
    counters_seen = [int(headers["X-Sekisho-Counter"]) for headers, _ in control.seen]
    assert counters_seen == sorted(set(counters_seen)), "a request that overtakes another looks replayed"
