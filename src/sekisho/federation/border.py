"""The border ledger: signed statements of what crossed a border, counted three times, with their zeros.

A zero proves something only when the counters are known to count. So a canary, public traffic on purpose, crosses
beside the guarded lines; a statement in which it was not seen is `blind`. Statements are chained: one that is
missing, or that was changed afterwards, breaks the chain.

The life of a statement: (1) three readings of cumulative counters at the end of an interval; (2) `statement` takes
those of the beginning away; (3) `sign` signs its canonical JSON (RFC 8785) with Ed25519; (4) it goes into the
transparency log as `body(signed)`, of the kind `border`; (5) `verify` and `verify_chain` need the public key alone.

Counters cover one's own interfaces: where a carrier takes a packet afterwards is for the location proofs to bound.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from sekisho.kernel.errors import SekishoError
from sekisho.ledger.tlog.entries import canonical

SCHEMA = "sekisho.border/v1"
KIND = "border"
GENESIS = "0" * 64
_CONTEXT = b"sekisho/border-statement/v1\n"
COUNTERS = ("line", "interface", "capture")

Finding = Literal[
    "clean",  # the canary was seen by all counters, nothing guarded by any of them
    "crossed",  # something guarded was seen by a counter
    "disagreement",  # the counters do not say the same: something is not counted, or counted twice
    "blind",  # no canary was seen: the zeros prove nothing
]


class BorderRefused(SekishoError):
    """A statement, or a chain of them, is not what it says."""

    code = "border.refused"


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """Packets and bytes of whole IP packets, in both directions of a line."""

    out_packets: int = 0
    out_bytes: int = 0
    in_packets: int = 0
    in_bytes: int = 0

    def since(self, before: Tally) -> Tally:
        """What was added. BorderRefused when a counter went backwards (it was reset: the interval is lost)."""
        names = self.__struct_fields__
        added = {name: getattr(self, name) - getattr(before, name) for name in names}
        if any(value < 0 for value in added.values()):
            raise BorderRefused("a counter went backwards", hint="begin a new chain from the present counters")
        return Tally(**added)

    def plus(self, more: Tally) -> Tally:
        return Tally(**{name: getattr(self, name) + getattr(more, name) for name in self.__struct_fields__})

    @property
    def packets(self) -> int:
        return self.out_packets + self.in_packets


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """Three counters of one line, each by another hand, since they were set up."""

    line: Tally = Tally()
    interface: Tally = Tally()
    capture: Tally = Tally()

    def since(self, before: Reading) -> Reading:
        return Reading(**{name: getattr(self, name).since(getattr(before, name)) for name in COUNTERS})

    def plus(self, more: Reading) -> Reading:
        return Reading(**{name: getattr(self, name).plus(getattr(more, name)) for name in COUNTERS})

    @property
    def agreed(self) -> bool:
        return self.line == self.interface == self.capture

    @property
    def silent(self) -> bool:
        """Nobody counted anything."""
        return not (self.line.packets or self.interface.packets or self.capture.packets)

    @property
    def seen(self) -> bool:
        """Everybody counted something."""
        return bool(self.line.packets and self.interface.packets and self.capture.packets)


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """A line over the border: the site inside, the site outside, and the class of data that it is watched for.

    `canary` is the line that public traffic takes on purpose.
    """

    site: str
    peer: str
    data_class: str
    canary: bool = False


class Row(msgspec.Struct, frozen=True, kw_only=True):
    way: Way
    counted: Reading


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """What was counted from one moment to the next (Unix milliseconds). `previous` is the SHA-256 of the statement
    before, in hexadecimal; that of the first is 64 zeros."""

    schema: str
    border: str
    sequence: int
    from_ms: int
    to_ms: int
    rows: tuple[Row, ...]
    previous: str

    @property
    def finding(self) -> Finding:
        guarded = [row.counted for row in self.rows if not row.way.canary]
        if not all(counted.silent for counted in guarded):
            return "crossed"
        if not all(row.counted.agreed for row in self.rows):
            return "disagreement"
        if not any(row.counted.seen for row in self.rows if row.way.canary):
            return "blind"
        return "clean"

    def canonical(self) -> bytes:
        return canonical(msgspec.to_builtins(self))

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.canonical()).hexdigest()


class SignedStatement(msgspec.Struct, frozen=True, kw_only=True):
    """`signature` is Ed25519 in hexadecimal over the context and the statement's canonical JSON."""

    statement: Statement
    signature: str


