"""The settings that are read for every request, as a native value: reading one from a msgspec struct costs ten times
as much in compiled code."""

from __future__ import annotations

from sekisho.gateway.settings import GatewaySettings


class Tuning:
    """A copy of what the hot path reads of `GatewaySettings`; same names, same units."""

    __slots__ = (
        "affinity_min_bytes", "affinity_prefix_bytes", "body_timeout_s", "default_max_tokens", "first_byte_timeout_s",
        "hedge_after_s", "idle_timeout_s", "load_bound", "max_body_bytes", "max_buffered_bytes", "max_head_bytes",
        "max_idle_upstream", "read_idle_timeout_s",
    )  # fmt: skip

    def __init__(self, settings: GatewaySettings) -> None:
        self.affinity_min_bytes: int = settings.affinity_min_bytes
        self.affinity_prefix_bytes: int = settings.affinity_prefix_bytes
        self.body_timeout_s: float = settings.body_timeout_s
        self.default_max_tokens: int = settings.default_max_tokens
        self.first_byte_timeout_s: float = settings.first_byte_timeout_s
        self.hedge_after_s: float | None = settings.hedge_after_s
        self.idle_timeout_s: float = settings.idle_timeout_s
        self.load_bound: float = settings.load_bound
        self.max_body_bytes: int = settings.max_body_bytes
        self.max_buffered_bytes: int = settings.max_buffered_bytes
        self.max_head_bytes: int = settings.max_head_bytes
        self.max_idle_upstream: int = settings.max_idle_upstream
        self.read_idle_timeout_s: float = settings.read_idle_timeout_s
