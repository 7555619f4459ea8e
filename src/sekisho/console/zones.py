"""The viewer's time zone: kept in a cookie that `console.js` sets, so that forms and pictures can be in it too."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from litestar import Request

COOKIE = "sekisho_zone"
# Who reads without JavaScript reads in Japan, until the address says otherwise.
DEFAULT = "Asia/Tokyo"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9+_-]*(/[A-Za-z0-9+_-]+){0,2}")


def zone_of(request: Request[Any, Any, Any], query: dict[str, str]) -> ZoneInfo:
    """What the address names, else the cookie, else Japan."""
    return (
        _zone(query.get("zone", ""))
        or _zone(request.cookies.get(COOKIE, "").replace("%2F", "/"))
        or ZoneInfo(DEFAULT)
    )


def _zone(name: str) -> ZoneInfo | None:
    if len(name) > 64 or not _NAME.fullmatch(name):
        return None
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # a folder of the zone database is a name, too
        return None


def instant(text: str, zone: ZoneInfo) -> int | None:
    """What a form says (`2027-06-01T09:00`, or a date alone) in Unix seconds; None when it is no time."""
    try:
        at = datetime.fromisoformat(text.strip())
        return int((at if at.tzinfo else at.replace(tzinfo=zone)).timestamp())
    except (ValueError, OverflowError, OSError):
        return None


def field_value(at_s: float, zone: ZoneInfo) -> str:
    """What stands in an `<input type=datetime-local>`."""
    return datetime.fromtimestamp(at_s, zone).strftime("%Y-%m-%dT%H:%M")


def iso(at_s: float, zone: ZoneInfo) -> str:
    """With its offset, as the command line takes it."""
    return datetime.fromtimestamp(at_s, zone).isoformat(timespec="minutes")


def midnight(at_s: float, zone: ZoneInfo) -> int:
    """The beginning of that day, there."""
    at = datetime.fromtimestamp(at_s, zone)
    return int(at.replace(hour=0, minute=0, second=0, microsecond=0).timestamp())


def ticks(first_s: int, until_s: int, zone: ZoneInfo, *, most: int = 6) -> list[tuple[float, str]]:
    """Where a time axis has its marks (per cent) and what stands there: beginnings of days, months or years."""
    days = (until_s - first_s) / 86_400
    step_days = next((step for step in (1, 2, 7, 14) if days / step <= most), 0)
    found: list[tuple[float, str]] = []
    at = datetime.fromtimestamp(midnight(first_s, zone), UTC).astimezone(zone)
    months = max(1, round(days / 30.4 / most)) if not step_days else 0
    if months:
        at = at.replace(day=1)
    while True:
        at_s = at.timestamp()
        if at_s >= until_s:
            return found
        if at_s >= first_s:
            label = at.strftime("%Y-%m") if months else f"{at.month}/{at.day}"
            found.append((round(100 * (at_s - first_s) / (until_s - first_s), 2), label))
        if months:
            month = at.month - 1 + months
            at = at.replace(year=at.year + month // 12, month=month % 12 + 1)
        else:
            at = (at.replace(tzinfo=None) + timedelta(days=step_days)).replace(tzinfo=zone)
