"""What a run says: verdicts against the issue's table, the terminal's tables, docs/benchmarks.md."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

BEGIN, END = "<!-- bench.gateway begin -->", "<!-- bench.gateway end -->"
US = "sekisho"
Result = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One promise: the figure that was measured beside what must and what should hold."""

    claim: str
    figure: str
    must: str
    aim: str
    meets: str  # `aim`, `must`, `missed`, `not measured`


def _figure(result: Result, scenario: str, peer: str, name: str) -> float | None:
    found = result["summary"].get(scenario, {}).get(peer)
    return None if found is None else float(found[name])


def _paired(result: Result, scenario: str, peer: str, name: str, of: Callable[[float, float], float]) -> float | None:
    """The median over the rounds of `of(ours, the peer's)` in one round. Within a round the two are measured a minute
    apart; from round to round a virtual machine changes its speed by half, and with it both."""
    samples = result.get("samples", {}).get(scenario, {})
    ours, theirs = samples.get(US, []), samples.get(peer, [])
    if not ours or len(ours) != len(theirs):
        one, other = _figure(result, scenario, US, name), _figure(result, scenario, peer, name)
        return of(one, other) if one is not None and other else None
    return statistics.median(of(float(one[name]), float(two[name])) for one, two in zip(ours, theirs, strict=True))


def _judge(value: float | None, must: float, aim: float | None, *, strict: bool = False) -> str:
    if value is None:
        return "not measured"
    if aim is not None and value <= aim:
        return "aim"
    if value < must if strict else value <= must:
        return "must" if aim is not None else "met"
    return "missed"


def rows(result: Result) -> list[Row]:
    """The table of issue 2, section 4; a row without a must is shown and not judged."""
    table: list[Row] = []

    def ratio(claim: str, scenario: str, peer: str, must: float, *, aim: float | None, told: str) -> None:
        ours, theirs = (_figure(result, scenario, name, "cpu_us") for name in (US, peer))
        value = _paired(result, scenario, peer, "cpu_us", lambda one, other: one / other)
        text = "–"
        if value is not None and ours is not None and theirs is not None:
            text = f"{value:.2f} × ({_cpu(ours)} / {_cpu(theirs)})"
            if value < 0.1:
                text = f"1/{1 / value:,.0f} ({_cpu(ours)} / {_cpu(theirs)})"
        judged = _judge(value, must, aim, strict=told.startswith("<")) if told or value is None else "see README"
        table.append(
            Row(
                claim=claim,
                figure=text,
                must=told or "–",
                aim=f"≤ {aim:g} ×" if aim is not None else "–",
                meets=judged,
            )
        )

    def added(claim: str, scenario: str, must_ms: float, aim_ms: float) -> None:
        value = _paired(result, scenario, "direct", "p50_us", lambda one, other: (one - other) / 1000)
        table.append(
            Row(
                claim=claim,
                figure="–" if value is None else f"{value:.3f} ms",
                must=f"≤ {must_ms:g} ms",
                aim=f"≤ {aim_ms:g} ms",
                meets=_judge(value, must_ms, aim_ms),
            )
        )

    ratio("CPU a request, small, c = 32, to nginx", "small_c32", "nginx", 3, aim=2, told="≤ 3 ×")
    ratio("… to SGLang's router", "small_c32", "sglang", 0.5, aim=None, told="≤ 0.5 ×")
    ratio("… to Envoy", "small_c32", "envoy", 0.5, aim=None, told="≤ 0.5 ×")
    ratio("… to LiteLLM", "small_c32", "litellm", 1 / 200, aim=None, told="≤ 1/200")
    added("p50 added at c = 1, small", "small_c1", 0.15, 0.06)
    ratio(
        "CPU a 100-chunk stream, c = 100, 10 ms apart, to nginx", "stream_c100", "nginx", 1.5, aim=1.2, told="≤ 1.5 ×"
    )
    ratio("… to SGLang's router", "stream_c100", "sglang", 1, aim=None, told="< 1 ×")
    ratio("… to Envoy", "stream_c100", "envoy", 1, aim=None, told="< 1 ×")
    for peer, name in (("nginx", "nginx"), ("sglang", "SGLang's router"), ("envoy", "Envoy")):
        ratio(f"the same at 2 ms, cores full, to {name}", "stream_c100_full", peer, 0, aim=None, told="")
    added("p50 added, 220 KB prompt, c = 1", "large_c1", 1.2, 0.5)
    table += _memory_rows(result.get("memory")) + _table_rows(result.get("tables"))
    return table


