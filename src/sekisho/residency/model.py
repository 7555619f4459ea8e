"""Verdicts: who may serve what, and why."""

from __future__ import annotations

from typing import Protocol

import msgspec

from sekisho.kernel.classes import DataClass


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """Why a rule said no to an endpoint, in both languages."""

    rule: str
    en: str
    ja: str
    site: str = ""


class Allowed(msgspec.Struct, frozen=True, kw_only=True, tag="allowed"):
    """`valid_until` (Unix seconds): the earliest expiry of the evidence under this verdict; None: it needs none."""

    rules: tuple[str, ...]
    valid_until: float | None = None


class Denied(msgspec.Struct, frozen=True, kw_only=True, tag="denied"):
    rules: tuple[str, ...]
    reasons: tuple[Reason, ...]


Verdict = Allowed | Denied


class EndpointFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule may know of an endpoint: the axes of policy. Country (where the machines stand), the operator's
    country and the law over the operator are separate on purpose."""

    site: str
    operator: str
    site_country: str
    operator_country: str
    operator_law: str
    evidence_until: float


class Policy(Protocol):
    """Decides for one class and one endpoint. `hash` names the rules, and is written into every decision."""

    @property
    def hash(self) -> str: ...

    def decide(self, data_class: DataClass, facts: EndpointFacts, *, now: float) -> Verdict: ...
