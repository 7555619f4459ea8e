"""What needs somebody: ranked, each with who it waits for and what they can do. Pure: facts in, list out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from sekisho.console.evidence import state_of
from sekisho.console.facts import Facts
from sekisho.console.i18n import Translator
from sekisho.console.render import with_query
from sekisho.residency.evidence import ATTESTATION
from sekisho.residency.policy.service import CONFIGURATION
from sekisho.residency.routes import ENDPOINT_SUSPENDED
from sekisho.residency.table import Closed, TenantEntry

# A worker takes a new table within a second; this much later something is wrong.
TABLE_LAG_S = 10.0
SOON_S = 14 * 86_400.0
USED_UP_SOON_S = 7 * 86_400.0
Severity = Literal["stop", "act", "watch"]
_RANK: dict[Severity, int] = {"stop": 0, "act": 1, "watch": 2}


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """`stop`: work is refused now. `act`: it will be, or a guarantee has grown thin. `watch`: know it."""

    severity: Severity
    title: str
    why: str
    owner: str
    action: str
    href: str = ""


def needs(facts: Facts, t: Translator) -> tuple[Need, ...]:
    found = [*_control(facts, t), *_workers(facts, t), *_routes(facts, t), *_endpoints(facts, t), *_dates(facts, t)]
    found += [
        *_policies(facts, t),
        *_sites(facts, t),
        *_evidence(facts, t),
        *_reserved(facts, t),
        *_refusals(facts, t),
    ]
    found += _throughput(facts, t)
    return tuple(sorted(found, key=lambda need: _RANK[need.severity]))


def _control(facts: Facts, t: Translator) -> Iterator[Need]:
    for fault in facts.faults:
        yield Need(
            severity="act",
            title=t("The control plane reports a fault: %(code)s", code=fault.code),
            why=fault.fact,
            owner=t("Administrator of this machine"),
            action=fault.hint,
        )
    if facts.state is None:
        yield Need(
            severity="stop",
            title=t("There is no route table"),
            why=t("Gateways go on with their last good one; a gateway without one refuses everything."),
            owner=t("Administrator of this machine"),
            action=t("Look at logs/control.log"),
        )


def _workers(facts: Facts, t: Translator) -> Iterator[Need]:
    owner = t("Administrator of this machine")
    if not any(report.snapshot for report in facts.reports):
        yield Need(
            severity="stop",
            title=t("No gateway answers"),
            why=t("No worker of this home directory answers on its socket, so nobody is served here."),
            owner=owner,
            action=t("Run `sekisho status`"),
        )
        return
    for report in facts.reports:
        snapshot = report.snapshot
        if snapshot is None:
            yield Need(
                severity="act",
                title=t("Worker %(n)s does not answer", n=report.index),
                why=report.fault,
                owner=owner,
                action=t("Look at logs/worker-%(n)s.log", n=report.index),
            )
            continue
        if not snapshot.journal_ok:
            yield Need(
                severity="stop",
                title=t("Worker %(n)s can't write its journal", n=report.index),
                why=t("Confidential and restricted work is refused there: %(error)s", error=snapshot.journal_error),
                owner=owner,
                action=t("Free space on the disk of the home directory"),
            )
        state = facts.state
        if state and snapshot.table_version < state.table.version and facts.now - state.table.issued_at > TABLE_LAG_S:
            yield Need(
                severity="act",
                title=t("Worker %(n)s obeys an old route table", n=report.index),
                why=t(
                    "It has version %(old)s, the current one is %(new)s: changes do not reach it.",
                    old=snapshot.table_version,
                    new=state.table.version,
                ),
                owner=owner,
                action=t("Look at logs/worker-%(n)s.log", n=report.index),
            )


def _routes(facts: Facts, t: Translator) -> Iterator[Need]:
    """Classes for which nobody may serve a model, once for each, worst when it is some tenant's floor."""
    state = facts.state
    if state is None:
        return
    # Profile by profile: ten thousand tenants share a handful of them.
    tenants_of: dict[int, list[TenantEntry]] = {}
    for tenant in state.table.tenants:
        tenants_of.setdefault(tenant.profile, []).append(tenant)
    closed: dict[tuple[str, str], tuple[Closed, list[str], bool]] = {}
    for profile, tenants_here in tenants_of.items():
        for data_class, routes in state.table.profiles[profile].routes.items():
            for model, index in routes.items():
                route = state.table.routes[index]
                if isinstance(route, Closed):
                    _, names, at_floor = closed.get((data_class, model), (route, [], False))
                    at_floor = at_floor or any(tenant.floor == data_class for tenant in tenants_here)
                    closed[data_class, model] = (route, [*names, *(tenant.id for tenant in tenants_here)], at_floor)
    operators = {live.site.id: live.operator.name for live in facts.sites}
    for (data_class, model), (route, tenants, at_floor) in closed.items():
        reason = route.reasons[0] if route.reasons else None
        said = (reason.ja if t.language == "ja" else reason.en) if reason else ""
        owners = [operators.get(each.site, each.site) for each in route.reasons]
        if any(each.rule == ENDPOINT_SUSPENDED for each in route.reasons):
            owners = [t("You")]  # what a person here took out, a person here can put back
        yield Need(
            severity="stop" if at_floor else "act",
            title=t("Nobody may serve %(data_class)s work with %(model)s", data_class=data_class, model=model),
            why=t("Refused for %(tenants)s. %(reason)s", tenants=_some(tenants), reason=said),
            owner=", ".join(dict.fromkeys(owners)),
            action=t("See why"),
            href=with_query("/gateway/why", {"tenant": tenants[0], "class": data_class, "model": model}),
        )


