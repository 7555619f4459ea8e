"""What a policy could ever allow: its finite domain, enumerated. Pure.

A rule sees the attributes that it mentions, and can tell apart only values on both sides of its literals. Policies
that are compared over one value from each such side are compared over all endpoints that there could be.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, get_args

import msgspec

from sekisho.federation.countries import is_country
from sekisho.kernel.classes import DataClass
from sekisho.residency.model import (
    ANYBODY,
    AttestationKind,
    AttestationLevel,
    KeyCustody,
    LocationVerdict,
    Personnel,
    TenantFacts,
)
from sekisho.residency.policy.attributes import AGES, COUNTRIES, NEVER_S
from sekisho.residency.policy.bundle import PROFILES, SUFFIX, bundle_of
from sekisho.residency.policy.engine import CedarPolicy
from sekisho.residency.policy.read import Rule

# A domain larger than this is not enumerated: the answer is then "not proven", which counts as wider.
MAX_COMBINATIONS = 20_000
GUARDED = tuple(each for each in DataClass if each.guarded)
# All subsets of so many codes; with more of them the domain is too large in any case.
_MOST_CODES = 15
_SETS = frozenset({"resource.foreign_laws", "resource.subcontractor_countries"})
_NUMBERS = frozenset(
    {"resource.foreign_owned_percent", "resource.log_retention_days", "resource.location.margin_km", *AGES}
)
_CLOSED: dict[str, tuple[Any, ...]] = {
    "resource.attestation.kind": get_args(AttestationKind),
    "resource.attestation.level": get_args(AttestationLevel),
    "resource.location.verdict": get_args(LocationVerdict),
    "resource.key_custody": get_args(KeyCustody),
    "resource.personnel": get_args(Personnel),
    "resource.attestation.hardware_registered": (False, True),
    "resource.enrolled": (False, True),
    "resource.operator_can_read": (False, True),
    "context.evidence_fresh": (False, True),
}


class Widening(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a policy allows guarded work and another one does not. `example` are the values of an endpoint;
    empty when it is not known: the domain is too large, or a rule computes or matches patterns."""

    data_class: str
    profiles: tuple[str, ...]
    tenant: str
    example: dict[str, str]


def narrower_by_form(old: CedarPolicy, new: CedarPolicy) -> bool:
    """Whether `new` permits no more and forbids no less, rule by rule: then it allows no more, whatever it sees."""
    if old.jurisdiction != new.jurisdiction:
        return False
    permits = {each: {rule.form for rule in each.rules if rule.effect == "permit"} for each in (old, new)}
    forbids = {each: {rule.form for rule in each.rules if rule.effect == "forbid"} for each in (old, new)}
    # A profile that goes is no hole: its tenants are served nowhere then.
    gone = {rule.form for rule in old.rules if rule.profile and rule.profile not in new.profiles}
    return permits[new] <= permits[old] and forbids[old] - gone <= forbids[new]


def widenings(old: CedarPolicy, new: CedarPolicy, *, most: int = 5) -> tuple[Widening, ...]:
    """Where `new` allows guarded work what `old` denies: at most `most` examples, none when there is none."""
    if narrower_by_form(old, new):
        return ()
    return tuple(itertools.islice(_wider(old, new), most))


def _wider(old: CedarPolicy, new: CedarPolicy) -> Iterator[Widening]:
    """The common rules first, then each profile: it only forbids, so it is wider only by a rule that went."""
    for tenant in _without_profiles(old, new):
        for data_class in GUARDED:
            yield from _examples((old, new), tenant, data_class, _wider_at(old, new, tenant, data_class))
    for profile in sorted(old.profiles & new.profiles):
        before, after = ({rule.form: rule for rule in each.rules if rule.profile == profile} for each in (old, new))
        gone = [rule for form, rule in before.items() if form not in after]
        if not gone:
            continue
        come = [rule for form, rule in after.items() if form not in before]
        # Without the rules that both have, the domain is small; what is found so may be more than there is.
        less, more = _only(gone, old), _only(come, new)
        tenant = TenantFacts(profiles=(profile,))
        for data_class in GUARDED:
            yield from _examples((less, more), tenant, data_class, _wider_at(less, more, tenant, data_class))


def _wider_at(
    old: CedarPolicy, new: CedarPolicy, tenant: TenantFacts, data_class: DataClass
) -> Callable[[Mapping[str, Any]], bool]:
    return lambda values: _allows(new, tenant, data_class, values) and not _allows(old, tenant, data_class, values)


_PERMIT_ALL = '@id("all") permit (principal, action, resource);'


