"""Where a wish goes: the earliest place that the index knows and that the one decision (`admit`) grants."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import sqlalchemy as sa

from sekisho.capacity.admit import admit
from sekisho.capacity.index import CapacityIndex
from sekisho.capacity.model import Placement, Rank, Refused, Wanted
from sekisho.capacity.offers import exact


class Placed(msgspec.Struct, frozen=True, kw_only=True):
    """Where, when, and how firmly it may be held."""

    placement: Placement
    rank: Rank


def place(
    connection: sa.Connection, index: CapacityIndex, wish: Wanted, allowed: frozenset[str], *, now: float
) -> Placed | Refused | None:
    """As this transaction sees it, under the locks of all pools. A pool in which the tenant's limits have no room is
    left out, and the next one tried; Refused when only limits are in the way, None when nothing is free."""
    index.sync(connection, now=now)
    closed: set[int] = set()
    refused: Refused | None = None
    while True:
        placement = exact(index, wish, allowed, without=closed)
        if placement is None:
            return refused
        rank = admit(connection, wish.tenant, placement, backfill=wish.priority == "backfill")
        if not isinstance(rank, Refused):
            return Placed(placement=placement, rank=rank)
        refused = rank
        closed.add(rank.pool)


def smaller(wish: Wanted) -> Iterator[Wanted]:
    """The wish, and then less and less of it, down to its `gpus_min`."""
    gpus = wish.gpus
    yield wish
    while gpus > wish.gpus_min:
        gpus = max(gpus * 7 // 8, wish.gpus_min) if gpus > 8 else gpus - 1
        yield msgspec.structs.replace(wish, gpus=gpus)
