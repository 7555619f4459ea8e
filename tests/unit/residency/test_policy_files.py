"""Policy files: what is wrong with them has a place, and what they say is tried in tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from sekisho.residency.policy.attributes import PATHS, SAYS
from sekisho.residency.policy.bundle import (
    PolicyRefused,
    bundle_of,
    default_bundle,
    default_cases,
    load_bundle,
    schema_text,
)
from sekisho.residency.policy.cases import read_cases, run_cases
from sekisho.residency.policy.engine import CedarPolicy
from sekisho.residency.policy.reach import leaving, narrower_by_form, widenings
from sekisho.residency.policy.read import examine
from sekisho.runtime.toml import ConfigRefused, parse_toml

FILES = {file.name: file.text for file in default_bundle().files}
NOT_ITS_OWN = "does not hold for the profile own alone"
HEAD = '@id("x") @reason_en("No.") @reason_ja("不可。")\n'


def policy(**changed: str) -> CedarPolicy:
    """The default files with some in place of others; an empty text takes one out."""
    texts = FILES | {name.replace("__", "/") + ".cedar": text for name, text in changed.items()}
    return CedarPolicy(bundle_of({name: text for name, text in texts.items() if text}), jurisdiction="JP")


DEFAULT = policy()


@pytest.mark.parametrize("name", sorted(default_cases()))
def test_the_default_policies_pass_their_tests(name: str) -> None:
    policies: dict[str, CedarPolicy] = {}
    results = run_cases(
        parse_toml(default_cases()[name], file=name),
        policies,
        lambda jurisdiction: CedarPolicy(default_bundle(), jurisdiction=jurisdiction),
    )
    assert results
    assert [(result.name, result.faults) for result in results if result.faults] == []


def test_every_profile_has_a_test() -> None:
    named = {
        profile
        for text in default_cases().values()
        for _, case in read_cases(parse_toml(text, file="x"))
        for profile in case.profiles
    }
    assert set(default_bundle().profiles) - named == {"seal-1"}  # its rules are those of seal-2 and above


def test_every_rule_cites_its_source_and_speaks_both_languages() -> None:
    for rule in DEFAULT.rules:
        assert rule.source, rule.id
        if rule.effect == "forbid":
            assert rule.reason_en.endswith("would change this."), rule.id
            assert rule.reason_ja.endswith("許可されます。"), rule.id
            assert "{site}" in rule.reason_en, rule.id
            assert "拠点 {site}" in rule.reason_ja, rule.id


@pytest.mark.parametrize(
    ("text", "place", "what"),
    [
        ("permit (principal, action resource);", "1:27", "unexpected token `resource`"),
        (f"{HEAD}forbid (principal, action, resource) when {{ resource.nope == 1 }};", "2:54", "`nope`"),
        ("// one\n\n@id() permit (principal, action, resource);", "3:5", "unexpected token `)`"),
        (f"{HEAD}forbid (principal, action, resource) when {{", "2:43", "unexpected end of input"),
        ("permit (principal, action, resource);", "1:1", "no id"),
        ('@id("x")\nforbid (principal, action, resource);', "2:1", "no @reason_en"),
        ('@id("x") @because("y") permit (principal, action, resource);', "1:11", "no annotation @because"),
        ('@id("x") permit (principal == ?principal, action, resource);', "1:31", "template"),
        (
            '@id("x") @reason_en("{sight}") @reason_ja("。") forbid (principal, action, resource);',
            "1:11",
            "{sight}, which stands for nothing",
        ),
        (f'{HEAD}forbid (principal, action, resource) when {{ resource.site_law == "UK" }};', "2:66", "no country"),
        (
            f'{HEAD}forbid (principal, action, resource) when {{ resource.personnel == Personnel::"clear" }};',
            "2:78",
            "not declared",
        ),
        (
            f"{HEAD}forbid (principal, action, resource) when {{ context.attestation_age_s + 1 > 5 }};",
            "2:53",
            "not compared with a whole number",
        ),
        (
            f"{HEAD}forbid (principal, action, resource) when {{ context.location_age_s > context.class_level }};",
            "2:53",
            "not compared with a whole number",
        ),
        (f'{HEAD}forbid (principal in Profile::"x", action, resource);', "2:22", "names a profile"),
        (f'{HEAD}forbid (principal, action, resource == Endpoint::"x");', "2:40", "names an endpoint"),
    ],
)
def test_a_mistake_has_its_place_and_a_way_out(text: str, place: str, what: str) -> None:
    _, mistakes = examine(bundle_of({"a.cedar": text}))
    assert any(
        f"{mistake.line}:{mistake.column}" == place and what in mistake.what and mistake.mend for mistake in mistakes
    ), [str(mistake) for mistake in mistakes]
    with pytest.raises(PolicyRefused):
        CedarPolicy(bundle_of({"a.cedar": text}), jurisdiction="JP")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('@id("x") permit (principal in Profile::"own", action, resource);', "a profile permits"),
        (f"{HEAD}forbid (principal, action, resource);", NOT_ITS_OWN),
        (
            f'{HEAD}forbid (principal in Profile::"other", action, resource);',
            NOT_ITS_OWN,
        ),
        (
            f'{HEAD}forbid (principal in Profile::"own", action, resource) unless {{ principal in Profile::"no" }};',
            NOT_ITS_OWN,
        ),
    ],
)
def test_a_profile_only_forbids_and_only_its_own_tenants(text: str, what: str) -> None:
    _, mistakes = examine(bundle_of({"profiles/own.cedar": text}))
    assert what in " ".join(mistake.what for mistake in mistakes)


@pytest.mark.parametrize("name", ["a.txt", "../a.cedar", "profiles/x/y.cedar", "A.cedar", ".cedar"])
def test_a_name_that_no_file_can_have_is_refused(name: str) -> None:
    with pytest.raises(PolicyRefused):
        bundle_of({name: ""})


def test_a_directory_stands_over_the_default_files_and_an_empty_file_takes_one_out(tmp_path: Path) -> None:
    (tmp_path / "9-own.cedar").write_text(f"{HEAD}forbid (principal, action, resource);")
    (tmp_path / "4-evidence.cedar").write_text("\n")
    found = load_bundle(tmp_path)
    assert {file.name for file in found.files} == set(FILES) - {"4-evidence.cedar"} | {"9-own.cedar"}
    (tmp_path / "8-bad.cedar").write_bytes(b"// fine\n\xff")
    with pytest.raises(PolicyRefused, match=r"8-bad\.cedar:2:1"):
        load_bundle(tmp_path)
    with pytest.raises(PolicyRefused, match="no policy directory"):
        load_bundle(tmp_path / "none")


def test_the_order_of_files_and_line_ends_change_no_hash() -> None:
    turned = dict(reversed(FILES.items()))
    assert bundle_of(turned).hash == default_bundle().hash
    assert bundle_of({name: text.replace("\n", "\r\n") for name, text in FILES.items()}).hash == default_bundle().hash
    assert policy(**{"9-own": f"{HEAD}forbid (principal, action, resource);"}).hash != DEFAULT.hash
    assert CedarPolicy(default_bundle(), jurisdiction="DE").hash != DEFAULT.hash


# -- what a policy could reach


def test_the_default_policies_keep_guarded_work_inside_and_another_is_found_out() -> None:
    assert leaving(DEFAULT) == ()
    abroad = policy(
        **{
            "2-confidential": FILES["2-confidential.cedar"].replace(
                "resource.site_country == context.jurisdiction", '["JP", "US"].contains(resource.site_country)'
            )
        }
    )
    assert {example.example["resource.site_country"] for example in leaving(abroad)} == {"US"}
    assert widenings(DEFAULT, abroad)
    assert widenings(abroad, DEFAULT) == ()


def test_a_rule_that_goes_or_weakens_widens_and_the_other_way_round_does_not() -> None:
    computing = FILES["profiles/confidential-computing.cedar"]
    weaker = policy(**{"profiles__confidential-computing": computing.replace("<= 86400", "<= 604800")})
    stricter = policy(**{"profiles__confidential-computing": computing.replace("<= 86400", "<= 3600")})
    assert [found.profiles for found in widenings(DEFAULT, weaker)] == [("confidential-computing",)] * 2
    assert widenings(DEFAULT, stricter) == ()
    assert widenings(DEFAULT, policy(**{"4-evidence": ""}))
    assert widenings(policy(**{"4-evidence": ""}), DEFAULT) == ()
    assert widenings(DEFAULT, policy(profiles__ismap="")) == ()  # its tenants are served nowhere then
    assert narrower_by_form(DEFAULT, policy(**{"9-own": f"{HEAD}forbid (principal, action, resource);"}))


def test_what_can_not_be_enumerated_counts_as_wider() -> None:
    matching = '@id("x") permit (principal, action, resource) when { resource.site like "tokyo-*" };'
    (*_, last) = widenings(DEFAULT, policy(**{"9-own": matching}))
    assert last.example == {}


def test_a_rule_for_one_tenant_is_found_for_that_tenant_alone() -> None:
    text = FILES["4-evidence.cedar"].replace(
        "unless { context.evidence_fresh }", 'unless { context.evidence_fresh || principal == Tenant::"lab" }'
    )
    assert {found.tenant for found in widenings(DEFAULT, policy(**{"4-evidence": text}))} == {"lab"}


# -- cases


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "has no case"),
        ("[[kase]]", "there is no `kase` here"),
        ('[[case]]\nname = "x"\nallowed = true', "missing required field `class`"),
        ('[[case]]\nname = "x"\nclass = "secret"\nallowed = true', "class"),
        ('[[case]]\nname = "x"\nclass = "public"\nallowed = true\nendpoint = { plase = 1 }', "plase"),
        ('[[case]]\nname = "x"\nclass = "public"\nallowed = true\ncloses_in = "soon"', "closes_in"),
    ],
)
def test_a_case_that_can_not_be_read_is_refused_at_its_line(text: str, what: str) -> None:
    with pytest.raises(ConfigRefused, match=what):
        read_cases(parse_toml(text, file="x.toml"))


def test_a_case_that_expects_something_else_fails_and_says_what() -> None:
    text = '[[case]]\nname = "x"\nclass = "confidential"\nallowed = {}\nrules = ["{}"]\ncloses_in = "{}"'
    for allowed, rule, closes_in, fault in (
        ("false", "x", "1h", "expected denied, got allowed"),
        ("true", "x", "1d", "expected the rules x, got site-in-jurisdiction"),
        ("true", "site-in-jurisdiction", "1h", "expected that it closes in 1h, got 86400s"),
    ):
        document = parse_toml(text.format(allowed, rule, closes_in), file="x.toml")
        (result,) = run_cases(document, {"JP": DEFAULT}, lambda _: DEFAULT)
        assert fault in result.faults, result


# -- documents


def test_the_reference_names_every_attribute_and_every_word() -> None:
    page = (Path(__file__).parents[3] / "docs/reference/policy-attributes.md").read_text(encoding="utf-8")
    for path in PATHS:
        assert f"`{path}`" in page, path
        assert path.rpartition(".")[2] in schema_text()
    for name in SAYS:
        assert f"`{{{name}}}`" in page, name
    for profile in default_bundle().profiles:
        assert f"`{profile}`" in page, profile
    for rule in DEFAULT.rules:
        assert f"`{rule.id}`" in page, rule.id
