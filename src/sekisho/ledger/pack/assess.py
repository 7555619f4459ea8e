"""From entries to counts and findings. Pure: the entries in, values out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from sekisho.ledger.model import Attempt, Decision
from sekisho.ledger.pack.border import BorderLine, gaps
from sekisho.ledger.pack.model import CONTROLS, Count, Finding, PolicyUse, Sample, State

_GUARDED = frozenset({"confidential", "restricted"})
_FACTS = 20
# What `docs/reference/journal.md` lists, and what the log adds to it.
_MEMBERS = frozenset(msgspec.structs.asdict(Decision(id="", at_ms=0, gateway="", outcome="completed", status=0))) | {
    "kind", "v", "evidence", "whole_sha256",
}  # fmt: skip
_ATTEMPT = frozenset(msgspec.structs.asdict(Attempt(endpoint="", result="", duration_us=0)))


class _Tally:
    """Passages that a control is about, and those that go against it."""

    def __init__(self) -> None:
        self.checked = 0
        self.exceptions = 0
        self.facts: list[str] = []

    def check(self, good: bool, fact: str) -> None:
        self.checked += 1
        if not good:
            self.exceptions += 1
            if len(self.facts) < _FACTS:
                self.facts.append(fact)

    def finding(self, control: str) -> Finding:
        state: State = "not-assessed" if not self.checked else "not-satisfied" if self.exceptions else "satisfied"
        return Finding(
            control=control, state=state, checked=self.checked, exceptions=self.exceptions, facts=tuple(self.facts)
        )


class Assessment:
    """Takes the population's entries one by one; what it says at the end depends on nothing else."""

    def __init__(self, *, jurisdiction: str) -> None:
        self._jurisdiction = jurisdiction
        self._counts: Counter[tuple[str, ...]] = Counter()
        self._policies: dict[str, list[int]] = {}
        self._tallies = {control.id: _Tally() for control in CONTROLS}
        self.passages = 0

    def take(self, entry: dict[str, Any]) -> None:
        """One decision of the tenant."""
        self.passages += 1
        said = {name: str(entry.get(name, "")) for name in ("id", "data_class", "outcome", "country", "operator",
                                                            "site", "code", "policy")}  # fmt: skip
        self._counts[tuple(said[n] for n in ("data_class", "outcome", "country", "operator", "site", "code"))] += 1
        at_ms = int(entry.get("at_ms", 0))
        who = f"decision {said['id']}"
        tallies = self._tallies
        if said["outcome"] == "completed" and said["site"] and said["data_class"] in _GUARDED:
            tallies["sek-residency"].check(
                said["country"] == self._jurisdiction, f"{who}: served in {said['country'] or '?'}"
            )
            tallies["sek-evidence"].check(  # both moments are cut to whole milliseconds, so they may be equal
                int(entry.get("valid_until_ms", 0)) >= at_ms > 0, f"{who}: no evidence that was valid at its time"
            )
        if said["site"]:
            tallies["sek-policy"].check(len(said["policy"]) == 64, f"{who}: no policy hash")
        if said["policy"]:
            use = self._policies.setdefault(said["policy"], [at_ms, at_ms, 0])
            use[0], use[1], use[2] = min(use[0], at_ms), max(use[1], at_ms), use[2] + 1
        if said["outcome"] == "refused":
            tallies["sek-refusal"].check(bool(said["code"]), f"{who}: refused without a code")
        strange = set(entry) - _MEMBERS
        strange |= {name for attempt in entry.get("attempts", ()) for name in set(attempt) - _ATTEMPT}
        tallies["sek-content"].check(not strange, f"{who}: unknown members {', '.join(sorted(strange))}")

    def counts(self) -> tuple[Count, ...]:
        names = ("data_class", "outcome", "country", "operator", "site", "code")
        return tuple(
            Count(**dict(zip(names, key, strict=True)), passages=passages)
            for key, passages in sorted(self._counts.items())
        )

    def policies(self, included: Iterable[str]) -> tuple[PolicyUse, ...]:
        there = set(included)
        uses = [
            PolicyUse(hash=hash, first_ms=first, last_ms=last, passages=passages, included=hash in there)
            for hash, (first, last, passages) in self._policies.items()
        ]
        return tuple(sorted(uses, key=lambda use: (use.first_ms, use.hash)))

    def findings(self, samples: Sequence[Sample], border: Sequence[BorderLine]) -> tuple[Finding, ...]:
        """One for each control. The receipts of `samples` have been verified."""
        for sample in samples:
            self._tallies["sek-logged"].check(True, "")
            if sample.replay in ("same", "different"):
                self._tallies["sek-replay"].check(sample.replay == "same", f"decision {sample.id}: {sample.fact}")
        self._tallies["sek-border"] = _border(border)
        return tuple(self._tallies[control.id].finding(control.id) for control in CONTROLS)


def border_finding(border: Sequence[BorderLine]) -> Finding:
    """What the border statements of a pack say of their control."""
    return _border(border).finding("sek-border")


def _border(border: Sequence[BorderLine]) -> _Tally:
    tally = _Tally()
    for line in border:
        where = f"border {line.border or '?'}, statement {line.sequence} ({line.id})"
        tally.check(
            line.finding == "clean",
            f"{where}: {line.finding}, {line.guarded} guarded packets, {line.canary} of the canary",
        )
    for gap in gaps(border):
        tally.check(False, gap)
    return tally