def _memory_rows(memory: Result | None) -> list[Row]:
    claim = "memory of a worker, 5,000 idle connections, 1,000 open streams"
    if not memory or "error" in memory:
        why = memory["error"] if memory else ""
        return [
            Row(
                claim=claim,
                figure=why or "–",
                must="≤ 200 MB",
                aim="≤ 100 MB",
                meets="missed" if why else "not measured",
            )
        ]
    growth = memory["growth_mb"]
    return [
        Row(
            claim=claim,
            figure=f"{memory['rss_mb']:.0f} MB RSS, {memory['pss_mb']:.0f} MB PSS",
            must="≤ 200 MB",
            aim="≤ 100 MB",
            meets=_judge(memory["rss_mb"], 200, 100),
        ),
        Row(
            claim=f"… flat over {memory['seconds'] / 60:.0f} min (last third to first third)",
            figure=f"{growth:+.1f} MB",
            must="≤ 2 MB",
            aim="–",
            meets=_judge(growth, 2, None),
        ),
    ]


def _table_rows(tables: Result | None) -> list[Row]:
    compile_claim = "route table, 10,000 tenants × 100 endpoints: compile and sign"
    swap_claim = "… slowest request while it is swapped in"
    if not tables or "error" in tables:
        why = tables["error"] if tables else ""
        meets = "missed" if why else "not measured"
        return [
            Row(claim=compile_claim, figure=why or "–", must="≤ 2 s", aim="–", meets=meets),
            Row(claim=swap_claim, figure=why or "–", must="≤ 20 ms", aim="–", meets=meets),
        ]
    return [
        Row(
            claim=compile_claim,
            figure=f"{tables['compile_s']:.2f} s",
            must="≤ 2 s",
            aim="–",
            meets=_judge(tables["compile_s"], 2, None),
        ),
        Row(
            claim=swap_claim,
            figure=f"{tables['swap_max_ms']:.1f} ms over {tables['swaps']} swaps "
            f"(without swaps {tables['calm_max_ms']:.1f} ms)",
            must="≤ 20 ms",
            aim="–",
            meets=_judge(tables["swap_max_ms"], 20, None),
        ),
    ]


def _cpu(us: float) -> str:
    return f"{us:.1f} µs" if us < 1000 else f"{us / 1000:,.2f} ms"


def _peers(result: Result) -> list[str]:
    return [peer["name"] for peer in result["peers"] if not peer["error"]]


@dataclass(frozen=True, kw_only=True)
class Column:
    title: str
    text: Callable[[Result, str], str]


def _plain(
    scenario: str, name: str, *, scale: float = 1.0, digits: int = 0, ratio: bool = False, added: bool = False
) -> Callable[[Result, str], str]:
    def text(result: Result, peer: str) -> str:
        value = _figure(result, scenario, peer, name)
        if value is None or (name == "cpu_us" and peer == "direct"):
            return "–"
        told = f"{value / scale:,.{digits}f}"
        base = _figure(result, scenario, "nginx", name)
        if ratio and base and peer not in ("nginx", "direct"):
            told += f" ({value / base:,.{1 if value / base < 100 else 0}f} ×)"
        floor = _figure(result, scenario, "direct", name)
        if added and floor is not None and peer != "direct":
            told += f" (+{(value - floor) / scale:,.{digits}f})"
        return told

    return text


