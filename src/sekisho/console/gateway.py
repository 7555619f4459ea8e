"""The screen Gateway: live passages, the class × site matrix, the Why? box and the dry-run. Facts in, views out."""

from __future__ import annotations

import re

import msgspec

from sekisho.console.facts import Facts, SiteLive
from sekisho.console.i18n import Language
from sekisho.console.render import View, with_query
from sekisho.console.services import TableState
from sekisho.federation.model import Federation
from sekisho.kernel.classes import LABELS, DataClass
from sekisho.ledger.store import PassageFilter, PassageRow
from sekisho.residency.matrix import Matrix, RouteChange, decide_all, difference
from sekisho.residency.model import ANYBODY, Allowed, Reason, TenantFacts
from sekisho.residency.why import Explanation

PAGE_ROWS = 25
# name in the URL → seconds back from now
WINDOWS: dict[str, int] = {"15m": 900, "1h": 3_600, "24h": 86_400, "7d": 604_800}
VERDICTS = ("allowed", "refused")
_DECISION = re.compile("[0-9a-f]{32}")
_WORD = re.compile("[A-Za-z0-9._:/@+-]{1,128}")
_PROFILES = re.compile("[a-z0-9.,_-]{1,256}")
_COUNTRY = re.compile("[A-Z]{2}")


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """As the URL has them, checked: what makes no sense is dropped, so an old link never breaks."""

    site: str = ""
    data_class: str = ""
    tenant: str = ""
    verdict: str = ""
    code: str = ""
    window: str = ""
    before: str = ""
    after: str = ""
    paused: bool = False
    profiles: str = ""  # of the matrix above the list; kept with it

    @classmethod
    def parse(cls, query: dict[str, str]) -> Filters:
        def word(name: str) -> str:
            return text if _WORD.fullmatch(text := query.get(name, "").strip()) else ""

        def one_of(name: str, known: tuple[str, ...]) -> str:
            return text if (text := query.get(name, "")) in known else ""

        before, after = query.get("before", ""), query.get("after", "")
        return cls(
            site=word("site"),
            data_class=one_of("class", LABELS),
            tenant=word("tenant"),
            verdict=one_of("verdict", VERDICTS),
            code=word("code"),
            window=one_of("window", tuple(WINDOWS)),
            before=before if _DECISION.fullmatch(before) else "",
            after=after if _DECISION.fullmatch(after) else "",
            paused=query.get("live") == "off",
            profiles=text if _PROFILES.fullmatch(text := query.get("profiles", "")) else "",
        )

    def pairs(self) -> dict[str, str]:
        """Back to the URL, without the place in the pages."""
        return {
            "site": self.site,
            "class": self.data_class,
            "tenant": self.tenant,
            "verdict": self.verdict,
            "code": self.code,
            "window": self.window,
            "profiles": self.profiles,
        }

    def wanted(self, *, now: float) -> PassageFilter:
        since = int((now - WINDOWS[self.window]) * 1000) if self.window else None
        return PassageFilter(
            site=self.site,
            data_class=self.data_class,
            tenant=self.tenant,
            verdict=self.verdict,
            code=self.code,
            since_ms=since,
        )

    @property
    def any(self) -> bool:
        return any(self.pairs().values())

    @property
    def live(self) -> bool:
        """Only the newest page moves; an older one would shift under the reader's eyes."""
        return not (self.before or self.after or self.paused)


