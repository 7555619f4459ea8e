"""The soak of reservations; `oversold` says what it does.

python -m tests.soak.capacity --steps 10000000                    each database, one after the other
python -m tests.soak.capacity --steps 200000 --database sqlite
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from .oversold import Report, soak


def main() -> None:
    parser = argparse.ArgumentParser(description="Nothing is sold twice, however long one tries")
    parser.add_argument("--steps", type=int, default=10_000_000)
    parser.add_argument("--database", choices=("sqlite", "postgresql", "both"), default="both")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--epoch", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--kill-every", type=int, default=2_000, help="steps between two SIGKILLs, on average")
    parser.add_argument("--crash-every", type=int, default=20_000, help="steps between two crashes of PostgreSQL")
    given = parser.parse_args()
    logging.disable()  # a connection that a crash took is no news here
    print(f"seed {given.seed}, {given.clients} clients, folder {given.folder}", flush=True)

    def say(report: Report) -> None:
        print(json.dumps(msgspec.to_builtins(report)), flush=True)

    kinds = ("sqlite", "postgresql") if given.database == "both" else (given.database,)
    reports = [
        soak(
            kind, steps=given.steps, clients=given.clients, epoch_steps=given.epoch, seed=given.seed,
            folder=given.folder, kill_every=given.kill_every, crash_every=given.crash_every, say=say,
        )
        for kind in kinds
    ]  # fmt: skip
    for report in reports:
        verdict = f"BROKEN: {report.faults[:3]}" if report.faults else "0 oversold"
        killed = f"{report.killed} clients killed, {report.crashes} crashes of the server"
        print(f"{report.database}: {report.steps:,} steps, {killed}, {report.audits} audits: {verdict}")
    sys.exit(any(report.faults for report in reports))


if __name__ == "__main__":
    main()
