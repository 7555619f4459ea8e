"""The statement of a pack as OSCAL assessment results (NIST, OSCAL 1.2.1), a pure function of the statement.

Read by `compliance-trestle` in the tests. Ids are UUIDs of version 5 over the statement, so the same statement makes
the same document.
"""

from __future__ import annotations

import hashlib
import uuid
from datetime import UTC, datetime
from typing import Any

import msgspec

from sekisho.ledger.pack.model import CONTROLS, Control, Finding, Statement

OSCAL_VERSION = "1.2.1"
_NAMESPACE = uuid.UUID("6f9f5a0e-2b0b-5d5e-9f5a-7d1f0c2a4e11")
_NS = "https://sekisho.example/ns/oscal"


def assessment_results(statement: Statement) -> dict[str, Any]:
    """The document, ready to be written as JSON."""
    digest = hashlib.sha256(msgspec.json.encode(statement)).hexdigest()

    def named(what: str) -> str:
        return str(uuid.uuid5(_NAMESPACE, f"{digest}/{what}"))

    def instant(at_ms: int) -> str:
        return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")

    controls = {control.id: control for control in CONTROLS}
    assessed = [finding for finding in statement.findings if finding.state != "not-assessed"]
    return {
        "assessment-results": {
            "uuid": named("document"),
            "metadata": {
                "title": f"Sekisho evidence pack: {statement.tenant}",
                "last-modified": instant(statement.made_at_ms),
                "version": str(statement.form),
                "oscal-version": OSCAL_VERSION,
                "props": [_prop("seed", statement.seed), _prop("passages", str(statement.passages))],
            },
            "import-ap": {"href": "#" + named("plan"), "remarks": "The plan is the catalogue of controls below."},
            "results": [
                {
                    "uuid": named("result"),
                    "title": f"Passages of {statement.tenant}",
                    "description": f"{statement.passages} decisions; {len(statement.samples)} drawn and made again.",
                    "start": instant(statement.since_ms),
                    "end": instant(statement.until_ms),
                    "reviewed-controls": {
                        "control-selections": [
                            {"include-controls": [{"control-id": finding.control} for finding in statement.findings]}
                        ]
                    },
                    "observations": [
                        _observation(finding, controls[finding.control], named, instant(statement.made_at_ms))
                        for finding in statement.findings
                    ],
                    **(
                        {"findings": [_finding(finding, controls[finding.control], named) for finding in assessed]}
                        if assessed
                        else {}
                    ),
                }
            ],
            "back-matter": {
                "resources": [
                    {
                        "uuid": named("plan"),
                        "title": "Controls of Sekisho",
                        "description": "Own titles; ids of other catalogues where they correspond.",
                        "props": [prop for control in CONTROLS for prop in _mappings(control)],
                    }
                ]
            },
        }
    }


def _prop(name: str, value: str, **more: str) -> dict[str, str]:
    return {"name": name, "ns": _NS, "value": value or "-", **more}


def _mappings(control: Control) -> list[dict[str, str]]:
    pairs = [("ismap", control.ismap), ("iso-27017", control.iso), ("eu-csf", control.seal)]
    return [_prop(name, id, **{"class": control.id}) for name, ids in pairs for id in ids]


def _observation(finding: Finding, control: Control, named: Any, collected: str) -> dict[str, Any]:
    facts = "".join(f" {fact}." for fact in finding.facts)
    return {
        "uuid": named(f"observation/{finding.control}"),
        "title": control.en,
        "description": f"{control.check_en} Checked: {finding.checked}; against it: {finding.exceptions}.{facts}",
        "methods": ["EXAMINE"] if finding.state != "not-assessed" else ["UNKNOWN"],
        "collected": collected,
    }


def _finding(finding: Finding, control: Control, named: Any) -> dict[str, Any]:
    return {
        "uuid": named(f"finding/{finding.control}"),
        "title": control.en,
        "description": control.check_en,
        "target": {"type": "objective-id", "target-id": finding.control, "status": {"state": finding.state}},
        "related-observations": [{"observation-uuid": named(f"observation/{finding.control}")}],
    }
