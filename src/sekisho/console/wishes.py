"""A wish for GPUs as a form has it: kept as it was written, checked when it is asked."""

from __future__ import annotations

import re
import shlex
from zoneinfo import ZoneInfo

import msgspec

from sekisho.capacity.grid import SLOT_S, slot_of, unix_s
from sekisho.capacity.model import PRIORITY_RANK, Pool, Priority, Wanted
from sekisho.console.i18n import Translator
from sekisho.console.zones import field_value, instant, iso
from sekisho.kernel.classes import LABELS

UNITS: dict[str, int] = {"hours": 3600, "days": 86_400, "weeks": 604_800}
PRIORITIES: tuple[Priority, ...] = tuple(PRIORITY_RANK)
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_COUNT = re.compile(r"[0-9]{1,7}")
_LENGTH = re.compile(r"[0-9]{1,6}(\.[0-9]{1,2})?")


class WishUnclear(Exception):
    """A field that can't be read; the text says which, in the reader's language."""


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of the form, as texts. `gpu` and `sites` empty: any."""

    tenant: str = ""
    data_class: str = "internal"
    gpus: str = ""
    gpus_min: str = ""
    gpu: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    start: str = ""
    latest: str = ""
    length: str = ""
    unit: str = "days"
    spread: bool = False
    priority: Priority = "standard"
    asked: bool = False

    @classmethod
    def parse(cls, pairs: list[tuple[str, str]]) -> Wish:
        query = dict(pairs)

        def all_of(name: str) -> tuple[str, ...]:
            return tuple(text for given, text in pairs if given == name and _NAME.fullmatch(text))[:100]

        tenant = query.get("tenant", "").strip()
        return cls(
            tenant=tenant if _NAME.fullmatch(tenant) else "",
            data_class=text if (text := query.get("class", "")) in LABELS else "internal",
            gpus=query.get("gpus", "").strip()[:12],
            gpus_min=query.get("gpus_min", "").strip()[:12],
            gpu=all_of("gpu"),
            sites=all_of("site"),
            start=query.get("start", "").strip()[:32],
            latest=query.get("latest", "").strip()[:32],
            length=query.get("length", "").strip()[:12],
            unit=text if (text := query.get("unit", "")) in UNITS else "days",
            spread=query.get("spread") == "yes",
            priority=next((each for each in PRIORITIES if each == query.get("priority")), "standard"),
            asked=bool(tenant),
        )

    def pairs(self, zone: ZoneInfo) -> list[tuple[str, str]]:
        """Back into an address."""
        one = [
            ("tenant", self.tenant), ("class", self.data_class), ("gpus", self.gpus), ("gpus_min", self.gpus_min),
            ("start", self.start), ("latest", self.latest), ("length", self.length), ("unit", self.unit),
            ("spread", "yes" if self.spread else ""), ("priority", self.priority), ("zone", zone.key),
        ]  # fmt: skip
        many = [("gpu", each) for each in self.gpu] + [("site", each) for each in self.sites]
        return [(name, text) for name, text in [*one, *many] if text]

    def wanted(self, zone: ZoneInfo, t: Translator) -> Wanted:
        """WishUnclear when a field says nothing that could be meant; what is impossible the service refuses."""
        if not _COUNT.fullmatch(self.gpus) or (self.gpus_min and not _COUNT.fullmatch(self.gpus_min)):
            raise WishUnclear(t("Give the number of GPUs as a whole number."))
        start = instant(self.start, zone)
        latest = instant(self.latest, zone) if self.latest else start
        if start is None or latest is None:
            raise WishUnclear(t("Give the start as a date and a time, such as 2027-06-01T09:00."))
        if not _LENGTH.fullmatch(self.length) or (length_s := float(self.length) * UNITS[self.unit]) % SLOT_S:
            raise WishUnclear(t("Give the length as a number, in quarters of an hour: 0.25, 1, 14 …"))
        if not length_s:
            raise WishUnclear(t("The length is more than nothing."))
        gpus = int(self.gpus)
        first = slot_of(start, what="`start`")
        return Wanted(
            tenant=self.tenant,
            data_class=self.data_class,
            gpu_models=self.gpu,
            gpus=gpus,
            gpus_min=int(self.gpus_min) if self.gpus_min else gpus,
            first=first,
            latest=max(first, slot_of(latest, what="`latest_start`")) if self.latest else first,
            slots=int(length_s) // SLOT_S,
            sites=self.sites,
            spread=self.spread,
            priority=self.priority,
        )


def wish_again(wanted: Wanted, zone: ZoneInfo) -> Wish:
    """The form that says so: for a wish that was taken from a reservation or the waitlist."""
    length_s = wanted.slots * SLOT_S
    unit = "days" if length_s % UNITS["days"] == 0 else "hours"
    return Wish(
        tenant=wanted.tenant,
        data_class=wanted.data_class,
        gpus=str(wanted.gpus),
        gpus_min=str(wanted.gpus_min) if wanted.gpus_min != wanted.gpus else "",
        gpu=wanted.gpu_models,
        sites=wanted.sites,
        start=field_value(unix_s(wanted.first), zone),
        latest=field_value(unix_s(wanted.latest), zone) if wanted.latest != wanted.first else "",
        length=f"{length_s / UNITS[unit]:g}",
        unit=unit,
        spread=wanted.spread,
        priority=wanted.priority,
        asked=True,
    )


def command(verb: str, wanted: Wanted, zone: ZoneInfo) -> str:
    """The same at a terminal; `verb` is `find`, `book` or `waitlist`."""
    words = ["sekisho", "reserve", verb, "--tenant", wanted.tenant, "--class", wanted.data_class]
    words += ["--gpus", str(wanted.gpus)]
    if wanted.gpus_min != wanted.gpus:
        words += ["--gpus-min", str(wanted.gpus_min)]
    for gpu in wanted.gpu_models:
        words += ["--gpu", gpu]
    words += ["--start", iso(unix_s(wanted.first), zone)]
    if wanted.latest != wanted.first:
        words += ["--latest-start", iso(unix_s(wanted.latest), zone)]
    words += ["--hours", f"{wanted.slots * SLOT_S / 3600:g}"]
    for site in wanted.sites:
        words += ["--site", site]
    if wanted.spread:
        words.append("--spread")
    if wanted.priority != "standard":
        words += ["--priority", wanted.priority]
    return shlex.join(words)


def gpu_models(pools: list[Pool]) -> tuple[str, ...]:
    return tuple(sorted({pool.gpu for pool in pools}))
