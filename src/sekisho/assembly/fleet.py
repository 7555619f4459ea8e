"""The values that the supervisor works with, writes and tells: what to run, what runs, what happened."""

from __future__ import annotations

import enum
from typing import Protocol

import msgspec

from sekisho.assembly.processes import ChildSpec, ProcessRow
from sekisho.assembly.ready import Probe


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """A process to run, and the question that tells whether it answers."""

    spec: ChildSpec
    probe: Probe


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that `sekisho up` runs. `site_ids` are in the order of `sites`; `gateway_probe` asks the gateway
    from outside, as a client would."""

    control: Planned
    workers: tuple[Planned, ...]
    sites: tuple[Planned, ...]
    site_ids: tuple[str, ...]
    # What works on the workers' records: it ends after them.
    services: tuple[Planned, ...] = ()
    gateway_probe: Probe
    gateway_url: str
    console_url: str
    admin_token: str
    api_keys: dict[str, str]
    models: tuple[str, ...]
    drain_grace_s: float


class Pids(msgspec.Struct, frozen=True, kw_only=True):
    """Processes that live now; None or left out while one waits for its restart."""

    supervisor: int
    control: int | None
    workers: tuple[int, ...]
    sites: dict[str, int]


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """`run/ready.json` and `--ready-file`. Holds secrets (mode 0600). `models` are those that the endpoints serve, as
    of the start; what a key may use, says GET /v1/models."""

    gateway_url: str
    console_url: str
    admin_token: str
    api_keys: dict[str, str]
    models: tuple[str, ...]
    pids: Pids


class Phase(enum.Enum):
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


class ReloadResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of the last reload. `at` in Unix seconds; `detail` says what is wrong, or what needs a restart."""

    at: float
    ok: bool
    detail: str


class SupervisorTable(msgspec.Struct, frozen=True, kw_only=True):
    """What `run/supervisor.sock` answers each connection with (JSON, then end of file)."""

    pid: int
    phase: Phase
    started_at: float
    home: str
    config: str | None
    gateway_url: str
    console_url: str
    drain_grace_s: float
    processes: tuple[ProcessRow, ...]
    last_reload: ReloadResult | None = None


class Planning(msgspec.Struct, frozen=True, kw_only=True):
    """The start begins."""

    processes: int


class Warned(msgspec.Struct, frozen=True, kw_only=True):
    """Something in the configuration that its author should know."""

    text: str


class ProcessChanged(msgspec.Struct, frozen=True, kw_only=True):
    row: ProcessRow


class BecameReady(msgspec.Struct, frozen=True, kw_only=True):
    ready: Ready
    after_s: float
    demonstration: bool


class DrainStarted(msgspec.Struct, frozen=True, kw_only=True):
    grace_s: float


class DrainEnded(msgspec.Struct, frozen=True, kw_only=True):
    """`cut` names the workers that had to be killed with work in their hands."""

    cut: tuple[str, ...]


class Reloaded(msgspec.Struct, frozen=True, kw_only=True):
    result: ReloadResult


Event = Planning | Warned | ProcessChanged | BecameReady | DrainStarted | DrainEnded | Reloaded


class Reporter(Protocol):
    """Is told what happens, and shows it to somebody."""

    def tell(self, event: Event) -> None: ...
