"""Canonical JSON, and entries made of journal records."""

from __future__ import annotations

import json
import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.ledger.model import Decision, Dispatch, encode_record
from sekisho.ledger.tlog.entries import EntryRefused, canonical, decision_entry, read_entry, record_entry

ID = "0199a1b2c3d4" + "0" * 20
DECISION = Decision(id=ID, at_ms=1_790_000_000_000, gateway="g1", outcome="completed", status=200, tenant="hospital",
                    request_commitment="ab" * 32, rules=("jp-only",))  # fmt: skip


@pytest.mark.parametrize(
    ("bits", "text"),
    [  # RFC 8785 appendix B
        ("0000000000000000", "0"), ("8000000000000000", "0"), ("0000000000000001", "5e-324"),
        ("8000000000000001", "-5e-324"), ("7fefffffffffffff", "1.7976931348623157e+308"),
        ("4340000000000000", "9007199254740992"), ("c340000000000000", "-9007199254740992"),
        ("4430000000000000", "295147905179352830000"), ("44b52d02c7e14af5", "9.999999999999997e+22"),
        ("44b52d02c7e14af6", "1e+23"), ("444b1ae4d6e2ef4e", "999999999999999700000"),
        ("444b1ae4d6e2ef50", "1e+21"), ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
        ("3eb0c6f7a0b5ed8d", "0.000001"), ("41b3de4355555553", "333333333.3333332"),
        ("41b3de4355555557", "333333333.33333343"), ("becbf647612f3696", "-0.0000033333333333333333"),
        ("43143ff3c1cb0959", "1424953923781206.2"),
    ],
)  # fmt: skip
def test_numbers_are_written_as_rfc_8785_says(bits: str, text: str) -> None:
    assert canonical(struct.unpack(">d", bytes.fromhex(bits))[0]).decode() == text


def test_names_are_sorted_by_utf_16() -> None:
    """RFC 8785 §3.2.3."""
    given_ = {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\x80": 6, "\u00f6": 7}
    order = [4 if name == "1" else value for name, value in json.loads(canonical(given_)).items()]
    assert order == [2, 4, 6, 7, 1, 5, 3]
    assert canonical('\u20ac$\x0f\nA\'B"\\\\"/') == b'"\xe2\x82\xac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"'


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | FLOATS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
)


def read(text: bytes) -> object:
    """As a reader whose numbers are doubles."""
    return json.loads(text, parse_int=lambda digits: int(digits) if abs(int(digits)) < 2**53 else float(digits))


@given(VALUES)
def test_canonical_json_says_the_same_and_is_its_own_canonical_form(value: object) -> None:
    text = canonical(value)
    assert read(text) == value
    assert canonical(read(text)) == text


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), 2**53, "\ud800", {1: 2}, b"bytes", {"a": {"\udc00": 1}}]
)
def test_what_json_can_not_say_is_refused(value: object) -> None:
    with pytest.raises(EntryRefused):
        canonical(value)


def test_a_decision_is_logged_with_every_field() -> None:
    record = encode_record(DECISION)
    entry = decision_entry(record)
    assert entry is not None
    assert (entry.id.hex(), entry.tenant, entry.at_ms) == (ID, "hospital", DECISION.at_ms)
    assert msgspec.json.decode(entry.data, type=Decision) == DECISION
    assert json.loads(entry.data) == json.loads(record) | {"v": 1}
    assert canonical(json.loads(entry.data)) == entry.data
    assert read_entry(entry.data) == entry


def test_fields_of_a_later_version_stay() -> None:
    record = json.loads(encode_record(DECISION)) | {"enclave": "abc"}
    entry = decision_entry(json.dumps(record).encode())
    assert entry is not None
    assert json.loads(entry.data)["enclave"] == "abc"


def test_a_dispatch_is_not_logged() -> None:
    dispatch = Dispatch(id=ID, at_ms=1, tenant="t", key="k", data_class="public", model="m", path="/", endpoint="e",
                        site="s", operator="o", country="JP", table=1, policy="p")  # fmt: skip
    assert decision_entry(encode_record(dispatch)) is None


@pytest.mark.parametrize(
    "payload", [b"", b"[]", b"{}", b'{"kind":"decision"}', b'{"kind":"decision","id":"x"}', b"\xff"]
)
def test_what_is_no_record_is_refused(payload: bytes) -> None:
    with pytest.raises(EntryRefused):
        decision_entry(payload)


def test_a_decision_that_is_too_long_is_logged_without_its_lists() -> None:
    long = msgspec.structs.replace(DECISION, rules=tuple(f"rule-{number}" for number in range(20_000)))
    entry = decision_entry(encode_record(long))
    assert entry is not None
    assert len(entry.data) < 65_536
    assert len(json.loads(entry.data)["whole_sha256"]) == 64


def test_a_record_of_another_concept() -> None:
    entry = record_entry(id=ID, kind="policy.version", at_ms=5, body={"sha256": "ab", "tenant": "hospital"})
    assert entry.data == (
        b'{"at_ms":5,"body":{"sha256":"ab","tenant":"hospital"},"id":"%s","kind":"policy.version","v":1}'
        % ID.encode()
    )
    with pytest.raises(EntryRefused):
        record_entry(id=ID, kind="decision", at_ms=5, body={})
    with pytest.raises(EntryRefused):
        record_entry(id=ID, kind="x", at_ms=5, body={"text": "x" * 70_000})