def _some(names: list[str], most: int = 6) -> str:
    """The first names, and how many more there are."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} (+{len(names) - most:,})"


def _endpoints(facts: Facts, t: Translator) -> Iterator[Need]:
    suspended = {each.id for each in facts.enrolled if each.suspended}
    for site in facts.sites:
        if site.site.id in suspended:
            yield Need(
                severity="watch",
                title=t("The site %(site)s is suspended", site=site.site.name),
                why=t("None of its endpoints is in any route until somebody resumes it."),
                owner=t("You"),
                action=t("Resume it"),
                href=f"/sites/{site.site.id}",
            )
            continue
        for live in site.endpoints:
            href = f"/endpoints/{live.endpoint.id}"
            if live.state == "suspended":
                yield Need(
                    severity="watch",
                    title=t("%(endpoint)s is suspended", endpoint=live.endpoint.id),
                    why=t("It is in no route until somebody resumes it."),
                    owner=t("You"),
                    action=t("Resume it"),
                    href=href,
                )
            elif live.state == "resting":
                yield Need(
                    severity="act",
                    title=t("%(endpoint)s keeps failing", endpoint=live.endpoint.id),
                    why=t(
                        "Gateways rest it after failures in a row: %(failures)s of %(requests)s requests failed.",
                        failures=f"{live.failures:,}",
                        requests=f"{live.requests:,}",
                    ),
                    owner=site.operator.name,
                    action=t("Look at the endpoint"),
                    href=href,
                )


def _dates(facts: Facts, t: Translator) -> Iterator[Need]:
    for site in facts.sites:
        # An enrolled site's `valid_until` moves with each heart-beat; its declaration has an end of its own.
        until = facts.declared_until.get(site.site.id, site.site.valid_until)
        if until is not None and until - facts.now < SOON_S:
            over = until <= facts.now
            yield Need(
                severity="act",
                title=t("The declaration about %(site)s has run out", site=site.site.name)
                if over
                else t("The declaration about %(site)s runs out soon", site=site.site.name),
                why=t("Confidential and restricted routes to it close by themselves at that moment."),
                owner=site.operator.name,
                action=t("Give a new declaration and its date in the configuration"),
                href=f"/sites/{site.site.id}",
            )
    for key in facts.keys:
        if key.live(facts.now) and key.expires_at is not None and key.expires_at - facts.now < SOON_S:
            yield Need(
                severity="watch",
                title=t("Key %(id)s of %(tenant)s expires soon", id=key.id, tenant=key.tenant),
                why=t("After that its requests are refused."),
                owner=key.tenant,
                action=t("Make a new key"),
                href="/keys",
            )


def _policies(facts: Facts, t: Translator) -> Iterator[Need]:
    for proposal in facts.proposals:
        approved = proposal.state == "approved"
        # Nobody proposed the configuration's files here: anybody may be the second.
        anybody = approved or proposal.actor == CONFIGURATION
        yield Need(
            severity="act",
            title=t("Policy proposal %(id)s is approved and not in force", id=proposal.id)
            if approved
            else t("Policy proposal %(id)s waits for a second person", id=proposal.id),
            why=t("Guarded work could reach more under it. Until it is applied, the rules in force stay."),
            owner=t("Any administrator")
            if anybody
            else t("An administrator other than %(name)s", name=proposal.actor),
            action=t("Apply or withdraw it") if approved else t("Approve or withdraw it"),
            href=f"/policies?proposal={proposal.id}",
        )


def _sites(facts: Facts, t: Translator) -> Iterator[Need]:
    operators = {live.operator.id: live.operator.name for live in facts.sites}
    for each in facts.enrolled:
        if each.state == "waiting":
            yield Need(
                severity="act",
                title=t("The site %(site)s waits for approval", site=each.name),
                why=t("Its agent handed in a key and a signed declaration; it serves nobody until then."),
                owner=t("You"),
                action=t("Compare the fingerprint and decide"),
                href=f"/sites#site-{each.id}",
            )
        elif each.state == "stale" and not each.suspended:
            yield Need(
                severity="act",
                title=t("The agent of %(site)s is silent", site=each.name)
                if each.heard_at is not None
                else t("The agent of %(site)s was never heard", site=each.name),
                why=t("Confidential and restricted routes to it are closed until its next heart-beat."),
                owner=operators.get(each.operator, each.operator),
                action=t("Look at the site"),
                href=f"/sites/{each.id}",
            )


def _evidence(facts: Facts, t: Translator) -> Iterator[Need]:
    names = {live.site.id: live for live in facts.sites}
    for row in facts.kept:
        live, state = names.get(row.site), state_of(row, facts.now)
        if live is None or state == "standing":
            continue
        name, attested = live.site.name, row.about == ATTESTATION
        if state == "over" and attested:
            title = t("The attestation of %(site)s has run out", site=name)
        elif state == "over":
            title = t("The location proof of %(site)s has run out", site=name)
        elif attested:
            title = t("The attestation of %(site)s runs out soon", site=name)
        else:
            title = t("The location proof of %(site)s runs out soon", site=name)
        yield Need(
            severity="act",
            title=title,
            why=t("Routes that rest on it are closed.")
            if state == "over"
            else t("Less than a quarter of its time is left. Routes that rest on it close by themselves at its end."),
            owner=live.operator.name if attested else t("Administrator of this machine"),
            action=t("Look at the evidence"),
            href=f"/sites/{row.site}?tab=evidence",
        )


def _reserved(facts: Facts, t: Translator) -> Iterator[Need]:
    """Owners that did not come, reservations that lost their place, wishes that wait."""
    for held in facts.reserved.unclaimed:
        yield Need(
            severity="act",
            title=t("Nobody uses the reservation %(id)s of %(tenant)s", id=held.id, tenant=held.body.tenant),
            why=t("It is reclaimed without a refund two hours after its beginning, unless its owner comes."),
            owner=held.body.tenant,
            action=t("Look at the reservation"),
            href=f"/reservations/{held.id}",
        )
    for notice in {each.reservation: each for each in reversed(facts.reserved.told)}.values():
        if notice.kind in ("displaced", "re-planned"):
            lost = notice.kind == "displaced"
            yield Need(
                severity="act" if lost else "watch",
                title=t("The reservation %(id)s lost its GPUs", id=notice.reservation)
                if lost
                else t("The reservation %(id)s was planned anew", id=notice.reservation),
                why=notice.ja if t.language == "ja" else notice.en,
                owner=notice.tenant,
                action=t("Look at the reservation"),
                href=f"/reservations/{notice.reservation}",
            )
    if facts.reserved.waiting:
        yield Need(
            severity="watch",
            title=t.many("%(n)s wish for GPUs waits", "%(n)s wishes for GPUs wait", facts.reserved.waiting),
            why=t("Each is booked by itself as soon as it fits."),
            owner=t("Nobody"),
            action=t("Look at the waitlist"),
            href="/capacity/waitlist",
        )


def _throughput(facts: Facts, t: Translator) -> Iterator[Need]:
    """Promises that the endpoints can't keep at present, and those that will be used up within a week."""
    for each in facts.throughput:
        made, forecast = each.placed.commitment, each.use.forecast
        terms, held = made.body.terms, made.body.held
        if each.placed.missing:
            yield Need(
                severity="act",
                title=t("%(tenant)s can't count on all that it reserved", tenant=terms.tenant),
                why=t(
                    "%(missing)s of %(held)s requests at a time with %(model)s have no endpoint now (%(id)s).",
                    missing=each.placed.missing,
                    held=held,
                    model=terms.model,
                    id=made.id,
                ),
                owner=t("You"),
                action=t("Bring endpoints of its route set back, or agree on less"),
                href="/capacity/throughput",
            )
        if forecast.at is not None and forecast.at - facts.now < USED_UP_SOON_S:
            yield Need(
                severity="watch",
                title=t("%(tenant)s will soon use up what it reserved", tenant=terms.tenant)
                if forecast.at > facts.now
                else t("%(tenant)s uses all that it reserved", tenant=terms.tenant),
                why=t(
                    "%(busiest)s of %(held)s at a time with %(model)s in the busiest minute; %(day)s more each day.",
                    busiest=f"{each.use.busiest:.1f}",
                    held=held,
                    model=terms.model,
                    day=f"{forecast.slots_per_day:+.1f}",
                ),
                owner=terms.tenant,
                action=t("Reserve more"),
                href=with_query("/capacity/throughput", {"tenant": terms.tenant}),
            )


def _refusals(facts: Facts, t: Translator) -> Iterator[Need]:
    """Refusals that a person can do something about; wrong keys and wrong requests are the sender's own."""
    by_class: dict[str, int] = {}
    for count in facts.counts:
        if count.outcome == "refused" and count.code.startswith("residency."):
            by_class[count.data_class] = by_class.get(count.data_class, 0) + count.passages
    if by_class:
        listed = ", ".join(f"{data_class or '–'} {n:,}" for data_class, n in sorted(by_class.items()))
        yield Need(
            severity="watch",
            title=t.many(
                "%(n)s refusal for residency in 24 hours",
                "%(n)s refusals for residency in 24 hours",
                sum(by_class.values()),
            ),
            why=t("The rules kept work from endpoints that may not serve it: %(listed)s.", listed=listed),
            owner=t("You"),
            action=t("Look at the refusals"),
            href=with_query("/gateway", {"verdict": "refused", "window": "24h"}),
        )
