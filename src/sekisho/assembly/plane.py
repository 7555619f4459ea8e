"""The control plane: what it holds, and its work in the background."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sekisho.assembly.database import database_url
from sekisho.assembly.demonstration import Demonstration
from sekisho.assembly.erasure import erase
from sekisho.assembly.evidences import AgentEvidences
from sekisho.assembly.heads import HeadKeeper
from sekisho.assembly.home import Home, load_sealing_key
from sekisho.assembly.ledger import log_origin, log_signer
from sekisho.assembly.ledger_watch import LedgerWatch
from sekisho.assembly.locations import AgentLocations, locations
from sekisho.assembly.offices import offices
from sekisho.assembly.packs import Packs
from sekisho.assembly.reservations import Reservations
from sekisho.assembly.schema import migrate
from sekisho.assembly.tables import CompileSettings, TableMaker
from sekisho.assembly.throughput import Throughput
from sekisho.assembly.workloads import Workloads
from sekisho.capacity.throughput.service import InForce
from sekisho.console.release_api import ReleaseDesk
from sekisho.console.services import Fault, JournalState, LedgerState, Setting, TableState
from sekisho.console.workers import WorkerReport, Workers
from sekisho.federation.border_service import BorderService
from sekisho.federation.enrol import EnrolmentService
from sekisho.federation.model import Federation, SecretRef, Site
from sekisho.federation.service import FederationService
from sekisho.federation.sites import SiteService
from sekisho.kernel.clock import Clock
from sekisho.kernel.errors import SekishoError
from sekisho.ledger.issue import ReceiptService
from sekisho.ledger.pack.build import Built
from sekisho.ledger.pack.build import Request as PackRequest
from sekisho.ledger.projection import Projection
from sekisho.ledger.receipts_http import ReceiptDesk, newest_first
from sekisho.residency.evidence import EvidenceService
from sekisho.residency.policy.bundle import Bundle, default_bundle
from sekisho.residency.policy.change import Standing
from sekisho.residency.policy.holding import ConfigurationHold, Waiting, in_words
from sekisho.residency.policy.service import PolicyService
from sekisho.residency.publish import TablePublisher
from sekisho.residency.release import ReleaseService, entitled_by
from sekisho.runtime.admins import Admins
from sekisho.runtime.changes import record_change
from sekisho.runtime.database import Database

_log = logging.getLogger(__name__)
JOURNAL_EVERY_S = 0.5
JOURNAL_RETRY_S = 5.0


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration that was read and found good, with what the pages show of it."""

    federation: Federation
    # Beside those of `federation`: this machine plays them, and enrols them like real ones.
    simulated: tuple[Site, ...] = ()
    jurisdiction: str
    evidence_validity_s: float
    listen: str
    policies: Bundle = msgspec.field(default_factory=default_bundle)
    database: SecretRef | None = None
    log_origin: str | None = None
    witnesses: Path | None = None
    heartbeat_validity_s: float = 60.0
    settings: tuple[Setting, ...] = ()
    warnings: tuple[str, ...] = ()


