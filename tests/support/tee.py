"""Makers of our own: fake roots, chips and GPUs that sign whatever a test wants to see refused or accepted.

They are fakes: nothing that they sign verifies under a vendored root.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import json
import struct
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from sekisho.federation.attester import EvidencePart, bundle, gpu_nonce, report_data
from sekisho.residency.attestation import snp
from sekisho.residency.attestation.appraise import Anchors

_SINCE = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
_UNTIL = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
_PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=48)
_SPL = "1.3.6.1.4.1.3704.1.3."


def _certificate(
    name: str,
    key: Any,
    issuer: str,
    issuer_key: Any,
    *,
    ca: bool,
    extensions: dict[str, bytes] | None = None,
    serial: int | None = None,
) -> bytes:
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(_SINCE)
        .not_valid_after(_UNTIL)
    )
    if ca:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    for oid, value in (extensions or {}).items():
        builder = builder.add_extension(x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value), critical=False)
    pss = {"rsa_padding": _PSS} if isinstance(issuer_key, rsa.RSAPrivateKey) else {}
    return builder.sign(issuer_key, hashes.SHA384(), **pss).public_bytes(Encoding.DER)


def _p384(key: ec.EllipticCurvePrivateKey, data: bytes) -> tuple[int, int]:
    return decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA384())))


class FakeAmd:
    """One product line with a root, an intermediate and one chip."""

    def __init__(self, line: str, *, signer: str = "VCEK") -> None:
        self.line, self.signer = line, signer
        ark, middle = _rsa_keys()
        self._key = ec.generate_private_key(ec.SECP384R1())
        self.chip_id = hashlib.sha512(b"chip" + line.encode()).digest()
        if line == "Turin":
            self.chip_id = self.chip_id[:8].ljust(64, b"\0")
        middle_name = f"SEV-{line}" if signer == "VCEK" else f"SEV-VLEK-{line}"
        self.ark = _certificate(f"ARK-{line}", ark, f"ARK-{line}", ark, ca=True)
        self.ask = _certificate(middle_name, middle, f"ARK-{line}", ark, ca=True)
        self._middle, self._middle_name = middle, middle_name
        self.tcb = {"fmc": 1, "bootloader": 9, "tee": 1, "snp": 23, "microcode": 72}

    @property
    def roots(self) -> dict[str, snp.Roots]:
        return {self.line: snp.Roots(ark=self.ark, intermediates=(self.ask,))}

    def leaf(self, **spl: int) -> bytes:
        """The chip's certificate; `spl` overrides versions that it was issued for."""
        numbers = {"bootloader": "1", "tee": "2", "snp": "3", "microcode": "8", "fmc": "9"}
        product = f"{self.line}-B1".encode()
        extensions = {
            "1.3.6.1.4.1.3704.1.2": b"\x16" + bytes([len(product)]) + product,
            **{_SPL + number: bytes([2, 1, {**self.tcb, **spl}[name]]) for name, number in numbers.items()},
        }
        if self.signer == "VCEK":
            extensions["1.3.6.1.4.1.3704.1.4"] = self.chip_id[: 8 if self.line == "Turin" else 64]
        else:
            extensions["1.3.6.1.4.1.3704.1.5"] = b"\x16\x05cloud"
        return _certificate(
            f"SEV-{self.signer}", self._key, self._middle_name, self._middle, ca=False, extensions=extensions
        )

    def report(self, bound: bytes, *, policy: int = 0x30000, vmpl: int = 0, version: int = 3) -> bytes:
        data = bytearray(snp.REPORT_BYTES)
        struct.pack_into("<IIQ", data, 0, version, 1, policy)
        struct.pack_into("<II", data, 0x30, vmpl, 1)
        struct.pack_into("<I", data, 0x48, 0 if self.signer == "VCEK" else 1 << 2)
        data[0x50:0x90] = bound
        data[0x90:0xC0] = MEASUREMENT
        places = (
            {"fmc": 0, "bootloader": 1, "tee": 2, "snp": 3, "microcode": 7}
            if self.line == "Turin"
            else {"bootloader": 0, "tee": 1, "snp": 6, "microcode": 7}
        )
        for name, at in places.items():
            data[0x180 + at] = self.tcb[name]
        data[0x1A0:0x1E0] = self.chip_id
        r, s = _p384(self._key, bytes(data[:0x2A0]))
        data[0x2A0 : 0x2A0 + 72] = r.to_bytes(72, "little")
        data[0x2E8 : 0x2E8 + 72] = s.to_bytes(72, "little")
        return bytes(data)

    def hcl(self, user_data: bytes, *, honest: bool = True, **report: Any) -> bytes:
        """An HCL report as Azure's paravisor would write it."""
        claims = json.dumps(
            {
                "keys": [{"kid": "HCLAkPub", "key_ops": ["sign"], "kty": "RSA", "e": "AQAB", "n": "AQAB"}],
                "vm-configuration": {"secure-boot": True},
                "user-data": user_data.hex().upper(),
            }
        ).encode()
        said = claims if honest else claims + b" "
        data = struct.pack("<5I", len(claims) + 20, 1, 2, 1, len(claims)) + claims
        head = b"HCLA" + struct.pack("<4I", 2, 0, 2, 0) + bytes(12)
        return head + self.report(hashlib.sha256(said).digest().ljust(64, b"\0"), **report) + data

    def evidence(self, nonce: bytes, public_key: bytes, **report: Any) -> bytes:
        return bundle(self.part(nonce, public_key, **report))

    def part(self, nonce: bytes, public_key: bytes, **report: Any) -> EvidencePart:
        return EvidencePart(
            kind="snp",
            report=self.report(report_data(nonce, public_key), **report),
            certificates=(self.leaf(), self.ask),
        )


