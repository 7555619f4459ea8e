"""`python -m sekisho.assembly.launch PARENT_PID MODULE [ARG…]`: run a module that dies with its supervisor.

The kernel kills a process whose parent dies if it asked for that (`PR_SET_PDEATHSIG`, prctl(2)). Each child asks for
it itself, here, before its module is imported. The other ways are worse: `preexec_fn` runs Python between fork and
exec (it can deadlock, and it forbids the fast `vfork`), and a child that polls its parent's pid finds out late.
The signal is SIGKILL: the journal survives it by design, and no child can be too stuck to obey it.
"""

from __future__ import annotations

import runpy
import sys

from sekisho.runtime.children import die_with_parent


def main() -> None:
    parent_pid, module, *arguments = sys.argv[1:]
    die_with_parent(int(parent_pid))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
