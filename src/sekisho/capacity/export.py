"""Reservations for calendars (RFC 5545) and spreadsheets (RFC 4180)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from sekisho.capacity.grid import unix_s
from sekisho.capacity.model import Pool, Reservation

COLUMNS = (
    "id", "version", "tenant", "state", "priority", "data_class", "pool", "gpus", "start", "end", "price_yen",
    "refund_yen", "note",
)  # fmt: skip


def to_csv(reservations: Iterable[Reservation], pools: Mapping[int, Pool]) -> str:
    """A line for each part of each reservation; times in UTC."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for each in reservations:
        body = each.body
        for part in body.parts:
            writer.writerow(
                (
                    each.id, each.version, body.tenant, body.state, body.priority, body.data_class,
                    _pool(pools, part.pool), part.gpus, _utc(body.first).isoformat(), _utc(body.until).isoformat(),
                    body.price_yen, body.refund_yen, _harmless(body.note),
                )
            )  # fmt: skip
    return out.getvalue()


def to_icalendar(reservations: Iterable[Reservation], pools: Mapping[int, Pool], *, now: float) -> str:
    """One event for each reservation; a cancelled one says so, so that calendars take it out."""
    lines = ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//Sekisho//reservations//EN"]
    stamp = _basic(datetime.fromtimestamp(now, UTC))
    for each in reservations:
        body = each.body
        where = ", ".join(f"{part.gpus} × {_pool(pools, part.pool)}" for part in body.parts)
        lines += [
            "BEGIN:VEVENT",
            f"UID:{each.id}@sekisho",
            f"SEQUENCE:{each.version}",
            f"DTSTAMP:{stamp}",
            f"DTSTART:{_basic(_utc(body.first))}",
            f"DTEND:{_basic(_utc(body.until))}",
            f"SUMMARY:{_text(f'{where} ({body.tenant})')}",
            f"DESCRIPTION:{_text(body.note)}",
            f"STATUS:{'CONFIRMED' if body.state in ('booked', 'ended') else 'CANCELLED'}",
            "END:VEVENT",
        ]
    lines.append("END:VCALENDAR")
    return "".join(_folded(line) for line in lines)


def _pool(pools: Mapping[int, Pool], number: int) -> str:
    return pools[number].id if number in pools else str(number)


def _utc(slot: int) -> datetime:
    return datetime.fromtimestamp(unix_s(slot), UTC)


def _basic(at: datetime) -> str:
    return at.strftime("%Y%m%dT%H%M%SZ")


def _text(value: str) -> str:
    # RFC 5545 §3.3.11; other control characters are not allowed in text
    plain = "".join(sign if sign == "\n" or sign.isprintable() else " " for sign in value)
    return plain.replace("\\", "\\\\").replace(";", "\\;").replace(",", "\\,").replace("\n", "\\n")


def _folded(line: str) -> str:
    """RFC 5545 §3.1: at most 75 octets in a line, never inside a character."""
    parts = [""]
    size = 0
    for sign in line:
        octets = len(sign.encode())
        if size + octets > 75:
            parts.append(" ")
            size = 1
        parts[-1] += sign
        size += octets
    return "\r\n".join(parts) + "\r\n"


def _harmless(value: str) -> str:
    """A note that a spreadsheet would run as a formula gets an apostrophe."""
    return f"'{value}" if value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
