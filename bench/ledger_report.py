"""What a run of bench.ledger says: verdicts against the issue's table, on the terminal and in docs/benchmarks.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.report import Row

BEGIN, END = "<!-- bench.ledger begin -->", "<!-- bench.ledger end -->"
DOCUMENT = Path(__file__).parents[1] / "docs" / "benchmarks.md"
NOISY = 0.05
_WORDS = {"aim": "✔ aim met", "must": "✔ must met", "met": "✔ met", "missed": "✘ missed"}
_MARKS = {"aim": "[green]aim[/]", "must": "[green]must[/]", "met": "[green]must[/]", "missed": "[red]missed[/]"}
Result = dict[str, Any]


def _at_most(value: float, must: float, aim: float | None = None) -> str:
    if value > must:
        return "missed"
    return "met" if aim is None else "aim" if value <= aim else "must"


def rows(result: Result) -> list[Row]:
    """The table of issue 5, section 5."""
    found = result["figures"]
    speed, receipt, size = found["sequencer"], found["receipt"], found["size"]
    memory = max(found["prove_memory_mib"], found["sequencer_memory_mib"])
    slowest = min(speed["per_s"], speed["per_cpu_s"])
    late = receipt["p99_ms"] if not receipt["never"] else float("inf")
    return [
        Row(
            claim=f"durable appends a second, {speed['wall_s']:.0f} s on one core, journal to log and index",
            figure=f"{speed['per_s']:,.0f} ({speed['per_cpu_s']:,.0f} a CPU second; {speed['count']:,} entries)",
            must="≥ 10,000", aim="≥ 30,000", meets=_at_most(-slowest, -10_000, -30_000),
        ),
        Row(
            claim=f"passage → receipt with quorum, p99 at {receipt['rate']:,}/s for {receipt['seconds']:.0f} s",
            figure=f"{receipt['p99_ms'] / 1000:.2f} s (p50 {receipt['p50_ms'] / 1000:.2f} s, slowest "
            f"{receipt['max_ms'] / 1000:.2f} s of {receipt['samples']:,})",
            must="≤ 2 s", aim="≤ 1 s", meets=_at_most(late, 2_000, 1_000) if not receipt["refused"] else "missed",
        ),
        Row(
            claim=f"inclusion proof from a log of {size:,} entries, at random places",
            figure=f"p50 {found['proof_ms']['p50']:.3f} ms, p99 {found['proof_ms']['p99']:.3f} ms",
            must="≤ 1 ms", aim="≤ 0.2 ms", meets=_at_most(found["proof_ms"]["p50"], 1.0, 0.2),
        ),
        Row(
            claim="`sekisho receipt verify`, its start included",
            figure=f"p50 {found['verify_ms']['p50'] / 1000:.2f} s ({found['verify_cpu_ms']['p50'] / 1000:.2f} s CPU)",
            must="≤ 0.3 s", aim="–", meets=_at_most(found["verify_ms"]["p50"], 300),
        ),
        Row(
            claim=f"memory at {size:,} entries",
            figure=f"sequencer {found['sequencer_memory_mib']:.0f} MB, proofs {found['prove_memory_mib']:.0f} MB RSS",
            must="≤ 150 MB", aim="–", meets=_at_most(memory, 150),
        ),
    ]  # fmt: skip


def doubts(result: Result) -> list[str]:
    """What a reader should know before believing the figures."""
    receipt = result["figures"]["receipt"]
    found = []
    share = max(result["foreign_share"], receipt["foreign_share"])
    if share > NOISY:
        found.append(
            f"Other work took up to {share:.0%} of the machine: figures of wall time are provisional; those of CPU "
            "time are not."
        )
    if receipt["never"] or receipt["refused"]:
        found.append(f"{receipt['never']} receipts never came, {receipt['refused']} did not verify.")
    return found


def beside(result: Result) -> list[tuple[str, str, str]]:
    """(what, per second, per CPU second) of everything that takes entries in this run."""
    names = {
        "sequencer": "**journal to log and index** (`sequencer`), durable",
        "append": "the log alone, entries that are ready, durable",
        "sqlite, a commit for each batch": "SQLite, fsync, a commit for 16,384 rows",
        "sqlite, a commit for each row": "SQLite, fsync, a commit for each row",
        "pymerkle (in memory)": "pymerkle, in memory, nothing durable",
    }
    figures = result["figures"]
    return [
        (
            words,
            f"{figures[name]['per_s']:,.0f}" if "per_s" in figures[name] else "–",
            f"{figures[name]['per_cpu_s']:,.0f}",
        )
        for name, words in names.items()
    ]


def show(result: Result, console: Console) -> None:
    """On the terminal."""
    table = Table(title="Entries a second", title_justify="left", header_style="bold")
    for name in ("", "/s", "/CPU s"):
        table.add_column(name, justify="left" if not name else "right")
    for words, per_s, per_cpu_s in beside(result):
        table.add_row(words.replace("**", "").replace("`", ""), per_s, per_cpu_s)
    console.print(table)
    verdicts = Table(title="Promises (issue 5, section 5)", title_justify="left", header_style="bold")
    for name in ("claim", "measured", "must", "aim", "verdict"):
        verdicts.add_column(name)
    for row in rows(result):
        verdicts.add_row(row.claim, row.figure, row.must, row.aim, _MARKS[row.meets])
    console.print(verdicts)
    cpu = result["figures"]["receipt"]["cpu_us_a_passage"]
    console.print("CPU µs a passage: " + ", ".join(f"{name} {us:.0f}" for name, us in cpu.items()), highlight=False)
    for line in doubts(result):
        console.print(f"[yellow]{line}[/]")


def markdown(result: Result) -> str:
    """What stands between the markers of docs/benchmarks.md."""
    machine, figures = result["machine"], result["figures"]
    receipt = figures["receipt"]
    lines = [
        BEGIN,
        "",
        f"Measured on {result['date']} with `{result['command']}`.",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']:.0f} GiB, Linux {machine['kernel']}, "
        f"Python {machine['python']}; commit `{result['commit']}`.",
        "",
    ]
    lines += [f"> {line}\n" for line in doubts(result)]
    lines += ["| claim | measured | must | aim | verdict |", "|---|---|---|---|---|"]
    lines += [
        f"| {row.claim} | {row.figure} | {row.must} | {row.aim} | {_WORDS[row.meets]} |" for row in rows(result)
    ]
    lines += ["", "Beside it in the same run, entries of about 900 bytes, one core:", ""]
    lines += ["| | a second | a CPU second |", "|---|---:|---:|"]
    lines += [f"| {words} | {per_s} | {per_cpu_s} |" for words, per_s, per_cpu_s in beside(result)]
    cpu = ", ".join(f"{name} {us:.0f}" for name, us in receipt["cpu_us_a_passage"].items())
    lines += [
        "",
        f"While receipts were waited for, CPU µs a passage: {cpu} (`load` is the bench). Finding an entry by its id: "
        f"{figures['find_ms']['p50']:.3f} ms; a consistency proof: {figures['consistency_ms']['p50']:.3f} ms; "
        f"a receipt with its entry: {receipt['bytes']:,} bytes.",
    ]
    return "\n".join([*lines, "", END])


def write(result: Result) -> None:
    """Puts the run between the markers; what stands around them stays."""
    before, begin, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{DOCUMENT} has lost its markers ({BEGIN} … {END})")
    DOCUMENT.write_text(before + markdown(result) + after, encoding="utf-8")
