"""`python -m sekisho.lab.enter NAMESPACE PARENT_PID PROGRAM [ARG…]`: become a program inside a namespace, one that
dies with the laboratory."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from sekisho.lab.namespaces import enter
from sekisho.runtime.children import die_with_parent


def main() -> None:
    path, parent_pid, *argv = sys.argv[1:]
    die_with_parent(int(parent_pid))
    enter(Path(path))
    os.execvp(argv[0], argv)  # noqa: S606 - that is what it is for


if __name__ == "__main__":
    main()
