"""The policy engine: Cedar decides over a finite domain, and every answer is kept.

A rule sees only the attributes that it mentions, and an age only through the numbers that it compares it with. So a
question to Cedar is a handful of values, the same for many endpoints and instants; a verdict is such an answer with
its end (from the evidence) and its words. Pure: the clock is an argument; the caches never change an answer.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import cedarpy
import msgspec

from sekisho.kernel.classes import DataClass
from sekisho.residency.model import ANYBODY, Allowed, Denied, EndpointFacts, Reason, TenantFacts, Verdict
from sekisho.residency.policy.attributes import (
    AGES,
    ATTESTATION_AGE,
    EVIDENCE_FRESH,
    READ,
    SAYS,
    At,
    Language,
    as_cedar,
    at_instant,
)
from sekisho.residency.policy.bundle import Bundle, schema_text
from sekisho.residency.policy.read import Rule, read_rules

NOT_PERMITTED = "not-permitted"
POLICY_ERROR = "policy-error"
UNKNOWN_PROFILE = "unknown-profile"
# Enough for thousands of sites under dozens of profiles; past it everything is asked again, once.
_MAX_KEPT = 200_000
_MAX_KEPT_OF_KIND = 1_000
_MAX_KINDS = 4_000  # of tenants, times classes
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_INFINITE = float("inf")


class Answer(NamedTuple):
    """What Cedar said: the rules (positions) that permit, those that forbid, and whether one failed."""

    permits: tuple[int, ...]
    forbids: tuple[int, ...]
    failed: bool

    @property
    def allowed(self) -> bool:
        return bool(self.permits) and not self.forbids and not self.failed


class Plan(NamedTuple):
    """What the rules for one class and these profiles can see, in the order in which it is asked."""

    action: str
    paths: tuple[str, ...]
    reads: tuple[Callable[[At], Any], ...]
    bounds: dict[str, tuple[int, ...]]  # age → the ages at which a comparison can change its outcome
    fresh: bool  # whether they see if the declaration stands
    attestation: bool
    location: bool

    def on_grid(self, path: str, age_s: int) -> int:
        """The least age that no rule can tell from this one."""
        bounds = self.bounds[path]
        return bounds[max(bisect.bisect_right(bounds, age_s) - 1, 0)]


class _Kept(NamedTuple):
    """A verdict for facts whose declaration stands, and the time in which it is the same."""

    since: float
    until: float
    closes_at: float
    verdict: Verdict


class CedarPolicy:
    """The rules of one bundle for one jurisdiction. Raises PolicyRefused for a bundle with mistakes.

    Not safe to share among threads at the same instant, except that two threads may compute the same answer twice.
    """

    def __init__(self, bundle: Bundle, *, jurisdiction: str) -> None:
        self.bundle = bundle
        self.jurisdiction = jurisdiction
        self.rules: tuple[Rule, ...] = read_rules(bundle)
        self.profiles = frozenset(bundle.profiles)
        self._hash = policy_hash(bundle, jurisdiction=jurisdiction)
        self._policies = cedarpy.PolicySet.from_str("\n".join(rule.text for rule in self.rules))
        self._named = frozenset(tenant for rule in self.rules for tenant in rule.mentions.tenants)
        self._plans: dict[tuple[tuple[str, ...], DataClass], Plan] = {}
        self._answers: dict[tuple[TenantFacts, DataClass, tuple[Any, ...]], Answer] = {}
        self._kept: dict[tuple[TenantFacts, DataClass], dict[int, _Kept]] = {}
        self._most = 0  # facts that were asked about at once: a table's, whose changed ones come alone afterwards
        self._counter = itertools.count()
        self._numbers: dict[EndpointFacts, int] = {}  # facts but for the declaration's end → a number of their own
        self._numbered: tuple[Sequence[EndpointFacts], list[int]] = ((), [])  # those of the last table
        self._words: dict[tuple[Any, ...], Reason] = {}
        self._placeholders = [
            tuple(dict.fromkeys(_PLACEHOLDER.findall(rule.reason_en + rule.reason_ja))) for rule in self.rules
        ]
        self.asked = 0  # how often Cedar itself was asked

    @property
    def hash(self) -> str:
        """SHA-256 (hex) over form, jurisdiction, schema and files."""
        return self._hash

    def kind_of(self, tenant: TenantFacts) -> TenantFacts:
        """Without the id unless a rule names it."""
        if tenant.id in self._named:
            return tenant
        return TenantFacts(profiles=tenant.profiles) if tenant.profiles else ANYBODY

    def decide(self, tenant: TenantFacts, data_class: DataClass, facts: EndpointFacts, *, now: float) -> Verdict:
        """Allowed until the earliest instant at which this would not be so any more, or Denied with every rule that
        says no. A tenant with a profile that does not exist is denied everything."""
        return self.decide_each(tenant, data_class, (facts,), now=now)[0][0]

    def decide_each(
        self, tenant: TenantFacts, data_class: DataClass, facts: Sequence[EndpointFacts], *, now: float
    ) -> tuple[list[Verdict], list[float]]:
        """The same for each, in their order, and until when it holds: of a thousand sites and ten kinds of tenants
        most stay as they were."""
        if not self.profiles.issuperset(tenant.profiles):
            return [_unknown_profile(tenant, each, self.profiles) for each in facts], [_INFINITE] * len(facts)
        tenant = self.kind_of(tenant)
        plan = self.plan(tenant, data_class)
        guarded = data_class.guarded
        numbered = self._number(facts)
        kept_here = self._kept.get((tenant, data_class))
        if kept_here is None:
            if len(self._kept) >= _MAX_KINDS:
                self._kept.clear()
            kept_here = self._kept[tenant, data_class] = {}
        self._most = max(self._most, len(facts))
        found: list[Verdict] = []
        same: list[float] = []
        for each, number in zip(facts, numbered, strict=True):
            until = each.evidence_until
            if not until > now or (plan.fresh and not guarded):
                verdict, same_until = self._decide(tenant, data_class, each, now=now)
                found.append(verdict)
                same.append(min(same_until, until) if until > now else same_until)
                continue
            kept = kept_here.get(number)
            if kept is None or not kept.since <= now < kept.until:
                if len(kept_here) >= max(2 * self._most, _MAX_KEPT_OF_KIND):
                    kept_here.clear()  # most are of facts that have changed since
                kept = kept_here[number] = self._keep(tenant, data_class, each, now=now)
            verdict = kept.verdict
            if guarded and isinstance(verdict, Allowed):
                verdict = Allowed(rules=verdict.rules, valid_until=min(kept.closes_at, until))
            found.append(verdict)
            same.append(kept.until if kept.until < until else until)
        return found, same

    def _keep(self, tenant: TenantFacts, data_class: DataClass, facts: EndpointFacts, *, now: float) -> _Kept:
        """The verdict for these facts as if the declaration stood for ever, and how long it is the same."""
        verdict, until = self._decide(tenant, data_class, _standing(facts), now=now)
        closes_at = _INFINITE
        if isinstance(verdict, Allowed) and verdict.valid_until is not None:
            closes_at = verdict.valid_until
        return _Kept(now, until, closes_at, verdict)

    def _number(self, facts: Sequence[EndpointFacts]) -> list[int]:
        """A number for each, the same as long as nothing but the declaration's end has changed: that moves with every
        table. A table's facts are asked about for every kind of tenant and every class, and hashed once."""
        last, numbers = self._numbered
        if last is not facts:
            if len(self._numbers) >= _MAX_KEPT:
                self._numbers.clear()
            # A counter that never goes back: two threads at once, or a cleared dict, give no number twice.
            numbers = [self._numbers.setdefault(_standing(each), next(self._counter)) for each in facts]
            if isinstance(facts, tuple):  # it will say the same when it is seen again
                self._numbered = facts, numbers
        return numbers

    def answer(self, tenant: TenantFacts, data_class: DataClass, facts: EndpointFacts, *, now: float) -> Answer:
        """What Cedar says at this instant, without words and without an end."""
        plan = self.plan(tenant, data_class)
        at = At(at_instant(facts, now), data_class, self.jurisdiction, now)
        values = tuple(read(at) for read in plan.reads)
        if plan.bounds:
            values = tuple(
                plan.on_grid(path, value) if path in plan.bounds else value
                for path, value in zip(plan.paths, values, strict=True)
            )
        return self.answer_to(tenant, data_class, values)

    def plan(self, tenant: TenantFacts, data_class: DataClass) -> Plan:
        """What the rules that concern this tenant and class can see."""
        key = (tenant.profiles, data_class)
        known = self._plans.get(key)
        if known is None:
            concerned = [rule for rule in self.rules if not rule.profile or rule.profile in tenant.profiles]
            known = self._plans[key] = _plan(data_class, concerned)
        return known

    def answer_to(self, tenant: TenantFacts, data_class: DataClass, values: tuple[Any, ...]) -> Answer:
        """The same for bare values, in the order of the plan's `paths`; ages must be on its grid."""
        plan = self.plan(tenant, data_class)
        key = (tenant, data_class, values)
        known = self._answers.get(key)
        if known is None:
            if len(self._answers) >= _MAX_KEPT:
                self._answers.clear()
            known = self._answers[key] = self._ask(tenant, plan, values)
        return known

    def _decide(
        self, tenant: TenantFacts, data_class: DataClass, facts: EndpointFacts, *, now: float
    ) -> tuple[Verdict, float]:
        """The verdict, and until when it is the same if the declaration stands so long."""
        plan = self.plan(tenant, data_class)
        answer = self.answer(tenant, data_class, facts, now=now)
        instants = sorted(instant for instant in _instants(plan, facts) if instant > now)
        same_until = instants[0] if instants else _INFINITE
        if not answer.allowed:
            return self._denied(answer, data_class, facts, now=now), same_until
        valid_until = facts.evidence_until if data_class.guarded else None
        if plan.fresh and not data_class.guarded:
            instants = sorted([*instants, facts.evidence_until])
        for instant in instants:
            if valid_until is not None and instant >= valid_until:
                break  # closed before (law 2)
            if not self.answer(tenant, data_class, facts, now=instant).allowed:
                valid_until = instant
                break
        rules = tuple(dict.fromkeys(self.rules[position].id for position in answer.permits))
        return Allowed(rules=rules, valid_until=valid_until), same_until

    def _ask(self, tenant: TenantFacts, plan: Plan, values: tuple[Any, ...]) -> Answer:
        resource: dict[str, Any] = {}
        context: dict[str, Any] = {}
        for path, value in zip(plan.paths, values, strict=True):
            whose, *inner, name = path.split(".")
            target = resource if whose == "resource" else context
            for part in inner:
                target = target.setdefault(part, {})
            target[name] = as_cedar(path, value)
        parents = [{"type": "Profile", "id": profile} for profile in tenant.profiles]
        entities = [
            {"uid": {"type": "Endpoint", "id": "endpoint"}, "attrs": resource, "parents": []},
            {"uid": {"type": "Tenant", "id": tenant.id}, "attrs": {}, "parents": parents},
            *_ACTIONS,
        ]
        self.asked += 1
        result = cedarpy.is_authorized(
            {
                "principal": {"type": "Tenant", "id": tenant.id},
                "action": {"type": "Action", "id": plan.action},
                "resource": {"type": "Endpoint", "id": "endpoint"},
                "context": json.dumps(context),
            },
            self._policies,
            json.dumps(entities),
        )
        reasons = sorted(int(name.removeprefix("policy")) for name in result.diagnostics.reasons)
        failed = bool(result.diagnostics.errors) or result.decision is cedarpy.Decision.NoDecision
        if result.allowed:
            return Answer(tuple(reasons), (), failed)
        return Answer((), tuple(reasons), failed)

    def _denied(self, answer: Answer, data_class: DataClass, facts: EndpointFacts, *, now: float) -> Denied:
        at = At(at_instant(facts, now), data_class, self.jurisdiction, now)
        reasons = [self._reason(position, at) for position in answer.forbids]
        if answer.failed:
            reasons.append(_policy_error(facts))
        elif not reasons:
            reasons.append(_not_permitted(data_class, facts))
        return Denied(rules=tuple(dict.fromkeys(reason.rule for reason in reasons)), reasons=tuple(reasons))

    def _reason(self, position: int, at: At) -> Reason:
        names = self._placeholders[position]
        english = tuple(SAYS[name](at, "en") for name in names)
        japanese = tuple(SAYS[name](at, "ja") for name in names)
        key = (position, at.facts.site, english, japanese)
        known = self._words.get(key)
        if known is None:
            if len(self._words) >= _MAX_KEPT:
                self._words.clear()
            rule = self.rules[position]
            known = self._words[key] = Reason(
                rule=rule.id,
                site=at.facts.site,
                en=_filled(rule.reason_en, dict(zip(names, english, strict=True))),
                ja=_filled(rule.reason_ja, dict(zip(names, japanese, strict=True))),
            )
        return known