COLUMNS = {
    "Small prompt (360 B)": (
        Column(
            title="CPU µs a request, c = 32 (to nginx)",
            text=_plain("small_c32", "cpu_us", digits=1, ratio=True),
        ),
        Column(title="requests/s, c = 32", text=_plain("small_c32", "rps")),
        Column(title="p50 µs, c = 32", text=_plain("small_c32", "p50_us")),
        Column(title="p99 µs, c = 32", text=_plain("small_c32", "p99_us")),
        Column(title="p50 µs, c = 1 (added)", text=_plain("small_c1", "p50_us", added=True)),
        Column(title="p99 µs, c = 1", text=_plain("small_c1", "p99_us")),
        Column(title="CPU µs, c = 1", text=_plain("small_c1", "cpu_us", digits=1)),
        Column(
            title="p50 µs, c = 1, across cores",
            text=_plain("small_c1_split", "p50_us"),
        ),
    ),
    "Long prompt (220 KB)": (
        Column(title="p50 µs, c = 1 (added)", text=_plain("large_c1", "p50_us", added=True)),
        Column(title="p99 µs, c = 1", text=_plain("large_c1", "p99_us")),
        Column(title="p50 µs, c = 8", text=_plain("large_c8", "p50_us")),
        Column(title="p99 µs, c = 8", text=_plain("large_c8", "p99_us")),
        Column(
            title="CPU µs a request, c = 8 (to nginx)",
            text=_plain("large_c8", "cpu_us", ratio=True),
        ),
        Column(title="requests/s, c = 8", text=_plain("large_c8", "rps")),
    ),
    "100-chunk streams, 100 at a time": (
        Column(
            title="10 ms apart: CPU ms a stream (to nginx)",
            text=_plain("stream_c100", "cpu_us", scale=1000, digits=2, ratio=True),
        ),
        Column(title="10 ms: first byte p50 ms", text=_plain("stream_c100", "p50_us", scale=1000, digits=1)),
        Column(title="10 ms: first byte p99 ms", text=_plain("stream_c100", "p99_us", scale=1000, digits=1)),
        Column(
            title="2 ms apart: CPU ms a stream (to nginx)",
            text=_plain("stream_c100_full", "cpu_us", scale=1000, digits=2, ratio=True),
        ),
        Column(title="2 ms: first byte p50 ms", text=_plain("stream_c100_full", "p50_us", scale=1000, digits=1)),
    ),
}
_MARKS = {"aim": "[green]aim[/]", "must": "[green]must[/]", "met": "[green]must[/]", "missed": "[red]missed[/]"}
_WORDS = {"aim": "✔ aim met", "must": "✔ must met", "met": "✔ met", "missed": "✘ missed"}


def show(result: Result, console: Console) -> None:
    """On the terminal."""
    for title, columns in COLUMNS.items():
        table = Table(title=title, title_justify="left", header_style="bold")
        table.add_column("")
        for column in columns:
            table.add_column(column.title, justify="right", max_width=18)
        for peer in _peers(result):
            cells = [column.text(result, peer) for column in columns]
            if any(cell != "–" for cell in cells):
                table.add_row(peer, *cells, style="bold" if peer == US else None)
        if table.row_count:
            console.print(table)
    verdicts = Table(title="Promises (issue 2, section 4)", title_justify="left", header_style="bold")
    for name in ("claim", "measured", "must", "aim", "verdict"):
        verdicts.add_column(name)
    for row in rows(result):
        verdicts.add_row(row.claim, row.figure, row.must, row.aim, _MARKS.get(row.meets, row.meets))
    console.print(verdicts)
    for peer in result["peers"]:
        if peer["error"]:
            console.print(f"[red]{peer['name']} is not measured:[/] {peer['error']}")
    for line in doubts(result):
        console.print(f"[yellow]{line}[/]")


