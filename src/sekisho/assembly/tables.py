"""Makes route tables: when something changed, and in time before the evidence under the last one runs out."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sekisho.console.services import TableState
from sekisho.federation.model import Federation, Tenant
from sekisho.federation.service import FederationService
from sekisho.kernel.clock import Clock
from sekisho.kernel.errors import SekishoError
from sekisho.residency.compile import Compiler, next_expiry
from sekisho.residency.model import SiteEvidence
from sekisho.residency.policy.engine import CedarPolicy
from sekisho.residency.policy.source import KEEP_S, Keeper
from sekisho.residency.policy.store import prune_sources, save_version
from sekisho.residency.publish import PublishedTable, TablePublisher
from sekisho.residency.store import next_version, salts_for
from sekisho.residency.table import RouteTable, ShareEntry, Signer, TableRefused, open_table
from sekisho.runtime.database import Database

_log = logging.getLogger(__name__)
# After an expiry: late enough that the clock has passed it, well inside the second that law 5 gives.
EXPIRY_MARGIN_S = 0.05
# Before an expiry: what has come since the table was made (a heart-beat, evidence) must be at the gateways in time.
AHEAD_S = 1.0
# After a failure: soon, because guarded routes close when nothing new comes.
RETRY_S = 2.0
PRUNE_EVERY_S = 86_400.0


class CompileSettings(msgspec.Struct, frozen=True, kw_only=True):
    jurisdiction: str
    evidence_validity_s: float
    policy: CedarPolicy


# What is promised at a moment, and when (Unix seconds) that changes next.
Shared = tuple[tuple[ShareEntry, ...], float | None]


def no_shares(_table: RouteTable, _federation: Federation, _now: float) -> Shared:
    """Nobody owns a share."""
    return (), None


class TableMaker:
    """Compiles in a thread, one table at a time, and publishes on the event loop."""

    def __init__(
        self,
        *,
        database: Database,
        federation: FederationService,
        publisher: TablePublisher,
        key: Ed25519PrivateKey,
        settings: Callable[[], CompileSettings],
        evidence: Callable[[float], Mapping[str, SiteEvidence]],
        clock: Clock,
        last_good: Path,
        shares: Callable[[RouteTable, Federation, float], Shared] = no_shares,
    ) -> None:
        self._shares = shares
        self._due: float | None = None
        self._database = database
        self._federation = federation
        self._publisher = publisher
        self._key = key
        self._settings = settings
        self._evidence = evidence
        self._clock = clock
        self._last_good = last_good
        self._lock = asyncio.Lock()
        self._renewed = asyncio.Event()
        self._floor = 1
        self._compiler = Compiler()
        self._signer = Signer(key)
        self._keeper = Keeper()
        self._salts: tuple[tuple[Tenant, ...], dict[str, bytes]] = ((), {})
        self._saved_policy = ""
        self._pruned_at = clock.now()
        self.made: TableState | None = None
        self.error: SekishoError | None = None
        self.error_at: float | None = None

    async def renew(self) -> TableState:
        """A new version from what holds now. On a fault the old table stays, and the fault is kept for the pages."""
        async with self._lock:
            try:
                made, data = await asyncio.to_thread(self._make)
            except SekishoError as error:
                self.error, self.error_at = error, self._clock.now()
                _log.error("no new route table: %s", error)
                raise
            self.made, self.error, self.error_at = made, None, None
            self._publisher.publish(PublishedTable(version=made.table.version, data=data))
            self._renewed.set()
        _log.info("route table %d published (%.0f ms)", made.table.version, made.compile_s * 1000)
        return made

    async def run(self) -> None:
        """Renews for ever: at a quarter of the evidence's validity, so that three renewals may fail; before a site's
        evidence runs out under the table in force, with what is known by then; and when it has run out."""
        while True:
            self._renewed.clear()
            pause_s = RETRY_S if self.error else self._pause_s()
            with contextlib.suppress(TimeoutError):
                # A table that somebody else had made has another expiry.
                await asyncio.wait_for(self._renewed.wait(), pause_s)
                continue
            try:
                await self.renew()
            except SekishoError:
                continue  # kept and logged by `renew`; tried again after RETRY_S

    def _pause_s(self) -> float:
        usual = self._settings().evidence_validity_s / 4
        if self._due is not None:  # a share begins or ends
            usual = min(usual, max(self._due - self._clock.now(), 0.0) + EXPIRY_MARGIN_S)
        expiry = next_expiry(self.made.table) if self.made is not None else None
        if expiry is None:
            return usual
        left_s = expiry - self._clock.now()
        if left_s > AHEAD_S:
            wait_s = left_s - AHEAD_S
        elif left_s > 2 * EXPIRY_MARGIN_S:
            wait_s = left_s / 2  # looked at before: nothing newer was there yet
        else:
            wait_s = max(left_s, 0.0) + EXPIRY_MARGIN_S
        return min(usual, wait_s)

    def adopt_floor(self) -> None:
        """Goes on above the version of the last good table on disk: a database that was lost must not make the
        gateways refuse what looks old to them."""
        try:
            table = open_table(self._last_good.read_bytes(), self._key.public_key())
        except FileNotFoundError:
            return
        except (OSError, TableRefused) as error:
            _log.warning("table.bin was not used: %s", error)
            return
        self._floor = table.version + 1

    def _make(self) -> tuple[TableState, bytes]:
        started = time.perf_counter()
        now = self._clock.now()
        settings = self._settings()
        federation = self._federation.effective(now=now)
        suspended = self._federation.suspended()
        evidence = self._evidence(now)
        version, salts = self._take_version(settings, federation, evidence, suspended, now=now)
        table = self._compiler.compile(
            federation,
            settings.policy,
            version=version,
            now=now,
            jurisdiction=settings.jurisdiction,
            evidence_validity_s=settings.evidence_validity_s,
            salts=salts,
            evidence=evidence,
            suspended=suspended,
        )
        shares, self._due = self._shares(table, federation, now)
        table = msgspec.structs.replace(table, shares=shares)
        data = self._signer.sign(table)
        made = TableState(
            table=table,
            federation=federation,
            suspended=suspended,
            evidence=evidence,
            policy=settings.policy,
            evidence_validity_s=settings.evidence_validity_s,
            size_bytes=len(data),
            compile_s=time.perf_counter() - started,
        )
        if self.made is None:
            # Ten thousand tenants are 50 ms of every full collection, in the middle of a change that is waited for.
            gc.collect()
            gc.freeze()
        return made, data

    def forget_salts(self) -> None:
        """One was destroyed: the next table has what the database has now."""
        self._salts = ((), {})

    def _take_version(
        self,
        settings: CompileSettings,
        federation: Federation,
        evidence: Mapping[str, SiteEvidence],
        suspended: frozenset[str],
        *,
        now: float,
    ) -> tuple[int, dict[str, bytes]]:
        """The version of the next table, with what it is made from written down; and the salts.

        One transaction, so that no decision names a table whose sources are not there.
        """
        policy = settings.policy
        with self._database.write() as connection:
            version = next_version(connection, at_least=self._floor)
            if self._salts[0] != federation.tenants:
                salts = salts_for(connection, (tenant.id for tenant in federation.tenants))
                self._salts = (federation.tenants, salts)
            if self._saved_policy != policy.hash:
                save_version(
                    connection, policy=policy.hash, bundle=policy.bundle, jurisdiction=policy.jurisdiction, now=now
                )
                self._saved_policy = policy.hash
            self._keeper.keep(
                connection,
                version=version,
                now=now,
                policy=policy.hash,
                evidence_validity_s=settings.evidence_validity_s,
                federation=federation,
                evidence=evidence,
                suspended=suspended,
            )
            if now - self._pruned_at > PRUNE_EVERY_S:
                prune_sources(connection, before=now - KEEP_S)
                self._pruned_at = now
        return version, self._salts[1]
