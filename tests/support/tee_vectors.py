"""Real evidence, as its makers' samples have it (tests/data/attestation/SOURCES.md)."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

DATA = Path(__file__).parents[1] / "data" / "attestation"
# Inside the validity of the TDX collateral
TDX_NOW = 1_750_407_202.0
NOW = 1_790_000_000.0


def read(name: str) -> bytes:
    return (DATA / name).read_bytes()


def snp() -> tuple[bytes, bytes]:
    """A report and its VCEK."""
    return read("test-report.bin"), read("test-vcek.der")


def azure() -> tuple[bytes, bytes]:
    """The HCL report of a confidential VM, and the VCEK of its chip."""
    return read("azure-hcl-report.bin"), read("azure-hcl-vcek.der")


def tdx() -> tuple[bytes, bytes]:
    """A quote and its collateral."""
    return read("tdx_quote"), read("tdx_quote_collateral.json")


def hopper() -> tuple[bytes, tuple[bytes, ...], bytes]:
    """A report, its chain, and the nonce that was asked for."""
    entry = json.loads(read("hopper_evidence.json"))[0]
    return (
        base64.b64decode(entry["evidence"]),
        chain_of(base64.b64decode(entry["certificate"])),
        bytes.fromhex(entry["nonce"]),
    )


def hopper_sample() -> tuple[bytes, tuple[bytes, ...]]:
    return bytes.fromhex(read("hopperAttestationReport.txt").decode()), chain_of(read("hopperCertChain.txt"))


def chain_of(pem: bytes) -> tuple[bytes, ...]:
    return tuple(one.public_bytes(Encoding.DER) for one in x509.load_pem_x509_certificates(pem))
