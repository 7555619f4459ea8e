"""Makes evidence packs from what this control plane holds: logs, receipts, sources of tables, policies."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from sekisho.kernel.clock import Clock
from sekisho.ledger.issue import NotYet, NotYours, ReceiptService
from sekisho.ledger.pack.archive import Signer
from sekisho.ledger.pack.build import Built, Request, build_pack
from sekisho.ledger.pack.model import PackRefused
from sekisho.ledger.receipts_http import newest_first
from sekisho.ledger.tlog.index import LogIndex
from sekisho.ledger.tlog.log import LogReader
from sekisho.ledger.tlog.policy import TrustPolicy
from sekisho.residency.policy.offline import OfflineReplay, inputs_of, policy_of
from sekisho.residency.policy.source import SourceMissing, find_source
from sekisho.residency.policy.store import find_version
from sekisho.runtime.database import Database


class _Kept:
    """`ledger.pack.model.Archive` over the database, for one tenant."""

    def __init__(self, database: Database, tenant: str) -> None:
        self._database = database
        self._tenant = tenant

    def inputs(self, table: int) -> bytes | None:
        try:
            with self._database.read() as connection:
                return inputs_of(find_source(connection, table), self._tenant)
        except SourceMissing:
            return None

    def policy(self, hash: str) -> bytes | None:
        with self._database.read() as connection:
            found = find_version(connection, hash)
        return None if found is None else policy_of(*found)


class Packs:
    """One pack at a time takes a thread; each reads the logs by itself."""

    def __init__(
        self,
        *,
        logs: Path,
        database: Database,
        policy: Callable[[str], TrustPolicy],
        signer: Callable[[str], Signer],
        jurisdiction: Callable[[], str],
        clock: Clock,
    ) -> None:
        self._logs = logs
        self._database = database
        self._policy = policy
        self._signer = signer
        self._jurisdiction = jurisdiction
        self._clock = clock

    def make(self, request: Request) -> Built:
        """Blocking. PackRefused or LogFault when it can't be made."""
        now_ms = int(self._clock.now() * 1000)
        roots = list(reversed(newest_first(self._logs)()))
        if not roots:
            raise PackRefused("there is no log yet", code="pack.empty", hint="is the sequencer running?")
        service = ReceiptService(lambda: roots, self._policy)
        with contextlib.ExitStack() as stack:
            stack.callback(service.close)
            logs = []
            for root in roots:
                index = LogIndex(root)
                stack.callback(index.close)
                logs.append((LogReader(root), index))

            origins = [reader.checkpoint().origin for reader, _ in logs]

            def receipt(entry_id: str) -> bytes | None:
                match service.receipt(entry_id, None, now_ms=now_ms):
                    case NotYet() | NotYours():
                        return None
                    case made:
                        return made

            return build_pack(
                request,
                logs=logs,
                receipt=receipt,
                archive=_Kept(self._database, request.tenant),
                replay=OfflineReplay(),
                policy=self._policy_over(origins),
                signer=self._signer(origins[-1]),
                jurisdiction=self._jurisdiction(),
                now_ms=now_ms,
            )

    def _policy_over(self, origins: Sequence[str]) -> TrustPolicy:
        """The policy of the newest log, which knows the keys of the older ones too."""
        policies = [self._policy(origin) for origin in origins]
        known = {log.key: log for policy in policies for log in policy.logs}
        return msgspec.structs.replace(policies[-1], logs=tuple(known.values()))
