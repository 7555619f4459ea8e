"""SQL of workloads, their versions, and what sites offered. Nothing here decides."""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sa

from sekisho.capacity import tables as capacity
from sekisho.capacity.faults import Changed
from sekisho.capacity.workloads import tables
from sekisho.capacity.workloads.faults import WorkloadUnknown
from sekisho.capacity.workloads.model import Body, Offered, Workload, WorkloadVersion


def find(connection: sa.Connection, workload: str) -> Workload:
    """WorkloadUnknown when there is none."""
    row = connection.execute(tables.workload.select().where(tables.workload.c.id == workload)).one_or_none()
    if row is None:
        raise WorkloadUnknown(f"there is no workload {workload!r}", hint="`sekisho workload list` names them")
    return _read(row)


def find_all(
    connection: sa.Connection, *, reservation: str = "", tenant: str = "", limit: int = 500
) -> list[Workload]:
    """The newest first."""
    query = tables.workload.select().order_by(tables.workload.c.id.desc()).limit(limit)
    if reservation:
        query = query.where(tables.workload.c.reservation == reservation)
    if tenant:
        query = query.where(tables.workload.c.tenant == tenant)
    return [_read(row) for row in connection.execute(query)]


def active(connection: sa.Connection, *, now: float) -> list[Workload]:
    """Those that may run or have something to end: the window has begun (or the reservation is finished), and they
    have not ended. In the order of their ids."""
    here, reservation = tables.workload.c, capacity.reservation.c
    query = (
        sa.select(tables.workload)
        .join(capacity.reservation, reservation.id == here.reservation)
        .where(
            here.state != "ended",
            sa.or_(
                reservation.starts_ms <= int(now * 1000),
                reservation.state != "booked",
                here.state.in_(("starting", "serving", "down", "draining")),
            ),
        )
        .order_by(here.id)
    )
    return [_read(row) for row in connection.execute(query)]


def serving(connection: sa.Connection) -> list[Workload]:
    """Those of which some replica may serve, in the order of their ids."""
    query = tables.workload.select().where(tables.workload.c.state == "serving").order_by(tables.workload.c.id)
    return [_read(row) for row in connection.execute(query)]


def insert(connection: sa.Connection, workload: Workload, *, now: float, who: str, why: str) -> None:
    body = workload.body
    text = msgspec.json.encode(body).decode()
    connection.execute(
        tables.workload.insert().values(
            id=workload.id,
            reservation=body.reservation,
            tenant=body.tenant,
            state=body.state,
            version=workload.version,
            body=text,
        )
    )
    _version(connection, workload.id, workload.version, text, now=now, who=who, why=why)


def replace(connection: sa.Connection, before: Workload, body: Body, *, now: float, who: str, why: str) -> Workload:
    """The next version; with `why` empty it does not enter the history. Changed when somebody else was first."""
    text = msgspec.json.encode(body).decode()
    changed = connection.execute(
        tables.workload.update()
        .where(tables.workload.c.id == before.id, tables.workload.c.version == before.version)
        .values(state=body.state, version=before.version + 1, body=text)
    )
    if changed.rowcount != 1:
        raise Changed(f"{before.id} was changed by somebody else in the meantime", hint="read it again, then decide")
    if why:
        _version(connection, before.id, before.version + 1, text, now=now, who=who, why=why)
    return Workload(id=before.id, version=before.version + 1, body=body)


def versions(connection: sa.Connection, workload: str) -> list[WorkloadVersion]:
    query = tables.version.select().where(tables.version.c.workload == workload).order_by(tables.version.c.version)
    return [
        WorkloadVersion(
            version=row.version,
            at_ms=row.at_ms,
            who=row.who,
            why=row.why,
            body=msgspec.json.decode(row.body, type=Body),
        )
        for row in connection.execute(query)
    ]


def set_site(connection: sa.Connection, site: str, *, heard_at: float, offers: tuple[Offered, ...]) -> None:
    connection.execute(tables.site.delete().where(tables.site.c.site == site))
    text = msgspec.json.encode(offers).decode()
    connection.execute(tables.site.insert().values(site=site, heard_at=heard_at, offers=text))


def sites(connection: sa.Connection) -> dict[str, tuple[float, tuple[Offered, ...]]]:
    """By site: when it was last heard, and what it offers."""
    return {
        row.site: (row.heard_at, msgspec.json.decode(row.offers, type=tuple[Offered, ...]))
        for row in connection.execute(tables.site.select())
    }


def _read(row: sa.Row[Any]) -> Workload:
    return Workload(id=row.id, version=row.version, body=msgspec.json.decode(row.body, type=Body))


def _version(
    connection: sa.Connection, workload: str, number: int, text: str, *, now: float, who: str, why: str
) -> None:
    connection.execute(
        tables.version.insert().values(
            workload=workload, version=number, at_ms=int(now * 1000), who=who, why=why[:200], body=text
        )
    )
