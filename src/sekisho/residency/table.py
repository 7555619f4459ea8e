"""The route table: the compiled snapshot that gateways obey, and its signed form."""

from __future__ import annotations

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from sekisho.federation.model import Limits, SecretRef, UpstreamTls
from sekisho.kernel.errors import SekishoError
from sekisho.residency.model import Reason

SCHEMA = 1
_CONTEXT = b"sekisho/route-table/v1\n"


class EndpointEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    id: str
    site: str
    operator: str
    country: str
    url: str
    slots: int
    api_key: SecretRef | None = None
    tls: UpstreamTls | None = None


class RouteSet(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="set"):
    """The only endpoints (indices) that may serve; closed by itself at `valid_until` (Unix seconds)."""

    endpoints: tuple[int, ...]
    rules: tuple[str, ...]
    valid_until: float | None = None


class Closed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="closed"):
    """Nobody may serve: the rules that said no, and why."""

    rules: tuple[str, ...]
    reasons: tuple[Reason, ...]


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Tenants with the same rights share one. `routes[class label][model]` is an index into `RouteTable.routes`."""

    routes: dict[str, dict[str, int]]


class TenantEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    id: str
    floor: str
    profile: int
    salt: bytes
    limits: Limits = Limits()
    model_limits: dict[str, Limits] = {}


class KeyEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    id: str
    tenant: int
    sha256: bytes
    expires_at: float | None = None


class RouteTable(msgspec.Struct, frozen=True, kw_only=True):
    """`version` grows with every table of an installation; `policy` is the hash of the rules under it."""

    schema: int
    version: int
    issued_at: float
    policy: str
    jurisdiction: str
    endpoints: tuple[EndpointEntry, ...]
    routes: tuple[RouteSet | Closed, ...]
    profiles: tuple[Profile, ...]
    tenants: tuple[TenantEntry, ...]
    keys: tuple[KeyEntry, ...]
    aliases: dict[str, str]


class _Envelope(msgspec.Struct, frozen=True, array_like=True):
    payload: bytes
    signature: bytes


class TableRefused(SekishoError):
    """A table that is not signed by our control plane, is damaged, or is of an unknown form."""

    code = "table.refused"


_encode = msgspec.msgpack.Encoder().encode
_decode_envelope = msgspec.msgpack.Decoder(_Envelope).decode
_decode_table = msgspec.msgpack.Decoder(RouteTable).decode


def sign_table(table: RouteTable, key: Ed25519PrivateKey) -> bytes:
    """The bytes that travel to the gateways and lie on their disks."""
    payload = _encode(table)
    return _encode(_Envelope(payload, key.sign(_CONTEXT + payload)))


def open_table(data: bytes, key: Ed25519PublicKey) -> RouteTable:
    """The table inside, or TableRefused."""
    hint = "look at `sekisho status`; the gateway goes on with its last good table"
    try:
        envelope = _decode_envelope(data)
        key.verify(envelope.signature, _CONTEXT + envelope.payload)
        table = _decode_table(envelope.payload)
    except InvalidSignature:
        raise TableRefused("the route table is not signed by this control plane", hint=hint) from None
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise TableRefused(f"the route table can't be read: {error}", hint=hint) from None
    if table.schema != SCHEMA:
        raise TableRefused(f"the route table has form {table.schema}, this gateway reads {SCHEMA}", hint=hint)
    return table
