"""Where the program starts. One command is answered before the libraries of all the others are loaded.

`sekisho receipt verify` is called by auditors' loops, a thousand times in a row: a plain call that finds a sound
receipt takes half the time this way. Whatever else it is given or finds, the command itself answers, in the one way
there is.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def main() -> None:
    """Exit codes as `sekisho.cli.main` has them."""
    text = _verified(sys.argv[3:]) if sys.argv[1:3] == ["receipt", "verify"] else None
    if text is None or not _said(text):
        from sekisho.cli.main import main as every_command  # noqa: PLC0415 - this is what is left out

        every_command()


def _verified(arguments: Sequence[str]) -> str | None:
    """What was proven; None when the whole command has to look at it."""
    from pathlib import Path  # noqa: PLC0415 - the other commands bring their own

    from sekisho.cli.receipt_verify import verified_text  # noqa: PLC0415
    from sekisho.kernel.errors import SekishoError  # noqa: PLC0415

    files: list[str] = []
    values: dict[str, str] = {}
    flags: set[str] = set()
    rest = iter(arguments)
    for item in rest:
        name, equals, value = item.partition("=")
        if item in ("--json", "--ignore-unknown"):
            flags.add(item)
        elif name in ("--policy", "--home"):
            values[name] = value if equals else next(rest, "")
        elif item.startswith("-"):
            return None
        else:
            files.append(item)
    home = values.get("--home") or os.environ.get("SEKISHO_HOME") or ".sekisho"
    if len(files) != 1 or "" in values.values():
        return None
    try:
        return verified_text(
            Path(files[0]),
            policy_file=Path(values["--policy"]) if "--policy" in values else None,
            ignore_unknown="--ignore-unknown" in flags,
            as_json="--json" in flags,
            root=Path(home),
        )
    except SekishoError:
        return None  # the command says it with its code and the next step


def _said(text: str) -> bool:
    """False when this terminal can't show it so simply."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except UnicodeError:
        return False
    except (OSError, ValueError):
        # The window is gone: there is nobody to print to, and that is no failure.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


if __name__ == "__main__":
    main()
