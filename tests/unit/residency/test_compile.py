"""The route table: the default one in full, what it shares, what it refuses, and how long it takes."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sekisho.assembly.config import load_config
from sekisho.federation.model import ApiKey, Endpoint, Federation, Limits, Operator, Site, Tenant
from sekisho.kernel.classes import DataClass
from sekisho.residency.compile import CompileRefused, compile_table, next_expiry
from sekisho.residency.decide import BuiltinPolicy
from sekisho.residency.routes import MAX_REASONS
from sekisho.residency.table import Closed, RouteSet, RouteTable, open_table, sign_table
from sekisho.residency.why import explain

GOLDEN = Path(__file__).parents[2] / "golden"
NOW = 1_795_305_600.0  # 2026-11-22 00:00 UTC
DAY_S = 86_400.0


def compiled(federation: Federation, *, suspended: frozenset[str] = frozenset(), now: float = NOW) -> RouteTable:
    return compile_table(
        federation,
        BuiltinPolicy(),
        version=7,
        now=now,
        jurisdiction="JP",
        evidence_validity_s=DAY_S,
        salts={tenant.id: b"salt of " + tenant.id.encode() for tenant in federation.tenants},
        suspended=suspended,
    )


def default() -> Federation:
    return load_config(None).config.federation


def same_as_golden(name: str, table: RouteTable) -> None:
    """SEKISHO_WRITE_GOLDEN=1 writes the file anew; read the difference before you commit it."""
    text = msgspec.json.format(msgspec.json.encode(table), indent=2).decode() + "\n"
    file = GOLDEN / name
    if os.environ.get("SEKISHO_WRITE_GOLDEN"):
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


def test_the_table_of_the_default_federation() -> None:
    same_as_golden("default_table.json", compiled(default()))


def test_the_table_when_only_the_site_abroad_is_left() -> None:
    left = frozenset(endpoint.id for endpoint in default().endpoints) - {"us-west-2"}
    same_as_golden("default_table_overseas_only.json", compiled(default(), suspended=left))


@pytest.mark.parametrize(
    ("jurisdiction", "digest"),
    [
        ("JP", "64da4e4d5b713eaebb0a1690deb75e510853f2427b7701ba91a63e0b9c3ec46e"),
        ("DE", "d27466ab868c62f6d86d0e4c5c633e82dc5b3da6113902ca7734f66c38ed2a75"),
    ],
)
def test_the_hash_names_the_rules_for_ever(jurisdiction: str, digest: str) -> None:
    """It stands in every decision that was ever written: rules that change get another text, and so another hash."""
    assert BuiltinPolicy(jurisdiction=jurisdiction).hash == digest


def test_a_signed_table_is_read_back_as_it_was() -> None:
    key = Ed25519PrivateKey.generate()
    table = compiled(default())
    assert open_table(sign_table(table, key), key.public_key()) == table


OPERATOR = Operator(id="o", name="o", country="JP", law="JP")


def federation_of(
    *,
    sites: tuple[Site, ...],
    endpoints: tuple[Endpoint, ...],
    tenants: tuple[Tenant, ...],
    keys: tuple[ApiKey, ...] = (),
) -> Federation:
    return Federation(
        operators=(OPERATOR,), sites=sites, endpoints=endpoints, tenants=tenants, keys=keys, aliases={"alias": "m"}
    )


def site(name: str, *, country: str = "JP", valid_until: float | None = None) -> Site:
    return Site(id=name, operator="o", name=name, country=country, valid_until=valid_until)


def endpoint(name: str, at: str, *models: str) -> Endpoint:
    return Endpoint(id=name, site=at, url=f"http://{name}/v1", models=models)


def tenant(name: str, floor: DataClass = DataClass.PUBLIC, models: tuple[str, ...] | None = None) -> Tenant:
    return Tenant(id=name, name=name, floor=floor, models=models)


def test_tenants_with_the_same_rights_share_a_profile_whatever_the_order_of_their_models() -> None:
    table = compiled(
        federation_of(
            sites=(site("s"),),
            endpoints=(endpoint("e", "s", "a", "b"),),
            tenants=(
                tenant("all"),
                tenant("both", models=("a", "b")),
                tenant("turned", models=("b", "a", "b")),
                tenant("one", models=("a",)),
                tenant("same", models=("a",)),
                tenant("higher", DataClass.RESTRICTED),
            ),
        )
    )
    assert [entry.profile for entry in table.tenants] == [0, 0, 0, 1, 1, 2]
    assert list(table.profiles[2].routes) == ["restricted"]
    # Two models at the same endpoint: any site, site in jurisdiction, and law too. Three routes, not eight.
    assert len(table.routes) == 3


def test_each_endpoint_leaves_a_route_with_its_own_evidence() -> None:
    table = compiled(
        federation_of(
            sites=(site("long"), site("short", valid_until=NOW + 60), site("gone", valid_until=NOW)),
            endpoints=(
                endpoint("e1", "long", "m"),
                endpoint("e2", "short", "m"),
                endpoint("e3", "gone", "m", "lost"),
            ),
            tenants=(tenant("t", DataClass.CONFIDENTIAL),),
        )
    )
    routes = table.profiles[0].routes["confidential"]
    served = table.routes[routes["m"]]
    assert isinstance(served, RouteSet)
    assert (served.endpoints, served.valid_until) == ((0, 1), NOW + 60)
    assert served.untils == (NOW + DAY_S, NOW + 60)
    assert (served.at(NOW + 59), served.at(NOW + 60), served.at(NOW + DAY_S)) == ((0, 1), (0,), ())
    assert next_expiry(table) == NOW + 60
    lost = table.routes[routes["lost"]]
    assert isinstance(lost, Closed)
    assert lost.rules == ("evidence-fresh",)
    assert "2026-11-22 00:00:00 UTC" in lost.reasons[0].en


def test_a_closed_route_says_why_for_a_bounded_number_of_sites() -> None:
    many = 50
    table = compiled(
        federation_of(
            sites=tuple(site(f"s{index}", country="US") for index in range(many)),
            endpoints=tuple(endpoint(f"e{index}{twin}", f"s{index}", "m") for index in range(many) for twin in "ab"),
            tenants=(tenant("t", DataClass.CONFIDENTIAL),),
        )
    )
    closed = table.routes[table.profiles[0].routes["confidential"]["m"]]
    assert isinstance(closed, Closed)
    assert [reason.site for reason in closed.reasons] == [f"s{index}" for index in range(MAX_REASONS)]


def test_when_all_are_suspended_the_route_is_closed_with_that_reason() -> None:
    federation = federation_of(sites=(site("s"),), endpoints=(endpoint("e", "s", "m"),), tenants=(tenant("t"),))
    table = compiled(federation, suspended=frozenset({"e", "never-there"}))
    assert [type(route) for route in table.routes] == [Closed]
    assert table.routes[0].rules == ("endpoint-suspended",)
    assert [entry.id for entry in table.endpoints] == ["e"]


def test_keys_limits_and_aliases_come_through() -> None:
    digest = hashlib.sha256(b"key").hexdigest()
    limited = Tenant(
        id="t2",
        name="t2",
        floor=DataClass.INTERNAL,
        limits=Limits(concurrency=3),
        model_limits={"m": Limits(tokens_per_minute=9)},
    )
    table = compiled(
        federation_of(
            sites=(site("s"),),
            endpoints=(endpoint("e", "s", "m"),),
            tenants=(tenant("t1"), limited),
            keys=(ApiKey(id="", tenant="t2", sha256=digest, expires_at=5.0),),
        )
    )
    (key,) = table.keys
    assert (key.id, key.tenant, key.sha256.hex(), key.expires_at) == (digest[:12], 1, digest, 5.0)
    entry = table.tenants[1]
    assert (entry.floor, entry.limits, entry.model_limits) == ("internal", limited.limits, limited.model_limits)
    assert (entry.salt, table.aliases, table.version) == (b"salt of t2", {"alias": "m"}, 7)


def test_no_table_is_made_without_a_salt() -> None:
    federation = federation_of(sites=(site("s"),), endpoints=(endpoint("e", "s", "m"),), tenants=(tenant("t"),))
    with pytest.raises(CompileRefused, match="tenant `t` has no salt"):
        compile_table(
            federation, BuiltinPolicy(), version=1, now=NOW, jurisdiction="JP", evidence_validity_s=DAY_S, salts={}
        )


def test_gateways_do_not_import_what_only_the_compiler_needs() -> None:
    """A worker reads tables; country names and rules would cost each of them memory for nothing."""
    program = "import sys, sekisho.residency.table; print([name for name in sys.modules if name.startswith('babel')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def large_federation(*, tenants: int, endpoints: int) -> Federation:
    """Every tenant two keys; two of three have a list of models of their own."""
    chance = random.Random(1)
    operators = tuple(
        Operator(id=f"o{index}", name="o", country=country, law=country)
        for index, country in enumerate(["JP", "US", "JP", "GB"])
    )
    sites = tuple(
        Site(id=f"s{index}", operator=f"o{index % 4}", name="s", country=chance.choice(["JP", "JP", "US"]))
        for index in range(40)
    )
    models = [f"m{index}" for index in range(50)]
    served = tuple(
        Endpoint(id=f"e{index}", site=f"s{index % 40}", url="http://x/v1", models=tuple(chance.sample(models, 10)))
        for index in range(endpoints)
    )
    known = sorted({model for each in served for model in each.models})
    return Federation(
        operators=operators,
        sites=sites,
        endpoints=served,
        tenants=tuple(
            Tenant(
                id=f"t{index}",
                name="t",
                floor=chance.choice(list(DataClass)),
                models=None if index % 3 == 0 else tuple(chance.sample(known, chance.randint(1, 20))),
            )
            for index in range(tenants)
        ),
        keys=tuple(
            ApiKey(id=f"k{index}", tenant=f"t{index // 2}", sha256=hashlib.sha256(str(index).encode()).hexdigest())
            for index in range(2 * tenants)
        ),
        aliases={},
    )


def test_ten_thousand_tenants_on_a_hundred_endpoints_are_one_table() -> None:
    """How fast that is says `python -m bench.policy`."""
    federation = large_federation(tenants=10_000, endpoints=100)
    table = compiled(federation)
    assert (len(table.tenants), len(table.keys), len(table.endpoints)) == (10_000, 20_000, 100)


def test_an_endpoint_of_a_window_is_there_for_its_owner_alone_and_until_its_end() -> None:
    shared = Endpoint(id="e1", site="s1", url="http://127.0.0.1:1/v1", models=("m",))
    own = Endpoint(
        id="w1", site="s1", url="http://127.0.0.1:2/v1", models=("mine",), tenants=("a",), open_until=NOW + 5
    )
    away = Endpoint(
        id="w2", site="s2", url="http://127.0.0.1:3/v1", models=("mine",), tenants=("a",), open_until=NOW + 9
    )
    tenants = tuple(
        Tenant(id=name, name=name, floor=DataClass.PUBLIC, models=models)
        for name, models in (("a", ("m",)), ("b", None))
    )
    federation = federation_of(
        sites=(site("s1"), site("s2", country="US")), endpoints=(shared, own, away), tenants=tenants
    )
    table = compiled(federation)
    mine, other = (table.profiles[entry.profile].routes for entry in table.tenants)
    assert set(mine["public"]) == {"m", "mine"}, "a list of models does not hide one's own window"
    assert all(set(by_model) == {"m"} for by_model in other.values())
    route = table.routes[mine["public"]["mine"]]
    assert isinstance(route, RouteSet)
    assert (route.endpoints, route.untils, route.valid_until) == ((1, 2), (NOW + 5, NOW + 9), NOW + 5)
    guarded = table.routes[mine["confidential"]["mine"]]
    assert isinstance(guarded, RouteSet)
    assert guarded.endpoints == (1,), "residency decides about it as about any other"
    for tenant, code in (("a", ""), ("b", "model.not_found")):
        told = explain(
            federation, BuiltinPolicy(jurisdiction="JP"), tenant=tenant, data_class=DataClass.PUBLIC, model="mine",
            evidence={}, issued_at=NOW, now=NOW, evidence_validity_s=60.0,
        )  # fmt: skip
        assert told is not None
        assert told.code == code
