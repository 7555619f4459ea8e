"""Policy tests in tables: what a policy must say of an endpoint, written as TOML beside the policy.

    [[case]]
    name = "confidential work stays in the country"
    class = "confidential"
    endpoint = { site_country = "US" }
    allowed = false
    rules = ["site-in-jurisdiction"]

`endpoint` has the attributes of docs/reference/policy-attributes.md; what is not named is the best value there is, so
that a case says only what it is about. Times are durations: `age` since the evidence was taken, `left` until it ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import msgspec
from msgspec import Meta

from sekisho.kernel.classes import LABELS, DataClass
from sekisho.kernel.units import parse_duration_s
from sekisho.residency.model import (
    Allowed,
    AttestationFacts,
    AttestationKind,
    AttestationLevel,
    EndpointFacts,
    KeyCustody,
    LocationFacts,
    LocationVerdict,
    Personnel,
    TenantFacts,
)
from sekisho.residency.policy.engine import CedarPolicy
from sekisho.runtime.toml import ConfigRefused, Document, Problem

# Any moment: cases say times only relative to it. 2026-11-24 00:00 UTC
NOW = 1_795_478_400.0
_DURATION = r"^-?\d+(\.\d+)?(ms|s|m|h|d)$"
Duration = Annotated[str, Meta(pattern=_DURATION)]


class _Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Attestation(_Strict, frozen=True, kw_only=True):
    kind: AttestationKind = "snp"
    level: AttestationLevel = "affirming"
    hardware_registered: bool = True
    age: Duration = "1m"
    left: Duration = "1h"


class Location(_Strict, frozen=True, kw_only=True):
    verdict: LocationVerdict = "proven"
    margin_km: int = 100
    age: Duration = "1m"
    left: Duration = "1h"


class CaseEndpoint(_Strict, frozen=True, kw_only=True):
    """None: the jurisdiction."""

    site: str = "site"
    operator: str = "operator"
    enrolled: bool = False
    site_country: str | None = None
    site_law: str | None = None
    operator_country: str | None = None
    operator_law: str | None = None
    owner_country: str | None = None
    foreign_owned_percent: Annotated[int, Meta(ge=0, le=100)] = 0
    foreign_laws: tuple[str, ...] = ()
    operator_can_read: bool = False
    key_custody: KeyCustody = "tenant"
    personnel: Personnel = "cleared"
    subcontractor_countries: tuple[str, ...] = ()
    log_retention_days: int = 3650
    attestation: Attestation = Attestation()
    location: Location = Location()
    declaration_left: Duration = "1d"


class Case(_Strict, frozen=True, kw_only=True):
    """`rules`: exactly those that refuse (or permit); `closes_in`: when an allowed route closes by itself."""

    name: Annotated[str, Meta(min_length=1, max_length=200)]
    data_class: Annotated[str, Meta(pattern=f"^({'|'.join(LABELS)})$")] = msgspec.field(name="class")
    allowed: bool
    tenant: str = ""
    profiles: tuple[str, ...] = ()
    endpoint: CaseEndpoint = CaseEndpoint()
    rules: tuple[str, ...] | None = None
    closes_in: Duration | None = None
    jurisdiction: Annotated[str, Meta(pattern="^[A-Z]{2}$")] = "JP"


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """`faults` is empty when the policy says what the case expects."""

    file: str
    line: int
    name: str
    faults: tuple[str, ...]


def read_cases(document: Document) -> tuple[tuple[int, Case], ...]:
    """The cases of a file with their lines; ConfigRefused with every mistake."""
    problems: list[Problem] = []
    for name in document.data:
        if name != "case":
            problems.append(document.problem((name,), f"there is no `{name}` here", "write [[case]]"))
    raw = document.data.get("case")
    if not isinstance(raw, list) or not raw:
        problems.append(
            document.problem(("case",), "the file has no case", "write [[case]] with name, class, allowed")
        )
        raw = []
    cases: list[tuple[int, Case]] = []
    for place, each in enumerate(raw):
        try:
            cases.append((document.line(("case", place)), msgspec.convert(each, Case)))
        except msgspec.ValidationError as error:
            mend = "a case is described in docs/how-to/write-a-policy.en.md"
            problems.append(document.problem(("case", place), f"case {place + 1}: {error}", mend))
    if problems:
        raise ConfigRefused(problems)
    return tuple(cases)


def run_case(policy: CedarPolicy, case: Case) -> tuple[str, ...]:
    """What the policy says otherwise than the case; the policy must be for the case's jurisdiction."""
    verdict = policy.decide(
        TenantFacts(id=case.tenant, profiles=tuple(sorted(case.profiles))),
        DataClass[case.data_class.upper()],
        _facts(case.endpoint, case.jurisdiction),
        now=NOW,
    )
    faults: list[str] = []
    allowed = isinstance(verdict, Allowed)
    if allowed is not case.allowed:
        said = "allowed" if allowed else f"denied by {', '.join(verdict.rules)}"
        faults.append(f"expected {'allowed' if case.allowed else 'denied'}, got {said}")
    elif case.rules is not None and set(case.rules) != set(verdict.rules):
        faults.append(f"expected the rules {', '.join(case.rules) or '–'}, got {', '.join(verdict.rules)}")
    if isinstance(verdict, Allowed) and case.closes_in is not None:
        closes_in = None if verdict.valid_until is None else verdict.valid_until - NOW
        if closes_in is None or abs(closes_in - _seconds(case.closes_in)) > 0.001:
            faults.append(f"expected that it closes in {case.closes_in}, got {_said(closes_in)}")
    return tuple(faults)


