"""`python -m sekisho.assembly.launch PARENT_PID MODULE [ARG…]`: run a module that dies with its supervisor.

The kernel kills a process whose parent dies if it asked for that (`PR_SET_PDEATHSIG`, prctl(2)). Each child asks for
it itself, here, before its module is imported. The other ways are worse: `preexec_fn` runs Python between fork and
exec (it can deadlock, and it forbids the fast `vfork`), and a child that polls its parent's pid finds out late.
The signal is SIGKILL: the journal survives it by design, and no child can be too stuck to obey it.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent(parent_pid: int) -> None:
    """From now on this process is killed when its parent dies; at once if that has happened already."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl(PR_SET_PDEATHSIG): {os.strerror(number)}")
    # The parent may have died between fork and prctl: then nobody will ever send the signal.
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    parent_pid, module, *arguments = sys.argv[1:]
    die_with_parent(int(parent_pid))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
