"""Reference values: what an administrator approved to run, and how old firmware may be."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated

import msgspec

from sekisho.federation.attester import EvidenceKind
from sekisho.residency.attestation.claims import Claims
from sekisho.residency.attestation.refusals import Finding, finding

Digest = Annotated[str, msgspec.Meta(pattern=r"^(?:[0-9a-f]{2}){1,64}$")]
_LABEL = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9_]{1,32}$")]


class Reference(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One approved state. `product` is a prefix of `Claims.product` ("AMD Genoa"); empty means any of the kind.

    `measurements`: name → the digests (hex) that are accepted; a name that is not here may be anything. `tcb_floor`:
    component → the lowest security version.
    """

    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$")]
    kind: EvidenceKind
    product: str = ""
    measurements: dict[_LABEL, tuple[Digest, ...]] = {}
    tcb_floor: dict[_LABEL, Annotated[int, msgspec.Meta(ge=0, le=1 << 31)]] = {}


def judge(claims: Claims, references: Iterable[Reference]) -> tuple[Finding, ...]:
    """What the approved values say against these claims: nothing, that there are none, or how they differ.

    One reference that fits entirely is enough. Where none does, the one that fits best is held against the claims.
    """
    known = [one for one in references if one.kind == claims.kind and claims.product.startswith(one.product)]
    if not known:
        return (finding("attestation.unapproved", claims.product),)
    against = min((_against(claims, one) for one in known), key=len)
    if against:
        return against
    # Firmware floors alone approve the platform, not what runs on it.
    fits = [one for one in known if not _against(claims, one)]
    if not any(one.measurements for one in fits):
        return (finding("attestation.unapproved", f"{claims.product}: {', '.join(claims.measurements)}"),)
    return ()


def _against(claims: Claims, reference: Reference) -> tuple[Finding, ...]:
    low = [
        f"{component} {claims.tcb.get(component, '–')} < {floor}"
        for component, floor in sorted(reference.tcb_floor.items())
        if claims.tcb.get(component, -1) < floor
    ]
    other = [
        name
        for name, accepted in sorted(reference.measurements.items())
        if claims.measurements.get(name) not in accepted
    ]
    found = [finding("attestation.tcb_floor", "; ".join(low))] if low else []
    if other:
        found.append(finding("attestation.measurement", f"{reference.name}: {', '.join(other)}"))
    return tuple(found)


_RESOURCE = re.compile(r"<(?:\w+:)?Resource\b([^>]*)>")
_ATTRIBUTE = re.compile(r"([\w:]+)=\"([^\"]*)\"")
MAX_RIM_BYTES = 1 << 20


def measurements_of_rim(text: str) -> dict[str, tuple[str, ...]]:
    """The active measurements of an NVIDIA RIM (a SWID tag, TCG RIM information model): index → accepted digests.

    Only these elements are read, not XML as such: no entity is expanded. The RIM's own XML signature is not
    checked; the administrator who approves the values answers for where they are from.
    """
    found: dict[str, tuple[str, ...]] = {}
    for attributes in _RESOURCE.findall(text[:MAX_RIM_BYTES]):
        values = dict(_ATTRIBUTE.findall(attributes))
        if values.get("type") != "Measurement" or values.get("active") != "True":
            continue
        digests = tuple(value.lower() for name, value in values.items() if re.fullmatch(r"\w+:Hash\d+", name))
        if values.get("index", "").isdecimal() and digests:
            found[f"{int(values['index']):02d}"] = digests
    return found
