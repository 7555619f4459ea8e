"""The configuration: what is wrong is refused at its line, what is right is what everything else gets."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from sekisho.assembly.config import (
    Config,
    ConfigRefused,
    DemoKeyRefused,
    load_config,
    parse_config,
    schema,
    with_demo_keys,
)
from sekisho.assembly.config_gateway import GATEWAY_FIELDS, RANGES, raw_name, write_duration, write_size
from sekisho.federation.keys import hash_key, new_key
from sekisho.federation.model import Limits, SecretRef
from sekisho.gateway.settings import GatewaySettings
from sekisho.kernel.classes import DataClass
from sekisho.kernel.units import parse_duration_s, parse_size_bytes
from sekisho.runtime.toml import Document

HASH = "sha256:" + "ab" * 32
# A federation that is right; a case below changes one thing in it. The comments are its line numbers.
RIGHT = f"""\
[[operator]]
id = "sakura"
country = "JP"
law = "JP"
[[site]]
id = "ishikari"
operator = "sakura"
country = "JP"
[[endpoint]]
id = "one"
site = "ishikari"
url = "http://127.0.0.1:9103/v1"
models = ["small"]
[[tenant]]
id = "hospital"
keys = ["{HASH}"]
[[alias]]
name = "gpt"
model = "small"
"""


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "sekisho.toml"
    file.write_text(text, encoding="utf-8")
    return file


def problems(tmp_path: Path, text: str) -> list[tuple[int, str, str]]:
    file = write(tmp_path, text)
    with pytest.raises(ConfigRefused) as refused:
        load_config(file)
    for problem in refused.value.problems:
        assert problem.file == str(file)
        assert problem.what
        assert problem.mend
        assert f"{file}:{problem.line}: {problem.what} — {problem.mend}" in str(refused.value).splitlines()
    return [(problem.line, problem.what, problem.mend) for problem in refused.value.problems]


def loaded(tmp_path: Path, text: str) -> Config:
    return load_config(write(tmp_path, text)).config


def warnings(tmp_path: Path, text: str) -> list[tuple[int, str]]:
    return [(warning.line, warning.what) for warning in load_config(write(tmp_path, text)).warnings]


def test_the_right_one_is_right(tmp_path: Path) -> None:
    found = load_config(write(tmp_path, RIGHT))
    assert found.warnings == ()
    federation = found.config.federation
    assert found.config.gateway == GatewaySettings()
    assert federation.operators[0].name == "sakura"
    assert federation.endpoints[0].slots == 8
    # Who says nothing about a tenant keeps its work inside the jurisdiction.
    assert federation.tenants[0].floor is DataClass.CONFIDENTIAL
    assert federation.tenants[0].models is None
    assert federation.keys[0].sha256 == "ab" * 32
    assert federation.aliases == {"gpt": "small"}
    assert found.config.demo.enabled is False
    assert found.config.residency.evidence_validity_s == 86_400


# what is replaced in RIGHT, by what, the line of the problem, words of it, words of how to mend it
# ruff: noqa: E501 - a case is a line: what it changes, where that is found, and what is said of it
WRONG: list[tuple[str, str, int, str, str]] = [
    # shapes and names
    ('id = "sakura"', 'id = "sakura"\nlow = "JP"', 3, "operator `sakura` has no field `low`", "did you mean `law`?"),
    ("[[alias]]", "[gateway]\nlisten_timeout = 1\n[[alias]]", 18, "[gateway] has no field `listen_timeout`", "did you mean"),
    ("[[alias]]", '[gateway]\nconnect_timeout_s = "2s"\n[[alias]]', 18, "no field `connect_timeout_s`", "`connect_timeout`"),
    ("[[alias]]", 'gateway = "x"\n[[alias]]', 17, "tenant `hospital` has no field `gateway`", "known"),
    ("[[operator]]", 'gateway = "x"\n[[operator]]', 1, "`gateway` is not a table", "gateway = {"),
    # required fields have no default
    ('law = "JP"\n', "", 1, "operator `sakura` has no `law`", 'add it, as in law = "JP"'),
    ('operator = "sakura"\ncountry = "JP"\n', 'operator = "sakura"\n', 5, "site `ishikari` has no `country`", '"JP"'),
    ('url = "http://127.0.0.1:9103/v1"\n', "", 9, "endpoint `one` has no `url`", "http"),
    ('models = ["small"]\n', "", 9, "endpoint `one` has no `models`", "models = ["),
    ('name = "gpt"\nmodel = "small"', 'name = "gpt"\nmodel = "smal"', 19, "the model `smal`, which no endpoint serves", "`small`"),
    ('id = "hospital"\n', "", 14, "[[tenant]] number 1 has no `id`", "add it"),
    # types, ranges, forms
    ('id = "sakura"\n', 'id = "Sakura!"\n', 2, '`id` is "Sakura!", not an id', "id = "),
    ('id = "sakura"\n', 'id = ""\n', 2, '`id` is "", not an id', "id = "),
    ('id = "sakura"\n', 'id = "sak\\nura"\n', 2, "`id` is", "id = "),
    ('id = "sakura"\n', 'id = "sakura\\n"\n', 2, "`id` has characters that can't be printed", "remove"),
    ('id = "sakura"\n', 'id = "sakura"\nname = "a\\u001b[31m"\n', 3, "`name` has characters that can't be printed", "remove"),
    ('law = "JP"', 'law = "Japan"', 4, '`law` is "Japan", not a country code', 'law = "JP"'),
    ('law = "JP"', 'law = "UK"', 4, "`law` is UK, which is no country", "GB"),
    ('law = "JP"', "law = 81", 4, "`law` is 81, not a country code", 'law = "JP"'),
    ('models = ["small"]', 'models = "small"', 13, "`models` is not a list", 'models = ["'),
    ('models = ["small"]', "models = []", 13, "`models` of endpoint `one` is empty", "at least one"),
    ('models = ["small"]', 'models = ["small",\n"bad name"]', 14, '`models` is "bad name", not a model name', "write it as"),
    ('models = ["small"]', 'models = ["small"]\nslots = 0', 14, "`slots` is 0, not a whole number from 1 to 100000", "slots = 8"),
    ('models = ["small"]', 'models = ["small"]\nslots = 100001', 14, "`slots` is 100001, not", "slots = 8"),
    ('models = ["small"]', 'models = ["small"]\nslots = 1.5', 14, "`slots` is 1.5, not", "slots = 8"),
    ('models = ["small"]', 'models = ["small"]\nslots = true', 14, "`slots` is true, not", "slots = 8"),
    ('country = "JP"\n[[endpoint]]', 'country = "JP"\nlatitude = 91\nlongitude = 1\n[[endpoint]]', 9, "`latitude` is 91, not degrees from -90 to 90", "latitude = "),
    ('country = "JP"\n[[endpoint]]', 'country = "JP"\nlatitude = nan\nlongitude = 1\n[[endpoint]]', 9, "`latitude` is nan", "latitude = "),
    ('country = "JP"\n[[endpoint]]', 'country = "JP"\nlongitude = -180.5\nlatitude = 1\n[[endpoint]]', 9, "`longitude` is -180.5", "longitude = "),
    ('country = "JP"\n[[endpoint]]', 'country = "JP"\nlatitude = 43.19\n[[endpoint]]', 9, "`latitude` without a `longitude`", "add `longitude`"),
    ('country = "JP"\n[[endpoint]]', 'country = "JP"\nprefecture = "Edo"\n[[endpoint]]', 9, "not one of the 47 prefectures", "東京都"),
    ('country = "JP"\n[[endpoint]]', 'country = "JP"\nprefecture = 48\n[[endpoint]]', 9, "not one of the 47 prefectures", "Tokyo"),
    ('country = "JP"\n[[endpoint]]', 'country = "US"\nprefecture = 13\n[[endpoint]]', 9, "a site in US has a prefecture of Japan", "country"),
    ('country = "JP"\n[[endpoint]]', 'country = "JP"\nsimulated = "yes"\n[[endpoint]]', 9, '`simulated` is "yes", not true or false', "simulated = true"),
    ('country = "JP"\n[[endpoint]]', 'country = "JP"\nvalid_until = 2027-01-01T00:00:00\n[[endpoint]]', 9, "not a date and time with its zone", "+09:00"),
    ('id = "hospital"', 'id = "hospital"\nfloor = "secret"', 16, '`floor` is "secret", not a data class', "confidential"),
    ('id = "hospital"', 'id = "hospital"\nlimits.concurrency = 0', 16, "`concurrency` is 0, not a whole number of at least 1", "8"),
    ('id = "hospital"', 'id = "hospital"\nlimits.tokens_per_minute = -5', 16, "`tokens_per_minute` is -5", "8"),
    ('id = "hospital"', 'id = "hospital"\nmodel_limits.large.concurrency = 1', 16, "the model `large`, which no endpoint serves", "known"),
    ('id = "hospital"', 'id = "hospital"\nmodel_limits = 3', 16, "`model_limits` is not a table", "[tenant.model_limits.NAME]"),
    ("[[alias]]", '[gateway]\nidle_timeout = 75\n[[alias]]', 18, "`idle_timeout` is 75, not a duration", '"30s"'),
    ("[[alias]]", '[gateway]\nidle_timeout = "75 s"\n[[alias]]', 18, '`idle_timeout` is "75 s", not a duration', '"30s"'),
    ("[[alias]]", '[gateway]\nidle_timeout = "0s"\n[[alias]]', 18, "`idle_timeout` is 0s, out of range", "1ms to 30d"),
    ("[[alias]]", '[gateway]\njournal_sync = "6ms"\n[[alias]]', 18, "`journal_sync` is 6ms, out of range", "0.1ms to 5ms"),
    ("[[alias]]", f'[gateway]\nidle_timeout = "{"9" * 400}d"\n[[alias]]', 18, "`idle_timeout` is", "1ms to 30d"),
    ("[[alias]]", '[gateway]\nmax_head = "16KB"\n[[alias]]', 18, '`max_head` is "16KB", not a size', '"16MiB"'),
    ("[[alias]]", '[gateway]\nmax_body = "1GiB"\n[[alias]]', 17, "`max_buffered` is smaller than `max_body`", "raise"),
    ("[[alias]]", "[gateway]\nworkers = -1\n[[alias]]", 18, "`workers` is -1, not a whole number from 0 to 1024", "workers = 0"),
    ("[[alias]]", '[gateway]\nlisten = "8080"\n[[alias]]', 18, '`listen` is "8080", not an address', "127.0.0.1:8080"),
    ("[[alias]]", '[gateway]\nlisten = "127.0.0.1:99999"\n[[alias]]', 18, "a port that does not exist", "host:port"),
    ("[[alias]]", '[control]\nlisten = "127.0.0.1:8080"\n[[alias]]', 18, "control and gateway listen on the same address", "port"),
    ("[[alias]]", '[residency]\njurisdiction = "XX"\n[[alias]]', 18, "`jurisdiction` is XX, which is no country", "ISO 3166-1"),
    ("[[alias]]", '[gateway]\notlp_endpoint = "http://169.254.169.254"\n[[alias]]', 18, "metadata service", "name the server"),
    # urls
    ("http://127.0.0.1:9103/v1", "ftp://127.0.0.1/v1", 12, "neither http nor https", "http://host:port/v1"),
    ("http://127.0.0.1:9103/v1", "http://u:hunter2@h/v1", 12, "credentials", "api_key"),
    ("http://127.0.0.1:9103/v1", "http://h/v1?k=hunter2", 12, "query", "end it before"),
    ("http://127.0.0.1:9103/v1", "http://gpu.example.jp/v1", 12, "without TLS: prompts and answers can be read", "readable_on_the_way = true"),
    ("http://127.0.0.1:9103/v1", "http://169.254.169.254/v1", 12, "`169.254.169.254` is link-local", "name the server"),
    # secrets and TLS
    ('models = ["small"]', 'models = ["small"]\napi_key = "hunter2"', 14, "`api_key` is not a table", "api_key = { file ="),
    ('models = ["small"]', "models = [\"small\"]\napi_key = {}", 14, "exactly one of `file` and `env`", "file"),
    ('models = ["small"]', 'models = ["small"]\napi_key = { file = "none.key" }', 14, "`none.key` can't be read", "path"),
    ('models = ["small"]', 'models = ["small"]\napi_key = { file = "empty.key" }', 14, "`empty.key` is not one line", "nothing else"),
    ('models = ["small"]', 'models = ["small"]\napi_key = { file = "two.key" }', 14, "`two.key` is not one line", "nothing else"),
    ('models = ["small"]', 'models = ["small"]\napi_key = { env = "SEKISHO_TEST_UNSET" }', 14, "`SEKISHO_TEST_UNSET` is not set", "set it"),
    ('models = ["small"]', 'models = ["small"]\ntls = { server_name = "a" }', 14, "TLS for a url that begins with http://", "https://"),
    ("http://127.0.0.1:9103/v1\"", 'https://h/v1"\ntls = { ca = "empty.key" }', 13, "`empty.key` holds no certificate", "PEM"),
    ("http://127.0.0.1:9103/v1\"", 'https://h/v1"\ntls = { pins = ["sha1:00"] }', 13, '`pins` is "sha1:00", not a pin', "sha256:"),
    ("http://127.0.0.1:9103/v1\"", 'https://h/v1"\ntls = { client_cert = "two.key" }', 13, "go together", "add the other"),
    ("[[alias]]", '[gateway.tls]\ncertificate = "two.key"\nkey = "two.key"\n[[alias]]', 17, "can't be used together", "PEM"),
    # keys
    (HASH, "short", 16, "a key of tenant `hospital` has 5 characters", "sekisho key new"),
    (HASH, "sha256:beef", 16, "no key hash", "sekisho key new"),
    (f'"{HASH}"', f'"{HASH}",\n"{HASH}"', 17, "tenant `hospital` has the same key twice", "remove one"),
    (f'"{HASH}"', '{ hash = "hunter2" }', 16, "a key of tenant `hospital` has 7 characters", "sekisho key new"),
    (f'"{HASH}"', f'{{ hash = "{HASH}", expires = 1 }}', 16, "no field `expires`", "`expires_at`"),
    (f'"{HASH}"', "12345678901234567890", 16, "`keys` is not a key hash", "sha256:"),
    ("[[alias]]", f'[[tenant]]\nid = "t2"\nkeys = ["{HASH}"]\n[[alias]]', 19, "tenant `t2` and tenant `hospital` have the same key", "of its own"),
    # references
    ('operator = "sakura"', 'operator = "sakra"', 7, "names the operator `sakra`, which is not there", "`sakura`"),
    ('site = "ishikari"', 'site = "ishikary"', 11, "names the site `ishikary`, which is not there", "`ishikari`"),
    ('id = "hospital"', 'id = "hospital"\nmodels = ["smal"]', 16, "the model `smal`, which no endpoint serves", "`small`"),
    ('id = "hospital"', 'id = "hospital"\nmodels = ["gpt"]', 16, "the model `gpt`, which no endpoint serves", "not its alias"),
    ("[[alias]]", '[[tenant]]\nid = "hospital"\nkeys = []\n[[alias]]', 18, "tenant `hospital` is there twice", "of its own"),
    ('name = "gpt"', 'name = "small"', 18, "has the name of a model", "never hides"),
    ('model = "small"\n', 'model = "small"\n[[alias]]\nname = "b"\nmodel = "gpt"\n', 22, "leads to `gpt`, which is an alias too", "no chains"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "line", "what", "mend"), WRONG)
def test_what_is_wrong_is_refused_at_its_line(
    tmp_path: Path, *, old: str, new: str, line: int, what: str, mend: str
) -> None:
    assert old in RIGHT
    (tmp_path / "empty.key").touch()
    (tmp_path / "two.key").write_text("one\ntwo\n")
    found = problems(tmp_path, RIGHT.replace(old, new, 1))
    assert any(at == line and what in fact and mend in way for at, fact, way in found), found
    # One mistake is one problem: nothing else is blamed for it.
    assert len(found) == 1, found
    assert "hunter2" not in str(found)


@pytest.mark.parametrize(
    ("text", "what", "mend"),
    [
        (
            RIGHT.replace("[[operator]]", "[[operater]]"),
            "the file has no field `operater`",
            "did you mean `operator`?",
        ),
        (RIGHT.replace("[[operator]]", "[operator]"), "`operator` is not a list", "[[operator]]"),
        (
            "operator = [3]\n" + RIGHT[RIGHT.index("[[site]]") :],
            "[[operator]] number 1 is not a table",
            "[[operator]]",
        ),
        ("operator = 3\n" + RIGHT[RIGHT.index("[[site]]") :], "`operator` is not a list", "[[operator]]"),
    ],
)
def test_sections_have_their_form(tmp_path: Path, text: str, what: str, mend: str) -> None:
    line, fact, way = problems(tmp_path, text)[0]
    assert (line, fact) == (1, what)
    assert mend in way


def test_all_that_is_wrong_comes_at_once(tmp_path: Path) -> None:
    text = (
        RIGHT.replace('law = "JP"', 'law = "jp"')
        .replace('"small"]', '"small"]\nslots = 0')
        .replace("[[alias]]", "[[alais]]")
    )
    assert [line for line, _, _ in problems(tmp_path, text)] == [4, 14, 18]


@given(
    st.recursive(
        st.integers() | st.booleans() | st.text(max_size=5) | st.none(),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(st.text(alphabet="abc", min_size=1, max_size=2), inner, max_size=2)
        ),
    ),
    st.sampled_from(["gateway", "control", "operator", "site", "endpoint", "tenant", "alias", "demo", "residency"]),
    st.data(),
)
def test_no_shape_of_values_is_a_fault(value: object, section: str, data: st.DataObject) -> None:
    """Whatever stands where: a refusal, never a traceback."""
    fields = schema()["$defs"]["Raw" + section.capitalize()]["properties"]
    name = data.draw(st.sampled_from(sorted(fields)))
    inner: object = {name: value}
    whole = {section: data.draw(st.sampled_from([value, inner, [inner], [inner, value]]))}
    document = Document(file="f", data=json.loads(json.dumps(whole)), lines={})
    try:
        parse_config(document, directory=None)
    except ConfigRefused as refused:
        problems = refused.problems
    else:
        return
    assert problems


# -- keys and secrets


def test_a_plain_key_is_hashed_at_once_and_never_kept_or_said(tmp_path: Path) -> None:
    plain = new_key()
    found = load_config(write(tmp_path, RIGHT.replace(HASH, plain)))
    assert [warning.line for warning in found.warnings] == [16]
    assert "plain text" in found.warnings[0].what
    assert "sha256:" + found.config.federation.keys[0].sha256 == hash_key(plain)
    assert plain not in repr(found)


def test_a_plain_key_is_not_said_in_a_refusal_either(tmp_path: Path) -> None:
    plain = new_key()
    text = RIGHT.replace(HASH, plain).replace('law = "JP"', "")
    assert plain not in str(problems(tmp_path, text))
    assert plain not in str(problems(tmp_path, RIGHT.replace(f'["{HASH}"]', f'"{plain}"')))
    assert plain not in str(problems(tmp_path, RIGHT.replace(f'["{HASH}"]', f'[["{plain}"]]')))


def test_keys_may_end(tmp_path: Path) -> None:
    text = RIGHT.replace(f'"{HASH}"', f'{{ hash = "{HASH}", expires_at = 2027-01-01T00:00:00+09:00 }}')
    expected = datetime.datetime(2026, 12, 31, 15, tzinfo=datetime.UTC).timestamp()
    assert loaded(tmp_path, text).federation.keys[0].expires_at == expected


def test_secret_files_are_relative_to_the_configuration_and_guarded(tmp_path: Path) -> None:
    key = tmp_path / "site.key"
    key.write_text("hunter2\n")
    key.chmod(0o644)
    text = RIGHT.replace('models = ["small"]', 'models = ["small"]\napi_key = { file = "site.key" }')
    found = load_config(write(tmp_path, text))
    assert found.config.federation.endpoints[0].api_key == SecretRef(file=str(key))
    assert [(warning.line, "other users" in warning.what) for warning in found.warnings] == [(14, True)]
    assert "hunter2" not in repr(found)
    key.chmod(0o600)
    assert warnings(tmp_path, text) == []


def test_secrets_may_lie_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SITE_KEY", "hunter2")
    text = RIGHT.replace('models = ["small"]', 'models = ["small"]\napi_key = { env = "SITE_KEY" }')
    found = load_config(write(tmp_path, text))
    assert found.config.federation.endpoints[0].api_key == SecretRef(env="SITE_KEY")
    assert "hunter2" not in repr(found)


def test_certificates_are_looked_at(tmp_path: Path) -> None:
    authority = trustme.CA()
    leaf = authority.issue_cert("localhost")
    other = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    leaf.cert_chain_pems[0].write_to_path(tmp_path / "leaf.pem")
    leaf.private_key_pem.write_to_path(tmp_path / "leaf.key")
    other.private_key_pem.write_to_path(tmp_path / "other.key")
    tls = '[gateway.tls]\ncertificate = "leaf.pem"\nkey = "leaf.key"\nclient_ca = "ca.pem"\n'
    found = loaded(tmp_path, RIGHT + tls).gateway.tls
    assert found is not None
    assert found.certificate == str(tmp_path / "leaf.pem")
    assert [line for line, _, _ in problems(tmp_path, RIGHT + tls.replace("leaf.key", "other.key"))] == [20]


# -- warnings


@pytest.mark.parametrize(
    ("change", "line", "words"),
    [
        (
            lambda text: text.replace(
                'http://127.0.0.1:9103/v1"', 'http://10.0.0.7:9103/v1"\nreadable_on_the_way = true'
            ),
            12,
            "without TLS",
        ),
        (lambda text: text + '[gateway]\nlisten = "0.0.0.0:8080"\n', 21, "keys and prompts"),
        (lambda text: text + '[control]\nlisten = "[::]:8081"\n', 21, "admin token"),
        (lambda text: text.replace(f'keys = ["{HASH}"]\n', ""), 14, "has no key"),
    ],
)
def test_what_is_risky_is_warned_of(tmp_path: Path, change: Callable[[str], str], line: int, words: str) -> None:
    ((at, what),) = warnings(tmp_path, change(RIGHT))
    assert at == line
    assert words in what


def test_an_empty_file_is_a_gateway_that_refuses_everything_and_says_so(tmp_path: Path) -> None:
    assert [what.split(":")[0] for _, what in warnings(tmp_path, "")] == [
        "there is no endpoint",
        "there is no tenant",
    ]


# -- values


def test_values_come_through(tmp_path: Path) -> None:
    text = """
