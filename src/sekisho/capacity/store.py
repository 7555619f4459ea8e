"""SQL of pools, reservations, their versions, offers, the waitlist and notices. Nothing here decides."""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sa

from sekisho.capacity import tables
from sekisho.capacity.faults import Changed, NameUnknown
from sekisho.capacity.grid import SLOT_S, span_of
from sekisho.capacity.model import (
    Block,
    Body,
    Declared,
    Notice,
    Quota,
    Rank,
    Reservation,
    StoredOffer,
    Version,
    Waiting,
    Wanted,
)


def find(connection: sa.Connection, reservation: str) -> Reservation:
    """NameUnknown when there is none."""
    row = connection.execute(tables.reservation.select().where(tables.reservation.c.id == reservation)).one_or_none()
    if row is None:
        raise NameUnknown(
            f"there is no reservation {reservation!r}",
            hint="`sekisho reserve list` names the reservations",
            fact_ja=f"予約 {reservation} はありません",
            hint_ja="`sekisho reserve list` で一覧を確認してください",
        )
    return read(row)


def find_all(
    connection: sa.Connection, *, tenant: str = "", state: str = "", after: str = "", limit: int = 500
) -> list[Reservation]:
    """In the order of their beginnings."""
    query = tables.reservation.select().order_by(tables.reservation.c.starts_ms, tables.reservation.c.id).limit(limit)
    if tenant:
        query = query.where(tables.reservation.c.tenant == tenant)
    if state:
        query = query.where(tables.reservation.c.state == state)
    if after:
        last = find(connection, after)
        query = query.where(
            sa.tuple_(tables.reservation.c.starts_ms, tables.reservation.c.id)
            > sa.tuple_(sa.literal(slot_ms(last.body.first)), sa.literal(after))
        )
    return [read(row) for row in connection.execute(query)]


def booked_at(connection: sa.Connection, pool: int, first: int, until: int) -> list[str]:
    """Reservations with an allocation of this pool that overlaps, blocks included."""
    column = tables.allocation.c
    query = (
        sa.select(column.reservation)
        .distinct()
        .where(column.pool == pool, column.first < until, column.until > first)
        .order_by(column.reservation)
    )
    return [str(name) for name in connection.scalars(query)]


def overlapping(
    connection: sa.Connection, pool: int, first: int, until: int, *, above_rank: int
) -> list[tuple[str, int, int, int]]:
    """(reservation, rank, first, GPUs) of what can be pushed aside, in the order in which it is: the least firm and
    the youngest first."""
    column = tables.allocation.c
    query = (
        sa.select(column.reservation, column.rank, column.first, column.gpus)
        .where(column.pool == pool, column.first < until, column.until > first, column.rank > above_rank)
        .order_by(column.rank.desc(), column.id.desc())
    )
    return [(row.reservation, row.rank, row.first, row.gpus) for row in connection.execute(query)]


def insert(connection: sa.Connection, reservation: Reservation, *, now: float, who: str, why: str) -> None:
    body = reservation.body
    text = msgspec.json.encode(body).decode()
    connection.execute(
        tables.reservation.insert().values(
            id=reservation.id,
            tenant=body.tenant,
            state=body.state,
            version=reservation.version,
            starts_ms=slot_ms(body.first),
            body=text,
        )
    )
    _version(connection, reservation.id, reservation.version, text, now=now, who=who, why=why)


def replace(
    connection: sa.Connection, before: Reservation, body: Body, *, now: float, who: str, why: str
) -> Reservation:
    """The next version. Changed when somebody else made it first."""
    text = msgspec.json.encode(body).decode()
    changed = connection.execute(
        tables.reservation.update()
        .where(tables.reservation.c.id == before.id, tables.reservation.c.version == before.version)
        .values(
            tenant=body.tenant, state=body.state, version=before.version + 1, starts_ms=slot_ms(body.first), body=text
        )
    )
    if changed.rowcount != 1:
        raise stale(before.id)
    _version(connection, before.id, before.version + 1, text, now=now, who=who, why=why)
    return Reservation(id=before.id, version=before.version + 1, body=body)


def stale(reservation: str) -> Changed:
    return Changed(
        f"{reservation} was changed by somebody else in the meantime",
        hint="read it again, then decide",
        fact_ja=f"予約 {reservation} は、ほかの人が先に変更しました",
        hint_ja="最新の内容を確認してから、もう一度操作してください",
    )


