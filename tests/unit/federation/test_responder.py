"""Challenges over real sockets: what is answered, what is dropped, what a landmark may sign."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Literal

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from sekisho.federation.challenge import (
    ANSWER_BYTES,
    QUESTION_BYTES,
    Answering,
    PrivateKey,
    Question,
    answered,
    landmark_name,
    read_question,
    site_name,
    spki,
    write_question,
)
from sekisho.federation.landmark import (
    Landmark,
    Measurement,
    MeasurementRefused,
    SignedMeasurement,
    check_measurement,
    landmark_of,
    sign_measurement,
)
from sekisho.federation.prober import BurstPlan, Unanswered, clocks, measure
from sekisho.federation.responder import Allowance, Answerer, Responder, ResponderLimits, ResponderRefused, network_of
from sekisho.kernel.clock import SystemClock

NOW = 1_800_000_000.0
SITE_KEY = ec.generate_private_key(ec.SECP256R1())
MARK_KEY = Ed25519PrivateKey.generate()
MARK = landmark_of("tokyo", latitude=35.68, longitude=139.77, position_error_km=1.0, key=MARK_KEY)
PLAN = BurstPlan(questions=4, gap_s=0.001, timeout_s=0.3)


def question(*, at: float = NOW, site: str = "osaka", nonce: bytes = b"n" * 32) -> bytes:
    return write_question(
        Question(asked_ms=int(at * 1000), landmark=landmark_name(MARK.spki), site=site_name(site), nonce=nonce)
    )


def answerer(limits: ResponderLimits | None = None) -> Answerer:
    return Answerer(SITE_KEY, site="osaka", limits=limits or ResponderLimits())


@pytest.mark.parametrize("key", [SITE_KEY, MARK_KEY], ids=["p256", "ed25519"])
def test_an_answer_fits_its_question_and_no_other(key: PrivateKey) -> None:
    mine, other = question(), question(nonce=b"m" * 32)
    answer = Answering(key).answer(mine)
    assert len(answer) == ANSWER_BYTES < QUESTION_BYTES
    assert answered(mine, answer, key.public_key())
    assert not answered(other, answer, key.public_key())
    assert not answered(question(at=NOW + 1), answer, key.public_key())
    assert not answered(question(site="tokyo"), answer, key.public_key())
    assert not answered(mine, answer, Ed25519PrivateKey.generate().public_key())
    for position in range(ANSWER_BYTES):
        changed = bytearray(answer)
        changed[position] ^= 1
        assert not answered(mine, bytes(changed), key.public_key())


@given(st.binary(max_size=200) | st.binary(min_size=128, max_size=128))
def test_what_is_no_question_is_dropped(data: bytes) -> None:
    mine = answerer()
    read = read_question(data)
    assert read is None or write_question(read) == data
    if read is None:
        assert mine.answer(data, network="n", now=NOW, ticks=0.0) == "malformed"
        assert mine.counters.malformed == 1


def test_a_question_has_one_form() -> None:
    plain = question()
    for position in (*range(8), *range(80, 128)):
        changed = bytearray(plain)
        changed[position] ^= 1
        assert read_question(bytes(changed)) is None


def test_an_old_question_and_one_for_another_site_are_dropped() -> None:
    mine = answerer()
    assert mine.answer(question(at=NOW - 121), network="n", now=NOW, ticks=0.0) == "stale"
    assert mine.answer(question(site="tokyo"), network="n", now=NOW, ticks=0.0) == "other_site"
    assert isinstance(mine.answer(question(at=NOW - 119), network="n", now=NOW, ticks=0.0), bytes)
    assert (mine.counters.stale, mine.counters.other_site, mine.counters.answered) == (1, 1, 1)


def test_a_network_gets_its_rate_and_does_not_take_another_s() -> None:
    mine = answerer(ResponderLimits(per_second=10, burst=5))
    assert [mine.answer(question(), network="a", now=NOW, ticks=1.0) for _ in range(7)][5:] == ["too_often"] * 2
    assert isinstance(mine.answer(question(), network="b", now=NOW, ticks=1.0), bytes)
    assert isinstance(mine.answer(question(), network="a", now=NOW, ticks=1.11), bytes)


def test_many_forged_networks_share_one_allowance_and_no_memory() -> None:
    limits = ResponderLimits(per_second=1, burst=2, networks=10, all_per_second=10_000)
    allowance = Allowance(limits)
    taken = sum(allowance.take(str(number), now=1.0) for number in range(1000))
    assert taken == 10 + 2
    assert len(allowance._buckets) <= 11


def test_all_networks_together_have_a_limit() -> None:
    allowance = Allowance(ResponderLimits(all_per_second=20))
    assert sum(allowance.take(str(number), now=1.0) for number in range(100)) == 20


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.254", True),
        ("192.0.2.1", "192.0.3.1", False),
        ("192.0.2.1", "::ffff:192.0.2.9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", True),
        ("2001:db8:1::1", "2001:db8:2::1", False),
    ],
)
def test_networks(one: str, other: str, same: bool) -> None:
    assert (network_of(one) == network_of(other)) is same


def test_an_answer_costs_little_more_than_its_check_and_its_signature() -> None:
    """About 60 µs on the machines that we have seen; compared, because machines differ."""
    key = Ed25519PrivateKey.generate()
    mine = answerer(ResponderLimits(per_second=1e9, burst=1e9, all_per_second=1e9))
    asked = [question(nonce=os.urandom(32)) for _ in range(2000)]
    best = bare = 1.0
    for _ in range(5):
        start = time.process_time()
        for each in asked:
            mine.answer(each, network="n", now=NOW, ticks=1.0)
        between = time.process_time()
        for each in asked:
            key.sign(each)
        best = min(best, between - start)
        bare = min(bare, time.process_time() - between)
    assert best < 2.5 * bare


# -- over sockets


Act = Callable[[int, Responder], object]


def with_responder(act: Act, *, key: PrivateKey = SITE_KEY, limits: ResponderLimits | None = None) -> None:
    """Runs `act(port, responder)` in a thread beside a responder."""

    async def run() -> None:
        responder = Responder(key, site="osaka", clock=SystemClock(), ticks=time.monotonic, limits=limits)
        port = await responder.start("127.0.0.1", 0)
        try:
            await asyncio.to_thread(act, port, responder)
        finally:
            responder.close()

    asyncio.run(run())


def burst(
    port: int, *, transport: Literal["udp", "tcp"] = "udp", ticks: Callable[[], tuple[int, int]] = clocks
) -> SignedMeasurement | Unanswered:
    return measure(
        ("127.0.0.1", port),
        landmark=MARK,
        key=MARK_KEY,
        site="osaka",
        site_key=SITE_KEY.public_key(),
        nonces=os.urandom,
        chance=random.Random(1),
        transport=transport,
        plan=PLAN,
        ticks=ticks,
    )


def checked(given: object, **changes: object) -> Measurement | MeasurementRefused:
    assert isinstance(given, SignedMeasurement), given
    terms: dict[str, object] = {"landmarks": {"tokyo": MARK}, "site": "osaka", "site_keys": (spki(SITE_KEY),)}
    return check_measurement(given, **(terms | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_burst_is_answered_measured_signed_and_checked(transport: Literal["udp", "tcp"]) -> None:
    def act(port: int, responder: Responder) -> None:
        found = checked(burst(port, transport=transport))
        assert isinstance(found, Measurement), found
        assert (found.sent, found.answered, responder.counters.answered) == (4, 4, 4)
        assert 10_000 < found.rtt_ns < 300_000_000
        assert abs(found.at - time.time()) < 5

    with_responder(act)


def test_the_key_of_another_site_proves_nothing() -> None:
    def act(port: int, responder: Responder) -> None:
        found = burst(port)
        assert isinstance(found, Unanswered)
        assert found.invalid == 4

    with_responder(act, key=ec.generate_private_key(ec.SECP256R1()))


def test_nobody_there_is_said_plainly() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
        unused.bind(("127.0.0.1", 0))
        assert isinstance(burst(unused.getsockname()[1]), Unanswered)
    assert isinstance(burst(1, transport="tcp"), Unanswered)


def test_a_replayed_answer_is_never_counted() -> None:
    """A scripted relay (a fake) that answers at once with what it heard before."""
    old = Answering(SITE_KEY).answer(question(at=time.time()))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as relay, ThreadPoolExecutor(1) as thread:
        relay.bind(("127.0.0.1", 0))
        relay.settimeout(2)
        asking = thread.submit(burst, relay.getsockname()[1])
        for number in range(4):
            data, sender = relay.recvfrom(200)
            # also with the new nonce written into it
            relay.sendto(old[:8] + data[48:80] + old[40:] if number % 2 else old, sender)
        found = asking.result()
    assert isinstance(found, Unanswered), found
    assert found.invalid == 2


@pytest.mark.parametrize("rubbish", [b"x" * 128, question() + b"y"], ids=["rubbish", "ahead"])
def test_a_stream_that_sends_rubbish_or_ahead_is_closed_and_counted(rubbish: bytes) -> None:
    def act(port: int, responder: Responder) -> None:
        assert _is_closed(port, rubbish)
        assert responder.counters.malformed == 1

    with_responder(act)


def test_a_silent_stream_does_not_stay() -> None:
    with_responder(lambda port, _: _is_closed(port, b"S") or pytest.fail("open"), limits=ResponderLimits(idle_s=0.1))


def _is_closed(port: int, sent: bytes) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=2) as link:
        link.sendall(sent)
        try:
            return link.recv(200) == b""
        except ConnectionResetError:
            return True


def test_more_streams_than_allowed_are_refused() -> None:
    def act(port: int, responder: Responder) -> None:
        links = [socket.create_connection(("127.0.0.1", port), timeout=2) for _ in range(5)]
        try:
            time.sleep(0.2)
            assert len(responder._open) == 2
        finally:
            for link in links:
                link.close()

    with_responder(act, limits=ResponderLimits(connections=2))


def test_a_port_in_use_is_a_fault_with_a_next_step() -> None:
    def act(port: int, responder: Responder) -> None:
        async def again() -> None:
            second = Responder(SITE_KEY, site="osaka", clock=SystemClock(), ticks=time.monotonic)
            with pytest.raises(ResponderRefused) as refused:
                await second.start("127.0.0.1", port)
            assert refused.value.code == "location.listen"
            assert refused.value.hint

        asyncio.run(again())

    with_responder(act)


# -- what a landmark signed


def measured() -> Measurement:
    asked = question()
    return Measurement(
        landmark="tokyo",
        latitude=MARK.latitude,
        longitude=MARK.longitude,
        position_error_km=MARK.position_error_km,
        site="osaka",
        site_spki=spki(SITE_KEY),
        transport="udp",
        sent=1,
        answered=1,
        rtt_ns=9_000_000,
        question=asked,
        answer=Answering(SITE_KEY).answer(asked),
        exchanges="",
        at=NOW,
    )


def refusal(given: SignedMeasurement, **changes: object) -> str:
    found = checked(given, **changes)
    return found.code if isinstance(found, MeasurementRefused) else "accepted"


def test_each_lie_about_a_measurement_is_refused_by_name() -> None:
    good = measured()
    signed = sign_measurement(good, MARK_KEY)
    assert refusal(signed) == "accepted"
    replace = msgspec.structs.replace
    changed = SignedMeasurement(body=signed.body.replace(b"9000000", b"1000000"), signature=signed.signature)
    assert refusal(changed) == "measurement.signature"
    assert refusal(SignedMeasurement(body=b"{", signature=b"")) == "measurement.unreadable"
    assert refusal(signed, landmarks={}) == "measurement.unknown_landmark"
    assert refusal(sign_measurement(good, SITE_KEY)) == "measurement.signature"
    moved = Landmark(id="tokyo", latitude=34.7, longitude=135.5, position_error_km=1.0, spki=MARK.spki)
    assert refusal(signed, landmarks={"tokyo": moved}) == "measurement.moved"
    assert refusal(signed, site="ishikari") == "measurement.other_site"
    assert refusal(signed, site_keys=()) == "measurement.other_site"
    other = question(nonce=b"z" * 32)
    assert refusal(sign_measurement(replace(good, question=other), MARK_KEY)) == "measurement.answer"
    assert refusal(sign_measurement(replace(good, at=NOW + 61), MARK_KEY)) == "measurement.answer"


@pytest.mark.parametrize(
    "body",
    [
        b"null",
        sign_measurement(measured(), MARK_KEY).body.replace(b'"rtt_ns":9000000', b'"rtt_ns":0'),
        sign_measurement(measured(), MARK_KEY).body.replace(b'"schema":1', b'"schema":2'),
        sign_measurement(measured(), MARK_KEY).body[:-1] + b',"more":1}',
    ],
    ids=["null", "no time", "schema", "more"],
)
def test_a_measurement_has_one_form(body: bytes) -> None:
    assert refusal(SignedMeasurement(body=body, signature=bytes(64))) == "measurement.unreadable"


def test_a_clock_set_back_during_an_answer_shortens_nothing() -> None:
    """CLOCK_REALTIME falls back by a second at every reading (scripted): the other clock counts."""
    readings = count()

    def ticks() -> tuple[int, int]:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME), time.time_ns() - next(readings) * 1_000_000_000

    def act(port: int, responder: Responder) -> None:
        given = burst(port, ticks=ticks)
        assert isinstance(given, SignedMeasurement)
        assert msgspec.json.decode(given.body, type=Measurement).rtt_ns > 10_000

    with_responder(act)
