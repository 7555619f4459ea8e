"""The screen of policies: rules in words, proposals with who may do what, the editor. Pure: values in, views out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

import msgspec

from sekisho.console.i18n import Translator
from sekisho.console.render import View
from sekisho.kernel.classes import LABELS, DataClass
from sekisho.residency.policy.bundle import Bundle
from sekisho.residency.policy.change import Difference
from sekisho.residency.policy.engine import CedarPolicy
from sekisho.residency.policy.read import Mistake, Rule
from sekisho.residency.policy.service import CONFIGURATION, PolicyVersion, Proposal

SHOWN_VERSIONS = 20
# How a file's text is named in the editor's form.
FIELD = "file:"
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


class RuleRow(msgspec.Struct, frozen=True, kw_only=True):
    """`words`: parts of the sentence, those with True stand for a value of the endpoint."""

    rule: Rule
    classes: tuple[str, ...]
    words: tuple[tuple[str, bool], ...]


class RuleGroup(msgspec.Struct, frozen=True, kw_only=True):
    """The common rules (`profile` empty) or those of one profile, with how many tenants have it."""

    profile: str
    rows: tuple[RuleRow, ...]
    tenants: int


class RuleFilter(msgspec.Struct, frozen=True, kw_only=True):
    data_class: str = ""
    profile: str = ""

    @classmethod
    def parse(cls, query: Mapping[str, str], profiles: Iterable[str]) -> RuleFilter:
        wanted = query.get("profile", "")
        return cls(
            data_class=text if (text := query.get("class", "")) in LABELS else "",
            profile=wanted if wanted in {*profiles, "common"} else "",
        )


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """A proposal with what this reader may do. `why_not` says why they can't approve it; empty when they can."""

    proposal: Proposal
    by: str
    may_approve: bool
    may_apply: bool
    may_withdraw: bool
    why_not: str = ""


class PoliciesView(View, frozen=True, kw_only=True):
    """`cards` wait; `shown` is the one that the address names, whatever became of it."""

    hash: str
    jurisdiction: str
    groups: tuple[RuleGroup, ...]
    total: int
    chosen: RuleFilter
    classes: tuple[str, ...] = LABELS
    profiles: tuple[str, ...]
    cards: tuple[Card, ...]
    shown: Card | None
    versions: tuple[PolicyVersion, ...]
    failed: str

    @property
    def template(self) -> str:
        return "policies.html"


class EditFile(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    text: str
    changed: bool
    mistakes: tuple[Mistake, ...]

    @property
    def rows(self) -> int:
        return min(max(self.text.count("\n") + 2, 6), 30)


class EditView(View, frozen=True, kw_only=True):
    """`mistakes` None: nothing was checked yet. `difference` None: it was not asked for, or could not be told."""

    files: tuple[EditFile, ...]
    base: str
    note: str
    new_name: str
    new_text: str
    mistakes: tuple[Mistake, ...] | None
    difference: Difference | None
    failed: str

    @property
    def template(self) -> str:
        return "policy_edit.html"


class Edited(msgspec.Struct, frozen=True, kw_only=True):
    """The editor's form as it was sent. A file whose text is blank is left out."""

    texts: dict[str, str]
    note: str
    new_name: str
    new_text: str
    wanted: str

    @classmethod
    def parse(cls, form: Mapping[str, str]) -> Edited:
        sent = {name.removeprefix(FIELD): text for name, text in form.items() if name.startswith(FIELD)}
        new_name, new_text = form.get("new_name", "").strip(), form.get("new_text", "")
        if new_name and new_text.strip() and new_name not in sent:
            sent[new_name] = new_text
            new_name = new_text = ""
        wanted = form.get("do", "")
        return cls(
            # Browsers send CRLF (HTML, application/x-www-form-urlencoded); files have LF.
            texts={name: text.replace("\r\n", "\n") for name, text in sent.items()},
            note=form.get("note", "").strip()[:400],
            new_name=new_name,
            new_text=new_text.replace("\r\n", "\n"),
            wanted=wanted if wanted in ("check", "examine", "propose") else "check",
        )

    @property
    def kept(self) -> dict[str, str]:
        return {name: text for name, text in self.texts.items() if text.strip()}


def edit_view(
    texts: Mapping[str, str],
    current: Bundle,
    *,
    edited: Edited | None = None,
    mistakes: tuple[Mistake, ...] | None = None,
    difference: Difference | None = None,
    failed: str = "",
) -> EditView:
    in_force = {file.name: file.text for file in current.files}
    names = {**in_force, **texts}
    ordered = sorted(names, key=lambda name: (name.startswith("profiles/"), name))
    return EditView(
        files=tuple(
            EditFile(
                name=name,
                text=texts.get(name, ""),
                changed=texts.get(name, "") != in_force.get(name, ""),
                mistakes=tuple(each for each in mistakes or () if each.file == name),
            )
            for name in ordered
        ),
        base=current.hash,
        note=edited.note if edited else "",
        new_name=edited.new_name if edited else "",
        new_text=edited.new_text if edited else "",
        mistakes=mistakes,
        difference=difference,
        failed=failed,
    )


def rule_groups(
    policy: CedarPolicy, chosen: RuleFilter, t: Translator, tenants: Mapping[str, int]
) -> tuple[RuleGroup, ...]:
    """The common rules first, then each profile. A class shows every rule that such work has to pass."""
    groups: dict[str, list[RuleRow]] = {"": [], **{name: [] for name in policy.bundle.profiles}}
    for rule in policy.rules:
        classes = tuple(each.label for each in DataClass if each in rule.classes)
        if chosen.data_class and chosen.data_class not in classes:
            continue
        if chosen.profile and chosen.profile != (rule.profile or "common"):
            continue
        text = rule.reason_ja if t.language == "ja" else rule.reason_en
        groups[rule.profile].append(RuleRow(rule=rule, classes=classes, words=words_of(text)))
    return tuple(
        RuleGroup(profile=profile, rows=tuple(rows), tenants=tenants.get(profile, 0))
        for profile, rows in groups.items()
        if rows
    )


def words_of(text: str) -> tuple[tuple[str, bool], ...]:
    """`Site {site} stands` → (("Site ", no), ("site", yes), (" stands", no))."""
    parts = _PLACEHOLDER.split(text)
    return tuple((part, position % 2 == 1) for position, part in enumerate(parts) if part)


def card_of(proposal: Proposal, *, reader: str, account_since: Callable[[str], float | None], t: Translator) -> Card:
    """What this reader may do. The service decides again: this only spares them the refusal."""
    why_not = ""
    since = account_since(reader)
    if proposal.state != "waiting":
        why_not = ""
    elif proposal.actor == reader:
        why_not = t(
            "You proposed it, so somebody else must approve it: one person alone can't open guarded work to more."
        )
    elif since is not None and since >= proposal.at:
        why_not = t(
            "Your account is younger than this proposal: one person could have made both. An older account must "
            "approve it, or it is proposed again."
        )
    waiting = proposal.state == "waiting"
    by = t("the configuration's files") if proposal.actor == CONFIGURATION else proposal.actor
    return Card(
        proposal=proposal,
        by=by,
        may_approve=waiting and proposal.widens and not why_not,
        may_apply=proposal.state == "approved" or (waiting and not proposal.widens),
        may_withdraw=proposal.state in ("waiting", "approved"),
        why_not=why_not if proposal.widens else "",
    )
