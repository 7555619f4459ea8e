"""The parts of a federation fit together, or every reason why not is named."""

from __future__ import annotations

import pytest

from sekisho.federation.build import FederationRefused, assemble, did_you_mean
from sekisho.federation.countries import country_label, is_country
from sekisho.federation.model import ApiKey, Endpoint, Operator, Site, Tenant
from sekisho.kernel.classes import DataClass

SAKURA = Operator(id="sakura", name="Sakura", country="JP", law="JP")
ISHIKARI = Site(id="ishikari", operator="sakura", name="Ishikari", country="JP")
ONE = Endpoint(id="one", site="ishikari", url="http://127.0.0.1:1/v1", models=("small",))
HOSPITAL = Tenant(id="hospital", name="Hospital", floor=DataClass.CONFIDENTIAL)
KEY = ApiKey(id="k", tenant="hospital", sha256="0" * 64)


def refused(**parts: object) -> list[tuple[tuple[str | int, ...], str]]:
    whole = {
        "operators": [SAKURA],
        "sites": [ISHIKARI],
        "endpoints": [ONE],
        "tenants": [HOSPITAL],
        "keys": [KEY],
        "aliases": {"gpt": "small"},
    }
    with pytest.raises(FederationRefused) as caught:
        assemble(**{**whole, **parts})  # type: ignore[arg-type]  # the parts come from a table of cases
    assert all(fault.mend for fault in caught.value.faults)
    return [(fault.path, fault.what) for fault in caught.value.faults]


def test_parts_that_fit_make_a_federation() -> None:
    federation = assemble(
        operators=[SAKURA],
        sites=[ISHIKARI],
        endpoints=[ONE],
        tenants=[HOSPITAL],
        keys=[KEY],
        aliases={"gpt": "small"},
    )
    assert federation.sites == (ISHIKARI,)
    assert federation.aliases == {"gpt": "small"}


def test_ids_given_twice() -> None:
    assert refused(operators=[SAKURA, SAKURA]) == [(("operator", 1, "id"), "operator `sakura` is there twice")]
    assert refused(sites=[ISHIKARI, ISHIKARI]) == [(("site", 1, "id"), "site `ishikari` is there twice")]
    assert refused(endpoints=[ONE, ONE]) == [(("endpoint", 1, "id"), "endpoint `one` is there twice")]
    assert refused(tenants=[HOSPITAL, HOSPITAL]) == [(("tenant", 1, "id"), "tenant `hospital` is there twice")]


def test_references_into_nothing() -> None:
    assert [path for path, _ in refused(operators=[])] == [("site", 0, "operator")]
    assert [path for path, _ in refused(sites=[])] == [("endpoint", 0, "site")]
    picky = Tenant(id="t", name="t", floor=DataClass.PUBLIC, models=("small", "large"))
    assert refused(tenants=[HOSPITAL, picky]) == [
        (("tenant", 1, "models", 1), "tenant `t` names the model `large`, which no endpoint serves")
    ]


def test_two_tenants_never_share_a_key() -> None:
    other = Tenant(id="other", name="other", floor=DataClass.PUBLIC)
    theirs = ApiKey(id="k2", tenant="other", sha256=KEY.sha256)
    assert [path for path, _ in refused(tenants=[HOSPITAL, other], keys=[KEY, theirs])] == [("key", 1)]
    assert refused(keys=[KEY, KEY]) == [(("key", 1), "tenant `hospital` has the same key twice")]


def test_aliases_lead_to_one_model_and_hide_none() -> None:
    assert [path for path, _ in refused(aliases={"small": "small"})] == [("alias", 0, "name")]
    assert [path for path, _ in refused(aliases={"a": "small", "b": "a"})] == [("alias", 1, "model")]
    assert [path for path, _ in refused(aliases={"a": "b", "b": "a"})] == [
        ("alias", 0, "model"),
        ("alias", 1, "model"),
    ]
    assert [path for path, _ in refused(aliases={"a": "smal"})] == [("alias", 0, "model")]


def test_all_faults_come_at_once() -> None:
    assert len(refused(operators=[], sites=[ISHIKARI, ISHIKARI], aliases={"a": "x"})) == 4


def test_an_empty_name_was_reported_before_and_is_passed_over() -> None:
    nameless = Site(id="", operator="", name="", country="")
    assert refused(sites=[ISHIKARI, nameless, nameless], aliases={"a": "x"}) == [
        (("alias", 0, "model"), "alias `a` leads to the model `x`, which no endpoint serves")
    ]


def test_near_names_are_offered() -> None:
    assert did_you_mean("sakra", ["sakura", "softbank"]) == "did you mean `sakura`?"
    assert did_you_mean("zzz", ["b", "a", ""]) == "known: `a`, `b`"
    assert did_you_mean("zzz", []) == "there is none yet"
    assert did_you_mean("zzz", [f"n{index:02}" for index in range(20)]).endswith("`n11`, …")


def test_countries() -> None:
    assert all(is_country(code) for code in ("JP", "US", "GB", "DE", "SG"))
    assert not any(is_country(code) for code in ("UK", "EU", "ZZ", "XX", "jp", "JPN", "", "001"))
    assert country_label("JP", "en") == "Japan (JP)"
    assert country_label("JP", "ja") == "日本（JP）"
    assert country_label("XX", "en") == "XX"
