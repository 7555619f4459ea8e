"""What a run of bench.capacity says: lines on the terminal, docs/benchmarks/capacity.json, a section of a page."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1] / "docs"
BEGIN, END = "<!-- bench.capacity begin -->", "<!-- bench.capacity end -->"


class Report:
    """Rows in the order in which they were measured."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def say(self, what: str, value: str, must: str = "", *, met: bool | None = None, note: str = "") -> None:
        """`met` None: there is no promise about it. `note` stands beside it: load, CPU, what was proved."""
        self.rows.append({"what": what, "value": value, "must": must, "met": met, "note": note})
        mark = {True: "✔", False: "✘", None: " "}[met]
        print(f"{mark} {what:<66} {value:>34}   {must}{'; ' if must and note else ''}{note}", flush=True)

    def write(self) -> None:
        """The raw rows, and the page's section from them."""
        result = {
            "at": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            "machine": f"{_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}",
            "load": [round(each, 2) for each in os.getloadavg()],
            "rows": self.rows,
        }
        (DOCS / "benchmarks" / "capacity.json").write_text(
            json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        page = DOCS / "benchmarks.md"
        before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
        _, end, after = rest.partition(END)
        if not begin or not end:
            raise SystemExit(f"{page} has lost its markers ({BEGIN} … {END})")
        page.write_text(before + markdown(result) + after, encoding="utf-8")


def markdown(result: dict[str, Any]) -> str:
    verdicts = {True: "✔", False: "✘ missed", None: "–"}
    lines = [
        BEGIN,
        "",
        f"Measured on {result['at']} with `python -m bench.capacity --docs`. {result['machine']}, load "
        f"{', '.join(map(str, result['load']))} at the end.",
        "",
        "| what | measured | must | verdict | beside it |",
        "|---|---|---|---|---|",
        *(
            f"| {row['what']} | {row['value']} | {row['must'] or '–'} | {verdicts[row['met']]} "
            f"| {row['note'] or '–'} |"
            for row in result["rows"]
        ),
        "",
        END,
    ]
    return "\n".join(lines)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
