"""What a site's agent says and is told: one form for both sides of /agent/v1."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from sekisho.federation.landmark import Landmark, SignedMeasurement
from sekisho.kernel.ids import MODEL, NAME

_NAME = Annotated[str, Meta(pattern=f"^{NAME.pattern}$")]
_MODEL = Annotated[str, Meta(pattern=f"^{MODEL.pattern}$")]
_SHORT = Annotated[str, Meta(max_length=200)]
_COUNT = Annotated[int, Meta(ge=0, le=1 << 40)]


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU as NVML sees it now."""

    uuid: _SHORT
    name: _SHORT
    memory_mib: _COUNT = 0
    memory_used_mib: _COUNT = 0
    utilisation_percent: Annotated[int, Meta(ge=0, le=100)] = 0


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """The GPUs of a site. `simulated`: nothing was counted, and `note` says why."""

    simulated: bool
    note: _SHORT = ""
    driver: _SHORT = ""
    gpus: Annotated[tuple[Gpu, ...], Meta(max_length=256)] = ()


class EndpointReport(msgspec.Struct, frozen=True, kw_only=True):
    """A model server behind the agent. `url` is where gateways reach the agent for it. `answers`: the server itself
    answered when it was last asked."""

    id: _NAME
    url: Annotated[str, Meta(max_length=2000)]
    models: Annotated[tuple[_MODEL, ...], Meta(min_length=1, max_length=200)]
    slots: Annotated[int, Meta(ge=1, le=100_000)] = 8
    connections: _COUNT = 0
    answers: bool = True


# host:port, the host a name, an IPv4 address or an IPv6 address in brackets; no port of the system's services.
_ADDRESS = Annotated[
    str,
    Meta(
        pattern=r"^(([A-Za-z0-9.-]{1,253}|\[[0-9a-fA-F:.]{2,45}\]):"
        r"(102[4-9]|10[3-9][0-9]|1[1-9][0-9]{2}|[2-9][0-9]{3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}"
        r"|655[0-2][0-9]|6553[0-5]))?$"
    ),
]


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """`location`: where the agent answers location challenges (`host:port`, above 1023); empty: nowhere."""

    version: _SHORT = ""
    endpoints: Annotated[tuple[EndpointReport, ...], Meta(max_length=64)] = ()
    inventory: Inventory = Inventory(simulated=True, note="not counted")
    location: _ADDRESS = ""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A site that a landmark shall measure now. `spki`: the key that must answer (DER SubjectPublicKeyInfo)."""

    site: str
    address: str
    spki: bytes


class HeartbeatAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`gateways`: certificates (PEM) that the agent lets in, and no others. `validity_s`: how long after this
    heart-beat guarded routes to the site stay open; the next one is due after `every_s`. `attest`: evidence is
    wanted. `landmark`: the site counts as this landmark, and shall `measure` these others now."""

    site: str
    suspended: bool
    gateways: tuple[str, ...]
    every_s: float
    validity_s: float
    attest: bool = False
    landmark: Landmark | None = None
    measure: tuple[Target, ...] = ()


class Measurements(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What landmarks signed (`body` and `signature` in base64); nobody else's word is needed for it."""

    measurements: Annotated[tuple[SignedMeasurement, ...], Meta(min_length=1, max_length=64)]


class MeasurementsTaken(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict about each site that was measured."""

    verdicts: dict[str, str]


class Challenged(msgspec.Struct, frozen=True, kw_only=True):
    """What evidence has to bind; times in Unix seconds."""

    nonce: bytes
    expires_at: float


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What became of evidence: `level` as RFC 9334 results have it, or `code` of the refusal with its words."""

    accepted: bool
    level: str = ""
    code: str = ""
    fact: str = ""


class HandIn(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent hands in. `declaration`: the file of `sekisho site declare`, as it is."""

    token: Annotated[str, Meta(max_length=200)]
    spki: Annotated[str, Meta(max_length=400)]
    proof: bytes
    declaration: msgspec.Raw


class HandedIn(msgspec.Struct, frozen=True, kw_only=True):
    site: str
    enrolment: str
    pin: str
    state: str


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    spki: Annotated[str, Meta(max_length=400)]
    proof: bytes


class KeyChanged(msgspec.Struct, frozen=True, kw_only=True):
    site: str
    pin: str


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    nonce: bytes
    evidence: bytes
