"""From parts to a Federation: everything that can be known without reading a file or asking a network.

A part whose value was refused before it came here carries an empty string in its place, so that positions stay
right and one mistake is reported once. The checks below pass over empty strings, and where a name was refused they
do not say that nothing has the name: it may be the refused one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from sekisho.federation.model import ApiKey, Endpoint, Federation, Operator, Pool, Site, Tenant
from sekisho.kernel.errors import SekishoError

Path = tuple[str | int, ...]


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong. `path` leads to it in the shape of the configuration: `("site", 2, "operator")`."""

    path: Path
    what: str
    mend: str


class FederationRefused(SekishoError):
    """The parts do not make a federation; `faults` are all that is wrong, not just the first."""

    code = "federation.refused"

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(fault.what for fault in faults), hint=faults[0].mend if faults else "")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`did you mean `sakura`?`, or which names there are."""
    names = sorted(set(known) - {""})
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"did you mean `{close[0]}`?"
    if not names:
        return "there is none yet"
    shown = ", ".join(f"`{known_name}`" for known_name in names[:12])
    return f"known: {shown}" + (", …" if len(names) > 12 else "")


def assemble(
    *,
    operators: Sequence[Operator],
    sites: Sequence[Site],
    endpoints: Sequence[Endpoint],
    tenants: Sequence[Tenant],
    keys: Sequence[ApiKey],
    aliases: Mapping[str, str],
    pools: Sequence[Pool] = (),
) -> Federation:
    """The federation of these parts, or FederationRefused with all that is wrong between them."""
    faults = find_faults(
        operators=operators,
        sites=sites,
        endpoints=endpoints,
        tenants=tenants,
        keys=keys,
        aliases=tuple(aliases.items()),
        pools=pools,
    )
    if faults:
        raise FederationRefused(faults)
    return Federation(
        operators=tuple(operators),
        sites=tuple(sites),
        endpoints=tuple(endpoints),
        tenants=tuple(tenants),
        keys=tuple(keys),
        aliases=dict(aliases),
        pools=tuple(pools),
    )


def find_faults(
    *,
    operators: Sequence[Operator],
    sites: Sequence[Site],
    endpoints: Sequence[Endpoint],
    tenants: Sequence[Tenant],
    keys: Sequence[ApiKey],
    aliases: Sequence[tuple[str, str]],
    pools: Sequence[Pool] = (),
) -> list[Fault]:
    """All that is wrong between the parts: ids given twice, references into nothing, aliases that mislead.

    Key faults have the path `("key", <position in keys>)`: whoever read the keys knows where each came from.
    """
    models = {model for endpoint in endpoints for model in endpoint.models or ("",)}
    return [
        *_twice("operator", [operator.id for operator in operators]),
        *_twice("site", [site.id for site in sites]),
        *_twice("endpoint", [endpoint.id for endpoint in endpoints]),
        *_twice("tenant", [tenant.id for tenant in tenants]),
        *_twice("pool", [pool.id for pool in pools]),
        *_unknown_operators(operators, sites),
        *_unknown_sites(sites, "endpoint", endpoints),
        *_unknown_sites(sites, "pool", pools),
        *_tenant_faults(tenants, models, {name for name, _ in aliases}),
        *_key_faults(keys),
        *_alias_faults(aliases, models),
    ]


def _twice(kind: str, ids: Sequence[str]) -> Iterable[Fault]:
    seen: set[str] = set()
    for position, name in enumerate(ids):
        if name and name in seen:
            yield Fault(
                path=(kind, position, "id"),
                what=f"{kind} `{name}` is there twice",
                mend="give it an id of its own, or remove one of the two",
            )
        seen.add(name)


def _unknown(name: str, known: set[str]) -> bool:
    """Whether nothing has this name; nobody can tell when a name in `known` was refused."""
    return bool(name) and name not in known and "" not in known


def _unknown_operators(operators: Sequence[Operator], sites: Sequence[Site]) -> Iterable[Fault]:
    known = {operator.id for operator in operators}
    for position, site in enumerate(sites):
        if _unknown(site.operator, known):
            yield Fault(
                path=("site", position, "operator"),
                what=f"site `{site.id}` names the operator `{site.operator}`, which is not there",
                mend=did_you_mean(site.operator, known),
            )


def _unknown_sites(sites: Sequence[Site], kind: str, parts: Sequence[Endpoint | Pool]) -> Iterable[Fault]:
    known = {site.id for site in sites}
    for position, part in enumerate(parts):
        if _unknown(part.site, known):
            yield Fault(
                path=(kind, position, "site"),
                what=f"{kind} `{part.id}` names the site `{part.site}`, which is not there",
                mend=did_you_mean(part.site, known),
            )


def _tenant_faults(tenants: Sequence[Tenant], models: set[str], aliases: set[str]) -> Iterable[Fault]:
    for position, tenant in enumerate(tenants):
        named: list[tuple[Path, str]] = [
            (("tenant", position, "models", place), model) for place, model in enumerate(tenant.models or ())
        ]
        named += [(("tenant", position, "model_limits", model), model) for model in tenant.model_limits]
        for path, model in named:
            if _unknown(model, models):
                yield Fault(
                    path=path,
                    what=f"tenant `{tenant.id}` names the model `{model}`, which no endpoint serves",
                    mend="name the model itself, not its alias" if model in aliases else did_you_mean(model, models),
                )


def _key_faults(keys: Sequence[ApiKey]) -> Iterable[Fault]:
    owners: dict[str, str] = {}
    for position, key in enumerate(keys):
        owner = owners.get(key.sha256)
        owners.setdefault(key.sha256, key.tenant)
        if owner == key.tenant:
            yield Fault(
                path=("key", position),
                what=f"tenant `{owner}` has the same key twice",
                mend="remove one of the two",
            )
        elif owner is not None:
            yield Fault(
                path=("key", position),
                what=f"tenant `{key.tenant}` and tenant `{owner}` have the same key",
                mend="make a key of its own for each tenant with `sekisho key new`",
            )


def _alias_faults(aliases: Sequence[tuple[str, str]], models: set[str]) -> Iterable[Fault]:
    names = {name for name, _ in aliases}
    seen: set[str] = set()
    for position, (name, model) in enumerate(aliases):
        if name and name in seen:
            yield Fault(
                path=("alias", position, "name"),
                what=f"alias `{name}` is there twice",
                mend="remove one of the two: an alias stands for one model",
            )
        elif name and name in models:
            yield Fault(
                path=("alias", position, "name"),
                what=f"alias `{name}` has the name of a model that an endpoint serves",
                mend="choose another name: an alias never hides a model",
            )
        seen.add(name)
        if model in names - models:
            yield Fault(
                path=("alias", position, "model"),
                what=f"alias `{name}` leads to `{model}`, which is an alias too",
                mend="name the model itself: aliases make no chains",
            )
        elif _unknown(model, models):
            yield Fault(
                path=("alias", position, "model"),
                what=f"alias `{name}` leads to the model `{model}`, which no endpoint serves",
                mend=did_you_mean(model, models),
            )
