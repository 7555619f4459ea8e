"""From Cedar files to rules: everything that can be wrong with a policy is said here, with its place."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Any

import cedarpy
import msgspec

from sekisho.federation.build import did_you_mean
from sekisho.federation.countries import is_country
from sekisho.kernel.classes import DataClass
from sekisho.residency.policy.attributes import AGES, COUNTRIES, PATHS, SAYS, expand
from sekisho.residency.policy.bundle import Bundle, PolicyFile, PolicyRefused, schema_text
from sekisho.residency.policy.scan import Statement, line_and_column, place_of, statements, syntax_fault, told

ACTIONS: dict[str, frozenset[DataClass]] = {
    "serve": frozenset(DataClass),
    "serve-guarded": frozenset(each for each in DataClass if each.guarded),
    **{f"serve-{each.label}": frozenset({each}) for each in DataClass},
}
_ID = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,62}[a-z0-9])?")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_KNOWN_ANNOTATIONS = ("id", "reason_en", "reason_ja", "source")
_COMPUTES = frozenset({"like", "+", "-", "*", "neg", "ip", "decimal", "datetime", "duration"})
_COMPARISONS = frozenset({"==", "!=", "<", "<=", ">", ">="})


class Mistake(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong, where (line and column from 1), and what to do."""

    file: str
    line: int
    column: int
    what: str
    mend: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.what}; {self.mend}"


