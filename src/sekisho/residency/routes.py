"""From verdicts to routes and the profiles that tenants share, each kept once; made from the last table's where they
are the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sekisho.federation.model import Endpoint, Federation
from sekisho.kernel.classes import DataClass
from sekisho.residency.model import ANYBODY, Allowed, Denied, EndpointFacts, Policy, Reason, TenantFacts, Verdict
from sekisho.residency.table import Closed, Profile, RouteSet
from sekisho.residency.verdicts import Row, distinct, row_of

# Reasons travel in every refusal and every table, so a federation of a thousand sites must not make them grow.
MAX_REASONS = 20
ENDPOINT_SUSPENDED = "endpoint-suspended"

# A tenant's kind, floor and models, and the ids of the endpoints that are there for some tenants only and for it.
Rights = tuple[TenantFacts, DataClass, tuple[str, ...] | None, tuple[str, ...]]


def suspended_reason(endpoint: Endpoint) -> Reason:
    """Why an endpoint that somebody took out serves nobody."""
    return Reason(
        rule=ENDPOINT_SUSPENDED,
        site=endpoint.site,
        en=f"Endpoint {endpoint.id} at site {endpoint.site} is suspended. Resuming it would change this.",
        ja=f"拠点 {endpoint.site} のエンドポイント {endpoint.id} は停止中です。再開すれば許可されます。",
    )


def in_window(endpoint: Endpoint, verdict: Verdict) -> Verdict:
    """What was started for a window is allowed until the window ends, and never longer than policy allows."""
    if isinstance(verdict, Denied) or endpoint.open_until is None:
        return verdict
    until = verdict.valid_until
    until = endpoint.open_until if until is None else min(until, endpoint.open_until)
    return Allowed(rules=verdict.rules, valid_until=until)


def bounded_reasons(reasons: Sequence[Reason]) -> tuple[Reason, ...]:
    """One reason for each rule and site, and no more than MAX_REASONS, in the order they came."""
    kept: dict[tuple[str, str], Reason] = {}
    for reason in reasons:
        kept.setdefault((reason.rule, reason.site), reason)
    return tuple(kept.values())[:MAX_REASONS]


# By class and model: the route of all tenants of one kind and with these endpoints of their own.
_Made = dict[DataClass, dict[str, RouteSet | Closed]]


class Routes:
    """The routes and profiles of one table.

    `last` are those of the table before: a verdict is asked for again where the facts have changed or its time is
    over, and a route is made again where such a verdict came out differently.
    """

    def __init__(
        self,
        federation: Federation,
        policy: Policy,
        facts: Sequence[EndpointFacts],
        *,
        now: float,
        suspended: frozenset[str],
        last: Routes | None = None,
    ) -> None:
        self.profiles: list[Profile] = []
        self._policy = policy
        self._facts, self._places = distinct(facts)
        self._now = now
        self._endpoints = federation.endpoints
        self._suspended = {i for i, endpoint in enumerate(federation.endpoints) if endpoint.id in suspended}
        self._windows = {i for i, endpoint in enumerate(federation.endpoints) if endpoint.open_until is not None}
        self._route_index: dict[RouteSet | Closed, int] = {}
        self._rows: dict[TenantFacts, Row] = {}
        self._made: dict[tuple[TenantFacts, tuple[str, ...]], _Made] = {}
        # kind of tenant and its own endpoints → [class][model] → index of the route: made once for all of the kind
        self._all: dict[tuple[TenantFacts, tuple[str, ...]], dict[DataClass, dict[str, int]]] = {}
        self._models_of: dict[tuple[str, ...], dict[str, list[int]]] = {}
        self._profile_index: dict[tuple[tuple[str, tuple[tuple[str, int], ...]], ...], int] = {}
        self._last = last if last is not None and self._goes_on_from(last) else None
        self._changed: set[int] = set()  # places of facts that were others in the last table
        if self._last is not None:
            self._models_of = self._last._models_of
            pairs = enumerate(zip(self._last._facts, self._facts, strict=True))
            self._changed = {place for place, (was, each) in pairs if was != each}
        self._of_kind(ANYBODY, ())

    def _goes_on_from(self, last: Routes) -> bool:
        """Whether nothing but facts and the time has changed. A clock that was put back makes all of it anew."""
        return (
            last._policy is self._policy
            and last._now <= self._now
            and last._places == self._places
            and last._suspended == self._suspended
            and last._endpoints == self._endpoints
        )

    def finished(self) -> None:
        """The table is made: the one before is not looked at again."""
        self._last = None

    @property
    def routes(self) -> list[RouteSet | Closed]:
        return list(self._route_index)

    def _by_model(self, own: tuple[str, ...]) -> dict[str, list[int]]:
        """The endpoints that are there for everybody and these, by model and in the order of the models."""
        known = self._models_of.get(own)
        if known is None:
            found: dict[str, list[int]] = {}
            for index, endpoint in enumerate(self._endpoints):
                if endpoint.tenants is None or endpoint.id in own:
                    for model in dict.fromkeys(endpoint.models):
                        found.setdefault(model, []).append(index)
            known = self._models_of[own] = dict(sorted(found.items()))
        return known

    def _of_kind(self, kind: TenantFacts, own: tuple[str, ...]) -> dict[DataClass, dict[str, int]]:
        known = self._all.get((kind, own))
        if known is None:
            made = self._made[kind, own] = self._make(kind, own)
            index = self._route_index
            known = self._all[kind, own] = {
                data_class: {model: index.setdefault(route, len(index)) for model, route in by_model.items()}
                for data_class, by_model in made.items()
            }
        return known

    def _row(self, kind: TenantFacts) -> Row:
        row = self._rows.get(kind)
        if row is None:
            was = None if self._last is None else self._last._rows.get(kind)
            row = self._rows[kind] = (
                row_of(self._policy, kind, self._facts, now=self._now) if was is None else self._next_row(kind, was)
            )
        return row

    def _next_row(self, kind: TenantFacts, was: Row) -> Row:
        now = self._now
        again = sorted(self._changed.union([n for n, until in enumerate(was.same_until) if until <= now]))
        if not again:
            return was
        new = row_of(self._policy, kind, tuple([self._facts[place] for place in again]), now=now)
        verdicts = {data_class: list(said) for data_class, said in was.verdicts.items()}
        same_until = list(was.same_until)
        for position, place in enumerate(again):
            same_until[place] = new.same_until[position]
            for data_class, said in new.verdicts.items():
                verdicts[data_class][place] = said[position]
        return Row(verdicts, same_until)

    def _make(self, kind: TenantFacts, own: tuple[str, ...]) -> _Made:
        row = self._row(kind)
        by_model = self._by_model(own)
        last = self._last
        made = None if last is None else last._made.get((kind, own))
        if last is None or made is None:
            return {
                data_class: {model: self._route(said, candidates) for model, candidates in by_model.items()}
                for data_class, said in row.verdicts.items()
            }
        before = last._rows[kind]
        return {
            data_class: self._next_routes(before.verdicts[data_class], said, made[data_class], by_model)
            for data_class, said in row.verdicts.items()
        }

    def _next_routes(
        self,
        before: Sequence[Verdict],
        verdicts: Sequence[Verdict],
        made: dict[str, RouteSet | Closed],
        by_model: Mapping[str, Sequence[int]],
    ) -> dict[str, RouteSet | Closed]:
        pairs = enumerate(zip(before, verdicts, strict=True))
        places = {place for place, (was, verdict) in pairs if was is not verdict and was != verdict}
        if not places:
            return made
        touched = {index for index, place in enumerate(self._places) if place in places}
        return {
            model: made[model] if touched.isdisjoint(candidates) else self._route(verdicts, candidates)
            for model, candidates in by_model.items()
        }

    def _route(self, verdicts: Sequence[Verdict], candidates: Sequence[int]) -> RouteSet | Closed:
        """The set of those that may serve, or why nobody may."""
        places, windows, suspended = self._places, self._windows, self._suspended
        said = [(index, verdicts[places[index]]) for index in candidates if index not in suspended]
        if windows:
            said = [
                (index, in_window(self._endpoints[index], verdict) if index in windows else verdict)
                for index, verdict in said
            ]
        chosen = [(index, verdict) for index, verdict in said if isinstance(verdict, Allowed)]
        if not chosen:
            denied = dict(said)
            reasons: list[Reason] = []
            for index in candidates:
                verdict = denied.get(index)
                if isinstance(verdict, Denied):
                    reasons += verdict.reasons
                elif verdict is None:
                    reasons.append(suspended_reason(self._endpoints[index]))
            closed_by = dict.fromkeys(reason.rule for reason in reasons)
            return Closed(rules=tuple(closed_by), reasons=bounded_reasons(reasons))
        untils = [verdict.valid_until for _, verdict in chosen]
        return RouteSet(
            endpoints=tuple([index for index, _ in chosen]),
            rules=tuple(dict.fromkeys([rule for _, verdict in chosen for rule in verdict.rules])),
            valid_until=min([until for until in untils if until is not None], default=None),
            # site by site: one that falls silent must not close the route of the others
            untils=tuple(untils) if len(set(untils)) > 1 else (),
        )

    def profile_of(self, rights: Rights) -> int:
        """The index of the profile of all tenants with these rights, and of those with other ones that come to the
        same: models in another order or all of them by name, policy profiles that make no difference."""
        kind, floor, wanted, own = rights
        every = self._by_model(own)
        # What was started for a tenant is there for it, whatever its list of models says of everybody's endpoints.
        granted = every.keys() - self._by_model(()).keys() if own else frozenset[str]()
        models = list(every) if wanted is None else sorted((granted | set(wanted)).intersection(every))
        whole = len(models) == len(every)
        routes = self._profile_routes(self._of_kind(kind, own), floor, None if whole else models)
        content = tuple((label, tuple(by_model.items())) for label, by_model in routes.items())
        index = self._profile_index.setdefault(content, len(self.profiles))
        if index == len(self.profiles):
            self.profiles.append(Profile(routes=routes))
        return index

    def _profile_routes(
        self, by_class: Mapping[DataClass, dict[str, int]], floor: DataClass, models: Sequence[str] | None
    ) -> dict[str, dict[str, int]]:
        routes: dict[str, dict[str, int]] = {}
        for data_class in DataClass:
            if data_class < floor:
                continue  # a request can be raised above its tenant's floor, never lowered under it
            every = by_class[data_class]
            routes[data_class.label] = every if models is None else {model: every[model] for model in models}
        return routes
