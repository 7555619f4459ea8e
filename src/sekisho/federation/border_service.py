"""Border statements come in: checked against the key of their post and the chain before them, kept, and asked into
the transparency log in the same transaction."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from sekisho.federation import border_store as store
from sekisho.federation.border import (
    GENESIS,
    KIND,
    BorderRefused,
    Finding,
    Row,
    SignedStatement,
    Statement,
    body,
    verify,
)
from sekisho.federation.border_store import Post
from sekisho.federation.errors import Conflict, UnknownName
from sekisho.kernel.ids import NAME
from sekisho.ledger import outbox
from sekisho.runtime.changes import record_change
from sekisho.runtime.database import Database

MAX_AT_ONCE = 512
MAX_ROWS = 256
_KEY = re.compile("[0-9a-f]{64}")
# A post's clock may be ahead of ours by this much.
_CLOCK_AHEAD_MS = 60_000


class BorderView(msgspec.Struct, frozen=True, kw_only=True):
    """A border as people see it: its post, how many statements of each finding, and the newest one."""

    post: Post
    findings: dict[str, int]
    latest: Statement | None
    finding: Finding | None
    totals: tuple[Row, ...]  # of the statements since `since_ms`, by way
    statements: int  # that the totals are of


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """`taken` of the statements were new; `sequence` is the newest that is kept (-1: none)."""

    taken: int
    sequence: int


class BorderService:
    def __init__(self, database: Database) -> None:
        self._database = database

    def trust(self, name: str, key: str, *, now: float, actor: str) -> Post:
        """From now on statements about this border count when this key signed them. A border keeps its key: another
        one begins another chain, under another name. Raises BorderRefused or Conflict."""
        if not NAME.fullmatch(name) or not _KEY.fullmatch(key):
            raise BorderRefused(
                "a border has a name (a-z, 0-9, `.`, `_`, `-`) and a key of 64 hex digits",
                hint="`sekisho border key` prints the key",
            )
        post = Post(name=name, key=key, trusted_by=actor, trusted_at=now)
        with self._database.write() as connection:
            if store.find_post(connection, name) is not None:
                raise Conflict(f"the border {name!r} has its key already", hint="choose another name for a new chain")
            store.put_post(connection, post)
            record_change(
                connection,
                now=now,
                actor=actor,
                action="border.trusted",
                subject=f"border/{name}",
                detail={"key": key},
            )
        return post

    def take(self, name: str, given: Sequence[SignedStatement], *, now: float) -> Accepted:
        """Keeps what continues the chain; what is kept already is passed over. Raises UnknownName or BorderRefused:
        then nothing of it is kept."""
        with self._database.write() as connection:
            post = store.find_post(connection, name)
            if post is None:
                raise UnknownName(f"there is no border {name!r}", hint="`sekisho border trust` makes it known")
            key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(post.key))
            before = store.last(connection, name)
            taken = 0
            for signed in given:
                made = verify(signed, key)
                if before is not None and made.sequence <= before.sequence:
                    continue
                _continues(made, before, border=name, now_ms=int(now * 1000))
                entry_id = outbox.append(connection, kind=KIND, body=body(signed), at_ms=int(now * 1000))
                store.insert(connection, signed, entry_id=entry_id)
                before, taken = made, taken + 1
        return Accepted(taken=taken, sequence=-1 if before is None else before.sequence)

    def posts(self) -> list[Post]:
        with self._database.read() as connection:
            return store.posts(connection)

    def chain(self, name: str, *, since_ms: int = 0) -> list[SignedStatement]:
        """All statements that end after `since_ms`, in their order. Raises UnknownName."""
        with self._database.read() as connection:
            if store.find_post(connection, name) is None:
                raise UnknownName(f"there is no border {name!r}", hint="`sekisho border list` names them")
            return store.statements(connection, name, since_ms=since_ms)

    def last(self, name: str) -> Statement | None:
        with self._database.read() as connection:
            return store.last(connection, name)

    def views(self, *, newest: int = 24) -> list[BorderView]:
        """Every border, its totals over the newest so many statements."""
        views = []
        with self._database.read() as connection:
            for post in store.posts(connection):
                chain = [each.statement for each in store.statements(connection, post.name, limit=newest)]
                latest = chain[-1] if chain else None
                views.append(
                    BorderView(
                        post=post,
                        findings=store.counts(connection, post.name),
                        latest=latest,
                        finding=None if latest is None else latest.finding,
                        totals=totals(chain),
                        statements=len(chain),
                    )
                )
        return views


def totals(chain: Sequence[Statement]) -> tuple[Row, ...]:
    """What was counted in all, by way, in the order in which ways appear."""
    found: dict[object, Row] = {}
    for made in chain:
        for row in made.rows:
            before = found.get(row.way)
            counted = row.counted if before is None else before.counted.plus(row.counted)
            found[row.way] = Row(way=row.way, counted=counted)
    return tuple(found.values())


def _continues(made: Statement, before: Statement | None, *, border: str, now_ms: int) -> None:
    """Raises BorderRefused when a statement does not follow the one before it."""
    if made.border != border:
        raise BorderRefused(f"the statement is about {made.border!r}, not {border!r}", hint="send it to its border")
    if len(made.rows) > MAX_ROWS:
        raise BorderRefused(f"a statement has more than {MAX_ROWS} lines", hint="split the border in two")
    follows = (
        (made.sequence == 0 and made.previous == GENESIS)
        if before is None
        else (made.sequence == before.sequence + 1 and made.previous == before.digest)
    )
    if not follows:
        raise BorderRefused(
            f"statement {made.sequence} does not continue the chain that is kept here",
            code="border.gap",
            hint=f"send every statement from {0 if before is None else before.sequence + 1} on",
        )
    if made.to_ms < made.from_ms or (before is not None and made.from_ms != before.to_ms):
        raise BorderRefused(
            f"statement {made.sequence} leaves time out", hint="each begins where the one before ended"
        )
    if made.to_ms > now_ms + _CLOCK_AHEAD_MS:
        raise BorderRefused(f"statement {made.sequence} ends in the future", hint="set the post's clock (NTP)")