def run_cases(
    document: Document, policies: dict[str, CedarPolicy], make: Callable[[str], CedarPolicy]
) -> tuple[Result, ...]:
    """Every case of a file; `make(jurisdiction)` makes a policy that `policies` does not have yet."""
    results = []
    for line, case in read_cases(document):
        policy = policies.get(case.jurisdiction)
        if policy is None:
            policy = policies[case.jurisdiction] = make(case.jurisdiction)
        results.append(Result(file=document.file, line=line, name=case.name, faults=run_case(policy, case)))
    return tuple(results)


def _facts(given: CaseEndpoint, here: str) -> EndpointFacts:
    def country(code: str | None) -> str:
        return here if code is None else code

    attestation = AttestationFacts()
    if given.attestation.kind != "none":
        attestation = AttestationFacts(
            kind=given.attestation.kind,
            level=given.attestation.level,
            hardware_registered=given.attestation.hardware_registered,
            at=NOW - _seconds(given.attestation.age),
            until=NOW + _seconds(given.attestation.left),
        )
    return EndpointFacts(
        site=given.site,
        operator=given.operator,
        enrolled=given.enrolled,
        site_country=country(given.site_country),
        operator_country=country(given.operator_country),
        operator_law=country(given.operator_law),
        evidence_until=NOW + _seconds(given.declaration_left),
        site_law=country(given.site_law),
        owner_country=country(given.owner_country),
        foreign_owned_percent=given.foreign_owned_percent,
        foreign_laws=given.foreign_laws,
        operator_can_read=given.operator_can_read,
        key_custody=given.key_custody,
        personnel=given.personnel,
        subcontractor_countries=given.subcontractor_countries,
        log_retention_days=given.log_retention_days,
        attestation=attestation,
        location=LocationFacts(
            verdict=given.location.verdict,
            margin_km=given.location.margin_km,
            at=NOW - _seconds(given.location.age),
            until=NOW + _seconds(given.location.left),
        ),
    )


def _seconds(text: str) -> float:
    sign = -1.0 if text.startswith("-") else 1.0
    return sign * (parse_duration_s(text.removeprefix("-")) or 0.0)


def _said(seconds: float | None) -> str:
    return "that it never does" if seconds is None else f"{seconds:g}s"
