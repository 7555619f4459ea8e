"""`sekisho up`: start everything, show how it goes, stay in the foreground."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import assert_never

import click
from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from sekisho.assembly.fleet import (
    BecameReady,
    DrainEnded,
    DrainStarted,
    Event,
    Planning,
    ProcessChanged,
    Ready,
    Reloaded,
    Reporter,
    Warned,
)
from sekisho.assembly.processes import ProcessRow, State
from sekisho.assembly.up import UpOptions
from sekisho.assembly.up import up as run_up
from sekisho.cli import texts
from sekisho.cli.local import DEFAULT_HOME, home_option
from sekisho.kernel.units import format_duration


@click.command(help=str(texts.UP))
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    envvar="SEKISHO_CONFIG",
    help=str(texts.OPTION_CONFIG),
)
@click.option("--ready-file", type=click.Path(path_type=Path), help=str(texts.OPTION_READY_FILE))
@home_option
def up(config: Path | None, ready_file: Path | None, root: Path) -> None:
    """The help is `texts.UP`."""
    console = Console(highlight=False)
    reporter: Reporter = _Live(console, root) if console.is_terminal else _Plain(root)
    code = run_up(UpOptions(home=root, config=config, ready_file=ready_file), reporter)
    sys.exit(code)


class _Plain:
    """One line for each event: for logs, pipes and services."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._gone = False

    def tell(self, event: Event) -> None:
        line = self.line(event)
        if not line or self._gone:
            return
        try:
            print(line, flush=True)
        except OSError:  # whoever read our output has left; that is no reason to stop serving
            self._gone = True

    def line(self, event: Event) -> str:
        line = ""
        match event:
            case Planning(processes=processes):
                line = texts.STARTING(count=processes)
            case Warned(text=text):
                line = texts.WARNING(text=text)
            case ProcessChanged(row=row):
                line = _process_line(row)
            case BecameReady():
                lines = [texts.READY_TITLE(after=format_duration(event.after_s))]
                lines += [f"  {name}: {value}" for name, value in _facts(event.ready, self._root)]
                if event.demonstration:
                    lines.append(f"  {texts.SIMULATED}")
                line = "\n".join(lines)
            case DrainStarted(grace_s=grace_s):
                line = texts.DRAINING(grace=format_duration(grace_s))
            case DrainEnded(cut=cut):
                line = texts.STOPPED_CUT(names=", ".join(cut)) if cut else str(texts.STOPPED)
            case Reloaded(result=result):
                words = texts.RELOADED if result.ok else texts.RELOAD_REFUSED
                line = words(detail=result.detail).rstrip()
            case _:
                assert_never(event)
        return line


class _Live:
    """A bar while models load, then a panel that says what to do next."""

    def __init__(self, console: Console, root: Path) -> None:
        self._console = console
        self._root = root
        self._plain = _Plain(root)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("", total=None)
        self._answering: set[str] = set()

    def tell(self, event: Event) -> None:
        try:
            self._show(event)
        except OSError:  # the terminal was closed; the supervisor decides what that means
            self._progress.disable = True

    def _show(self, event: Event) -> None:
        match event:
            case Planning(processes=processes):
                self._progress.update(self._task, total=processes, description=texts.STARTING(count=processes))
                self._progress.start()
            case ProcessChanged(row=row) if row.state is State.READY and self._progress.live.is_started:
                self._answering.add(row.name)
                self._progress.update(self._task, completed=len(self._answering), description=_process_line(row))
            case BecameReady():
                self._progress.stop()
                self._console.print(_panel(event, self._root))
            case DrainStarted():
                self._progress.stop()
                self._say(event)
            case ProcessChanged() | Warned() | DrainEnded() | Reloaded():
                self._say(event)
            case _:
                assert_never(event)

    def _say(self, event: Event) -> None:
        if line := self._plain.line(event):
            self._console.print(line, markup=False)


def _process_line(row: ProcessRow) -> str:
    """Only what a person wants to see: that it answers, or that it died."""
    if row.state is State.READY:
        age_s = max(time.time() - (row.started_at or 0.0), 0.0)
        return texts.PROCESS_READY(name=row.name, pid=row.pid, after=format_duration(age_s))
    if row.state is State.WAITING:
        return texts.PROCESS_DIED(name=row.name, exit=row.last_exit, words=row.last_words or "–")
    return ""


def _facts(ready: Ready, root: Path) -> list[tuple[str, str]]:
    facts = [
        (str(texts.READY_GATEWAY), f"{ready.gateway_url}/v1"),
        (str(texts.READY_CONSOLE), ready.console_url),
        (str(texts.READY_TOKEN), str(root / "secrets" / "admin_token")),
    ]
    if ready.api_keys:
        facts.append((str(texts.READY_TRY), _curl(ready, root)))
    return facts


def _curl(ready: Ready, root: Path) -> str:
    """A line to paste. The key is looked up by a command, so it is neither on the screen nor in a shell's history."""
    program = "sekisho" if shutil.which("sekisho") else os.path.relpath(sys.argv[0])
    home = "" if root == Path(DEFAULT_HOME) else f" --home {shlex.quote(str(root))}"
    return (
        f"curl -i {ready.gateway_url}/v1/chat/completions -H 'Content-Type: application/json' "
        f'-H "Authorization: Bearer $({program} key demo {next(iter(ready.api_keys))}{home})" '
        """-d '{"model":"smollm2-135m","messages":[{"role":"user","content":"What is a checkpoint?"}]}'"""
    )


def _panel(event: BecameReady, root: Path) -> Panel:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    for name, value in _facts(event.ready, root):
        grid.add_row(name, value)
    if event.demonstration:
        grid.add_row("", str(texts.SIMULATED), style="dim")
    grid.add_row("", str(texts.READY_STOP), style="dim")
    title = texts.READY_TITLE(after=format_duration(event.after_s))
    return Panel(grid, title=title, border_style="green", expand=False)
