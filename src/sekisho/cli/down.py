"""`sekisho down` and `sekisho reload`: a signal to the supervisor, and what came of it."""

from __future__ import annotations

import os
import select
import signal
import time
from pathlib import Path

import click

from sekisho.assembly.fleet import ReloadResult
from sekisho.cli import texts
from sekisho.cli.local import home_option, supervisor, supervisor_table
from sekisho.kernel.errors import SekishoError

# Beyond the grace of the workers, control and sites have their own few seconds.
_AFTER_GRACE_S = 15.0
_RELOAD_TIMEOUT_S = 10.0
_LOOK_AGAIN_S = 0.05


class NotDone(SekishoError):
    """The supervisor got the signal, but what was asked for did not happen."""

    code = "down.timeout"


@click.command(help=str(texts.DOWN))
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=0), help=str(texts.OPTION_TIMEOUT))
@home_option
def down(timeout_s: float | None, root: Path) -> None:
    """The help is `texts.DOWN`."""
    supervised = supervisor(root)
    if timeout_s is None:
        timeout_s = supervised.table.drain_grace_s + _AFTER_GRACE_S
    try:
        signal.pidfd_send_signal(supervised.pidfd, signal.SIGTERM)
        # pidfd_open(2): readable when the process has ended
        ended, _, _ = select.select([supervised.pidfd], [], [], timeout_s)
    except ProcessLookupError:
        ended = [supervised.pidfd]
    finally:
        os.close(supervised.pidfd)
    if not ended:
        raise NotDone(
            f"the supervisor (pid {supervised.table.pid}) still drains after {timeout_s:g} s",
            hint="wait, or run `sekisho down` again to end at once what is still under way",
        )
    click.echo(str(texts.STOPPED))


@click.command(help=str(texts.RELOAD))
@home_option
def reload(root: Path) -> None:
    """The help is `texts.RELOAD`."""
    supervised = supervisor(root)
    before = supervised.table.last_reload
    try:
        signal.pidfd_send_signal(supervised.pidfd, signal.SIGHUP)
    finally:
        os.close(supervised.pidfd)
    result = _wait_for_reload(root, before)
    if not result.ok:
        raise NotDone(
            result.detail, code="reload.refused", hint="mend it; what runs goes on with the configuration it has"
        )
    click.echo(texts.RELOADED(detail=result.detail).rstrip())


def _wait_for_reload(root: Path, before: ReloadResult | None) -> ReloadResult:
    deadline = time.monotonic() + _RELOAD_TIMEOUT_S
    while time.monotonic() < deadline:
        result = supervisor_table(root).last_reload
        if result is not None and result != before:
            return result
        time.sleep(_LOOK_AGAIN_S)
    raise NotDone(
        f"the supervisor did not answer the reload within {_RELOAD_TIMEOUT_S:g} s",
        code="reload.timeout",
        hint="look at logs/supervisor.log in the home directory",
    )