class Mentions(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule can see, and the literals that it compares with. `tenants` are those that it names."""

    paths: frozenset[str]
    numbers: frozenset[int]
    words: frozenset[str]
    tenants: frozenset[str]
    ages: frozenset[tuple[str, int]]
    opaque: bool  # it computes or matches patterns: its literals do not say where its outcome changes


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One policy statement. `form` is it in Cedar's JSON without annotations: equal forms mean the same."""

    id: str
    effect: str
    file: str
    line: int
    profile: str
    classes: frozenset[DataClass]
    reason_en: str
    reason_ja: str
    source: str
    text: str
    form: str
    mentions: Mentions


@lru_cache(maxsize=16)
def read_rules(bundle: Bundle) -> tuple[Rule, ...]:
    """The rules in the order of the bundle; PolicyRefused with every mistake when there is one. To read the bundle
    that comes with Sekisho takes a tenth of a second, and proposals, replays and tables read the same one."""
    rules, mistakes = examine(bundle)
    if mistakes:
        raise PolicyRefused(
            "\n".join(str(mistake) for mistake in mistakes),
            hint="`sekisho policy check DIR` looks again without changing anything",
        )
    return rules


@cache
def _schema() -> cedarpy.Schema:
    return cedarpy.Schema.from_str(schema_text())


def examine(bundle: Bundle) -> tuple[tuple[Rule, ...], tuple[Mistake, ...]]:
    """All rules that can be read, and all mistakes."""
    rules: list[Rule] = []
    mistakes: list[Mistake] = []
    for file in bundle.files:
        for statement in statements(file.text):
            reader = _Reader(file, statement)
            rule = reader.read()
            mistakes += reader.mistakes
            if rule is not None:
                rules.append(rule)
    return tuple(rules), tuple(mistakes)


class _Reader:
    """Reads one statement of one file."""

    def __init__(self, file: PolicyFile, statement: Statement) -> None:
        self.mistakes: list[Mistake] = []
        self._file = file
        self._statement = statement
        self._text = file.text[statement.start : statement.end]

    def _refuse(self, offset: int, what: str, mend: str) -> None:
        line, column = line_and_column(self._file.text, offset)
        self.mistakes.append(Mistake(file=self._file.name, line=line, column=column, what=what, mend=mend))

    def _at(self, *wanted: str) -> int:
        """Where the first of these tokens stands, else the beginning of the policy."""
        for text in wanted:
            for token in self._statement.tokens:
                if token.text == text:
                    return token.start
        return self._statement.start

    def read(self) -> Rule | None:
        fault = syntax_fault(self._file.text, self._statement)
        if fault is not None:
            self._refuse(
                fault[1], fault[0], "the grammar is at https://docs.cedarpolicy.com/policies/syntax-grammar.html"
            )
            return None
        parsed = json.loads(cedarpy.policies_to_json_str(self._text))
        if parsed["templates"]:
            self._refuse(self._at("?"), "this is a template", "write principal and resource out: nobody links it")
            return None
        (policy,) = parsed["staticPolicies"].values()
        for error in cedarpy.validate_policies(self._text, _schema()).errors:
            message = told(error.error)
            self._refuse(
                place_of(self._statement, message), message, "docs/reference/policy-attributes.md names what there is"
            )
        annotations = {name: value or "" for name, value in policy.pop("annotations", {}).items()}
        self._check_annotations(annotations, policy["effect"])
        self._check_profile(policy)
        mentions = self._mentions(policy)
        if self.mistakes:
            return None
        line, _ = line_and_column(self._file.text, self._at("permit", "forbid"))
        return Rule(
            id=annotations["id"],
            effect=policy["effect"],
            file=self._file.name,
            line=line,
            profile=self._file.profile,
            classes=_classes(policy["action"]),
            reason_en=annotations.get("reason_en", ""),
            reason_ja=annotations.get("reason_ja", ""),
            source=annotations.get("source", ""),
            text=self._text,
            form=json.dumps(policy, sort_keys=True),
            mentions=mentions,
        )

    def _check_annotations(self, annotations: dict[str, str], effect: str) -> None:
        start = self._at("permit", "forbid")
        if not _ID.fullmatch(annotations.get("id", "")):
            self._refuse(
                self._at("id") if "id" in annotations else start,
                "the rule has no id of a-z, 0-9, `.` and `-`",
                'write @id("site-in-jurisdiction") above it: refusals and records name it',
            )
        for name in annotations:
            if name not in _KNOWN_ANNOTATIONS:
                self._refuse(
                    self._at(name), f"there is no annotation @{name}", did_you_mean(name, _KNOWN_ANNOTATIONS)
                )
        if effect != "forbid":
            return
        for name, language in (("reason_en", "English"), ("reason_ja", "Japanese")):
            reason = annotations.get(name, "")
            if not reason.strip():
                self._refuse(start, f"a rule that forbids has no @{name}", f"say in {language} why, and the way out")
            for placeholder in _PLACEHOLDER.findall(reason):
                if placeholder not in SAYS:
                    self._refuse(
                        self._at(name),
                        f"@{name} has {{{placeholder}}}, which stands for nothing",
                        did_you_mean(placeholder, SAYS),
                    )

    def _check_profile(self, policy: dict[str, Any]) -> None:
        profile = self._file.profile
        named = [found for found in _entities(policy) if found["type"] == "Profile"]
        if not profile:
            if named:
                self._refuse(
                    self._at("Profile"),
                    "a common rule names a profile: a tenant with it could be allowed more than one without",
                    "put the rule into profiles/NAME.cedar",
                )
            return
        if policy["effect"] != "forbid":
            self._refuse(
                self._at("permit"), "a profile permits", "a profile only forbids, on top of the common rules"
            )
        scope = {"op": "in", "entity": {"type": "Profile", "id": profile}}
        if policy["principal"] != scope or len(named) != 1:
            self._refuse(
                self._at("principal"),
                f"the rule does not hold for the profile {profile} alone",
                f'write principal in Profile::"{profile}", and name no profile elsewhere',
            )

    # -- what the rule can see

    def _mentions(self, policy: dict[str, Any]) -> Mentions:
        paths: set[str] = set()
        numbers: set[int] = set()
        words: set[str] = set()
        ages: set[tuple[str, int]] = set()
        for node, parent, operator in _nodes(policy["conditions"]):
            path = _path(node)
            if path is not None and _path(parent) is None:
                other = _other_side(node, parent)
                self._mention(path, other, operator, paths, ages)
            match node.get("Value"):
                case bool() | None:
                    pass
                case int() as number:
                    numbers.add(number)
                case str() as word:
                    words.add(word)
                case _:
                    pass
        for found in _entities(policy):
            if found["type"] == "Endpoint":
                self._refuse(
                    self._at("Endpoint"), "a rule names an endpoint", 'name its site: resource.site == "ishikari"'
                )
        return Mentions(
            paths=frozenset(paths),
            numbers=frozenset(numbers),
            words=frozenset(words),
            tenants=frozenset(found["id"] for found in _entities(policy) if found["type"] == "Tenant"),
            ages=frozenset(ages),
            opaque=any(_COMPUTES & node.keys() for node, _, _ in _nodes(policy["conditions"])),
        )

    def _mention(self, path: str, other: Any, operator: str, paths: set[str], ages: set[tuple[str, int]]) -> None:
        if path in ("principal", "action", "resource"):
            return  # compared as a whole: with an id, never with attributes
        paths.update(expand(path) if path != "context" else (each for each in PATHS if each.startswith("context.")))
        if path in AGES:
            number = other.get("Value") if isinstance(other, dict) and operator in _COMPARISONS else None
            if isinstance(number, bool) or not isinstance(number, int):
                self._refuse(
                    self._at(path.rpartition(".")[2]),
                    f"{path} is not compared with a whole number",
                    "write it as context.attestation_age_s <= 86400: from that follows when a route closes",
                )
            else:
                ages.add((path, number))
        elif path == "context":
            self._refuse(
                self._at("context"), "the whole context is compared", "name the attribute: context.evidence_fresh"
            )
        elif path in COUNTRIES:
            for code in _strings(other):
                if code and not is_country(code):
                    self._refuse(
                        self._at(json.dumps(code, ensure_ascii=False)),
                        f"{path} is compared with {code!r}, which is no country",
                        "use ISO 3166-1, as in JP, US or GB",
                    )


def _classes(action: dict[str, Any]) -> frozenset[DataClass]:
    if action["op"] == "All":
        return frozenset(DataClass)
    named = action.get("entities") or [action["entity"]]
    return frozenset[DataClass]().union(*(ACTIONS.get(entity["id"], frozenset()) for entity in named))


def _nodes(tree: Any, parent: Any = None, key: str = "", operator: str = "") -> Iterator[tuple[Any, Any, str]]:
    """Every object of the JSON with the object around it, and the name under which that one stands (`<`, `when`)."""
    match tree:
        case dict():
            yield tree, parent, operator
            for name, child in tree.items():
                yield from _nodes(child, tree, name, key)
        case list():
            for child in tree:
                yield from _nodes(child, parent, key, operator)
        case _:
            pass


def _path(node: Any) -> str | None:
    """`resource.attestation.level` for the expression that reads it (or asks whether it is there)."""
    if not isinstance(node, dict):
        return None
    if set(node) == {"Var"}:
        return str(node["Var"])
    for kind in (".", "has"):
        if set(node) == {kind}:
            inside = _path(node[kind]["left"])
            return None if inside is None else f"{inside}.{node[kind]['attr']}"
    return _path_inside(node)


def _path_inside(node: dict[str, Any]) -> str | None:
    """The object `{"left": …, "attr": …}` between two steps belongs to the path around it."""
    if set(node) == {"left", "attr"}:
        inside = _path(node["left"])
        return None if inside is None else f"{inside}.{node['attr']}"
    return None


def _other_side(node: dict[str, Any], parent: Any) -> Any:
    """What a value is compared with: the other side of `==`, `<` … or the argument of `contains` …"""
    if isinstance(parent, dict) and set(parent) == {"left", "right"}:
        return parent["right"] if parent["left"] is node else parent["left"]
    return None


def _strings(tree: Any) -> Iterator[str]:
    for node, _, _ in _nodes(tree):
        if isinstance(node.get("Value"), str):
            yield node["Value"]


def _entities(tree: Any) -> Iterator[dict[str, str]]:
    for node, _, _ in _nodes(tree):
        for kind in ("entity", "__entity"):
            if isinstance(node.get(kind), dict):
                yield node[kind]
        yield from node.get("entities", ())
