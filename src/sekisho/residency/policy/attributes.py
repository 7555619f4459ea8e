"""The attributes of the schema: how each is taken from facts, and how a person reads it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from sekisho.federation.countries import country_label
from sekisho.kernel.classes import DataClass
from sekisho.residency.decide import instant
from sekisho.residency.model import AttestationFacts, EndpointFacts, LocationFacts

# The age of evidence that is not there: the largest whole number that every JSON reader keeps exactly.
NEVER_S = (1 << 53) - 1

EVIDENCE_FRESH = "context.evidence_fresh"
ATTESTATION_AGE = "context.attestation_age_s"
LOCATION_AGE = "context.location_age_s"
AGES = (ATTESTATION_AGE, LOCATION_AGE)
_CONTEXT = ("jurisdiction", "class_level", "evidence_fresh", "attestation_age_s", "location_age_s")


class At(msgspec.Struct, frozen=True):
    """An endpoint's facts at an instant (see `at_instant`), and what belongs to the question itself."""

    facts: EndpointFacts
    data_class: DataClass
    jurisdiction: str
    now: float


_ENTITIES = {
    "resource.attestation.kind": "AttestationKind",
    "resource.attestation.level": "AttestationLevel",
    "resource.location.verdict": "LocationVerdict",
    "resource.key_custody": "KeyCustody",
    "resource.personnel": "Personnel",
}
_PLAIN = (
    "site", "operator", "enrolled", "site_country", "site_law", "operator_country", "operator_law", "owner_country",
    "foreign_owned_percent", "foreign_laws", "operator_can_read", "key_custody", "personnel",
    "subcontractor_countries", "log_retention_days",
)  # fmt: skip


def _reader(name: str) -> Callable[[At], Any]:
    return lambda at: getattr(at.facts, name)


READ: dict[str, Callable[[At], Any]] = {
    **{f"resource.{name}": _reader(name) for name in _PLAIN},
    "resource.attestation.kind": lambda at: at.facts.attestation.kind,
    "resource.attestation.level": lambda at: at.facts.attestation.level,
    "resource.attestation.hardware_registered": lambda at: at.facts.attestation.hardware_registered,
    "resource.location.verdict": lambda at: at.facts.location.verdict,
    "resource.location.margin_km": lambda at: at.facts.location.margin_km,
    "context.jurisdiction": lambda at: at.jurisdiction,
    "context.class_level": lambda at: int(at.data_class),
    # Written this way round, an expiry that is no number (NaN) is not fresh.
    EVIDENCE_FRESH: lambda at: at.facts.evidence_until > at.now,
    ATTESTATION_AGE: lambda at: age_s(at.facts.attestation.at, at.now, there=at.facts.attestation.kind != "none"),
    LOCATION_AGE: lambda at: age_s(at.facts.location.at, at.now, there=at.facts.location.at > 0),
}
PATHS = tuple(READ)
# Attributes whose values are countries: what a policy compares them with must be one.
COUNTRIES = frozenset(
    f"resource.{name}"
    for name in (
        "site_country", "site_law", "operator_country", "operator_law", "owner_country", "foreign_laws",
        "subcontractor_countries",
    )
)  # fmt: skip


def at_instant(facts: EndpointFacts, now: float) -> EndpointFacts:
    """The facts as they are at `now`: good evidence past its end is none; what speaks against a site stays.

    Else a site that failed its attestation would only have to wait.
    """
    attestation, location = facts.attestation, facts.location
    if attestation.level != "contraindicated" and not attestation.until > now:
        attestation = _NO_ATTESTATION
    if location.verdict != "contradicted" and not location.until > now:
        location = _NO_LOCATION
    if attestation is facts.attestation and location is facts.location:
        return facts
    return msgspec.structs.replace(facts, attestation=attestation, location=location)


_NO_ATTESTATION = AttestationFacts()
_NO_LOCATION = LocationFacts()


def age_s(at: float, now: float, *, there: bool) -> int:
    """Whole seconds, never negative; NEVER_S where there is nothing. Rounded to the millisecond before it is cut, so
    that `at + n` is n seconds old although binary fractions say a little less."""
    passed = now - at
    if not there or not math.isfinite(passed):
        return NEVER_S
    return min(max(math.floor(round(passed, 3)), 0), NEVER_S)


def expand(path: str) -> tuple[str, ...]:
    """The attributes that a mention of this one means: itself, or all members of a record."""
    return tuple(known for known in PATHS if known == path or known.startswith(f"{path}."))


def as_cedar(path: str, value: Any) -> Any:
    """A value in the JSON form of Cedar's entities."""
    kind = _ENTITIES.get(path)
    if kind is not None:
        return {"__entity": {"type": kind, "id": value}}
    return list(value) if isinstance(value, tuple) else value


# -- words: what `{name}` in a reason stands for

Language = Literal["en", "ja"]


def _countries(codes: tuple[str, ...], language: Language) -> str:
    if not codes:
        return "–"
    return (", " if language == "en" else "、").join(_country(code, language) for code in codes)


def _country(code: str, language: Language) -> str:
    if not code:
        return "an undeclared country" if language == "en" else "未申告の国"
    return country_label(code, language)


def _moment(unix_s: float, language: Language) -> str:
    if unix_s > 0:
        return instant(unix_s)
    return "no time" if language == "en" else "実施なし"


def _country_of(name: str) -> Callable[[At, Language], str]:
    return lambda at, language: _country(getattr(at.facts, name), language)


def _text_of(name: str) -> Callable[[At, Language], str]:
    return lambda at, _: str(getattr(at.facts, name))


SAYS: dict[str, Callable[[At, Language], str]] = {
    **{
        name: _country_of(name)
        for name in ("site_country", "site_law", "operator_country", "operator_law", "owner_country")
    },
    **{
        name: _text_of(name)
        for name in ("site", "operator", "foreign_owned_percent", "key_custody", "personnel", "log_retention_days")
    },
    "class": lambda at, _: at.data_class.label,
    "jurisdiction": lambda at, language: country_label(at.jurisdiction, language),
    "foreign_laws": lambda at, language: _countries(at.facts.foreign_laws, language),
    "subcontractor_countries": lambda at, language: _countries(at.facts.subcontractor_countries, language),
    "evidence_until": lambda at, _: instant(at.facts.evidence_until),
    "attestation_kind": lambda at, _: at.facts.attestation.kind,
    "attestation_level": lambda at, _: at.facts.attestation.level,
    "attestation_at": lambda at, language: _moment(at.facts.attestation.at, language),
    "attestation_until": lambda at, language: _moment(at.facts.attestation.until, language),
    "location_verdict": lambda at, _: at.facts.location.verdict,
    "location_at": lambda at, language: _moment(at.facts.location.at, language),
    "location_until": lambda at, language: _moment(at.facts.location.until, language),
    "margin_km": lambda at, _: str(at.facts.location.margin_km),
}
