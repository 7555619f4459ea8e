"""Entries of the log: canonical JSON (RFC 8785) with the version of their form.

A decision is logged flat, with every field that the journal has of it, and `"v":1`. What other concepts append (a
policy version, an evidence, a border count …) has `at_ms`, `body`, `id`, `kind` and `v`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import msgspec

from sekisho.kernel.errors import SekishoError
from sekisho.kernel.ids import DECISION as DECISION_ID
from sekisho.ledger.tlog.tiles import MAX_ENTRY_BYTES

VERSION = 1
DECISION = "decision"
# The first entry of a log that follows another one: names the other's last checkpoint.
CONTINUES = "log.continues"
_MAX_INTEGER = (1 << 53) - 1  # RFC 8785 §3.2.2.3: numbers are IEEE 754 doubles
_TOO_LONG = ("attempts", "rules")
_encode_sorted = msgspec.json.Encoder(order="sorted").encode
_encode = msgspec.json.Encoder().encode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode


class EntryRefused(SekishoError):
    """A value that the log can't take."""

    code = "log.entry"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One leaf. `id`: 16 bytes, unique in the log. `tenant` may be empty. `data`: the bytes that are hashed."""

    id: bytes
    at_ms: int
    tenant: str
    kind: str
    data: bytes


class _Body(msgspec.Struct, frozen=True, kw_only=True):
    tenant: Any = ""


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """What every entry says of itself, whatever else is in it."""

    id: str
    kind: str
    v: int
    at_ms: int
    tenant: str = ""
    body: _Body = _Body()


_decode_envelope = msgspec.json.Decoder(Envelope).decode


def decision_entry(payload: bytes) -> Entry | None:
    """The entry of a journal's record; None when it is no decision. EntryRefused when it can't be read.

    Fields that this version does not know stay: a newer gateway's record is logged whole.
    """
    try:
        document = _decode_object(payload)
        if document["kind"] != DECISION:
            return None
        document["v"] = VERSION
        # Keys and numbers of a decision are ASCII and integers: sorted code points are RFC 8785's order for them.
        data = _encode_sorted(document)
        if len(data) > MAX_ENTRY_BYTES:
            data = _shortened(document, data)
        return Entry(
            id=_id(document["id"]),
            at_ms=document["at_ms"],
            tenant=document.get("tenant", ""),
            kind=DECISION,
            data=data,
        )
    except (msgspec.MsgspecError, KeyError, ValueError, TypeError) as error:
        raise EntryRefused(f"a journal's record can't be logged: {error}") from None


def record_entry(*, id: str, kind: str, at_ms: int, body: Mapping[str, Any]) -> Entry:
    """The entry of another concept's record. EntryRefused when `body` is no JSON or too long."""
    if kind == DECISION or not kind:
        raise EntryRefused(f"a record can't be of the kind {kind!r}")
    data = canonical({"at_ms": at_ms, "body": body, "id": id, "kind": kind, "v": VERSION})
    if len(data) > MAX_ENTRY_BYTES:
        raise EntryRefused(
            f"a record of the kind {kind} has {len(data)} bytes, an entry at most {MAX_ENTRY_BYTES}",
            hint="log its SHA-256 and keep the text elsewhere",
        )
    return Entry(id=_id(id), at_ms=at_ms, tenant=_tenant(body.get("tenant")), kind=kind, data=data)


def read_entry(data: bytes) -> Entry:
    """The entry in a leaf's bytes. EntryRefused when they are none."""
    try:
        envelope = _decode_envelope(data)
        return Entry(
            id=_id(envelope.id),
            at_ms=envelope.at_ms,
            tenant=envelope.tenant or _tenant(envelope.body.tenant),
            kind=envelope.kind,
            data=data,
        )
    except (msgspec.MsgspecError, ValueError) as error:
        raise EntryRefused(f"this is no entry: {error}") from None


def _id(text: str) -> bytes:
    if not DECISION_ID.fullmatch(text):
        raise ValueError(f"an id has 32 hex digits, not {text!r}")
    return bytes.fromhex(text)


def _tenant(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _shortened(document: dict[str, Any], whole: bytes) -> bytes:
    """Without its lists, and with the hash of the whole: a passage is never left out for its length."""
    for name in _TOO_LONG:
        document.pop(name, None)
    document["whole_sha256"] = hashlib.sha256(whole).hexdigest()
    data = _encode_sorted(document)
    if len(data) > MAX_ENTRY_BYTES:
        raise ValueError(f"{len(data)} bytes are more than an entry can have")
    return data


def canonical(value: Any) -> bytes:
    """RFC 8785. EntryRefused for what JSON can't say or two readers could read in two ways."""
    match value:
        case None | bool():
            return _encode(value)
        case str():
            try:
                return _encode(value)
            except (UnicodeEncodeError, ValueError):
                raise EntryRefused("a text with half a surrogate pair has no canonical form") from None
        case int():
            if abs(value) > _MAX_INTEGER:
                raise EntryRefused(f"{value} is beyond 2^53: write it as text")
            return _encode(value)
        case float():
            return _number(value)
        case Mapping():
            if not all(isinstance(key, str) for key in value):
                raise EntryRefused("names in an entry are texts")
            # RFC 8785 §3.2.3: sorted by UTF-16 code units
            pairs = sorted(value.items(), key=lambda pair: pair[0].encode("utf-16-be", "surrogatepass"))
            return b"{" + b",".join([canonical(key) + b":" + canonical(item) for key, item in pairs]) + b"}"
        case list() | tuple():
            return b"[" + b",".join([canonical(item) for item in value]) + b"]"
        case _:
            raise EntryRefused(f"a value of the type {type(value).__name__} has no canonical form")


def _number(value: float) -> bytes:
    """ECMAScript's Number::toString, which RFC 8785 §3.2.2.3 asks for, from Python's shortest digits."""
    if not math.isfinite(value):
        raise EntryRefused("infinity and NaN are no JSON")
    if value == 0:
        return b"0"
    sign = "-" if value < 0 else ""
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    # 0.d1d2… × 10^point
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    count = len(digits)
    if count <= point <= 21:
        text = digits + "0" * (point - count)
    elif 0 < point <= 21:
        text = f"{digits[:point]}.{digits[point:]}"
    elif -6 < point <= 0:
        text = "0." + "0" * -point + digits
    else:
        rest = f".{digits[1:]}" if count > 1 else ""
        text = f"{digits[0]}{rest}e{point - 1:+d}"
    return (sign + text).encode()