class ControlPlane:
    """One for each home directory. `load` reads the configuration anew, or raises."""

    def __init__(self, home: Home, *, load: Callable[[], Loaded], clock: Clock) -> None:
        self.clock = clock
        self.started_at = clock.now()
        self._load = load
        self._wanted = self._loaded = load()
        self.home = home
        self.admin_token = home.admin_token.read_text().strip()
        self.gateway_token = home.gateway_token.read_text().strip()
        self.database = Database(database_url(home, self._loaded.database))
        migrate(self.database)
        self.configuration = ConfigurationHold(self.database)
        self._loaded = self._in_force(self._loaded)
        self.publisher = TablePublisher()
        self.evidence = EvidenceService(
            self.database,
            key=_signing_key(home.control_key),
            known=lambda site: self.federation.has_site(site),  # noqa: PLW0108 - it is made below
            since=lambda: self.sites.since(),  # noqa: PLW0108 - so are they
        )
        self.workloads = Workloads(
            self.database,
            federation=lambda: self.federation.effective(now=clock.now()),  # it is made below
            changed=self.changed,
            clock=clock,
        )
        self.offices = offices(
            home,
            self.database,
            key=_signing_key(home.control_key),
            configured=lambda: self._loaded.federation,
            placed=lambda: frozenset(site.id for site in self._loaded.simulated),
            validity_s=lambda: self._loaded.heartbeat_validity_s,
            table=lambda: self._maker.made,
            changed=self.changed,
            workloads=self.workloads.service,
            clock=clock,
            evidence=AgentEvidences(self.evidence),
            locations=self._make_locations,
        )
        self.federation = FederationService(
            self.database,
            lambda: self._loaded.federation,
            sites=self.offices.admin.sites,
            windows=self.workloads.endpoints,
        )
        self._demonstration = Demonstration(
            home,
            enrolment=self.enrolment,
            sites=self.sites,
            control_key=_signing_key(home.control_key).public_key().public_bytes_raw().hex(),
        )
        self._demonstration.follow(self._loaded.simulated, now=clock.now())
        self.release_desk = ReleaseDesk(
            sites=self.offices.admin.sites,
            release=ReleaseService(
                self.database, self.evidence, sealing_key=load_sealing_key(home), entitled=self._entitled
            ),
            key=_signing_key(home.control_key),
            clock=clock,
        )
        self.admins = Admins(self.database)
        self.policies = PolicyService(
            self.database,
            standing=self._standing,
            jurisdiction=lambda: self._loaded.jurisdiction,
            created_at=self._created_at,
        )
        self._policy_fault: Fault | None = None
        self._adopt_policies()
        self._workers = Workers(home.run)
        self.throughput = Throughput(
            self.database,
            federation=lambda: self.federation.effective(now=clock.now()),
            table=lambda: self._maker.made,
            clock=clock,
        )
        self._maker = TableMaker(
            database=self.database,
            federation=self.federation,
            publisher=self.publisher,
            key=_signing_key(home.control_key),
            settings=self._compile_settings,
            evidence=self.evidence.standing,
            clock=clock,
            last_good=home.table,
            shares=self.throughput.shares,
        )
        self.heads = HeadKeeper(
            home,
            origin=log_origin(home, self._loaded.log_origin),
            witnesses=self._loaded.witnesses,
            clock=clock,
        )
        self._ledger = LedgerWatch(home, self.heads, clock=clock)
        self.receipts = ReceiptDesk(
            ReceiptService(newest_first(home.ledger), self.heads.policy),
            base=home.ledger,
            clock=clock,
            gateway_token=self.gateway_token,
            admin_token=self.admin_token,
        )
        self._packs = Packs(
            logs=home.ledger,
            database=self.database,
            policy=self.heads.policy,
            signer=lambda origin: log_signer(home, origin),
            jurisdiction=lambda: self._loaded.jurisdiction,
            clock=clock,
        )
        self.reservations = Reservations(
            self.database,
            federation=lambda: self.federation.effective(now=clock.now()),
            table=lambda: self._maker.made,
            clock=clock,
        )
        self.borders = BorderService(self.database)
        self._projection = Projection(self.database, home.root / "journal")
        self._journal = JournalState(checked_at=None, fault=None, behind=False, unreadable=0)
        self._config_fault: Fault | None = None

    def _make_locations(self, sites: SiteService) -> AgentLocations:
        self.locations = locations(
            self.home,
            self.database,
            self.evidence,
            federation=lambda: self.federation.effective(now=self.clock.now()),
            sites=sites.answering,
        )
        return self.locations

    # -- what pages and API ask (`console.services.Control`)

    @property
    def demonstration(self) -> bool:
        loaded = self._loaded
        return bool(loaded.simulated) or any(site.simulated for site in loaded.federation.sites)

    @property
    def sites(self) -> SiteService:
        return self.offices.admin.sites

    @property
    def enrolment(self) -> EnrolmentService:
        return self.offices.admin.enrolment

    def table(self) -> TableState | None:
        return self._maker.made

    def faults(self) -> tuple[Fault, ...]:
        faults = []
        if self._config_fault is not None:
            faults.append(self._config_fault)
        if self._policy_fault is not None:
            faults.append(self._policy_fault)
        if (waiting := self.configuration.waiting) is not None:
            faults.append(
                Fault(
                    code="config.waits",
                    fact=in_words(waiting),
                    hint="look at it with `sekisho config waiting`; an administrator runs `sekisho config approve`",
                    since=waiting.since,
                )
            )
        if self._maker.error is not None:
            faults.append(_fault(self._maker.error, since=self._maker.error_at or self.clock.now()))
        if self._journal.fault is not None:
            faults.append(self._journal.fault)
        return (*faults, *self._ledger.faults())

    def journal(self) -> JournalState:
        return self._journal

    def ledger(self) -> LedgerState:
        return self._ledger.state()

    def settings(self) -> tuple[Setting, ...]:
        return self._loaded.settings

    def standing(self) -> tuple[InForce, ...]:
        return tuple(self.throughput.service.standing())

    def warnings(self) -> tuple[str, ...]:
        return self._loaded.warnings

    @property
    def listen(self) -> str:
        return self._loaded.listen

    async def database_ready(self) -> None:
        """Returns when the database answers; DatabaseUnavailable otherwise."""
        await asyncio.to_thread(self.database.ready)

    def make_pack(self, request: PackRequest) -> Built:
        return self._packs.make(request)

    async def workers(self) -> tuple[WorkerReport, ...]:
        return await self._workers.reports()

    async def erase_salt(self, tenant: str, actor: str) -> None:
        """Destroys a tenant's salt, here and (by a new table) at the gateways. UnknownName when there is none."""
        await asyncio.to_thread(erase, self.database, tenant, now=self.clock.now(), actor=actor)
        self._maker.forget_salts()
        await self._maker.renew()

    async def changed(self) -> None:
        await self._maker.renew()

    # -- life

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The first table is there before the first request is taken; the rest goes on until the end."""
        self._maker.adopt_floor()
        # A fault here is kept and tried again: the pages must say it, so the process stays up.
        with contextlib.suppress(SekishoError):
            await self._maker.renew()
        tasks = [
            self._start(self._maker.run),
            self._start(self._follow_journals),
            self._start(self.heads.run),
            self._start(self._ledger.run),
            self._start(self.reservations.run),
            self._start(self.workloads.run),
            self._start(self.throughput.run),
        ]
        try:
            yield
        finally:
            self.publisher.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.receipts.close()
            self.reservations.close()
            self.database.close()

    def _start(self, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        async def forever() -> None:
            while True:
                try:
                    await work()
                except Exception:
                    # A bug must not end background work for good and in silence: say it, and go on.
                    _log.exception("%s failed", work.__name__)
                    await asyncio.sleep(JOURNAL_RETRY_S)

        return asyncio.create_task(forever())

    async def reload(self) -> bool:
        """Reads the configuration again. A broken one changes nothing, and the pages say so."""
        try:
            loaded = await asyncio.to_thread(self._load)
        except SekishoError as error:
            self._config_fault = _fault(error, since=self.clock.now())
            _log.error("the configuration was not taken over, the old one stays: %s", error)
            await self._record("config.refused", {"code": error.code, "fact": error.fact})
            return False
        self._wanted, self._config_fault = loaded, None
        self._loaded = await asyncio.to_thread(self._in_force, loaded)
        await asyncio.to_thread(self._demonstration.follow, loaded.simulated, now=self.clock.now())
        await asyncio.to_thread(self._adopt_policies)
        await self._record("config.reloaded", {})
        with contextlib.suppress(SekishoError):  # kept by the maker for the pages
            await self._maker.renew()
        return True

    async def _record(self, action: str, detail: dict[str, str]) -> None:
        def write() -> None:
            with self.database.write() as connection:
                record_change(
                    connection,
                    now=self.clock.now(),
                    actor="signal",
                    action=action,
                    subject="config",
                    detail=detail,
                )

        with contextlib.suppress(SekishoError):  # a locked database must not keep a good configuration out
            await asyncio.to_thread(write)

    async def _follow_journals(self) -> None:
        unreadable = 0
        while True:
            now = self.clock.now()
            try:
                step = await asyncio.to_thread(self._projection.step, now=now)
            except (OSError, SekishoError) as error:
                fault = self._journal.fault or _journal_fault(error, since=now)
                self._journal = msgspec.structs.replace(self._journal, fault=fault)
                _log.error("the journals were not read: %s", error)
                await asyncio.sleep(JOURNAL_RETRY_S)
                continue
            unreadable += step.unreadable
            self._journal = JournalState(checked_at=now, fault=None, behind=step.behind, unreadable=unreadable)
            # Behind: give the gateways' cores a breath between batches, but no more than that.
            await asyncio.sleep(0.02 if step.behind else JOURNAL_EVERY_S)

    def _compile_settings(self) -> CompileSettings:
        loaded = self._loaded
        return CompileSettings(
            jurisdiction=loaded.jurisdiction,
            evidence_validity_s=loaded.evidence_validity_s,
            policy=self.policies.current(),
        )

    def _in_force(self, wanted: Loaded) -> Loaded:
        """What holds of a configuration that was read: what would let guarded work reach more waits."""
        whole = msgspec.structs.replace(wanted.federation, sites=(*wanted.federation.sites, *wanted.simulated))
        taken = self.configuration.take(whole, wanted.jurisdiction, now=self.clock.now())
        simulated = {site.id for site in wanted.simulated}
        return msgspec.structs.replace(
            wanted,
            federation=msgspec.structs.replace(
                taken.federation, sites=tuple(site for site in taken.federation.sites if site.id not in simulated)
            ),
            simulated=tuple(site for site in taken.federation.sites if site.id in simulated),
            jurisdiction=taken.jurisdiction,
        )

    async def approve_configuration(self, digest: str, *, actor: str) -> Waiting:
        """Puts what waits in force. Raises HoldRefused when something else waits."""
        found = await asyncio.to_thread(self.configuration.approve, digest, actor=actor, now=self.clock.now())
        self._loaded = await asyncio.to_thread(self._in_force, self._wanted)
        await asyncio.to_thread(self._demonstration.follow, self._loaded.simulated, now=self.clock.now())
        await self.changed()
        return found

    # -- policies

    def _adopt_policies(self) -> None:
        """The configuration's policy files, when they changed. What waits for a second person is a fault to show."""
        now = self.clock.now()
        self._policy_fault = None
        try:
            proposal = self.policies.adopt(self._loaded.policies, now=now)
        except SekishoError as error:
            self._policy_fault = _fault(error, since=now)
            _log.error("the policy files were not taken over: %s", error)
            return
        if proposal is not None and proposal.state == "waiting":
            _log.warning("the policy files wait as proposal %d for a second person", proposal.id)

    def _standing(self) -> Standing:
        loaded = self._loaded
        return Standing(
            federation=self.federation.effective(now=self.clock.now()),
            jurisdiction=loaded.jurisdiction,
            evidence_validity_s=loaded.evidence_validity_s,
            evidence=self.evidence.standing(self.clock.now()),
            suspended=self.federation.suspended(),
        )

    def _entitled(self, tenant: str, site: str) -> bool:
        made = self._maker.made
        return made is not None and entitled_by(made.table, tenant, site, now=self.clock.now())

    def _created_at(self, name: str) -> float | None:
        found = self.admins.find(name)
        return None if found is None else found.created_at


def _signing_key(path: Path) -> Ed25519PrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise TypeError(f"{path} is not an Ed25519 key")  # `home.ensure_secrets` has checked it just before
    return key


def _fault(error: SekishoError, *, since: float) -> Fault:
    return Fault(code=error.code, fact=error.fact, hint=error.hint, since=since)


def _journal_fault(error: OSError | SekishoError, *, since: float) -> Fault:
    if isinstance(error, SekishoError):
        return _fault(error, since=since)
    return Fault(
        code="journal.unreadable",
        fact=f"the journals can't be read: {error.strerror or error}",
        hint="look at the owner and the disk of the journal directory; the gateways go on writing",
        since=since,
    )
