"""What only guaranteed throughput refuses; the rest is as for GPU windows (`capacity.faults`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from sekisho.capacity.faults import NotFree, Oversold, ReserveFault


class NotEnough(NotFree):
    """The endpoints that may serve have less free than was asked."""

    code = "throughput.not_enough"


class Unmeasured(ReserveFault):
    """Tokens a second were asked, and nothing was metered on these endpoints lately."""

    code = "throughput.unmeasured"


class BeyondLimit(ReserveFault):
    """The tenant's own limit of concurrency is lower than what it would reserve."""

    code = "throughput.limit"


@contextmanager
def guard_fault() -> Iterator[None]:
    """Oversold when it was the guard of the database that spoke."""
    try:
        yield
    except sa.exc.DBAPIError as error:
        if "throughput_oversold" not in str(error):
            raise
        raise Oversold(
            "the second guard stopped a reservation that would have sold throughput twice; nothing was written",
            hint="run `sekisho reserve throughput audit` and report this",
        ) from error