# Cedar learns the groups of actions from entities when no schema is given with the question.
_ACTIONS: tuple[dict[str, Any], ...] = tuple(
    {
        "uid": {"type": "Action", "id": name},
        "attrs": {},
        "parents": [{"type": "Action", "id": parent} for parent in parents],
    }
    for name, parents in (
        ("serve", ()),
        ("serve-guarded", ("serve",)),
        *((f"serve-{each.label}", ("serve-guarded", "serve") if each.guarded else ("serve",)) for each in DataClass),
    )
)


def policy_hash(bundle: Bundle, *, jurisdiction: str) -> str:
    """What a decision names: the same files mean something else in another jurisdiction or under another schema."""
    text = f"sekisho cedar policy, form 1\njurisdiction {jurisdiction}\nbundle {bundle.hash}\n{schema_text()}"
    return hashlib.sha256(text.encode()).hexdigest()


def _plan(data_class: DataClass, rules: Iterable[Rule]) -> Plan:
    concerned = [rule for rule in rules if data_class in rule.classes]
    paths = tuple(sorted({path for rule in concerned for path in rule.mentions.paths}))
    numbers: dict[str, set[int]] = {}
    for rule in concerned:
        for path, number in rule.mentions.ages:
            # `<` changes at the number, `<=` one second later
            numbers.setdefault(path, {0}).update((number, number + 1))
    return Plan(
        action=f"serve-{data_class.label}",
        paths=paths,
        reads=tuple(READ[path] for path in paths),
        bounds={path: tuple(sorted(found)) for path, found in numbers.items()},
        fresh=EVIDENCE_FRESH in paths,
        attestation=any(path.startswith("resource.attestation.") or path == ATTESTATION_AGE for path in paths),
        location=any(path.startswith("resource.location.") or path in AGES[1:] for path in paths),
    )


