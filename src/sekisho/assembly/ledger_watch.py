"""What the pages say of the ledger: the sequencer's own word, the head that counts, and what is wrong with either."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from sekisho.assembly.heads import HeadKeeper
from sekisho.assembly.home import Home
from sekisho.assembly.sequencer_status import SequencerStatus
from sekisho.console.services import Fault, LedgerState, SequencerSeen, WitnessSeen
from sekisho.kernel.clock import Clock
from sekisho.kernel.errors import SekishoError
from sekisho.ledger.heads import read_head
from sekisho.ledger.tlog.keys import open_note
from sekisho.ledger.tlog.log import LogFault, LogReader
from sekisho.ledger.tlog.years import newest

EVERY_S = 1.0
ANSWER_WITHIN_S = 2.0
# A restart takes less; longer than this, and decisions wait for their receipts.
SILENT_S = 10.0


class LedgerWatch:
    """One for each control plane. Belongs to its event loop."""

    def __init__(self, home: Home, heads: HeadKeeper, *, clock: Clock) -> None:
        self._home = home
        self._heads = heads
        self._clock = clock
        self._since: dict[str, float] = {}
        self._heard_at: float | None = None
        self._faults: tuple[Fault, ...] = ()
        self._seen = LedgerState()
        self._sequencer: SequencerSeen | None = None

    def state(self) -> LedgerState:
        witnesses = tuple(
            WitnessSeen(
                name=each.name,
                operator=each.operator,
                size=each.record.size,
                behind=each.behind,
                fault=each.record.fault,
                simulated=each.simulated,
                cosigned_at=each.record.at_s,
                cosigned=each.record.cosigned,
                refused=each.record.refused,
            )
            for each in self._heads.witnesses()
        )
        return msgspec.structs.replace(self._seen, witnesses=witnesses, sequencer=self._sequencer)

    def faults(self) -> tuple[Fault, ...]:
        return self._faults

    async def run(self) -> None:
        """For ever."""
        while True:
            await self.step()
            await asyncio.sleep(EVERY_S)

    async def step(self) -> None:
        now = self._clock.now()
        status = await self._ask()
        self._sequencer = None if status is None else msgspec.convert(status, SequencerSeen, from_attributes=True)
        said: list[tuple[str, str, str]] = []
        if status is not None:
            self._heard_at = now
            if status.fault:
                said.append((status.fault_code, status.fault, status.fault_hint or "look at logs/sequencer.log"))
        elif self._heard_at is not None and now - self._heard_at > SILENT_S:
            said.append(("sequencer.silent", "the sequencer does not answer", "look at logs/sequencer.log"))
        if (fault := self._heads.fault) is not None:
            said.append((fault.code, fault.fact, fault.hint))
        try:
            self._seen = await asyncio.to_thread(self._read)
        except (SekishoError, OSError) as error:
            code, hint = (error.code, error.hint) if isinstance(error, SekishoError) else ("log.unavailable", "")
            said.append((code, str(error), hint))
        self._since = {code: self._since.get(code, now) for code, _, _ in said}
        self._faults = tuple(
            Fault(code=code, fact=fact, hint=hint, since=self._since[code]) for code, fact, hint in said
        )

    def _read(self) -> LedgerState:
        try:
            root: Path = newest(self._home.ledger)
            reader = LogReader(root)
            checkpoint = reader.checkpoint()
        except LogFault as error:
            if error.code == LogFault.code:
                return LedgerState()  # before the first entry
            raise
        head = read_head(root)
        if head is None:
            return LedgerState(origin=checkpoint.origin, size=checkpoint.size)
        policy = self._heads.policy(checkpoint.origin)
        times = [each.at_s for each in open_note(head.note, policy.keys).verified] if policy.keys else []
        # Without witnesses nobody else's clock says when: the file's does.
        at = max(times, default=0) or (root / "head.json").stat().st_mtime
        return LedgerState(
            origin=checkpoint.origin, size=checkpoint.size, counts=head.checkpoint.size, cosigned_at=float(at)
        )

    async def _ask(self) -> SequencerStatus | None:
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                reader, writer = await asyncio.open_unix_connection(str(self._home.sequencer_socket))
                try:
                    answer = await reader.read()
                finally:
                    writer.close()
            return msgspec.json.decode(answer, type=SequencerStatus)
        except (OSError, TimeoutError, msgspec.DecodeError):
            return None
