"""Intel TDX quotes, offline: Intel TDX DCAP Quoting Library API, appendix A.3 (quote version 4 and 5).

The cryptography is `dcap-qvl`'s; the collateral (TCB info, QE identity, revocation lists) comes in as an argument,
and so does the clock against which it is judged.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

import dcap_qvl
import msgspec
from cryptography import x509

from sekisho.residency.attestation.claims import Claims
from sekisho.residency.attestation.refusals import Finding, Refused, finding, refuse

MAX_QUOTE_BYTES = 32 << 10
# Intel TDX module specification, TD attributes: the TUD group (bits 0–7) makes a TD debuggable.
_ATTRIBUTES_TUD = 0xFF

# Intel's status of a TCB level: nothing against it · advice · not to be relied on.
_FINE = frozenset({"UpToDate"})
_ADVICE = frozenset({"SWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded"})

_EXPIRED = ("expired", "in the future", "not yet valid")
_SIGNED = ("signature", "verify")


class _Answer(msgspec.Struct):
    """What we read of the verified claims (dcap-qvl 0.7, claims_version 1)."""

    claims_version: int
    earliest_expiration_date: int
    qe_iden_earliest_expiration_date: int
    tcb: _Tcb


class _Tcb(msgspec.Struct):
    status: str
    advisory_ids: tuple[str, ...] = ()
    eval_data_number: int = 0


T = TypeVar("T")


class _NativeFault(Exception):
    """The library refused, or (a panic of its Rust) broke on, bytes from outside."""


def _native(call: Callable[..., T], *arguments: Any) -> T:
    try:
        return call(*arguments)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # pyo3's PanicException is no Exception
        raise _NativeFault(str(error)) from None


_read_answer = msgspec.json.Decoder(_Answer).decode


def fmspc_of(quote: bytes) -> str | None:
    """Which collateral a quote needs: the FMSPC, twelve upper-case hex digits; None for what is no TDX quote."""
    try:
        parsed = dcap_qvl.parse_quote(quote) if len(quote) <= MAX_QUOTE_BYTES else None
        return parsed.fmspc().upper() if parsed is not None and parsed.is_tdx() else None
    except Exception:
        return None


class _Collateral(msgspec.Struct):
    """Only for its keys: a document of this form is handed to the library whole."""

    pck_crl_issuer_chain: str
    root_ca_crl: str
    pck_crl: str
    tcb_info_issuer_chain: str
    tcb_info: str
    tcb_info_signature: str
    qe_identity_issuer_chain: str
    qe_identity: str
    qe_identity_signature: str


class CollateralNames(msgspec.Struct, frozen=True, kw_only=True):
    """What a collateral document is for, and until when (Unix seconds) it may be used."""

    fmspc: str
    until: float


@functools.lru_cache(maxsize=64)
def name_collateral(document: bytes) -> CollateralNames | None:
    """Reads what a collateral document says of itself; nothing is verified. None when it is none."""
    try:
        read = msgspec.json.decode(document, type=_Collateral)
        tcb, qe = json.loads(read.tcb_info), json.loads(read.qe_identity)
        untils = [_instant(part["nextUpdate"]) for part in (tcb, qe)]
        for crl in (read.root_ca_crl, read.pck_crl):
            next_update = x509.load_der_x509_crl(bytes.fromhex(crl)).next_update_utc
            untils.append(next_update.timestamp() if next_update is not None else 0.0)
        fmspc = str(tcb["fmspc"]).upper()
        dcap_qvl.QuoteCollateralV3.from_json(document.decode())
    except Exception:
        return None
    return CollateralNames(fmspc=fmspc, until=min(untils))


def _instant(text: str) -> float:
    return msgspec.convert(text, type=datetime).timestamp()


@functools.lru_cache(maxsize=64)
def _collateral(document: bytes) -> dcap_qvl.QuoteCollateralV3 | None:
    try:
        return dcap_qvl.QuoteCollateralV3.from_json(document.decode())
    except Exception:
        return None


def verify(quote: bytes, collateral: bytes, *, now: float) -> Claims | Refused:
    """What a genuine quote says, or the first thing that is wrong with it. `collateral`: JSON as a PCCS client writes
    it (the fields of `sgx_ql_qve_collateral_t`, signatures and CRLs in hex)."""
    if len(quote) > MAX_QUOTE_BYTES:
        return refuse("attestation.truncated", "TDX quote")
    read = _collateral(collateral)
    if read is None:
        return refuse("attestation.collateral_missing", "TDX")
    try:
        parsed = _native(dcap_qvl.parse_quote, quote)
        if not parsed.is_tdx():
            return refuse("attestation.truncated", "TDX quote")
        # What the platform is worth is judged below; the library's part is to say what is true.
        policy = dcap_qvl.QuotePolicy.claims_only(int(now))
        claims = _native(dcap_qvl.QuoteVerifier().verify_with_policy, quote, read, int(now), policy)
        answer = _read_answer(claims.to_json())
    except _NativeFault as error:
        names = name_collateral(collateral)
        # A revocation list that ran out is a broken chain to the library.
        if names is not None and names.until <= now:
            return refuse("attestation.collateral_expired", "TDX")
        return _fault(str(error))
    body = parsed.report
    attributes = bytes(body.td_attributes)
    if attributes[0] & _ATTRIBUTES_TUD:
        return refuse("attestation.debug", "TDX guest", bound=bytes(body.report_data))
    findings: tuple[Finding, ...] = ()
    status = ", ".join((answer.tcb.status, *answer.tcb.advisory_ids))
    if answer.tcb.status in _ADVICE:
        findings = (finding("attestation.tcb_advice", status),)
    elif answer.tcb.status not in _FINE:
        return refuse("attestation.tcb_status", status, bound=bytes(body.report_data))
    pck = parsed.pck_extension()
    ppid = bytes(pck.ppid) if pck is not None else b""
    registers = {f"rtmr{i}": bytes(getattr(body, f"rt_mr{i}")).hex() for i in range(4)}
    return Claims(
        kind="tdx",
        hardware_id=f"tdx:{ppid.hex()}" if ppid.strip(b"\0") else "",
        product=f"Intel TDX {parsed.fmspc().upper()}",
        bound=bytes(body.report_data),
        measurements={"mrtd": bytes(body.mr_td).hex(), "mrseam": bytes(body.mr_seam).hex(), **registers},
        tcb={"tdx_module": body.tee_tcb_svn[0], "eval_data_number": answer.tcb.eval_data_number},
        until=float(min(answer.earliest_expiration_date, answer.qe_iden_earliest_expiration_date)),
        details={
            "tcb_status": answer.tcb.status,
            "td_attributes": attributes.hex(),
            "mr_config_id": bytes(body.mr_config_id).hex(),
            "collateral": hashlib.sha256(collateral).hexdigest(),
        },
        findings=findings,
    )


def _fault(text: str) -> Refused:
    lower = text.lower()
    if "revoked" in lower:
        return refuse("attestation.revoked", "PCK")
    if any(word in lower for word in _EXPIRED):
        return refuse("attestation.collateral_expired", "TDX")
    if "decode" in lower or "unsupported" in lower or "parse" in lower:
        return refuse("attestation.truncated", "TDX quote")
    if "fmspc" in lower:
        return refuse("attestation.collateral_missing", "TDX")
    if "chain" in lower or "certificate" in lower or "crl" in lower:
        return refuse("attestation.chain_broken", "PCK")
    return refuse("attestation.signature", "TDX quote")
