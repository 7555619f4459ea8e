"""SQL of enrolment: invitations, what was handed in on them, and the agents whose key is pinned."""

from __future__ import annotations

from typing import Literal

import msgspec
import sqlalchemy as sa

from sekisho.runtime.database import metadata

State = Literal["waiting", "approved", "rejected", "replaced", "retired"]

site_invitation = sa.Table(
    "site_invitation",
    metadata,
    sa.Column("id", sa.String(12), primary_key=True),
    sa.Column("sha256", sa.String(64), nullable=False, unique=True),
    sa.Column("operator", sa.String(64), nullable=False),
    sa.Column("site", sa.String(64), nullable=False, index=True),
    sa.Column("replace", sa.Boolean, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("created_by", sa.String(64), nullable=False),
    sa.Column("expires_at", sa.Float, nullable=False),
    sa.Column("used_at", sa.Float),
    sa.Column("refused", sa.Integer, nullable=False),
)

site_enrolment = sa.Table(
    "site_enrolment",
    metadata,
    sa.Column("id", sa.String(12), primary_key=True),
    sa.Column("site", sa.String(64), nullable=False, index=True),
    sa.Column("operator", sa.String(64), nullable=False),
    sa.Column("spki", sa.Text, nullable=False),
    sa.Column("pin", sa.String(80), nullable=False),
    sa.Column("declaration", sa.Text, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("decided_at", sa.Float),
    sa.Column("decided_by", sa.String(64)),
)

site_agent = sa.Table(
    "site_agent",
    metadata,
    sa.Column("site", sa.String(64), primary_key=True),
    sa.Column("enrolment", sa.String(12), nullable=False),
    sa.Column("spki", sa.Text, nullable=False),
    sa.Column("pin", sa.String(80), nullable=False, unique=True),
    sa.Column("counter", sa.BigInteger, nullable=False),
    sa.Column("since", sa.Float, nullable=False),
    sa.Column("heard_at", sa.Float),
    sa.Column("report", sa.Text, nullable=False),
)

# Every key that an agent changed to; those that it came with are in its enrolment.
site_key = sa.Table(
    "site_key",
    metadata,
    sa.Column("pin", sa.String(80), primary_key=True),
    sa.Column("site", sa.String(64), nullable=False),
    sa.Column("at", sa.Float, nullable=False),
)

# Of every site, configured ones too: out of all routes in one step.
site_state = sa.Table(
    "site_state",
    metadata,
    sa.Column("site", sa.String(64), primary_key=True),
    sa.Column("suspended", sa.Boolean, nullable=False),
    sa.Column("changed_at", sa.Float, nullable=False),
    sa.Column("changed_by", sa.String(64), nullable=False),
)


class Invitation(msgspec.Struct, frozen=True, kw_only=True):
    """`refused`: how many attempts with this token were refused. `replace`: it may replace a site's agent."""

    id: str
    sha256: str
    operator: str
    site: str
    replace: bool
    created_at: float
    created_by: str
    expires_at: float
    used_at: float | None
    refused: int


class Enrolment(msgspec.Struct, frozen=True, kw_only=True):
    """`declaration` is the signed declaration (JSON) as it was handed in."""

    id: str
    site: str
    operator: str
    spki: str
    pin: str
    declaration: str
    at: float
    state: State
    decided_at: float | None = None
    decided_by: str | None = None


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    """An approved site's agent. `counter`: that of its last request; `report`: its last one (JSON, or empty).
    `since`: when it was approved, or when it was first heard from other hosts than before; what was measured earlier
    says nothing about it."""

    site: str
    enrolment: str
    spki: str
    pin: str
    counter: int
    since: float
    heard_at: float | None
    report: str


def insert_invitation(connection: sa.Connection, invitation: Invitation) -> None:
    connection.execute(site_invitation.insert().values(**msgspec.structs.asdict(invitation)))


def find_invitation(connection: sa.Connection, sha256: str) -> Invitation | None:
    row = connection.execute(site_invitation.select().where(site_invitation.c.sha256 == sha256)).first()
    return Invitation(**row._mapping) if row is not None else None


def open_invitations(connection: sa.Connection, *, now: float) -> list[Invitation]:
    rows = connection.execute(
        site_invitation.select()
        .where(site_invitation.c.used_at.is_(None), site_invitation.c.expires_at > now)
        .order_by(site_invitation.c.created_at, site_invitation.c.id)
    )
    return [Invitation(**row._mapping) for row in rows]


def use_invitation(connection: sa.Connection, invitation: str, *, now: float) -> bool:
    """False when somebody used it before."""
    changed = connection.execute(
        site_invitation.update()
        .where(site_invitation.c.id == invitation, site_invitation.c.used_at.is_(None))
        .values(used_at=now)
    )
    return changed.rowcount == 1


def count_refusal(connection: sa.Connection, invitation: str) -> None:
    connection.execute(
        site_invitation.update()
        .where(site_invitation.c.id == invitation)
        .values(refused=site_invitation.c.refused + 1)
    )


def withdraw_invitations(connection: sa.Connection, site: str, *, now: float) -> None:
    """A newer invitation takes the place of older ones that nobody used."""
    connection.execute(
        site_invitation.update()
        .where(
            site_invitation.c.site == site, site_invitation.c.used_at.is_(None), site_invitation.c.expires_at > now
        )
        .values(expires_at=now)
    )


def insert_enrolment(connection: sa.Connection, enrolment: Enrolment) -> None:
    connection.execute(site_enrolment.insert().values(**msgspec.structs.asdict(enrolment)))


def enrolments(connection: sa.Connection, *, site: str | None = None, state: State | None = None) -> list[Enrolment]:
    """The newest first."""
    query = site_enrolment.select().order_by(site_enrolment.c.at.desc(), site_enrolment.c.id)
    if site is not None:
        query = query.where(site_enrolment.c.site == site)
    if state is not None:
        query = query.where(site_enrolment.c.state == state)
    return [Enrolment(**row._mapping) for row in connection.execute(query)]


def set_state(connection: sa.Connection, enrolment: str, *, old: State, new: State, now: float, actor: str) -> bool:
    """False when it was not in the old state: somebody else decided first."""
    changed = connection.execute(
        site_enrolment.update()
        .where(site_enrolment.c.id == enrolment, site_enrolment.c.state == old)
        .values(state=new, decided_at=now, decided_by=actor)
    )
    return changed.rowcount == 1


def agents(connection: sa.Connection) -> list[Agent]:
    rows = connection.execute(site_agent.select().order_by(site_agent.c.site))
    return [Agent(**row._mapping) for row in rows]


def find_agent(connection: sa.Connection, site: str) -> Agent | None:
    row = connection.execute(site_agent.select().where(site_agent.c.site == site)).first()
    return Agent(**row._mapping) if row is not None else None


def put_agent(connection: sa.Connection, agent: Agent) -> None:
    connection.execute(site_agent.delete().where(site_agent.c.site == agent.site))
    connection.execute(site_agent.insert().values(**msgspec.structs.asdict(agent)))


def remove_agent(connection: sa.Connection, site: str) -> None:
    connection.execute(site_agent.delete().where(site_agent.c.site == site))


def pin_in_use(connection: sa.Connection, pin: str) -> bool:
    """Whether this key was ever handed in, whatever became of it: one that was rejected, replaced, changed or retired
    stays out."""
    found = connection.scalar(sa.select(site_enrolment.c.id).where(site_enrolment.c.pin == pin).limit(1))
    return found is not None or connection.scalar(sa.select(site_key.c.site).where(site_key.c.pin == pin)) is not None


def advance(connection: sa.Connection, site: str, *, pin: str, counter: int) -> bool:
    """Takes the counter of a request; False when it is not above the last one, or the key has changed."""
    changed = connection.execute(
        site_agent.update()
        .where(site_agent.c.site == site, site_agent.c.pin == pin, site_agent.c.counter < counter)
        .values(counter=counter)
    )
    return changed.rowcount == 1


def heard(connection: sa.Connection, site: str, *, at: float, report: str) -> None:
    connection.execute(site_agent.update().where(site_agent.c.site == site).values(heard_at=at, report=report))


def moved(connection: sa.Connection, site: str, *, at: float) -> None:
    connection.execute(site_agent.update().where(site_agent.c.site == site).values(since=at))


def rekey(connection: sa.Connection, site: str, *, spki: str, pin: str, now: float) -> None:
    connection.execute(site_key.insert().values(pin=pin, site=site, at=now))
    connection.execute(site_agent.update().where(site_agent.c.site == site).values(spki=spki, pin=pin))


def suspended_sites(connection: sa.Connection) -> frozenset[str]:
    rows = connection.execute(sa.select(site_state.c.site).where(site_state.c.suspended))
    return frozenset(row.site for row in rows)


def set_site_suspended(connection: sa.Connection, site: str, suspended: bool, *, now: float, actor: str) -> bool:
    """False when the site was in that state already: nothing is written then."""
    current = connection.scalar(sa.select(site_state.c.suspended).where(site_state.c.site == site))
    if bool(current) is suspended:
        return False
    values = {"suspended": suspended, "changed_at": now, "changed_by": actor}
    if current is None:
        connection.execute(site_state.insert().values(site=site, **values))
    else:
        connection.execute(site_state.update().where(site_state.c.site == site).values(**values))
    return True
