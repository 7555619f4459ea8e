"""The laboratory's claims: `python -m bench.lab [--pings N] [--rounds N] [--pairs N] [--docs]` (root, /dev/net/tun).

How true its lines are (round trips and throughput), and what in-country serving saves until the first token. `--docs`
writes docs/benchmarks/lab.json and the chart in docs/benchmarks/.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path

import msgspec

from sekisho.lab import fidelity
from sekisho.lab.network import Lab
from sekisho.lab.scenarios import latency

DOCS = Path(__file__).parents[1] / "docs" / "benchmarks"
PEERS = ("osaka", "ishikari", "fukuoka", "us-west", "virginia")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pings", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--docs", action="store_true")
    options = parser.parse_args()
    load_before = os.getloadavg()
    with Lab() as lab:
        trips = [
            fidelity.round_trips(lab, "tokyo", peer, count=options.pings)
            for _ in range(options.rounds)
            for peer in PEERS
        ]
        stream = fidelity.throughput(lab, "tokyo", "osaka")
    with tempfile.TemporaryDirectory(prefix="sekisho-lab-") as folder:
        report = latency.run(Path(folder), pairs=options.pairs)
        if options.docs:
            for language in ("en", "ja"):
                shutil.copy(Path(folder) / f"first-token.{language}.svg", DOCS / f"first-token.{language}.svg")
    result = {
        "machine": {"cores": os.cpu_count(), "load_before": load_before, "load_after": os.getloadavg()},
        "round_trips": msgspec.to_builtins(trips),
        "throughput": msgspec.to_builtins(stream),
        "first_token": report.figures,
        "held": {
            "round_trips": all(any(each.held for each in trips if each.b == peer) for peer in PEERS),
            "throughput": stream.held,
            "first_token": report.held,
        },
    }
    text = json.dumps(result, indent=1, ensure_ascii=False)
    print(text)
    if options.docs:
        (DOCS / "lab.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