class PassageList(View, frozen=True, kw_only=True):
    """`failed` says why there is no list; `behind`: the journals are not read to their end yet."""

    filters: Filters
    rows: tuple[PassageRow, ...]
    newer: str
    older: str
    failed: str
    behind: bool
    read_at: float

    @property
    def template(self) -> str:
        return "parts/passages.html"

    @property
    def refresh(self) -> str:
        return with_query("/gateway/passages", self.filters.pairs())

    @property
    def pause(self) -> str:
        return with_query("/gateway", {**self.filters.pairs(), "live": "off"})

    @property
    def resume(self) -> str:
        return with_query("/gateway", self.filters.pairs())


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One class at one site. `allowed` of `endpoints` may serve; `passages` went there in 24 hours."""

    site: str
    allowed: int
    endpoints: int
    reasons: tuple[Reason, ...]
    rules: tuple[str, ...]
    passages: int

    @property
    def state(self) -> str:
        if not self.endpoints:
            return "empty"
        if self.allowed == self.endpoints:
            return "allowed"
        return "partly" if self.allowed else "refused"


class MatrixRow(msgspec.Struct, frozen=True, kw_only=True):
    data_class: str
    cells: tuple[Cell, ...]


class Choices(msgspec.Struct, frozen=True, kw_only=True):
    """What the forms offer."""

    sites: tuple[tuple[str, str], ...]
    tenants: tuple[tuple[str, str], ...]
    classes: tuple[str, ...]
    models: tuple[str, ...]
    windows: tuple[str, ...] = tuple(WINDOWS)


class WhyAsked(msgspec.Struct, frozen=True, kw_only=True):
    tenant: str = ""
    data_class: str = ""
    model: str = ""

    @classmethod
    def parse(cls, query: dict[str, str]) -> WhyAsked:
        model = query.get("model", "").strip()
        return cls(
            tenant=query.get("tenant", "").strip()[:64],
            data_class=text if (text := query.get("class", "")) in LABELS else "",
            model=model if _WORD.fullmatch(model) else "",
        )

    @property
    def complete(self) -> bool:
        return bool(self.tenant and self.data_class and self.model)


class GatewayView(View, frozen=True, kw_only=True):
    """`profiles`: for which sets of profiles the matrix can be asked; `profile` is the one that was."""

    profiles: tuple[tuple[str, int], ...]
    profile: str
    passages: PassageList
    sites: tuple[SiteLive, ...]
    matrix: tuple[MatrixRow, ...]
    choices: Choices
    asked: WhyAsked

    @property
    def template(self) -> str:
        return "gateway.html"


class WhyView(View, frozen=True, kw_only=True):
    choices: Choices
    asked: WhyAsked
    found: Explanation | None
    failed: str
    command: str

    @property
    def template(self) -> str:
        return "why.html"


class DryRunAsked(msgspec.Struct, frozen=True, kw_only=True):
    """Empty fields stay as they are."""

    site: str = ""
    country: str = ""
    law: str = ""
    suspended: str = ""

    @classmethod
    def parse(cls, query: dict[str, str]) -> DryRunAsked:
        def country(name: str) -> str:
            text = query.get(name, "").strip().upper()
            return text if _COUNTRY.fullmatch(text) else ""

        return cls(
            site=query.get("site", "").strip()[:64],
            country=country("country"),
            law=country("law"),
            suspended=text if (text := query.get("suspended", "")) in ("yes", "no") else "",
        )


class DryRunView(View, frozen=True, kw_only=True):
    """`changes` None: nothing was asked yet; empty: nothing would change."""

    asked: DryRunAsked
    choices: Choices
    sites: tuple[SiteLive, ...]
    chosen: SiteLive | None
    changes: tuple[RouteChange, ...] | None
    also: tuple[str, ...]  # further sites of the same operator, which a change of law touches

    @property
    def template(self) -> str:
        return "dry_run.html"


def choices(state: TableState | None) -> Choices:
    if state is None:
        return Choices(sites=(), tenants=(), classes=LABELS, models=())
    federation = state.federation
    models = {model for endpoint in federation.endpoints for model in endpoint.models}
    return Choices(
        sites=tuple((site.id, site.name) for site in federation.sites),
        tenants=tuple((tenant.id, tenant.name) for tenant in federation.tenants),
        classes=LABELS,
        models=(*sorted(models), *sorted(federation.aliases)),
    )


def current_matrix(state: TableState, *, now: float, tenant: TenantFacts = ANYBODY) -> Matrix:
    return decide_all(
        state.federation,
        state.policy,
        evidence=state.evidence,
        now=now,
        evidence_validity_s=state.evidence_validity_s,
        suspended=state.suspended,
        tenant=tenant,
    )


def profile_choices(state: TableState | None, known: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    """Sets of profiles (joined by commas) that the matrix can be asked for, with how many tenants have each: no
    profile first, then each one, then the sets that tenants have."""
    counts: dict[str, int] = dict.fromkeys(("", *known), 0)
    for tenant in state.federation.tenants if state else ():
        key = ",".join(sorted(tenant.profiles))
        counts[key] = counts.get(key, 0) + 1
    return tuple(counts.items())


def matrix_rows(facts: Facts, tenant: TenantFacts = ANYBODY) -> tuple[MatrixRow, ...]:
    """Classes from the freest to the strictest, sites in the order of the configuration; as for this tenant."""
    if facts.state is None:
        return ()
    decided = current_matrix(facts.state, now=facts.now, tenant=tenant)
    passed: dict[tuple[str, str], int] = {}
    for count in facts.counts:
        if count.site and count.outcome != "refused":
            at = (count.data_class, count.site)
            passed[at] = passed.get(at, 0) + count.passages
    rows = []
    for data_class in DataClass:
        cells = []
        for site in facts.sites:
            verdicts = [row for row in decided[data_class] if row.site == site.site.id]
            allowed = [row.verdict for row in verdicts if isinstance(row.verdict, Allowed)]
            reasons = {(reason.rule, reason.en): reason for row in verdicts for reason in row.reasons}
            cells.append(
                Cell(
                    site=site.site.id,
                    allowed=len(allowed),
                    endpoints=len(verdicts),
                    reasons=tuple(reasons.values()),
                    rules=tuple(dict.fromkeys(rule for verdict in allowed for rule in verdict.rules)),
                    passages=passed.get((data_class.label, site.site.id), 0),
                )
            )
        rows.append(MatrixRow(data_class=data_class.label, cells=tuple(cells)))
    return tuple(rows)


def dry_run(state: TableState, asked: DryRunAsked, *, now: float) -> tuple[RouteChange, ...] | None:
    """What would change if the site were as asked; None when the site is not there or nothing is asked."""
    site = next((site for site in state.federation.sites if site.id == asked.site), None)
    if site is None or not (asked.country or asked.law or asked.suspended):
        return None
    federation = _altered(state.federation, asked, operator=site.operator)
    here = {endpoint.id for endpoint in federation.endpoints if endpoint.site == asked.site}
    suspended = state.suspended
    if asked.suspended:
        suspended = suspended | here if asked.suspended == "yes" else suspended - here
    after = decide_all(
        federation,
        state.policy,
        evidence=state.evidence,
        now=now,
        evidence_validity_s=state.evidence_validity_s,
        suspended=suspended,
    )
    return difference(federation, current_matrix(state, now=now), after)


def suspension(state: TableState, endpoint: str, *, now: float) -> tuple[RouteChange, ...]:
    """What suspending (or resuming) one endpoint would change: the consequence that the button spells out."""
    suspended = state.suspended ^ {endpoint}
    after = decide_all(
        state.federation,
        state.policy,
        evidence=state.evidence,
        now=now,
        evidence_validity_s=state.evidence_validity_s,
        suspended=suspended,
    )
    return difference(state.federation, current_matrix(state, now=now), after)


def site_suspension(
    state: TableState, site: str, *, suspended: bool, alone: frozenset[str], now: float
) -> tuple[RouteChange, ...]:
    """What suspending (or resuming) a whole site would change. `alone`: endpoints that are suspended on their own,
    which a resumed site does not bring back."""
    here = {endpoint.id for endpoint in state.federation.endpoints if endpoint.site == site}
    after = decide_all(
        state.federation,
        state.policy,
        evidence=state.evidence,
        now=now,
        evidence_validity_s=state.evidence_validity_s,
        suspended=state.suspended | here if suspended else (state.suspended - here) | (alone & here),
    )
    return difference(state.federation, current_matrix(state, now=now), after)


def _altered(federation: Federation, asked: DryRunAsked, *, operator: str) -> Federation:
    return msgspec.structs.replace(
        federation,
        sites=tuple(
            msgspec.structs.replace(site, country=asked.country or site.country) if site.id == asked.site else site
            for site in federation.sites
        ),
        operators=tuple(
            msgspec.structs.replace(each, law=asked.law or each.law) if each.id == operator else each
            for each in federation.operators
        ),
    )


def reason_text(reason: Reason, language: Language) -> str:
    return reason.ja if language == "ja" else reason.en