def doubts(result: Result) -> list[str]:
    """What a reader should know before believing the figures."""
    found = []
    noisy = [
        f"{peer} in {scenario} ({figures['foreign_share']:.0%})"
        for scenario, peers in result["summary"].items()
        for peer, figures in peers.items()
        if figures["foreign_share"] > 0.05
    ]
    if noisy:
        found.append(
            f"Other work took more than 5 % of the machine in the median round of {len(noisy)} measurements "
            f"(for example {noisy[0]}): these figures are provisional."
        )
    failed = [
        f"{peer} in {scenario}: {figures['failed']:,} of {figures['requests']:,}"
        for scenario, peers in result["summary"].items()
        for peer, figures in peers.items()
        if figures["failed"]
    ]
    if failed:
        found.append("Requests that failed: " + "; ".join(failed) + ".")
    return found


def markdown(result: Result) -> str:
    """What stands between the markers of docs/benchmarks.md."""
    machine = result["machine"]
    lines = [
        BEGIN,
        "",
        f"Measured on {result['date']} with `{result['command']}`: {result['rounds']} interleaved rounds, medians. "
        "What is compared with a peer is the median of each round's own comparison.",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']:.0f} GiB, Linux {machine['kernel']}, "
        f"Python {machine['python']}; commit `{result['commit']}`.",
        "",
    ]
    lines += [f"> {line}\n" for line in doubts(result)]
    lines += ["![CPU and latency of the peers](benchmarks/gateway.svg)", "", "## What must hold", ""]
    lines += ["| claim | measured | must | aim | verdict |", "|---|---|---|---|---|"]
    lines += [
        f"| {row.claim} | {row.figure} | {row.must} | {row.aim} | {_WORDS.get(row.meets, row.meets)} |"
        for row in rows(result)
    ]
    for title, columns in COLUMNS.items():
        lines += ["", f"## {title}", "", "| | " + " | ".join(column.title for column in columns) + " |"]
        lines.append("|---|" + "---:|" * len(columns))
        for peer in _peers(result):
            cells = [column.text(result, peer) for column in columns]
            if any(cell != "–" for cell in cells):
                name = f"**{peer}**" if peer == US else peer
                lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "## Spread of the rounds (lowest to highest)", ""]
    lines += ["| | CPU µs, small, c = 32 | p50 µs, small, c = 1 | p50 µs, 220 KB, c = 1 | CPU ms a stream |"]
    lines += ["|---|---:|---:|---:|---:|"]
    lines += [
        f"| {peer} | "
        + " | ".join(
            (
                _spread(result, "small_c32", peer, "cpu_us", digits=1),
                _spread(result, "small_c1", peer, "p50_us"),
                _spread(result, "large_c1", peer, "p50_us"),
                _spread(result, "stream_c100", peer, "cpu_us", scale=1000, digits=2),
            )
        )
        + " |"
        for peer in _peers(result)
    ]
    lines += ["", "## The peers", "", "| | version | what is on |", "|---|---|---|"]
    lines += [
        f"| {peer['name']} | {peer['version']} | {peer['what_is_on']}"
        + (f"; **not measured**: {peer['error'].replace('|', '/')}" if peer["error"] else "")
        + " |"
        for peer in result["peers"]
    ]
    return "\n".join([*lines, "", END])


def _spread(result: Result, scenario: str, peer: str, name: str, *, scale: float = 1, digits: int = 0) -> str:
    found = result["summary"].get(scenario, {}).get(peer)
    if found is None or (peer == "direct" and name == "cpu_us"):
        return "–"
    low, high = found["spread"][name]
    return f"{low / scale:,.{digits}f} – {high / scale:,.{digits}f}"


def write_markdown(result: Result, path: Path) -> None:
    """Puts the run between the markers; what stands around them stays."""
    before, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{path} has lost its markers ({BEGIN} … {END})")
    path.write_text(before + markdown(result) + after, encoding="utf-8")
