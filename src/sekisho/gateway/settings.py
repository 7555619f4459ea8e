"""Settings of the gateway. Every value has a default that fits a machine with two cores."""

from __future__ import annotations

import msgspec


class ListenTls(msgspec.Struct, frozen=True, kw_only=True):
    """TLS towards clients. `client_ca` asks for client certificates (mutual TLS)."""

    certificate: str
    key: str
    client_ca: str | None = None


class GatewaySettings(msgspec.Struct, frozen=True, kw_only=True):
    """Durations in seconds, sizes in bytes; configuration writes them as `30s` and `16MiB`."""

    id: str = "gateway"
    listen: str = "127.0.0.1:8080"
    workers: int = 0  # 0: one a core
    backlog: int = 4096
    tls: ListenTls | None = None
    proxy_protocol: bool = False

    # what a client may send
    max_head_bytes: int = 16 << 10
    max_body_bytes: int = 32 << 20
    # all bodies that one worker holds at a time; beyond it 503 `gateway.memory`
    max_buffered_bytes: int = 512 << 20
    max_connections: int = 20_000  # a worker
    head_timeout_s: float = 10.0
    body_timeout_s: float = 60.0  # between two reads of a body
    idle_timeout_s: float = 75.0
    write_timeout_s: float = 60.0  # a client that does not read

    # towards endpoints
    connect_timeout_s: float = 2.0
    first_byte_timeout_s: float = 120.0
    read_idle_timeout_s: float = 60.0  # between two reads of an answer
    upstream_idle_timeout_s: float = 30.0  # keep-alive
    max_idle_upstream: int = 64  # connections kept, an endpoint and worker
    max_attempts: int = 3
    retry_budget: float = 0.2  # retries as a share of requests
    retry_budget_floor_per_s: float = 3.0
    hedge_after_s: float | None = None  # off
    eject_after_failures: int = 3
    eject_base_s: float = 1.0
    eject_max_s: float = 30.0
    affinity_min_bytes: int = 512  # shorter prompts go by load alone
    affinity_prefix_bytes: int = 4096
    load_bound: float = 1.25

    # admission
    queue_max: int = 1000  # waiting requests a worker
    queue_timeout_s: float = 10.0
    default_max_tokens: int = 256  # reserved when a request names no limit

    # journal
    journal_sync_s: float = 0.004
    journal_segment_bytes: int = 16 << 20

    drain_grace_s: float = 30.0
    otlp_endpoint: str | None = None  # OpenTelemetry traces are off by default


class WorkerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What the supervisor tells one gateway worker (a JSON file; secrets by path only).

    `listen_fds` are listening sockets inherited from the supervisor: they outlive a worker, so connections that
    wait in their backlog survive its death. `control_url` None: the table file alone (benchmarks, laboratories).
    """

    index: int
    workers: int
    settings: GatewaySettings
    listen_fds: tuple[int, ...]
    table_file: str  # signed table; last good copy is written back here
    control_public_key: str  # hex, Ed25519
    control_url: str | None = None
    control_token_file: str | None = None
    journal_dir: str
    limits_file: str  # shared memory of all workers of this machine
    admin_socket: str  # Unix socket; answers each connection with one WorkerSnapshot as JSON
    log_file: str | None = None


class EndpointSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    site: str
    operator: str
    country: str
    in_flight: int
    slots: int
    ewma_first_byte_ms: float
    ejected_for_s: float
    requests: int
    failures: int


class WorkerSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One worker's state. `counters` maps `name{label="value",…}` in Prometheus form to a number; `histograms` maps
    the same form to (cumulative bucket counts, sum), with the bounds in `bounds`."""

    index: int
    pid: int
    at: float
    started_at: float
    table_version: int
    table_issued_at: float
    policy: str
    connections: int
    in_flight: int
    queued: int
    draining: bool
    journal_ok: bool
    journal_error: str
    rss_bytes: int
    endpoints: tuple[EndpointSnapshot, ...]
    counters: dict[str, float]
    histograms: dict[str, tuple[tuple[int, ...], float]]
    bounds: tuple[float, ...]
