"""Policies at scale: a cold compile, the next table after one site's evidence changed, and how soon gateways have it.

    python -m bench.policy            (about 20 s)

In one process and with SQLite: the control plane's own maker of tables, ten thousand tenants of eight kinds,
a hundred endpoints at a hundred sites that all differ, the default policies with every ready profile.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sekisho.assembly.schema import migrate
from sekisho.assembly.tables import CompileSettings, TableMaker
from sekisho.federation.model import ApiKey, Declaration, Endpoint, Federation, Operator, Site, Subcontractor, Tenant
from sekisho.federation.service import FederationService
from sekisho.kernel.classes import DataClass
from sekisho.kernel.clock import SystemClock
from sekisho.residency.model import AttestationFacts, LocationFacts, SiteEvidence
from sekisho.residency.policy.bundle import default_bundle
from sekisho.residency.policy.engine import CedarPolicy
from sekisho.residency.publish import TablePublisher
from sekisho.runtime.database import Database, sqlite_url

TENANTS, SITES, CHANGES = 10_000, 100, 20
KINDS: tuple[tuple[str, ...], ...] = (
    (), ("gov-cloud",), ("appi-28",), ("ismap",), ("economic-security",), ("seal-2",), ("seal-4",),
    ("confidential-computing", "gov-cloud"),
)  # fmt: skip
GATEWAYS = 64


def federation() -> Federation:
    """A hundred sites, each another profile of facts."""
    sites = tuple(
        Site(
            id=f"site-{n}",
            operator=f"operator-{n % 10}",
            name="",
            country="US" if n % 7 == 6 else "JP",
            declaration=Declaration(
                law="JP" if n % 3 else "US",
                owner_country="JP" if n % 5 else "US",
                foreign_owned_percent=n,
                foreign_laws=("US",) if n % 4 == 0 else (),
                operator_can_read=n % 2 == 0,
                key_custody=("operator", "tenant", "third-party")[n % 3],
                personnel=("unscreened", "screened", "cleared")[n % 3],
                subcontractors=(Subcontractor(name="x", country="US", law="US"),) if n % 6 == 0 else (),
                log_retention_days=300 + n,
            ),
        )
        for n in range(SITES)
    )
    models = tuple(f"model-{n}" for n in range(20))
    tenants = tuple(
        Tenant(
            id=f"tenant-{n}", name="", floor=DataClass(n % 4), profiles=KINDS[n % len(KINDS)],
            models=None if n % 3 else models[n % 8 : n % 8 + 8],
        )
        for n in range(TENANTS)
    )  # fmt: skip
    return Federation(
        operators=tuple(
            Operator(id=f"operator-{n}", name="", country="JP" if n % 3 else "US", law="JP" if n % 2 else "US")
            for n in range(10)
        ),
        sites=sites,
        endpoints=tuple(
            Endpoint(
                id=f"endpoint-{n}", site=f"site-{n}", url="http://127.0.0.1:1/v1",
                models=(models[n % 20], models[n * 7 % 20]),
            )
            for n in range(SITES)
        ),
        tenants=tenants,
        keys=tuple(ApiKey(id=f"{n:012x}", tenant=f"tenant-{n}", sha256=f"{n:064x}") for n in range(TENANTS)),
        aliases={},
    )  # fmt: skip


def evidence(now: float) -> dict[str, SiteEvidence]:
    return {
        f"site-{n}": SiteEvidence(
            attestation=AttestationFacts(
                kind="snp", level=("affirming", "warning")[n % 2], at=now - 60 * n, until=now + 3600 + n
            ),
            location=LocationFacts(verdict=("consistent", "proven")[n % 2], at=now - n, until=now + 7200 + n),
        )
        for n in range(SITES)
    }


async def measure(folder: Path) -> dict[str, Any]:
    clock = SystemClock()
    database = Database(sqlite_url(folder / "control.sqlite"))
    migrate(database)
    source = federation()
    standing = evidence(clock.now())
    policy = CedarPolicy(default_bundle(), jurisdiction="JP")
    publisher = TablePublisher()
    maker = TableMaker(
        database=database,
        federation=FederationService(database, lambda: source),
        publisher=publisher,
        key=Ed25519PrivateKey.generate(),
        settings=lambda: CompileSettings(jurisdiction="JP", evidence_validity_s=86_400.0, policy=policy),
        evidence=lambda _now: dict(standing),
        clock=clock,
        last_good=folder / "table.bin",
    )
    wall, cpu = time.perf_counter(), time.process_time()
    made = await maker.renew()
    cold = {"cold_s": time.perf_counter() - wall, "cold_cpu_s": time.process_time() - cpu, "asked": policy.asked}
    walls, cpus, spread = [], [], []
    for change in range(CHANGES):
        site = f"site-{change * 3}"
        standing[site] = SiteEvidence(
            attestation=AttestationFacts(kind="snp", level="contraindicated", at=clock.now(), until=clock.now() + 60)
        )
        version = made.table.version
        arrived: list[float] = []

        async def waiting(after: int, into: list[float]) -> None:
            if await publisher.newer_than(after, timeout_s=10) is not None:
                into.append(time.perf_counter())

        polls = [asyncio.create_task(waiting(version, arrived)) for _ in range(GATEWAYS)]
        await asyncio.sleep(0)
        wall, cpu = time.perf_counter(), time.process_time()
        made = await maker.renew()
        walls.append((time.perf_counter() - wall) * 1000)
        cpus.append((time.process_time() - cpu) * 1000)
        await asyncio.gather(*polls)
        spread.append((max(arrived) - wall) * 1000)
    database.close()
    return {
        **{name: round(value, 3) for name, value in cold.items()},
        "table_bytes": made.size_bytes,
        "routes": len(made.table.routes),
        "profiles": len(made.table.profiles),
        "change_ms_median": round(statistics.median(walls), 1),
        "change_ms_max": round(max(walls), 1),
        "change_cpu_ms_median": round(statistics.median(cpus), 1),
        "change_cpu_ms_max": round(max(cpus), 1),
        "to_all_long_polls_ms_max": round(max(spread), 1),
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(asyncio.run(measure(Path(folder))), indent=1))


if __name__ == "__main__":
    main()
