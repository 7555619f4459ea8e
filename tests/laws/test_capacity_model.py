"""Every interleaving of three clients on two pools, step by step, with a crash at any point: `Never` holds.

The model has the steps of docs/explanation/never-oversold as the databases take them: advisory locks of pools in
ascending order, the look (`admit`), the write, the second guard's row lock and its sum, the commit. A look sees what
is committed and what its own transaction wrote (READ COMMITTED, a new snapshot for each statement). All windows of
the model overlap, so the peak of a pool is its sum. A state is what is committed, who holds which lock, and where
each client is.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import pytest

Kind = Literal["lock", "look", "row", "write", "sum", "free", "shrink", "commit"]
POOLS = 2
GPUS = 2


class Step(NamedTuple):
    kind: Kind
    pool: int = 0
    gpus: int = 0


class Client(NamedTuple):
    """`at` is its next step; `written` what its open transaction adds to each pool; `sizes` what it makes of them."""

    at: int
    written: tuple[int, ...]
    sizes: tuple[int, ...]


class State(NamedTuple):
    taken: tuple[int, ...]
    sizes: tuple[int, ...]
    advisory: tuple[int, ...]  # the client that holds a pool's lock, or -1
    rows: tuple[int, ...]
    clients: tuple[Client, ...]


Program = tuple[Step, ...]


def batch(*bookings: dict[int, int], first: bool, second: bool) -> Program:
    """Bookings of one transaction; `first` and `second` say which guards are there."""
    steps: list[Step] = []
    if first:
        steps += [Step("lock", pool) for pool in sorted({pool for booking in bookings for pool in booking})]
    for booking in bookings:
        steps += [Step("look", pool, gpus) for pool, gpus in sorted(booking.items())]
        for pool, gpus in sorted(booking.items()):
            steps += inserted(pool, gpus, second=second)
    return (*steps, Step("commit"))


def inserted(pool: int, gpus: int, *, second: bool) -> list[Step]:
    guard = [Step("row", pool), Step("sum", pool)] if second else []
    return [Step("write", pool, gpus), *guard]


def rogue(pool: int, gpus: int, *, second: bool) -> Program:
    """A program that knows nothing of the first guard."""
    return (*inserted(pool, gpus, second=second), Step("commit"))


def moved(pool: int, other: int, gpus: int, *, first: bool, second: bool) -> Program:
    """What it holds in one pool goes, and comes in the other, in one transaction."""
    locks = [Step("lock", each) for each in sorted((pool, other))] if first else []
    row = [Step("row", pool)] if second else []  # the trigger counts the pool's revision
    return (
        *locks, Step("free", pool, gpus), *row, Step("look", other, gpus),
        *inserted(other, gpus, second=second), Step("commit"),
    )  # fmt: skip


def shrunk(pool: int, gpus: int, *, first: bool, second: bool) -> Program:
    """A pool becomes smaller, if it is not sold."""
    lock = [Step("lock", pool)] if first else [Step("look", pool, GPUS - gpus)]
    guard = [Step("row", pool), Step("shrink", pool, gpus), Step("sum", pool)] if second else [
        Step("look", pool, GPUS - gpus), Step("shrink", pool, gpus)
    ]  # fmt: skip
    return (*lock, *guard, Step("commit"))


def put(values: tuple[int, ...], place: int, value: int) -> tuple[int, ...]:
    return (*values[:place], value, *values[place + 1 :])


def ended(state: State, who: int, program: Program, *, commit: bool) -> State:
    """The transaction is committed or taken back; its locks are free. It has nothing more to do."""
    me = state.clients[who]
    clients = list(state.clients)
    clients[who] = Client(len(program), (0,) * POOLS, (-1,) * POOLS)
    taken, sizes = state.taken, state.sizes
    if commit:
        taken = tuple(one + other for one, other in zip(taken, me.written, strict=True))
        sizes = tuple(old if new < 0 else new for old, new in zip(sizes, me.sizes, strict=True))
    free = tuple(-1 if holder == who else holder for holder in state.advisory)
    rows = tuple(-1 if holder == who else holder for holder in state.rows)
    return State(taken, sizes, free, rows, tuple(clients))


def steps(state: State, who: int, program: Program) -> State | None:
    """The state after the client's next step; None when it has to wait."""
    me = state.clients[who]
    step = program[me.at]
    seen = state.taken[step.pool] + me.written[step.pool]
    size = me.sizes[step.pool] if me.sizes[step.pool] >= 0 else state.sizes[step.pool]
    after = me._replace(at=me.at + 1)
    advisory, rows = state.advisory, state.rows
    match step.kind:
        case "lock":
            if advisory[step.pool] not in (-1, who):
                return None
            advisory = put(advisory, step.pool, who)
        case "row":
            if rows[step.pool] not in (-1, who):
                return None
            rows = put(rows, step.pool, who)
        case "look":
            if seen + step.gpus > size:
                return ended(state, who, program, commit=False)
        case "sum":
            if seen > size:
                return ended(state, who, program, commit=False)
        case "write":
            after = after._replace(written=put(me.written, step.pool, me.written[step.pool] + step.gpus))
        case "free":
            after = after._replace(written=put(me.written, step.pool, me.written[step.pool] - step.gpus))
        case "shrink":
            after = after._replace(sizes=put(me.sizes, step.pool, step.gpus))
        case "commit":
            return ended(state, who, program, commit=True)
    clients = list(state.clients)
    clients[who] = after
    return state._replace(advisory=advisory, rows=rows, clients=tuple(clients))


