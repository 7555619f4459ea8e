"""Finding the installation that runs on this machine: its home, what it promised, who supervises it."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from sekisho.assembly.fleet import Ready, SupervisorTable
from sekisho.assembly.home import Home
from sekisho.cli import texts
from sekisho.kernel.errors import SekishoError

F = TypeVar("F", bound=Callable[..., Any])
DEFAULT_HOME = ".sekisho"
_ANSWER_TIMEOUT_S = 5.0


class NotRunning(SekishoError):
    """There is nothing to talk to."""

    code = "up.not_running"


def home_option(command: F) -> F:
    """`--home DIR`, or SEKISHO_HOME."""
    return click.option(
        "--home",
        "root",
        type=click.Path(path_type=Path),
        default=DEFAULT_HOME,
        envvar="SEKISHO_HOME",
        show_default=True,
        show_envvar=True,
        help=str(texts.OPTION_HOME),
    )(command)


def json_option(command: F) -> F:
    """`--json`."""
    return click.option("--json", "as_json", is_flag=True, help=str(texts.OPTION_JSON))(command)


def ready(root: Path) -> Ready:
    """What runs there; NotRunning when nothing does, or not yet."""
    home = Home.at(root)
    try:
        return msgspec.json.decode(home.ready_file.read_bytes(), type=Ready)
    except FileNotFoundError:
        if home.supervisor_socket.exists():
            raise NotRunning(
                f"what runs on {home.root} is not ready, or is ending",
                code="up.not_ready",
                hint="look at `sekisho status`",
            ) from None
        raise _not_running(home) from None
    except (OSError, msgspec.DecodeError) as error:
        raise NotRunning(f"{home.ready_file} can't be read: {error}", hint="start `sekisho up` again") from None


class Supervised(msgspec.Struct, frozen=True, kw_only=True):
    """The supervisor's account, and a handle on its process (pidfd_open(2)): a pid could be somebody else's by the
    time that we use it, the handle never is. Whoever gets this closes the handle."""

    table: SupervisorTable
    pidfd: int


def supervisor_table(root: Path) -> SupervisorTable:
    """The process table."""
    supervised = supervisor(root)
    os.close(supervised.pidfd)
    return supervised.table


def supervisor(root: Path) -> Supervised:
    """The supervisor of this home; NotRunning when there is none."""
    home = Home.at(root)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(_ANSWER_TIMEOUT_S)
        try:
            client.connect(str(home.supervisor_socket))
            # Who answers, says the kernel (unix(7)); struct ucred is pid, uid, gid.
            pid, _, _ = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            pidfd = os.pidfd_open(pid)
            answer = b"".join(iter(lambda: client.recv(65536), b""))
        except (FileNotFoundError, ConnectionRefusedError, ProcessLookupError):
            raise _not_running(home) from None
        except OSError as error:
            raise NotRunning(
                f"the supervisor of {home.root} does not answer: {error}",
                hint=f"look at {home.log('supervisor')}",
            ) from None
    try:
        return Supervised(table=msgspec.json.decode(answer, type=SupervisorTable), pidfd=pidfd)
    except msgspec.DecodeError:  # it ended while it answered
        os.close(pidfd)
        raise _not_running(home) from None


def _not_running(home: Home) -> NotRunning:
    return NotRunning(
        f"nothing runs on {home.root}", hint="start it with `sekisho up`, or name its directory with --home"
    )
