"""Heads that are recalled instead of read: only what was read before, but for its Content-Length, may be."""

from __future__ import annotations

import pytest

from sekisho.gateway.http1 import Form
from sekisho.kernel.ids import DECISION, DecisionIds

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\nAuthorization: Bearer k\r\n\r\n"


@pytest.mark.parametrize("length", [0, 7, 12, 99, 123_456_789_012_345])
def test_an_equal_head_with_another_length_is_recalled(length: int) -> None:
    head = HEAD.replace(b" 12\r", b" %d\r" % length)
    assert Form(HEAD).match(head + b"{body}\r\n\r\n") == (len(head), length)


@pytest.mark.parametrize(
    "head",
    [
        HEAD.replace(b"Bearer k", b"Bearer j"),
        HEAD.replace(b"Host: a", b"Host: b"),
        HEAD.replace(b"Host: a\r\n", b""),
        HEAD.replace(b" 12\r", b" \r"),
        HEAD.replace(b" 12\r", b" 1a\r"),
        HEAD.replace(b" 12\r", b" +2\r"),
        HEAD.replace(b" 12\r", b" -2\r"),
        HEAD.replace(b" 12\r", b" 1_2\r"),
        HEAD.replace(b" 12\r", b" 12 \r"),
        HEAD.replace(b" 12\r", b" 12, 12\r"),
        HEAD.replace(b" 12\r", b" 12\n"),
        HEAD.replace(b" 12\r", b" \xd9\xa1\r"),
        HEAD.replace(b" 12\r", b" 1234567890123456\r"),
        HEAD.replace(b"Content-Length: 12\r\n", b"Content-Length: 12\r\nContent-Length: 12\r\n"),
        HEAD.replace(b"Content-Length", b"content-length"),
        HEAD[:-2],
        HEAD[:40],
        b"",
    ],
)
def test_whatever_differs_is_read(head: bytes) -> None:
    assert Form(HEAD).match(head) == (-1, 0)


def test_ids_are_unique_and_sorted_by_time_and_their_counter_carries_over() -> None:
    ids = DecisionIds(b"\x01\x02\x03\x04\x05")
    made = [ids.next(1_795_000_000_000 + number // 40_000) for number in range(140_000)]
    assert len(set(made)) == len(made)
    assert made == sorted(made)
    assert all(DECISION.fullmatch(id) for id in (*made[:3], *made[65_530:65_540], made[-1]))
    assert made[0] == f"{1_795_000_000_000:012x}0102030405{1:010x}"
    assert made[-1].endswith(f"{140_000:010x}")


def test_a_source_of_ids_needs_five_bytes() -> None:
    with pytest.raises(ValueError, match="5 bytes"):
        DecisionIds(b"1234")
