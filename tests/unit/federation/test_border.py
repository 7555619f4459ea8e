"""The border ledger: what a statement says, and that nobody can change one."""

from __future__ import annotations

import csv
import io
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from sekisho.federation.border import (
    COUNTERS,
    BorderRefused,
    Reading,
    SignedStatement,
    Statement,
    Tally,
    Way,
    body,
    from_json,
    sign,
    statement,
    to_csv,
    to_json,
    verify,
    verify_chain,
)
from sekisho.ledger.tlog.entries import record_entry

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
GUARDED = Way(site="tokyo", peer="us-west", data_class="confidential")
CANARY = Way(site="tokyo", peer="virginia", data_class="public", canary=True)


def tally(packets: int) -> Tally:
    return Tally(out_packets=packets, out_bytes=packets * 60, in_packets=packets, in_bytes=packets * 90)


def same(packets: int) -> Reading:
    return Reading(**dict.fromkeys(COUNTERS, tally(packets)))


def made(guarded: Reading, canary: Reading, previous: Statement | None = None) -> Statement:
    at_ms = 1_795_000_000_000 if previous is None else previous.to_ms
    before = {} if previous is None else {row.way: Reading() for row in previous.rows}
    return statement(
        border="tokyo",
        before=before,
        after={GUARDED: guarded, CANARY: canary},
        from_ms=at_ms,
        to_ms=at_ms + 1000,
        previous=previous,
    )


def chain(length: int = 3) -> list[SignedStatement]:
    found: list[SignedStatement] = []
    for _ in range(length):
        found.append(sign(made(Reading(), same(5), found[-1].statement if found else None), KEY))
    return found


def test_silence_beside_a_canary_is_clean_and_without_one_it_is_blind() -> None:
    assert made(Reading(), same(3)).finding == "clean"
    assert made(Reading(), Reading()).finding == "blind"


@given(st.sampled_from(COUNTERS), st.integers(1, 1000))
def test_one_counter_that_saw_guarded_packets_is_enough_for_a_crossing(counter: str, packets: int) -> None:
    assert made(Reading(**{counter: tally(packets)}), same(3)).finding == "crossed"


@given(st.sampled_from(COUNTERS), st.integers(0, 100))
def test_counters_that_differ_are_never_called_clean(counter: str, packets: int) -> None:
    canary = msgspec.structs.replace(same(7), **{counter: tally(packets)})
    found = made(Reading(), canary).finding
    assert (found == "clean") == (packets == 7)


def test_a_statement_counts_from_the_one_before() -> None:
    here = statement(border="b", before={CANARY: same(4)}, after={CANARY: same(9)}, from_ms=0, to_ms=1, previous=None)
    assert here.rows[0].counted == same(5)


def test_a_counter_that_goes_backwards_is_refused() -> None:
    with pytest.raises(BorderRefused):
        statement(border="b", before={CANARY: same(4)}, after={CANARY: same(3)}, from_ms=0, to_ms=1, previous=None)


def test_a_whole_chain_is_verified() -> None:
    assert [each.sequence for each in verify_chain(chain(), KEY.public_key())] == [0, 1, 2]


@pytest.mark.parametrize("missing", [0, 1])
def test_a_chain_with_a_gap_is_refused(missing: int) -> None:
    broken = chain()
    del broken[missing]
    with pytest.raises(BorderRefused):
        verify_chain(broken, KEY.public_key())


def test_a_chain_in_another_order_is_refused() -> None:
    one, two, three = chain()
    with pytest.raises(BorderRefused):
        verify_chain([one, three, two], KEY.public_key())


def test_time_that_is_left_out_is_refused() -> None:
    first = made(Reading(), same(1))
    later = msgspec.structs.replace(made(Reading(), same(1), first), from_ms=first.to_ms + 1)
    with pytest.raises(BorderRefused):
        verify_chain([sign(first, KEY), sign(later, KEY)], KEY.public_key())


@given(st.data())
def test_no_number_can_be_changed(data: st.DataObject) -> None:
    signed = chain(1)[0]
    text = bytearray(to_json([signed]))
    digits = [index for index, byte in enumerate(text) if chr(byte).isdigit()]
    index = data.draw(st.sampled_from(digits))
    other = data.draw(st.sampled_from([digit for digit in b"0123456789" if digit != text[index]]))
    text[index] = other
    try:
        changed = from_json(bytes(text))
    except BorderRefused:
        return
    if changed == (signed,):  # a digit in front, such as 05, is not JSON; anything else is another number
        raise AssertionError("the change was not read")
    with pytest.raises(BorderRefused):
        verify_chain(changed, KEY.public_key())


def test_another_key_has_not_signed_it() -> None:
    with pytest.raises(BorderRefused) as refused:
        verify(chain(1)[0], Ed25519PrivateKey.generate().public_key())
    assert refused.value.code == "border.refused"


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b'[{"statement": {}, "signature": ""}]'])
def test_what_is_no_statement_is_refused(data: bytes) -> None:
    with pytest.raises(BorderRefused):
        from_json(data)


def test_json_brings_back_what_was_written() -> None:
    assert list(from_json(to_json(chain()))) == chain()


def test_csv_has_a_line_for_each_way_with_its_zeros() -> None:
    rows: list[dict[str, Any]] = list(csv.DictReader(io.StringIO(to_csv(chain(2)))))
    assert [(row["sequence"], row["peer"], row["finding"]) for row in rows] == [
        ("0", "us-west", "clean"),
        ("0", "virginia", "clean"),
        ("1", "us-west", "clean"),
        ("1", "virginia", "clean"),
    ]
    assert {row["capture_out_packets"] for row in rows if row["canary"] == "false"} == {"0"}
    assert {row["line_in_bytes"] for row in rows if row["canary"] == "true"} == {"450"}


def test_a_statement_fits_into_the_transparency_log() -> None:
    ways = {msgspec.structs.replace(GUARDED, peer=f"abroad-{number}"): same(10**12) for number in range(16)}
    many = statement(border="tokyo", before={}, after=ways, from_ms=0, to_ms=1, previous=None)
    assert record_entry(id="0" * 32, kind="border", at_ms=1, body=body(sign(many, KEY))).kind == "border"
