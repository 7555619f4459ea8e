"""Throughput is promised here: one transaction a call, the version in the same transaction.

Writers take turns on both databases (`Database.write`), so what the first guard, the flow, has seen is still so when
the row is written; the second guard is a trigger that adds up each set of endpoints by itself. Which endpoints may
serve is residency's answer and what they can do is measured; both are passed in by assembly.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

import msgspec
import sqlalchemy as sa

from sekisho.capacity import tables as reserve_tables
from sekisho.capacity.faults import Changed, Finished, KeyReused, NameUnknown, NotAllowed, WindowInvalid
from sekisho.capacity.grid import HORIZON_SLOTS, check_end, check_window, current_slot, unix_s
from sekisho.capacity.throughput import decide, store
from sekisho.capacity.throughput.audit import Audit, audit
from sekisho.capacity.throughput.faults import BeyondLimit, NotEnough, Unmeasured
from sekisho.capacity.throughput.flow import place
from sekisho.capacity.throughput.meter import Use, use
from sekisho.capacity.throughput.model import Answer, Body, Commitment, Measured, Placed, Terms, Version
from sekisho.kernel.clock import Clock
from sekisho.runtime.database import Database


class RouteSets(Protocol):
    """The endpoints that may serve requests of this tenant, class and model, by the rules in force; empty: none."""

    def __call__(self, tenant: str, data_class: str, model: str) -> tuple[str, ...]: ...


class InForce(msgspec.Struct, frozen=True, kw_only=True):
    """A commitment in force and what its owner has used of it."""

    placed: Placed
    use: Use


class ThroughputService:
    """Safe to share among threads. `limit`: a tenant's own limit of concurrency for a model, None without one.
    `names_of`: a model and the aliases under which decisions may name it."""

    def __init__(
        self,
        database: Database,
        *,
        route_set: RouteSets,
        measured: Callable[[], Mapping[str, Measured]],
        tenants: Callable[[], frozenset[str]],
        limit: Callable[[str, str], int | None],
        names_of: Callable[[str], Collection[str]],
        clock: Clock,
        new_id: Callable[[], str],
    ) -> None:
        self.database = database
        self._route_set = route_set
        self._measured = measured
        self._tenants = tenants
        self._limit = limit
        self._names_of = names_of
        self._clock = clock
        self._new_id = new_id

    # -- questions

    def find(self, terms: Terms) -> Answer:
        """Whether it can be had, and what instead. Nothing is held."""
        now = self._clock.now()
        measured = self._measured()
        wanted = self._checked(terms, measured, now=now)
        with self.database.read() as connection:
            return self._answer(connection, terms, wanted, measured, now=now)

    def get(self, name: str) -> Commitment:
        with self.database.read() as connection:
            return store.find(connection, name)

    def history(self, name: str) -> list[Version]:
        with self.database.read() as connection:
            store.find(connection, name)
            return store.versions(connection, name)

    def commitments(
        self, *, tenant: str = "", state: str = "", after: str = "", limit: int = 1000
    ) -> list[Commitment]:
        with self.database.read() as connection:
            return store.find_all(connection, tenant=tenant, state=state, after=after, limit=limit)

    def audit(self) -> Audit:
        """Proves from the rows, by another computation, that what is promised can be met at every moment."""
        with self.database.read() as connection:
            held = store.open_after(connection, current_slot(self._clock.now()))
        measured = self._measured()
        return audit(held, self._sets(held), {name: each.slots for name, each in measured.items()})

    # -- changes

    def book(self, terms: Terms, *, who: str, key: str = "") -> Commitment:
        """All of it or nothing; NotEnough says what can be had."""
        now = self._clock.now()
        measured = self._measured()
        wanted = self._checked(terms, measured, now=now)
        digest = hashlib.sha256(msgspec.json.encode(terms)).hexdigest()
        with self.database.write() as connection:
            if key and (earlier := _earlier(connection, terms.tenant, key, digest)) is not None:
                return store.find(connection, earlier)
            answer = self._answer(connection, terms, wanted, measured, now=now)
            _must_fit(answer)
            made = Commitment(id=self._new_id(), version=1, body=Body(terms=terms, held=answer.asked))
            pool = store.set_pool(connection, {name: measured[name].slots for name in wanted})
            store.insert(connection, made, pool=pool, now=now, who=who)
            if key:
                connection.execute(
                    reserve_tables.key.insert().values(
                        tenant=terms.tenant, key=key, digest=digest, reservation=made.id, at_ms=int(now * 1000)
                    )
                )
        return made

    def change(
        self,
        name: str,
        *,
        slots: int | None = None,
        tokens_per_s: float | None = None,
        until: int | None = None,
        version: int | None,
        who: str,
    ) -> Commitment:
        """More or less of it, or another end. What is there already counts as its own."""
        now = self._clock.now()
        measured = self._measured()
        with self.database.write() as connection:
            held = _still_open(store.find(connection, name), version)
            terms = decide.changed(held.body, slots=slots, tokens_per_s=tokens_per_s, until=until)
            if terms.until <= current_slot(now):
                raise WindowInvalid("nothing would be left of it", hint="`cancel` gives it up")
            wanted = self._checked(terms, measured, now=now, begun=True)
            answer = self._answer(connection, terms, wanted, measured, now=now, without=name)
            if terms.until > held.body.terms.until or answer.asked > held.body.held:
                _must_fit(answer)
            pool = store.set_pool(connection, {each: measured[each].slots for each in wanted})
            body = Body(terms=terms, held=answer.asked)
            return store.replace(connection, held, body, pool=pool, now=now, who=who, why="changed")

    def cancel(self, name: str, *, version: int | None, who: str) -> Commitment:
        now = self._clock.now()
        with self.database.write() as connection:
            held = _still_open(store.find(connection, name), version)
            body = msgspec.structs.replace(held.body, state="cancelled")
            return store.replace(connection, held, body, pool=None, now=now, who=who, why="cancelled")

    def end_those_over(self) -> bool:
        """Windows that are over become `ended`; True when there was one."""
        now = self._clock.now()
        with self.database.write() as connection:
            over = store.over(connection, current_slot(now))
            for each in over:
                body = msgspec.structs.replace(each.body, state="ended")
                store.replace(connection, each, body, pool=None, now=now, who="sekisho", why="its window is over")
        return bool(over)

    # -- what is in force

    def in_force(
        self, *, now: float, route_set: RouteSets | None = None, measured: Mapping[str, Measured] | None = None
    ) -> list[Placed]:
        """Every commitment whose window this moment lies in, with its places: by the given route sets and measures
        (those of a table that is being made), or by those in force."""
        slot = current_slot(now)
        with self.database.read() as connection:
            held = [each for each in store.open_after(connection, slot) if each.body.terms.first <= slot]
        if not held:
            return []
        found = self._measured() if measured is None else measured
        sets = self._sets(held, route_set)
        places, missing = place(
            decide.demands(held, sets),
            {name: each.slots for name, each in found.items()},
        )
        return [Placed(commitment=each, places=places[each.id], missing=missing.get(each.id, 0)) for each in held]

    def standing(self) -> list[InForce]:
        """What is in force now, with what was used of it: for the screens, the commands and what needs somebody."""
        now = self._clock.now()
        placed = self.in_force(now=now)
        found = []
        with self.database.read() as connection:
            for each in placed:
                body = each.commitment.body
                terms = body.terms
                used = use(
                    connection,
                    tenant=terms.tenant,
                    data_class=terms.data_class,
                    models=self._names_of(terms.model),
                    since=unix_s(terms.first),
                    now=now,
                    held=body.held,
                )
                found.append(InForce(placed=each, use=used))
        return found

    def endpoints(self) -> list[Measured]:
        """What each endpoint can do, as measured."""
        return list(self._measured().values())

    def next_change(self, *, now: float) -> int | None:
        """The grid slot at which the next window begins or ends."""
        slot = current_slot(now)
        with self.database.read() as connection:
            held = store.open_after(connection, slot)
        moments = [at for each in held for at in (each.body.terms.first, each.body.terms.until) if at > slot]
        return min(moments, default=None)

    # -- inside

    def _sets(self, held: list[Commitment], route_set: RouteSets | None = None) -> dict[str, tuple[str, ...]]:
        ask = self._route_set if route_set is None else route_set
        known: dict[tuple[str, str, str], tuple[str, ...]] = {}
        found = {}
        for each in held:
            terms = each.body.terms
            key = (terms.tenant, terms.data_class, terms.model)
            if key not in known:
                known[key] = tuple(sorted(ask(*key)))
            found[each.id] = known[key]
        return found

    def _answer(
        self,
        connection: sa.Connection,
        terms: Terms,
        wanted: tuple[str, ...],
        measured: Mapping[str, Measured],
        *,
        now: float,
        without: str = "",
    ) -> Answer:
        needed = decide.slots_needed(terms, (measured[name] for name in wanted))
        if needed is None:
            raise Unmeasured(
                f"nobody has metered how fast {', '.join(wanted)} generate tokens",
                hint="reserve a number of requests at a time, or send work there first",
            )
        held = [each for each in store.open_after(connection, terms.first) if each.id != without]
        return decide.answer(
            terms,
            needed,
            held=held,
            sets=self._sets(held),
            capacity={name: each.slots for name, each in measured.items()},
            wanted=wanted,
            horizon=current_slot(now) + HORIZON_SLOTS,
        )

    def _checked(
        self, terms: Terms, measured: Mapping[str, Measured], *, now: float, begun: bool = False
    ) -> tuple[str, ...]:
        """The endpoints that may serve it; a fault when the wish can't be one."""
        if terms.tenant not in self._tenants():
            raise NameUnknown(f"there is no tenant {terms.tenant!r}", hint="`sekisho status` names the tenants")
        if (terms.slots > 0) == (terms.tokens_per_s > 0):
            raise WindowInvalid("either requests at a time or tokens a second", hint="give one of the two")
        if begun:
            check_end(terms.first, terms.until, now=now)
        else:
            check_window(terms.first, terms.until, now=now)
        wanted = tuple(sorted(set(self._route_set(terms.tenant, terms.data_class, terms.model)) & set(measured)))
        if not wanted:
            raise NotAllowed(
                f"no endpoint may serve {terms.data_class} work of {terms.tenant} with {terms.model}",
                hint="`sekisho why` says which rule closes which site",
            )
        own = self._limit(terms.tenant, terms.model)
        if own is not None and terms.slots > own:
            raise BeyondLimit(
                f"{terms.tenant} may have {own} requests at a time with {terms.model}",
                hint="raise that limit first, or reserve less",
            )
        return wanted


def _must_fit(answer: Answer) -> None:
    if answer.fits:
        return
    instead = "; or ".join(each.en for each in answer.alternatives)
    raise NotEnough(
        f"{answer.asked} at a time were asked, and {answer.most} can be had in that window",
        hint=f"take {instead}" if instead else "ask for another window, or for more endpoints",
    )


def _still_open(held: Commitment, version: int | None) -> Commitment:
    if held.body.state != "booked":
        raise Finished(f"the reservation is {held.body.state}", hint="make a new one")
    if version is not None and version != held.version:
        raise Changed(f"the reservation has version {held.version} now", hint="read it again and decide anew")
    return held


def _earlier(connection: sa.Connection, tenant: str, key: str, digest: str) -> str | None:
    column = reserve_tables.key.c
    row = connection.execute(
        reserve_tables.key.select().where(column.tenant == tenant, column.key == key)
    ).one_or_none()
    if row is None:
        return None
    if row.digest != digest:
        raise KeyReused("this idempotency key belongs to another request", hint="use a new key for a new request")
    return str(row.reservation)
