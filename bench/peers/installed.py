"""The virtual environment of the peers that come as wheels: made on demand from requirements/bench.txt."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

from bench.processes import Failed

_VENV = Path(".bench/venv").absolute()
_LOCK = Path("requirements/bench.txt")
PYTHON = _VENV / "bin" / "python"


def make() -> None:
    """Installs when the lock file is not the one that was installed; every file is checked against its hash."""
    stamp = _VENV / ".installed"
    wanted = hashlib.sha256(_LOCK.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    shutil.rmtree(_VENV, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(_VENV)], check=True)
    command = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--require-hashes", "--no-deps", "--requirement", str(_LOCK)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"pip could not install {_LOCK}: {done.stderr.strip()[-600:]}")
    stamp.write_text(wanted)


def site_packages() -> Path:
    return next((_VENV / "lib").glob("python3*")) / "site-packages"


def version_of(distribution: str) -> str:
    for found in distributions(name=distribution, path=[str(site_packages())]):
        return found.version
    return "not installed"
