"""The route table: the compiled snapshot that gateways obey, and its signed form."""

from __future__ import annotations

import hashlib
from collections.abc import Generator

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
    evidence: tuple[str, ...] = ()  # SHA-256 (hex) of the attestation and the location proof that stand for its site


class RouteSet(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="set"):
    """The only endpoints (indices) that may serve; at `valid_until` (Unix seconds) the first of them leaves.

    `untils`: when each of them leaves, in the order of `endpoints` (None: never), where that is not the same moment
    for all. A gateway that knows nothing of `untils` closes the whole set at `valid_until`.
    """

    endpoints: tuple[int, ...]
    rules: tuple[str, ...]
    valid_until: float | None = None
    untils: tuple[float | None, ...] = ()

    def at(self, now: float) -> tuple[int, ...]:
        """Those that may serve at this moment."""
        if not self.untils:
            return self.endpoints if self.valid_until is None or now < self.valid_until else ()
        pairs = zip(self.endpoints, self.untils, strict=True)
        return tuple(index for index, until in pairs if until is None or now < until)


class Closed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="closed"):
    """Nobody may serve: the rules that said no, and why."""

    rules: tuple[str, ...]
    reasons: tuple[Reason, ...]


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Tenants with the same rights share one. `routes[class label][model]` is an index into `RouteTable.routes`."""

    routes: dict[str, dict[str, int]]


class TenantEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    id: str
    floor: str
    profile: int
    salt: bytes
    limits: Limits = Limits()
    model_limits: dict[str, Limits] = {}


class KeyEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    id: str
    tenant: int
    sha256: bytes
    expires_at: float | None = None


class ShareEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Slots that a tenant may count on for one model and class: `places` are (endpoint, slots), with the index of the
    endpoint. It ends by itself at `until` (Unix seconds). What its owner has used in the last `keep_warm_s` is kept
    ready for it; all else of it is lent."""

    id: str
    tenant: int
    data_class: str
    model: str
    places: tuple[tuple[int, int], ...]
    until: float
    keep_warm_s: float = 0.0


class RouteTable(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
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
    shares: tuple[ShareEntry, ...] = ()


class _Envelope(msgspec.Struct, frozen=True, array_like=True):
    payload: bytes
    signature: bytes


class _Payload(msgspec.Struct, frozen=True, array_like=True):
    """A table in pieces that are each read in about a millisecond: `rest` is the table without tenants, keys and
    shares."""

    rest: bytes
    tenants: tuple[bytes, ...]
    keys: tuple[bytes, ...]
    shares: tuple[bytes, ...] = ()


class TableRefused(SekishoError):
    """A table that is not signed by our control plane, is damaged, or is of an unknown form."""

    code = "table.refused"


_PIECE = 500  # tenants, or twice as many keys
_encode = msgspec.msgpack.Encoder().encode
_decode_envelope = msgspec.msgpack.Decoder(_Envelope).decode
_decode_payload = msgspec.msgpack.Decoder(_Payload).decode
_decode_table = msgspec.msgpack.Decoder(RouteTable).decode
_decode_tenants = msgspec.msgpack.Decoder(tuple[TenantEntry, ...]).decode
_decode_shares = msgspec.msgpack.Decoder(tuple[ShareEntry, ...]).decode
_decode_keys = msgspec.msgpack.Decoder(tuple[KeyEntry, ...]).decode


def _signed(digest: bytes) -> bytes:
    """What the signature is over: a digest, so that checking it does not take longer the larger the table is."""
    return _CONTEXT + digest


def sign_table(table: RouteTable, key: Ed25519PrivateKey) -> bytes:
    """The bytes that travel to the gateways and lie on their disks."""
    return Signer(key).sign(table)


class Signer:
    """Signs table after table; tenants and keys that are the same objects as last time are not encoded again."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self._tenants: tuple[tuple[TenantEntry, ...], tuple[bytes, ...]] = ((), ())
        self._keys: tuple[tuple[KeyEntry, ...], tuple[bytes, ...]] = ((), ())

    def sign(self, table: RouteTable) -> bytes:
        """As `sign_table`."""
        tenants, keys = table.tenants, table.keys
        if tenants is not self._tenants[0]:
            pieces = (tenants[i : i + _PIECE] for i in range(0, len(tenants), _PIECE))
            self._tenants = (tenants, tuple(map(_encode, pieces)))
        if keys is not self._keys[0]:
            places = range(0, len(keys), 2 * _PIECE)
            self._keys = (keys, tuple(_encode(keys[i : i + 2 * _PIECE]) for i in places))
        payload = _encode(
            _Payload(
                rest=_encode(msgspec.structs.replace(table, tenants=(), keys=(), shares=())),
                tenants=self._tenants[1],
                keys=self._keys[1],
                shares=tuple(_encode(table.shares[i : i + _PIECE]) for i in range(0, len(table.shares), _PIECE)),
            )
        )
        return _encode(_Envelope(payload, self._key.sign(_signed(hashlib.sha256(payload).digest()))))


_HASHED = 256 * 1024  # bytes: about half a millisecond


def read_table(data: bytes, key: Ed25519PublicKey) -> Generator[None, None, RouteTable]:
    """Check and read a table in small steps (a gateway serves between them). Raises TableRefused."""
    hint = "look at `sekisho status`; the gateway goes on with its last good table"
    try:
        envelope = _decode_envelope(data)
        digest = hashlib.sha256()
        payload_bytes = memoryview(envelope.payload)
        for start in range(0, len(payload_bytes), _HASHED):
            yield
            digest.update(payload_bytes[start : start + _HASHED])
        key.verify(envelope.signature, _signed(digest.digest()))
        yield
        payload = _decode_payload(envelope.payload)
        rest = _decode_table(payload.rest)
        yield
        tenants: list[TenantEntry] = []
        for piece in payload.tenants:
            tenants += _decode_tenants(piece)
            yield
        keys: list[KeyEntry] = []
        for piece in payload.keys:
            keys += _decode_keys(piece)
            yield
        shares: list[ShareEntry] = []
        for piece in payload.shares:
            shares += _decode_shares(piece)
            yield
    except InvalidSignature:
        raise TableRefused("the route table is not signed by this control plane", hint=hint) from None
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise TableRefused(f"the route table can't be read: {error}", hint=hint) from None
    if rest.schema != SCHEMA:
        raise TableRefused(f"the route table has form {rest.schema}, this gateway reads {SCHEMA}", hint=hint)
    return msgspec.structs.replace(rest, tenants=tuple(tenants), keys=tuple(keys), shares=tuple(shares))


def open_table(data: bytes, key: Ed25519PublicKey) -> RouteTable:
    """The same without a pause."""
    steps = read_table(data, key)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            table: RouteTable = done.value
            return table
