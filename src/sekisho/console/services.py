"""What the pages and the API need of the control plane. `assembly` passes in the one that does it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import msgspec

from sekisho.capacity.throughput.service import InForce
from sekisho.console.workers import WorkerReport
from sekisho.federation.enrol import EnrolmentService
from sekisho.federation.model import Federation
from sekisho.federation.service import FederationService
from sekisho.federation.sites import SiteService
from sekisho.kernel.clock import Clock
from sekisho.ledger.pack.build import Built
from sekisho.ledger.pack.build import Request as PackRequest
from sekisho.residency.model import Policy, SiteEvidence
from sekisho.residency.policy.holding import ConfigurationHold, Waiting
from sekisho.residency.policy.service import PolicyService
from sekisho.residency.publish import TablePublisher
from sekisho.residency.table import RouteTable
from sekisho.runtime.admins import Admins
from sekisho.runtime.database import Database


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """Something that failed and still does: since when, and what to do."""

    code: str
    fact: str
    hint: str
    since: float


class TableState(msgspec.Struct, frozen=True, kw_only=True):
    """The table in force and what it was made from: a page explains this one, never a mixture of two."""

    table: RouteTable
    federation: Federation
    suspended: frozenset[str]
    policy: Policy
    evidence_validity_s: float
    size_bytes: int
    compile_s: float
    evidence: Mapping[str, SiteEvidence] = {}  # by site id


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One effective value. `source` is a line of a file, or `default`."""

    name: str
    value: str
    source: str


class JournalState(msgspec.Struct, frozen=True, kw_only=True):
    """How far the projection of the journals is. Times in Unix seconds."""

    checked_at: float | None
    fault: Fault | None
    behind: bool
    unreadable: int


class WitnessSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A witness: `size` is what it cosigned last, at `cosigned_at` (Unix s by its clock; 0: not yet), `behind` how
    many entries of the log are newer; `cosigned` and `refused` count since control started."""

    name: str
    operator: str
    size: int
    behind: int
    fault: str
    simulated: bool
    cosigned_at: int = 0
    cosigned: int = 0
    refused: int = 0


class SequencerSeen(msgspec.Struct, frozen=True, kw_only=True):
    """What the sequencer says of itself; `lag_s` is the age of the oldest entry of its last commit when that was
    published. Counts are since it started, times Unix seconds."""

    size: int
    committed_at: float | None
    lag_s: float
    added: int
    known: int
    unreadable: int
    behind: bool
    fault: str


class LedgerState(msgspec.Struct, frozen=True, kw_only=True):
    """The newest log: `size` entries, the first `counts` of them under a quorum, cosigned at `cosigned_at` (Unix s).

    `origin` is empty before the first entry; `sequencer` is None while it does not answer.
    """

    origin: str = ""
    size: int = 0
    counts: int = 0
    cosigned_at: float | None = None
    witnesses: tuple[WitnessSeen, ...] = ()
    sequencer: SequencerSeen | None = None


# Litestar checks what it injects
@runtime_checkable
class Control(Protocol):
    """The control plane, as its two faces (pages and API) see it."""

    @property
    def clock(self) -> Clock: ...
    @property
    def database(self) -> Database: ...
    @property
    def federation(self) -> FederationService: ...
    @property
    def publisher(self) -> TablePublisher: ...
    @property
    def policies(self) -> PolicyService: ...
    @property
    def admins(self) -> Admins: ...
    @property
    def sites(self) -> SiteService: ...
    @property
    def enrolment(self) -> EnrolmentService: ...
    @property
    def started_at(self) -> float: ...
    @property
    def demonstration(self) -> bool: ...

    def table(self) -> TableState | None: ...
    def faults(self) -> tuple[Fault, ...]: ...
    @property
    def configuration(self) -> ConfigurationHold: ...
    async def approve_configuration(self, digest: str, *, actor: str) -> Waiting: ...
    def journal(self) -> JournalState: ...
    def ledger(self) -> LedgerState: ...
    def settings(self) -> tuple[Setting, ...]: ...
    def standing(self) -> tuple[InForce, ...]:
        """Throughput reservations in force, with their use; blocking."""

    def make_pack(self, request: PackRequest) -> Built:
        """An evidence pack; blocking."""

    async def workers(self) -> tuple[WorkerReport, ...]: ...
    async def changed(self) -> None:
        """Something that the table is made from changed: make and publish a new one."""