class Explored(NamedTuple):
    states: int
    oversold: bool
    stuck: bool


def explore(programs: tuple[Program, ...], *, taken: tuple[int, ...] = (0, 0)) -> Explored:
    """All states that can be reached, each client's crash at each of its steps included."""
    idle = Client(0, (0,) * POOLS, (-1,) * POOLS)
    begin = State(taken, (GPUS,) * POOLS, (-1,) * POOLS, (-1,) * POOLS, (idle,) * len(programs))
    known, left = {begin}, [begin]
    oversold = stuck = False
    while left:
        state = left.pop()
        oversold = oversold or any(used > size for used, size in zip(state.taken, state.sizes, strict=True))
        waiting = [who for who, program in enumerate(programs) if state.clients[who].at < len(program)]
        going = [after for who in waiting if (after := steps(state, who, programs[who])) is not None]
        stuck = stuck or (bool(waiting) and not going)
        # The client dies, or the database ends a deadlock: what was not committed leaves nothing.
        crashes = [ended(state, who, programs[who], commit=False) for who in waiting]
        for after in (*going, *crashes):
            if after not in known:
                known.add(after)
                left.append(after)
    return Explored(len(known), oversold, stuck)


def clients(*, first: bool, second: bool) -> tuple[tuple[Program, ...], ...]:
    """Some threes that get in each other's way as much as they can."""
    both = {"first": first, "second": second}
    return (
        (batch({0: 1, 1: 1}, **both), batch({1: 2}, {0: 1}, **both), batch({0: 2}, **both)),
        (batch({0: 2, 1: 2}, **both), batch({1: 1}, {1: 1}, {0: 1}, **both), moved(0, 1, 1, **both)),
        (batch({0: 2}, **both), shrunk(0, 1, **both), batch({0: 1, 1: 1}, **both)),
    )


@pytest.mark.parametrize(("first", "second"), [(True, True), (True, False), (False, True)])
def test_no_interleaving_oversells_with_either_guard(first: bool, second: bool) -> None:
    for programs in clients(first=first, second=second):
        found = explore(programs, taken=(1, 0) if any(step.kind == "free" for step in programs[2]) else (0, 0))
        assert not found.oversold
        assert found.states >= 50
        if first:  # locks in one order: nobody ever waits in a circle
            assert not found.stuck


def test_without_the_guards_it_oversells() -> None:
    """The model can see what it looks for."""
    assert all(explore(programs, taken=(1, 0)).oversold for programs in clients(first=False, second=False))


def test_the_second_guard_stops_who_does_not_know_the_first() -> None:
    honest = batch({0: 1}, {1: 2}, first=True, second=True)
    strangers = (rogue(0, 2, second=True), rogue(1, 1, second=True))
    assert not explore((honest, *strangers)).oversold
    alone = batch({0: 1}, {1: 2}, first=True, second=False)
    assert explore((alone, rogue(0, 2, second=False), rogue(1, 1, second=False))).oversold
