"""Receipts on the gateway's own address: asked of control for the key's tenant, and recorded like every passage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.gateway import Checkpoint, Place, Who, compiled, federation
from support.wire import Answer

ID = "01a20dabefdf8df858347e0000000006"
PATH = f"/internal/v1/receipts/{ID}?tenant=dev&format="


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkpoint]:
    source = federation([Place("jp", "http://127.0.0.1:9/v1")], [Who("dev")])
    with Checkpoint(tmp_path_factory.mktemp("g"), compiled(source), control=True) as made:
        yield made


def get(gateway: Checkpoint, path: str, *, key: str = "sk-dev", method: str = "GET") -> Answer:
    return gateway.ask(f"{method} {path} HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {key}\r\n\r\n".encode())


def says(gateway: Checkpoint, form: str, answer: bytes) -> None:
    assert gateway.control is not None
    gateway.control.receipts[PATH + form] = answer


def test_a_receipt_passes_as_control_gave_it(gateway: Checkpoint) -> None:
    for query, form, kind in (
        ("", "proof", "text/plain; charset=utf-8"),
        ("?format=cose", "cose", "application/cose"),
    ):
        body = b"c2sp.org/tlog-proof@v1\n\xff\x00" + form.encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
        says(gateway, form, head.encode() + body)
        answer = get(gateway, f"/v1/receipts/{ID}{query}")
        assert (answer.status, answer.headers["content-type"], answer.body) == (200, kind, body)
        decision = gateway.decision(answer.decision)
        assert (decision.outcome, decision.status, decision.tenant) == ("completed", 200, "dev")


def test_one_that_is_not_logged_yet_is_asked_for_later(gateway: Checkpoint) -> None:
    says(gateway, "proof", b"HTTP/1.1 202 Accepted\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n")
    answer = get(gateway, f"/v1/receipts/{ID}")
    assert (answer.status, answer.headers["retry-after"], answer.body) == (202, "1", b"")


@pytest.mark.parametrize(
    ("control", "status", "code"),
    [
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", 404, "receipt.not_found"),
        (b"HTTP/1.1 500 Oops\r\ncontent-length: 6\r\n\r\nsecret", 503, "receipt.unavailable"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9999999999\r\n\r\n", 503, "receipt.unavailable"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", 503, "receipt.unavailable"),
        (b"nonsense\r\n\r\n", 503, "receipt.unavailable"),
        (b"", 503, "receipt.unavailable"),
    ],
)
def test_what_control_does_not_give_is_refused_and_recorded(
    gateway: Checkpoint, control: bytes, status: int, code: str
) -> None:
    says(gateway, "proof", control)
    answer = get(gateway, f"/v1/receipts/{ID}")
    assert (answer.status, answer.code) == (status, code)
    assert b"secret" not in answer.body
    assert gateway.decision(answer.decision).code == code


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/receipts/", 400, "receipt.invalid"),
        (f"/v1/receipts/{ID[:-1]}", 400, "receipt.invalid"),
        (f"/v1/receipts/{ID}0", 400, "receipt.invalid"),
        (f"/v1/receipts/{ID}/..%2f", 400, "receipt.invalid"),
        (f"/v1/receipts/{ID.upper()}", 400, "receipt.invalid"),
        (f"/v1/receipts/{ID}?tenant=hospital", 400, "receipt.invalid"),
        (f"/v1/receipts/{ID}?format=cose&tenant=hospital", 400, "receipt.invalid"),
    ],
)
def test_an_address_that_names_no_decision_never_reaches_control(
    gateway: Checkpoint, path: str, status: int, code: str
) -> None:
    assert gateway.control is not None
    before = len(gateway.control.asked)
    answer = get(gateway, path)
    assert (answer.status, answer.code) == (status, code)
    assert len(gateway.control.asked) == before


def test_without_a_key_nothing_is_asked(gateway: Checkpoint) -> None:
    assert get(gateway, f"/v1/receipts/{ID}", key="sk-other").code == "auth.key_unknown"
    refused = get(gateway, f"/v1/receipts/{ID}", method="POST")
    assert (refused.status, refused.headers["allow"]) == (405, "GET")


def test_a_worker_without_control_says_so(tmp_path: Path) -> None:
    source = federation([Place("jp", "http://127.0.0.1:9/v1")], [Who("dev")])
    with Checkpoint(tmp_path / "g", compiled(source)) as alone:
        answer = get(alone, f"/v1/receipts/{ID}")
        assert (answer.status, answer.code) == (503, "receipt.unavailable")
        assert int(answer.headers["retry-after"]) >= 1
