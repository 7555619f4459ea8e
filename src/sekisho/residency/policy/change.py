"""What another policy would change: which tenants gain and lose which endpoints, and if guarded work gets more."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from sekisho.federation.model import Endpoint, Federation
from sekisho.kernel.classes import DataClass
from sekisho.residency.compile import own_endpoints
from sekisho.residency.model import Allowed, Denied, Policy, Reason, SiteEvidence, TenantFacts, Verdict
from sekisho.residency.policy.engine import CedarPolicy
from sekisho.residency.policy.reach import Widening, widenings
from sekisho.residency.routes import bounded_reasons
from sekisho.residency.verdicts import facts_of, tenant_facts, verdicts_of


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What holds now: everything but the policy that routes follow from."""

    federation: Federation
    jurisdiction: str
    evidence_validity_s: float
    evidence: Mapping[str, SiteEvidence] = {}
    suspended: frozenset[str] = frozenset()


class TenantChange(msgspec.Struct, frozen=True, kw_only=True):
    """The same for all of `tenants`. `reasons`: why the lost endpoints would be; `left`: how many there are then."""

    tenants: tuple[str, ...]
    data_class: str
    gained: tuple[str, ...]
    lost: tuple[str, ...]
    left: int
    reasons: tuple[Reason, ...]


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """`old` and `new` are policy hashes. `rules_*`: files and ids of rules that come and go (`file: id`).

    `widened` are examples of what guarded work could reach, now or ever; with one, two persons must agree.
    """

    old: str
    new: str
    rules_added: tuple[str, ...]
    rules_removed: tuple[str, ...]
    changes: tuple[TenantChange, ...]
    widened: tuple[Widening, ...]

    @property
    def widens(self) -> bool:
        guarded = {each.label for each in DataClass if each.guarded}
        return bool(self.widened) or any(change.gained and change.data_class in guarded for change in self.changes)


def difference(old: CedarPolicy, new: CedarPolicy, standing: Standing, *, now: float) -> Difference:
    """What changes for the tenants of this federation at this moment, and what could change for any."""
    before = {(rule.file, rule.id, rule.form) for rule in old.rules}
    after = {(rule.file, rule.id, rule.form) for rule in new.rules}
    return Difference(
        old=old.hash,
        new=new.hash,
        rules_added=tuple(sorted({f"{file}: {name}" for file, name, _ in after - before})),
        rules_removed=tuple(sorted({f"{file}: {name}" for file, name, _ in before - after})),
        changes=tenant_changes(old, new, standing, now=now),
        widened=widenings(old, new),
    )


# Tenants that no policy, floor, list of models or endpoint of their own tells apart.
_Group = tuple[TenantFacts, TenantFacts, DataClass, tuple[str, ...] | None, tuple[str, ...]]


def tenant_changes(old: Policy, new: Policy, standing: Standing, *, now: float) -> tuple[TenantChange, ...]:
    """For each class, the tenants that gain or lose endpoints; losses first, the highest class first."""
    federation = standing.federation
    own = own_endpoints(federation)
    groups: dict[_Group, list[str]] = {}
    for tenant in federation.tenants:
        facts = tenant_facts(tenant)
        key = (old.kind_of(facts), new.kind_of(facts), tenant.floor, tenant.models, own.get(tenant.id, ()))
        groups.setdefault(key, []).append(tenant.id)
    facts_now = facts_of(federation, standing.evidence, now=now, evidence_validity_s=standing.evidence_validity_s)
    decided: dict[tuple[int, TenantFacts], dict[DataClass, tuple[Verdict, ...]]] = {}

    def verdicts(policy: Policy, kind: TenantFacts) -> dict[DataClass, tuple[Verdict, ...]]:
        key = (id(policy), kind)
        if key not in decided:
            decided[key] = verdicts_of(policy, kind, facts_now, now=now)
        return decided[key]

    changes: dict[tuple[str, tuple[str, ...], tuple[str, ...], int, tuple[Reason, ...]], list[str]] = {}
    for (old_kind, new_kind, floor, models, mine), tenants in groups.items():
        for data_class in DataClass:
            if data_class < floor:
                continue
            rows = [
                (endpoint.id, before, after)
                for endpoint, before, after in zip(
                    federation.endpoints,
                    verdicts(old, old_kind)[data_class],
                    verdicts(new, new_kind)[data_class],
                    strict=True,
                )
                if _concerns(endpoint, models, mine, standing.suspended)
            ]
            had = {name for name, before, _ in rows if isinstance(before, Allowed)}
            has = {name for name, _, after in rows if isinstance(after, Allowed)}
            if had == has:
                continue
            reasons = bounded_reasons(
                [
                    reason
                    for name, _, after in rows
                    if name in had - has and isinstance(after, Denied)
                    for reason in after.reasons
                ]
            )
            change = (data_class.label, tuple(sorted(has - had)), tuple(sorted(had - has)), len(has), reasons)
            changes.setdefault(change, []).extend(tenants)
    found = [
        TenantChange(tenants=tuple(tenants), data_class=label, gained=gained, lost=lost, left=left, reasons=reasons)
        for (label, gained, lost, left, reasons), tenants in changes.items()
    ]
    order = {each.label: -each for each in DataClass}
    return tuple(sorted(found, key=lambda change: (not change.lost, order[change.data_class], change.tenants)))


def _concerns(
    endpoint: Endpoint, models: tuple[str, ...] | None, own: tuple[str, ...], suspended: frozenset[str]
) -> bool:
    if endpoint.id in suspended:
        return False
    if endpoint.tenants is not None:
        return endpoint.id in own
    return models is None or not set(models).isdisjoint(endpoint.models)