def versions(connection: sa.Connection, reservation: str) -> list[Version]:
    query = (
        tables.version.select().where(tables.version.c.reservation == reservation).order_by(tables.version.c.version)
    )
    return [
        Version(
            version=row.version,
            at_ms=row.at_ms,
            who=row.who,
            why=row.why,
            body=msgspec.json.decode(row.body, type=Body),
        )
        for row in connection.execute(query)
    ]


def insert_offers(connection: sa.Connection, offers: list[StoredOffer], *, now: float, expires_s: float) -> None:
    """Old ones go on the way."""
    connection.execute(tables.offer.delete().where(tables.offer.c.expires_ms < int(now * 1000)))
    if offers:
        rows: list[dict[str, Any]] = [
            {
                "id": stored.offer.id,
                "tenant": stored.wanted.tenant,
                "expires_ms": int((now + expires_s) * 1000),
                "body": msgspec.json.encode(stored).decode(),
            }
            for stored in offers
        ]
        connection.execute(tables.offer.insert(), rows)


def find_offer(connection: sa.Connection, offer: str, *, now: float) -> StoredOffer | None:
    """None when it is unknown, booked, or older than five minutes."""
    query = sa.select(tables.offer.c.body).where(
        tables.offer.c.id == offer, tables.offer.c.expires_ms > int(now * 1000)
    )
    text = connection.scalar(query)
    return None if text is None else msgspec.json.decode(text, type=StoredOffer)


def remove_offer(connection: sa.Connection, offer: str) -> None:
    connection.execute(tables.offer.delete().where(tables.offer.c.id == offer))


def insert_waiting(connection: sa.Connection, waiting: Waiting) -> None:
    connection.execute(
        tables.wait.insert().values(
            id=waiting.id,
            tenant=waiting.wanted.tenant,
            at_ms=waiting.at_ms,
            body=msgspec.json.encode(waiting.wanted).decode(),
        )
    )


def waitlist(connection: sa.Connection) -> list[Waiting]:
    """In the order of their coming; `decide.fair_order` says who is next."""
    return [
        Waiting(id=row.id, at_ms=row.at_ms, wanted=msgspec.json.decode(row.body, type=Wanted))
        for row in connection.execute(tables.wait.select().order_by(tables.wait.c.at_ms, tables.wait.c.id))
    ]


def remove_waiting(connection: sa.Connection, waiting: str) -> bool:
    return connection.execute(tables.wait.delete().where(tables.wait.c.id == waiting)).rowcount == 1


def notify(connection: sa.Connection, notice: Notice) -> None:
    connection.execute(tables.notice.insert().values(**msgspec.structs.asdict(notice)))


def notices(connection: sa.Connection, *, tenant: str = "", limit: int = 100) -> list[Notice]:
    """The newest first."""
    query = tables.notice.select().order_by(tables.notice.c.id.desc()).limit(limit)
    if tenant:
        query = query.where(tables.notice.c.tenant == tenant)
    names = [field.name for field in msgspec.structs.fields(Notice)]
    return [Notice(**{name: row._mapping[name] for name in names}) for row in connection.execute(query)]


def quotas(connection: sa.Connection, pool: int) -> list[Quota]:
    query = tables.quota.select().where(tables.quota.c.pool == pool).order_by(tables.quota.c.tenant)
    return [Quota(**row._mapping) for row in connection.execute(query)]


def remove_quota(connection: sa.Connection, pool: int, tenant: str) -> bool:
    return (
        connection.execute(
            tables.quota.delete().where(tables.quota.c.pool == pool, tables.quota.c.tenant == tenant)
        ).rowcount
        == 1
    )


def set_quota(connection: sa.Connection, quota: Quota) -> None:
    connection.execute(
        tables.quota.delete().where(tables.quota.c.pool == quota.pool, tables.quota.c.tenant == quota.tenant)
    )
    connection.execute(tables.quota.insert().values(**msgspec.structs.asdict(quota)))


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """One allocation; `tenant` is empty for a block."""

    reservation: str
    tenant: str
    first: int
    until: int
    gpus: int


def taken(connection: sa.Connection, pool: int) -> list[Taken]:
    column = tables.allocation.c
    query = sa.select(column.reservation, column.tenant, column.first, column.until, column.gpus).where(
        column.pool == pool
    )
    return [Taken(**row._mapping) for row in connection.execute(query.order_by(column.id))]


def blocks(connection: sa.Connection) -> list[Block]:
    """Maintenance and hold-back, in the order of their beginnings."""
    column = tables.allocation.c
    query = (
        sa.select(column.reservation, column.pool, column.first, column.until, column.gpus)
        .where(column.tenant == "")
        .order_by(column.first, column.id)
    )
    return [
        Block(id=row.reservation, pool=row.pool, first=row.first, until=row.until, gpus=row.gpus)
        for row in connection.execute(query)
    ]


