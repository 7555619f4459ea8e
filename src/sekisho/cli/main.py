"""`sekisho`: the commands. Each is imported only when it is used, so that `--help` answers at once."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING

import click

from sekisho.cli import lab_texts, policy_texts, receipt_texts, reserve_texts, site_texts, texts, workload_texts
from sekisho.cli.attestation_texts import ATTESTATION
from sekisho.cli.border_texts import BORDER
from sekisho.cli.capacity_texts import CAPACITY
from sekisho.cli.ledger_texts import LEDGER
from sekisho.cli.pack_texts import EVIDENCE
from sekisho.cli.texts import Text

if TYPE_CHECKING:
    from sekisho.kernel.errors import SekishoError

EXIT_FAULT = 2
_WITH_CODES = (texts, receipt_texts, site_texts, workload_texts)  # what codes are called in Japanese

# name → (module, attribute, what `sekisho --help` says), in the order of a first day
COMMANDS: dict[str, tuple[str, str, Text]] = {
    "up": ("sekisho.cli.up", "up", texts.UP),
    "status": ("sekisho.cli.status", "status", texts.STATUS),
    "ask": ("sekisho.cli.ask", "ask", texts.ASK),
    "why": ("sekisho.cli.why", "why", texts.WHY),
    "receipt": ("sekisho.cli.receipt", "receipt", receipt_texts.RECEIPT),
    "evidence": ("sekisho.cli.evidence", "evidence", EVIDENCE),
    "witness": ("sekisho.cli.witness", "witness", receipt_texts.WITNESS),
    "key": ("sekisho.cli.keys", "key", texts.KEY),
    "site": ("sekisho.cli.site_machine", "site", site_texts.SITE),
    "operator": ("sekisho.cli.operator", "operator", site_texts.OPERATOR),
    "pool": ("sekisho.cli.operator", "pool", site_texts.POOL),
    "endpoint": ("sekisho.cli.endpoint", "endpoint", texts.ENDPOINT),
    "ledger": ("sekisho.cli.ledger", "ledger", LEDGER),
    "border": ("sekisho.cli.border", "border", BORDER),
    "attestation": ("sekisho.cli.attestation", "attestation", ATTESTATION),
    "policy": ("sekisho.cli.policy_change", "policy", policy_texts.POLICY),
    "admin": ("sekisho.cli.policy_change", "admin", policy_texts.ADMIN),
    "reserve": ("sekisho.cli.reserve_pools", "reserve", reserve_texts.RESERVE),
    "workload": ("sekisho.cli.workload", "workload", workload_texts.WORKLOAD),
    "capacity": ("sekisho.cli.capacity", "capacity", CAPACITY),
    "config": ("sekisho.cli.config", "config", texts.CONFIG),
    "lab": ("sekisho.cli.lab", "lab", lab_texts.LAB),
    "reload": ("sekisho.cli.down", "reload", texts.RELOAD),
    "down": ("sekisho.cli.down", "down", texts.DOWN),
}


class LazyGroup(click.Group):
    """A group that knows its commands' names and help, and imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}.{attribute} is no command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, str(text)) for name, (_, _, text) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    help=str(texts.MAIN),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="sekisho", prog_name="sekisho", help=str(texts.VERSION))
def cli() -> None:
    """The help is `texts.MAIN`."""


def main() -> None:
    """The program: 0 when all went well, 1 when the answer is no, 2 when it could not be asked."""
    try:
        cli()
    except Exception as error:
        from sekisho.kernel.errors import SekishoError  # noqa: PLC0415 - not needed to print the help

        if not isinstance(error, SekishoError):
            raise
        print_fault(error)
        sys.exit(EXIT_FAULT)
    finally:
        _let_go_of_a_closed_terminal()


def _let_go_of_a_closed_terminal() -> None:
    """When the window is gone there is nobody to print to: that is no failure (Python would exit with 120)."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def print_fault(error: SekishoError) -> None:
    """Fact, code and next step, on standard error."""
    ja = texts.language() == "ja"
    fact, hint = (error.fact_ja or error.fact, error.hint_ja or error.hint) if ja else (error.fact, error.hint)
    lines = [f"{texts.FAULT}: {fact} [{error.code}]"]
    meaning = next((room.CODES[error.code] for room in _WITH_CODES if error.code in room.CODES), None)
    if ja and meaning is not None and not error.fact_ja:
        lines.insert(0, meaning.ja)
    if hint:
        lines.append(f"{texts.NEXT_STEP}: {hint}")
    click.echo("\n".join(lines), err=True)


if __name__ == "__main__":
    main()