[gateway]
listen = "[::1]:9000"
hedge_after = "250ms"
max_body = "1MiB"
retry_budget = 0
[residency]
jurisdiction = "DE"
evidence_validity = "90m"
[[operator]]
id = "o"
name = "運営者"
country = "DE"
law = "DE"
[[site]]
id = "s"
operator = "o"
country = "JP"
prefecture = "JP-01"
latitude = 43
longitude = 141.33
valid_until = 2027-01-01T00:00:00Z
[[endpoint]]
id = "e"
site = "s"
url = "https://H.example/v1/"
models = ["m", "m"]
slots = 100000
[[tenant]]
id = "t"
floor = "public"
keys = []
models = ["m"]
limits = { requests_per_minute = 60 }
[tenant.model_limits.m]
concurrency = 2
"""
    config = loaded(tmp_path, text)
    assert config.gateway.listen == "[::1]:9000"
    assert config.gateway.hedge_after_s == 0.25
    assert config.gateway.max_body_bytes == 1 << 20
    assert config.gateway.retry_budget == 0
    assert config.residency.jurisdiction == "DE"
    assert config.residency.evidence_validity_s == 5400
    federation = config.federation
    assert federation.operators[0].name == "運営者"
    site = federation.sites[0]
    assert (site.prefecture, site.latitude, site.longitude, site.valid_until) == (1, 43.0, 141.33, 1798761600.0)
    assert (federation.endpoints[0].url, federation.endpoints[0].models) == ("https://h.example/v1", ("m",))
    tenant = federation.tenants[0]
    assert (tenant.floor, tenant.models, tenant.limits) == (DataClass.PUBLIC, ("m",), Limits(requests_per_minute=60))
    assert tenant.model_limits == {"m": Limits(concurrency=2)}
    assert config.lines["site", 0, "prefecture"] == 19


@pytest.mark.parametrize("text", ['"Hokkaido"', '"北海道"', '"JP-01"', "1", '"1"', '"01"'])
def test_prefectures_in_any_form(tmp_path: Path, text: str) -> None:
    config = loaded(tmp_path, RIGHT.replace("[[endpoint]]", f"prefecture = {text}\n[[endpoint]]"))
    assert config.federation.sites[0].prefecture == 1


# -- the built-in default


def test_the_default_is_a_demonstration_with_nothing_to_warn_of() -> None:
    found = load_config(None)
    federation = found.config.federation
    assert found.warnings == ()
    assert found.config.demo.enabled
    assert all(site.simulated for site in federation.sites)
    assert federation.keys == ()
    assert {tenant.id: tenant.floor.label for tenant in federation.tenants} == {
        "hospital": "confidential",
        "manufacturer": "internal",
        "developer": "public",
    }
    assert {operator.id: operator.law for operator in federation.operators} == {
        "microsoft": "US",
        "sakura": "JP",
        "softbank": "JP",
    }


def test_a_demonstration_runs_on_this_machine_only(tmp_path: Path) -> None:
    text = RIGHT.replace("127.0.0.1:9103", "10.0.0.7:9103").replace("[[endpoint]]", "simulated = true\n[[endpoint]]")
    text = text.replace('models = ["small"]', 'models = ["small"]\nreadable_on_the_way = true')
    found = problems(tmp_path, text + "[demo]\nenabled = true\n")
    assert [(line, "is at a simulated site" in what) for line, what, _ in found] == [(13, True)]
    load_config(write(tmp_path, text))


def test_demo_keys_are_hashed_into_the_federation() -> None:
    config = load_config(None).config
    key = new_key()
    made = with_demo_keys(config, {"hospital": key})
    assert [(each.tenant, "sha256:" + each.sha256) for each in made.federation.keys] == [("hospital", hash_key(key))]
    assert key not in repr(made)
    assert with_demo_keys(made, {"hospital": key}).federation.keys == made.federation.keys
    for tenant, bad in (("nobody", key), ("hospital", "short")):
        with pytest.raises(DemoKeyRefused) as refused:
            with_demo_keys(config, {tenant: bad})
        assert bad not in str(refused.value)


# -- the reference


def test_every_setting_of_the_gateway_can_be_written_and_is_described() -> None:
    names = {raw_name(field.name) for field in msgspec.structs.fields(GatewaySettings)} - {"tls"}
    assert set(GATEWAY_FIELDS) == names
    assert set(RANGES) - {"evidence_validity", "heartbeat_validity", "keep_journals"} <= names


def test_the_schema_describes_every_field_and_allows_no_other() -> None:
    document = schema()
    json.dumps(document)
    for name, definition in document["$defs"].items():
        assert definition["additionalProperties"] is False, name
        for field, what in definition["properties"].items():
            described = "description" in what or "$ref" in what or what.get("items", {}).get("$ref")
            assert described, f"{name}.{field}"
    assert "null" not in json.dumps(document)


def test_the_defaults_in_the_schema_are_those_of_the_code(tmp_path: Path) -> None:
    fields = schema()["$defs"]["RawGateway"]["properties"]
    lines = [
        f"{name} = {json.dumps(what['default'])}" for name, what in fields.items() if what.get("default") is not None
    ]
    assert len(lines) > 25
    assert loaded(tmp_path, RIGHT + "[gateway]\n" + "\n".join(lines)).gateway == GatewaySettings()


@given(st.integers(1, 10**9).map(lambda ms: ms / 1000))
def test_a_written_duration_is_read_back(seconds: float) -> None:
    read = parse_duration_s(write_duration(seconds))
    assert read is not None
    assert abs(read - seconds) < 1e-6 * seconds
    assert re.fullmatch(r"\d+(\.\d{1,3})?(ms|s|m|h|d)", write_duration(seconds))


@given(st.integers(0, 1 << 45))
def test_a_written_size_is_read_back(size: int) -> None:
    assert parse_size_bytes(write_size(size)) == size