def insert_block(connection: sa.Connection, block: Block) -> None:
    connection.execute(
        tables.allocation.insert().values(
            reservation=block.id,
            tenant="",
            pool=block.pool,
            first=block.first,
            until=block.until,
            span=span_of(block.until - block.first),
            gpus=block.gpus,
            rank=int(Rank.FIRM),
        )
    )


def end_blocks(connection: sa.Connection, *, here: int) -> None:
    """Those that are over."""
    column = tables.allocation.c
    connection.execute(tables.allocation.delete().where(column.tenant == "", column.until <= here))


def adopted(connection: sa.Connection) -> dict[str, str]:
    """The digest of what each pool was declared as when it was last adopted."""
    rows = connection.execute(sa.select(tables.pool.c.id, tables.pool.c.declared))
    return {str(name): str(digest) for name, digest in rows if digest}


def insert_pool(connection: sa.Connection, declared: Declared) -> None:
    connection.execute(
        tables.pool.insert().values(
            id=declared.id,
            site=declared.site,
            gpu=declared.gpu,
            gpus=declared.gpus,
            tenant_limit=declared.gpus if declared.tenant_limit is None else declared.tenant_limit,
            yen_per_gpu_hour=declared.yen_per_gpu_hour or 0,
            revision=0,
            declared=declared.digest,
        )
    )


def note_declared(connection: sa.Connection, number: int, declared: Declared) -> None:
    connection.execute(tables.pool.update().where(tables.pool.c.number == number).values(declared=declared.digest))


def update_pool(connection: sa.Connection, number: int, declared: Declared) -> None:
    """All but its GPUs. A limit that was all of the pool stays all of it."""
    column = tables.pool.c
    values: dict[str, Any] = {
        "declared": declared.digest,
        "revision": column.revision + 1,
        "tenant_limit": sa.case((column.tenant_limit == column.gpus, declared.gpus), else_=column.tenant_limit),
    }
    if declared.tenant_limit is not None:
        values["tenant_limit"] = declared.tenant_limit
    if declared.yen_per_gpu_hour is not None:
        values["yen_per_gpu_hour"] = declared.yen_per_gpu_hour
    connection.execute(tables.pool.update().where(column.number == number).values(**values))


def set_gpus(connection: sa.Connection, number: int, gpus: int) -> None:
    column = tables.pool.c
    connection.execute(
        tables.pool.update().where(column.number == number).values(gpus=gpus, revision=column.revision + 1)
    )


def prune_changes(connection: sa.Connection, pool: int, *, before: int) -> None:
    """Forgets old changes; an index that is further behind is made anew."""
    column = tables.change.c
    connection.execute(tables.change.delete().where(column.pool == pool, column.revision < before))


class EarlierKey(msgspec.Struct, frozen=True, kw_only=True):
    """What an idempotency key was used for."""

    digest: str
    reservation: str


def find_key(connection: sa.Connection, tenant: str, key: str) -> EarlierKey | None:
    query = tables.key.select().where(tables.key.c.tenant == tenant, tables.key.c.key == key)
    row = connection.execute(query).one_or_none()
    return None if row is None else EarlierKey(digest=row.digest, reservation=row.reservation)


def insert_key(
    connection: sa.Connection, tenant: str, key: str, *, digest: str, reservation: str, now: float
) -> None:
    connection.execute(
        tables.key.insert().values(
            tenant=tenant, key=key, digest=digest, reservation=reservation, at_ms=int(now * 1000)
        )
    )


def held_gpu_slots(connection: sa.Connection) -> dict[str, int]:
    """GPU slots (a GPU for 15 minutes) that each tenant holds now and later."""
    column = tables.allocation.c
    query = sa.select(column.tenant, sa.func.sum((column.until - column.first) * column.gpus)).group_by(column.tenant)
    return {str(tenant): int(total) for tenant, total in connection.execute(query) if tenant}


def read(row: sa.Row[Any]) -> Reservation:
    return Reservation(id=row.id, version=row.version, body=msgspec.json.decode(row.body, type=Body))


def slot_ms(slot: int) -> int:
    return slot * SLOT_S * 1000


def _version(
    connection: sa.Connection, reservation: str, number: int, text: str, *, now: float, who: str, why: str
) -> None:
    connection.execute(
        tables.version.insert().values(
            reservation=reservation, version=number, at_ms=int(now * 1000), who=who, why=why[:200], body=text
        )
    )
