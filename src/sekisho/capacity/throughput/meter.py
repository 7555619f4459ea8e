"""What the gateways metered: how fast an endpoint generates, and what an owner has used of its reservation."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import msgspec
import sqlalchemy as sa

from sekisho.ledger.store import passage

_SAMPLE = 300  # newest passages of an endpoint that its speed is taken from
_FRESH_MS = 24 * 3_600_000
_HOUR_MS = 3_600_000
_TREND_HOURS = 24
_LEAST_HOURS = 4


class _Timed(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a decision that says how long it ran."""

    tokens_out: int = 0
    queue_us: int = 0
    duration_us: int = 0


_read = msgspec.json.Decoder(_Timed).decode


def speed(connection: sa.Connection, endpoint: str, *, now: float) -> float:
    """Generated tokens a second of one busy slot, over the newest answers of a day, or 0.0. Time in the queue
    does not count: the slot was not busy with it."""
    column = passage.c
    query = (
        sa.select(column.record)
        .where(
            column.endpoint == endpoint,
            column.outcome == "completed",
            column.tokens_out > 0,
            column.at_ms >= int(now * 1000) - _FRESH_MS,
        )
        .order_by(column.at_ms.desc())
        .limit(_SAMPLE)
    )
    found = [_read(record) for record in connection.scalars(query)]
    busy_us = sum(max(each.duration_us - each.queue_us, 0) for each in found)
    return sum(each.tokens_out for each in found) * 1e6 / busy_us if busy_us else 0.0


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """When use reaches what is reserved, if it goes on as in the last day: a straight line through the busiest minute
    of each hour (least squares), `error` slots off at 95 % (twice the residuals' deviation). `at` (Unix s) None:
    not within 90 days, or too few hours to say."""

    at: float | None = None
    soonest: float | None = None
    slots_per_day: float = 0.0
    error: float = 0.0
    hours: int = 0


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """What was used in `hours` until now. `at_a_time`: slots, on average; `busiest`: in the busiest minute.
    `refused`: answers 429. `p99_queue_ms`: of the newest requests (at most 2,000)."""

    hours: float
    requests: int
    refused: int
    tokens_out: int
    tokens_per_s: float
    at_a_time: float
    busiest: float
    p99_queue_ms: float
    forecast: Forecast


_HORIZON_S = 90 * 86_400.0


def use(
    connection: sa.Connection,
    *,
    tenant: str,
    data_class: str,
    models: Collection[str],
    since: float,
    now: float,
    held: int,
) -> Use:
    """`models`: the model and the aliases that lead to it. Only what the database still has is counted."""
    column = passage.c
    since = max(since, now - 86_400.0)
    where = (
        column.tenant == tenant,
        column.data_class == data_class,
        column.model.in_(sorted(models)),
        column.at_ms >= int(since * 1000),
    )
    rows = connection.execute(
        sa.select(
            (column.at_ms // 60_000).label("minute"),
            sa.func.count().label("requests"),
            sa.func.sum(sa.case((column.status == 429, 1), else_=0)).label("refused"),
            sa.func.sum(column.tokens_out).label("tokens"),
            sa.func.sum(sa.case((column.endpoint != "", column.duration_us), else_=0)).label("busy_us"),
        )
        .where(*where)
        .group_by("minute")
    ).all()
    newest = connection.scalars(
        sa.select(column.record).where(*where, column.endpoint != "").order_by(column.at_ms.desc()).limit(2000)
    )
    queued = sorted(_read(record).queue_us for record in newest)
    seconds = max(now - since, 1.0)
    minutes = {int(row.minute): int(row.busy_us) / 60e6 for row in rows}
    tokens = sum(int(row.tokens) for row in rows)
    return Use(
        hours=round(seconds / 3600, 3),
        requests=sum(row.requests for row in rows),
        refused=sum(int(row.refused) for row in rows),
        tokens_out=tokens,
        tokens_per_s=round(tokens / seconds, 3),
        at_a_time=round(sum(minutes.values()) * 60 / seconds, 3),
        busiest=round(max(minutes.values(), default=0.0), 3),
        p99_queue_ms=round(queued[math.ceil(len(queued) * 0.99) - 1] / 1000, 3) if queued else 0.0,
        forecast=forecast(_hourly(minutes, since=since, now=now), held=held, now=now),
    )


def _hourly(minutes: dict[int, float], *, since: float, now: float) -> list[float]:
    """The busiest minute of each full hour until now, oldest first."""
    count = min(int((now - since) // 3600), _TREND_HOURS)
    last = int(now // 60)
    hours = [0.0] * count
    for minute, used in minutes.items():
        back = (last - minute) // 60
        if 0 <= back < count:
            hours[count - 1 - back] = max(hours[count - 1 - back], used)
    return hours


def forecast(hourly: Sequence[float], *, held: int, now: float) -> Forecast:
    """`hourly`: slots in the busiest minute of each hour, oldest first."""
    count = len(hourly)
    if count < _LEAST_HOURS:
        return Forecast(hours=count)
    middle = (count - 1) / 2
    mean = sum(hourly) / count
    spread = sum((at - middle) ** 2 for at in range(count))
    slope = sum((at - middle) * (value - mean) for at, value in enumerate(hourly)) / spread
    line = [mean + slope * (at - middle) for at in range(count)]
    squares = sum((value - there) ** 2 for value, there in zip(hourly, line, strict=True))
    error = 2 * math.sqrt(squares / (count - 2))
    level = line[-1]

    def reached(limit: float) -> float | None:
        if level >= limit:
            return now
        if slope <= 0:
            return None
        after_s = (limit - level) / slope * 3600
        return now + after_s if after_s <= _HORIZON_S else None

    return Forecast(
        at=reached(held),
        soonest=reached(max(held - error, 0.0)) if slope > 0 else None,
        slots_per_day=round(slope * 24, 3),
        error=round(error, 3),
        hours=count,
    )