def _only(rules: Iterable[Rule], policy: CedarPolicy) -> CedarPolicy:
    """A policy that permits everything but for these rules of one profile, with the profiles of another."""
    texts = dict.fromkeys((f"{PROFILES}{profile}{SUFFIX}" for profile in policy.profiles), "")
    for rule in rules:
        texts[rule.file] += rule.text + "\n"
    return CedarPolicy(bundle_of({"all.cedar": _PERMIT_ALL} | texts), jurisdiction=policy.jurisdiction)


def leaving(policy: CedarPolicy, *, most: int = 5) -> tuple[Widening, ...]:
    """Endpoints outside the jurisdiction that the policy would allow guarded work; none when it keeps it inside.

    Looked through without profiles: with one, less is allowed.
    """

    def outside(tenant: TenantFacts, data_class: DataClass) -> Callable[[Mapping[str, Any]], bool]:
        def found(values: Mapping[str, Any]) -> bool:
            country = values.get("resource.site_country")
            # a policy that does not look at the country allows what it allows abroad too
            abroad = country is None or country != policy.jurisdiction
            return abroad and _allows(policy, tenant, data_class, values)

        return found

    examples = (
        example
        for tenant in _without_profiles(policy)
        for data_class in GUARDED
        for example in _examples((policy,), tenant, data_class, outside(tenant, data_class))
    )
    return tuple(itertools.islice(examples, most))


def _allows(policy: CedarPolicy, tenant: TenantFacts, data_class: DataClass, values: Mapping[str, Any]) -> bool:
    kind = policy.kind_of(tenant)
    plan = policy.plan(kind, data_class)
    seen = tuple(plan.on_grid(path, values[path]) if path in plan.bounds else values[path] for path in plan.paths)
    return policy.answer_to(kind, data_class, seen).allowed


def _without_profiles(*policies: CedarPolicy) -> list[TenantFacts]:
    """One of each kind: anybody, and those that a rule names."""
    named = sorted({name for policy in policies for rule in policy.rules for name in rule.mentions.tenants})
    return [ANYBODY, *(TenantFacts(id=name) for name in named)]


def _examples(
    policies: tuple[CedarPolicy, ...],
    tenant: TenantFacts,
    data_class: DataClass,
    found: Callable[[Mapping[str, Any]], bool],
) -> Iterator[Widening]:
    rules = [
        rule
        for policy in policies
        for rule in policy.rules
        if data_class in rule.classes and (not rule.profile or rule.profile in tenant.profiles)
    ]
    domain = _domain(rules, data_class, jurisdiction=policies[-1].jurisdiction)
    nothing = Widening(data_class=data_class.label, profiles=tenant.profiles, tenant=tenant.id, example={})
    unseen = any(rule.mentions.opaque for rule in rules)
    if unseen or math.prod(len(values) for values in domain.values()) > MAX_COMBINATIONS:
        yield nothing
        return
    for combination in itertools.product(*domain.values()):
        values = dict(zip(domain, combination, strict=True))
        if found(values):
            example = {path: _said(value) for path, value in values.items()}
            yield msgspec.structs.replace(nothing, example=example)
            return  # one for each kind of tenant and class is enough to see what is meant


def _domain(rules: Iterable[Rule], data_class: DataClass, *, jurisdiction: str) -> dict[str, tuple[Any, ...]]:
    """For every attribute that is mentioned, a value from each side of what it is compared with."""
    paths = sorted({path for rule in rules for path in rule.mentions.paths})
    return {path: _values(path, rules, data_class, jurisdiction) for path in paths}


def _values(path: str, rules: Iterable[Rule], data_class: DataClass, jurisdiction: str) -> tuple[Any, ...]:
    concerned = [rule.mentions for rule in rules if path in rule.mentions.paths]
    words = sorted({word for mentions in concerned for word in mentions.words})
    if path == "context.jurisdiction":
        return (jurisdiction,)
    if path == "context.class_level":
        return (int(data_class),)
    if path in _NUMBERS:
        numbers = sorted({number for mentions in concerned for number in mentions.numbers})
        never = {NEVER_S} if path in AGES else set()
        return tuple(sorted({0, *(number + step for number in numbers for step in (-1, 0, 1))} | never))
    if path in COUNTRIES:
        elsewhere = "US" if jurisdiction != "US" else "JP"
        codes = tuple(dict.fromkeys([jurisdiction, elsewhere, *(word for word in words if is_country(word))]))
        if path not in _SETS:
            return (*codes, "")
        sizes = range(min(len(codes), _MOST_CODES) + 1)
        return tuple(subset for size in sizes for subset in itertools.combinations(codes, size))
    return _CLOSED.get(path) or tuple(dict.fromkeys(["", *words, "another"]))


def _said(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case tuple():
            return f"[{', '.join(value)}]"
        case _:
            return str(value)