class FakeGpu:
    """A GPU with a root of its own."""

    def __init__(self, *, serial: int = 0x5EC1540) -> None:
        self._root_key = ec.generate_private_key(ec.SECP384R1())
        self._key = ec.generate_private_key(ec.SECP384R1())
        self.root = _certificate("Fake Device CA", self._root_key, "Fake Device CA", self._root_key, ca=True)
        self.leaf = _certificate("GH100 fake", self._key, "Fake Device CA", self._root_key, ca=False, serial=serial)

    def report(self, nonce: bytes, measurements: tuple[bytes, ...] = (bytes(48), b"\x01" * 48)) -> bytes:
        blocks = b"".join(
            struct.pack("<BBHBH", index, 1, 51, 0, 48) + digest for index, digest in enumerate(measurements, 1)
        )
        opaque = struct.pack("<HH", 3, 4) + b"590\0"
        signed = (
            b"\x11\xe0\x01\xff"
            + nonce
            + b"\0\x11\x60\0\0"
            + bytes([len(measurements)])
            + len(blocks).to_bytes(3, "little")
            + blocks
            + bytes(32)
            + struct.pack("<H", len(opaque))
            + opaque
        )
        r, s = _p384(self._key, signed)
        return signed + r.to_bytes(48, "big") + s.to_bytes(48, "big")

    def part(self, nonce: bytes, public_key: bytes) -> EvidencePart:
        return EvidencePart(
            kind="nvidia-hopper",
            report=self.report(gpu_nonce(nonce, public_key)),
            certificates=(self.leaf, self.root),
        )


MEASUREMENT = hashlib.sha384(b"an image").digest()


@functools.cache
def _rsa_keys() -> tuple[rsa.RSAPrivateKey, rsa.RSAPrivateKey]:
    return tuple(rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))  # type: ignore[return-value]


@functools.cache
def genoa() -> FakeAmd:
    return FakeAmd("Genoa")


@functools.cache
def gpu() -> FakeGpu:
    return FakeGpu()


def makers() -> Anchors:
    """Anchors that take these fakes for the makers."""
    return Anchors(amd_roots=genoa().roots, nvidia_root=gpu().root)
