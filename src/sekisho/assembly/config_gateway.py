"""The shape of `[gateway]` as people write it: computed from GatewaySettings, so that a setting is declared once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from sekisho.assembly.config_kinds import Duration, FilePath, Listen, Name, RawTable, Size, says
from sekisho.gateway.settings import GatewaySettings


class RawListenTls(RawTable, frozen=True, kw_only=True):
    """TLS towards clients."""

    certificate: Annotated[FilePath, says("certificate chain (PEM)")]
    key: Annotated[FilePath, says("private key (PEM)")]
    client_ca: Annotated[FilePath | None, says("ask clients for a certificate of this authority (PEM)")] = None


# What each setting of the gateway means; types and defaults are those of GatewaySettings, so that a setting is
# declared once. A test fails when one is missing here.
GATEWAY_FIELDS: dict[str, str] = {
    "id": "name of this gateway in records",
    "listen": "where clients connect",
    "workers": "processes; 0 means one a core",
    "backlog": "connections that may wait to be accepted",
    "proxy_protocol": "expect PROXY protocol v2 in front of every connection",
    "max_head": "largest request head; beyond it 431",
    "max_body": "largest request body; beyond it 413",
    "max_buffered": "all bodies that one worker holds at a time; beyond it 503",
    "max_connections": "client connections of one worker",
    "head_timeout": "time for a whole request head",
    "body_timeout": "time between two reads of a body",
    "idle_timeout": "how long a client connection may rest between requests",
    "write_timeout": "time that a client may leave an answer unread",
    "connect_timeout": "time to connect to an endpoint",
    "first_byte_timeout": "time until an endpoint's first byte",
    "read_idle_timeout": "time between two reads of an endpoint's answer",
    "upstream_idle_timeout": "how long an idle connection to an endpoint is kept",
    "max_idle_upstream": "idle connections kept, for each endpoint and worker",
    "max_attempts": "attempts of one request, the first included",
    "retry_budget": "retries as a share of requests",
    "retry_budget_floor_per_s": "retries a second that are always allowed",
    "hedge_after": "send a second attempt when no byte came by then (default: off)",
    "eject_after_failures": "failures in a row after which an endpoint rests",
    "eject_base": "its first rest; each further one is twice as long",
    "eject_max": "its longest rest",
    "affinity_min": "shorter prompts are placed by load alone",
    "affinity_prefix": "how much of a prompt decides where it goes",
    "load_bound": "load of an endpoint over the average beyond which affinity gives way",
    "queue_max": "requests that may wait in one worker",
    "queue_timeout": "how long a request may wait for its turn",
    "default_max_tokens": "tokens reserved for an answer when a request names no limit",
    "journal_sync": "decisions are durable at most this much later",
    "journal_segment": "size of one journal file",
    "drain_grace": "time that open streams have to end when the gateway stops",
    "otlp_endpoint": "OpenTelemetry collector (default: no traces)",
}

# Other than what the type says: (least, most), both allowed; seconds and bytes where the field has them.
RANGES: dict[str, tuple[float, float]] = {
    "workers": (0, 1024),
    "max_head": (1 << 10, 1 << 24),
    "retry_budget": (0, 1),
    "retry_budget_floor_per_s": (0, 1_000_000),
    "load_bound": (1, 100),
    "max_attempts": (1, 16),
    "affinity_min": (0, 1 << 30),
    # ARCHITECTURE.md promises that a decision is durable at most 5 ms after it was written
    "journal_sync": (0.0001, 0.005),
    # one decision has to fit, and offsets in a segment stay below 2^30
    "journal_segment": (64 << 10, 1 << 30),
    "drain_grace": (0, 86_400),
    "evidence_validity": (1, 366 * 86_400),
    "heartbeat_validity": (1, 86_400),
    "keep_journals": (0, 3_660 * 86_400),
}
DURATION_RANGE_S = (0.001, 30 * 86_400.0)
SIZE_RANGE_BYTES = (1, 1 << 40)


def raw_name(field: str) -> str:
    """`connect_timeout_s` → `connect_timeout`, `max_head_bytes` → `max_head`; the value then carries the unit."""
    if field.endswith("_s") and not field.endswith("_per_s"):
        return field.removesuffix("_s")
    return field.removesuffix("_bytes")


def write_duration(seconds: float) -> str:
    """120.0 → `2m`, 0.004 → `4ms`: the largest unit that gives a whole number."""
    for unit, size_s in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if seconds >= size_s and seconds % size_s == 0:
            return f"{int(seconds // size_s)}{unit}"
    return f"{seconds * 1000:.3f}".rstrip("0").rstrip(".") + "ms"


def write_size(size_bytes: int) -> str:
    """16777216 → `16MiB`: the largest unit that gives a whole number."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size_bytes >= size and size_bytes % size == 0:
            return f"{size_bytes // size}{unit}"
    return f"{size_bytes}B"


def _gateway_field(field: msgspec.structs.FieldInfo) -> tuple[str, Any, Any]:
    """Name, type and default of a setting as the file has it."""
    name = raw_name(field.name)
    description = says(GATEWAY_FIELDS.get(name, ""))
    default: Any = field.default
    kind: Any = field.type
    if field.name == "tls":
        return name, Annotated[RawListenTls | None, says("TLS towards clients (default: none)")], None
    if field.name != name:
        in_seconds = field.name.endswith("_s")
        kind = Duration if in_seconds else Size
        if default is None:
            return name, Annotated[kind | None, description], None
        return name, Annotated[kind, description], write_duration(default) if in_seconds else write_size(default)
    match name:
        case "id":
            kind = Name
        case "listen":
            kind = Listen
        case "otlp_endpoint":
            kind = (
                Annotated[str, Meta(title="a url", min_length=1, max_length=2000, examples=["http://127.0.0.1:4318"])]
                | None
            )
        case _ if kind in (int, float):
            least, most = RANGES.get(name, (1, 1_000_000_000))
            words = "a whole number" if kind is int else "a number"
            kind = Annotated[
                kind,
                Meta(
                    title=f"{words} from {least} to {most}",
                    ge=kind(least),
                    le=kind(most),
                    examples=[default],
                ),
            ]
    return name, Annotated[kind, description], default


if TYPE_CHECKING:

    class RawGateway(RawTable, frozen=True, kw_only=True):
        """Its fields are computed below."""

else:
    RawGateway = msgspec.defstruct(
        "RawGateway",
        [_gateway_field(field) for field in msgspec.structs.fields(GatewaySettings)],
        bases=(RawTable,),
        module=__name__,
        namespace={"__doc__": "The gateway, where clients connect."},
        frozen=True,
        kw_only=True,
        forbid_unknown_fields=True,
    )
