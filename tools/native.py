"""Compile the hot path with mypyc: `python tools/native.py` (what `make native` calls), `--clean`, `--check`.

The modules are ordinary typed Python and run as they are; compiled, their own CPU time falls to about 40 %
(docs/adr/0008). The extension modules are put beside the sources, where Python prefers them, together with a list
of the sources they were made from, so that a stale one is noticed (`--check`, part of `make check`).
Without a C compiler or Python's headers this says so and leaves the interpreted modules in use.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src"
# usage.py and settings.py stay interpreted: msgspec's structs bring a metaclass of their own. feed.py is not hot.
MODULES = (
    *(
        f"sekisho/gateway/{name}.py"
        for name in (
            "answering", "answers", "body", "choose", "ending", "gateway", "http1", "limits", "listener", "live",
            "meter", "metrics", "passage", "queue", "reading", "records", "shares", "tuning", "upstream",
        )
    ),
    "sekisho/kernel/ids.py",
    "sekisho/ledger/journal.py",
    "sekisho/ledger/stage.py",
    "sekisho/capacity/search.py",
)  # fmt: skip
STATE = SOURCE / "sekisho" / "native.json"
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")


def digests() -> dict[str, str]:
    return {module: hashlib.sha256((SOURCE / module).read_bytes()).hexdigest() for module in MODULES}


def built() -> list[Path]:
    beside = [(SOURCE / module).with_suffix(SUFFIX) for module in MODULES]
    return [path for path in (*beside, *SOURCE.glob(f"*__mypyc{SUFFIX}")) if path.exists()]


def clean() -> None:
    for path in (*built(), STATE):
        path.unlink(missing_ok=True)


def compile_in(folder: Path) -> None:
    """Run mypyc on a copy of the sources (mypyc and setuptools insist on running in their own folder)."""
    shutil.copytree(SOURCE / "sekisho", folder / "sekisho", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    script = (
        "import sys; from setuptools import setup; from mypyc.build import mypycify\n"
        "modules = sys.argv[1:]; sys.argv[1:] = ['build_ext', '--inplace']\n"
        "setup(name='sekisho-native', packages=[], ext_modules=mypycify(\n"
        "    ['--ignore-missing-imports', *modules], opt_level='3', debug_level='0'))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, *MODULES],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CFLAGS": "-g0"},
    )
    if result.returncode:
        lines = (result.stdout + result.stderr).splitlines()
        reason = next((line for line in lines if "error:" in line), lines[-1] if lines else "no output")
        raise RuntimeError(reason.strip()[:300])


def main() -> int:
    if "--clean" in sys.argv:
        clean()
        return 0
    if "--check" in sys.argv:
        state = json.loads(STATE.read_text()) if STATE.exists() else None
        if built() and state != digests():
            print("the compiled modules are older than their sources: run `make native` (or `make native-clean`)")
            return 1
        return 0
    if shutil.which(os.environ.get("CC", "gcc")) is None:
        clean()
        print("no C compiler: the gateway runs interpreted (about 1.6 times the CPU time); `apt-get install gcc`")
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            compile_in(folder)
        except RuntimeError as error:
            clean()
            print(f"the hot path could not be compiled, the gateway runs interpreted: {error}")
            return 0 if "--required" not in sys.argv else 1
        # Only now: what runs beside this sees the old modules or the new ones, for half a minute less of neither.
        clean()
        for path in folder.rglob(f"*{SUFFIX}"):
            if "build" not in path.relative_to(folder).parts:
                shutil.copy2(path, SOURCE / path.relative_to(folder))
    STATE.write_text(json.dumps(digests(), indent=1))
    print(f"compiled {len(MODULES)} modules of the hot path")
    return 0


if __name__ == "__main__":
    sys.exit(main())
