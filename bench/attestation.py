"""`python -m bench.attestation`: verifications of real evidence a second, in CPU time of one core.

The same report again and again is the kindest case for the caches of certificates, so two others stand beside it: a
machine that was never seen (its own certificates are read and verified, the makers' vendored roots are known, as they
are in every process that has verified anything), and a process that has verified nothing yet. Goals, for the machine
that was never seen: 300 TDX and 500 SEV-SNP verifications a second.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from sekisho.federation.attester import EvidencePart, bundle
from sekisho.federation.simulated_tee import SimulatedTee
from sekisho.residency.attestation import chains, nvidia, snp, tdx
from sekisho.residency.attestation.appraise import Anchors, appraise
from sekisho.residency.attestation.claims import Claims
from sekisho.residency.attestation.roots import root
from support import tee_vectors as vectors

SECONDS = 2.0
GOALS = {"TDX quote": 300.0, "SEV-SNP report": 500.0}


def rate(work: Callable[[], object]) -> float:
    """Calls a second of CPU time, over at least `SECONDS`."""
    work()
    count, began = 0, time.process_time()
    while (spent := time.process_time() - began) < SECONDS:
        for _ in range(20):
            work()
        count += 20
    return count / spent


def cold_rate(work: Callable[[], object], *, roots: bool) -> float:
    """Calls a second of CPU time with no certificate known; `roots`: but for the makers' own."""
    count, spent = 0, 0.0
    while spent < SECONDS:
        chains.read_certificate.cache_clear()
        chains.issued_by.cache_clear()
        tdx._collateral.cache_clear()
        if roots:
            know_roots()
        began = time.process_time()
        work()
        spent += time.process_time() - began
        count += 1
    return count / spent


def know_roots() -> None:
    for line in snp.amd_roots().values():
        for middle in line.intermediates:
            chains.issued_by(middle, line.ark)
    chains.read_certificate(root("nvidia-device-root"))


def main() -> int:
    report, vcek = vectors.snp()
    quote, collateral = vectors.tdx()
    gpu, chain, _ = vectors.hopper()
    nonce, key = bytes(32), bytes(91)
    machine = SimulatedTee("bench").collect(nonce, key)
    anchors = Anchors(collateral={"B0C06F000000": collateral})

    def whole() -> object:
        return appraise(
            machine, site="s", nonce=nonce, public_key=key, anchors=anchors, now=vectors.NOW, validity_s=60.0
        )

    def genuine_for_another() -> object:
        evidence = bundle(EvidencePart(kind="tdx", report=quote))
        return appraise(
            evidence, site="s", nonce=nonce, public_key=key, anchors=anchors, now=vectors.TDX_NOW, validity_s=60.0
        )

    works: dict[str, Callable[[], object]] = {
        "TDX quote": lambda: tdx.verify(quote, collateral, now=vectors.TDX_NOW),
        "SEV-SNP report": lambda: snp.verify(report, (vcek,), now=vectors.NOW),
        "NVIDIA Hopper report": lambda: nvidia.verify(gpu, chain, now=vectors.NOW),
    }
    short = []
    print(f"{'verification, a second of one core':34} {'known':>10} {'never seen':>10} {'new process':>11}")
    for name, work in works.items():
        assert isinstance(work(), Claims), name
        warm, unseen, new = rate(work), cold_rate(work, roots=True), cold_rate(work, roots=False)
        print(f"{name:34} {warm:10.0f} {unseen:10.0f} {new:11.0f}")
        if unseen < GOALS.get(name, 0.0):
            short.append(name)
    print(f"{'bundle of TDX, refused by its nonce':34} {rate(genuine_for_another):10.0f}")
    print(f"{'bundle of a simulated TEE, whole':34} {rate(whole):10.0f}")
    for name in short:
        print(f"below the goal: {name}")
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