def statement(
    *,
    border: str,
    before: Mapping[Way, Reading],
    after: Mapping[Way, Reading],
    from_ms: int,
    to_ms: int,
    previous: Statement | None,
) -> Statement:
    """The statement of an interval. A way that was not there before began at zero."""
    return Statement(
        schema=SCHEMA,
        border=border,
        sequence=0 if previous is None else previous.sequence + 1,
        from_ms=from_ms,
        to_ms=to_ms,
        rows=tuple(Row(way=way, counted=reading.since(before.get(way, Reading()))) for way, reading in after.items()),
        previous=GENESIS if previous is None else previous.digest,
    )


def sign(made: Statement, key: Ed25519PrivateKey) -> SignedStatement:
    return SignedStatement(statement=made, signature=key.sign(_CONTEXT + made.canonical()).hex())


def verify(signed: SignedStatement, key: Ed25519PublicKey) -> Statement:
    """The statement. BorderRefused when this key has not signed it."""
    try:
        key.verify(bytes.fromhex(signed.signature), _CONTEXT + signed.statement.canonical())
    except (InvalidSignature, ValueError):
        raise BorderRefused(
            f"statement {signed.statement.sequence} is not signed by this key",
            hint="ask its border for the right one",
        ) from None
    if signed.statement.schema != SCHEMA:
        raise BorderRefused(f"{signed.statement.schema!r} is no form of ours", hint=f"this version reads {SCHEMA}")
    return signed.statement


def verify_chain(chain: Sequence[SignedStatement], key: Ed25519PublicKey) -> tuple[Statement, ...]:
    """All statements from the first on, without a gap in number, time or hash. BorderRefused names the fault."""
    found: list[Statement] = []
    for number, signed in enumerate(chain):
        here = verify(signed, key)
        before = found[-1] if found else None
        if here.sequence != number or here.previous != (GENESIS if before is None else before.digest):
            raise BorderRefused(f"the chain breaks at statement {number}", hint="one is missing or was changed")
        if here.to_ms < here.from_ms or (before is not None and here.from_ms != before.to_ms):
            raise BorderRefused(f"statement {number} leaves time out", hint="each begins where the one before ended")
        found.append(here)
    return tuple(found)


def body(signed: SignedStatement) -> dict[str, Any]:
    """For the transparency log: `outbox.append(connection, kind=KIND, body=body(signed), at_ms=…)`."""
    made: dict[str, Any] = msgspec.to_builtins(signed)
    return made | {"finding": signed.statement.finding}


def to_json(chain: Sequence[SignedStatement]) -> bytes:
    """An array of signed statements, as `from_json` reads it."""
    return msgspec.json.encode(chain)


def from_json(data: bytes) -> tuple[SignedStatement, ...]:
    """BorderRefused for what is none."""
    try:
        return msgspec.json.decode(data, type=tuple[SignedStatement, ...])
    except msgspec.DecodeError as error:
        raise BorderRefused(f"these are no border statements: {error}", hint="export them again as JSON") from None


def to_csv(chain: Sequence[SignedStatement]) -> str:
    """One line for each statement and way, zeros included (RFC 4180)."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    numbers = [f"{counter}_{name}" for counter in COUNTERS for name in Tally.__struct_fields__]
    heading = ["border", "sequence", "from_ms", "to_ms", "finding", "site", "peer", "data_class", "canary", "agreed"]
    writer.writerow([*heading, *numbers, "digest"])
    for signed in chain:
        made = signed.statement
        for row in made.rows:
            counts = [
                getattr(getattr(row.counted, counter), name)
                for counter in COUNTERS
                for name in Tally.__struct_fields__
            ]
            way = row.way
            flags = [str(flag).lower() for flag in (way.canary, row.counted.agreed)]
            writer.writerow(
                [
                    *(made.border, made.sequence, made.from_ms, made.to_ms, made.finding),
                    *(way.site, way.peer, way.data_class, *flags, *counts, made.digest),
                ]
            )
    return out.getvalue()