def _instants(plan: Plan, facts: EndpointFacts) -> Iterable[float]:
    """When the answer can change while the declaration stands."""
    if plan.attestation and facts.attestation.level != "contraindicated":
        yield facts.attestation.until
    if plan.location and facts.location.verdict != "contradicted":
        yield facts.location.until
    for path, evidence in ((AGES[0], facts.attestation), (AGES[1], facts.location)):
        for bound in plan.bounds.get(path, ()):
            yield evidence.at + bound


def _standing(facts: EndpointFacts) -> EndpointFacts:
    return msgspec.structs.replace(facts, evidence_until=_INFINITE)


def _filled(template: str, values: dict[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), template)


def said(language: Language, reason: Reason) -> str:
    """The reason in one language."""
    return reason.ja if language == "ja" else reason.en


def _not_permitted(data_class: DataClass, facts: EndpointFacts) -> Reason:
    return Reason(
        rule=NOT_PERMITTED,
        site=facts.site,
        en=(
            f"No rule of the policy permits {data_class.label} work at site {facts.site}. "
            "A rule that permits it would change this."
        ),
        ja=(
            f"拠点 {facts.site} での {data_class.label} の処理を許可するルールがポリシーにありません。"
            "許可するルールがあれば許可されます。"
        ),
    )


def _policy_error(facts: EndpointFacts) -> Reason:
    return Reason(
        rule=POLICY_ERROR,
        site=facts.site,
        en=(
            f"A rule could not be evaluated for site {facts.site}, so nothing is allowed there. "
            "A corrected policy would change this."
        ),
        ja=(
            f"拠点 {facts.site} についてルールを評価できなかったため、何も許可されません。"
            "ポリシーが修正されれば許可されます。"
        ),
    )


def _unknown_profile(tenant: TenantFacts, facts: EndpointFacts, known: frozenset[str]) -> Denied:
    missing = ", ".join(sorted(set(tenant.profiles) - known))
    reason = Reason(
        rule=UNKNOWN_PROFILE,
        site=facts.site,
        en=(
            f"The tenant has a profile that the policy does not have ({missing}), so site {facts.site} serves none "
            "of its work. A policy with that profile would change this."
        ),
        ja=(
            f"テナントのプロファイル（{missing}）がポリシーにないため、拠点 {facts.site} では何も処理できません。"
            "そのプロファイルがポリシーにあれば許可されます。"
        ),
    )
    return Denied(rules=(UNKNOWN_PROFILE,), reasons=(reason,))
