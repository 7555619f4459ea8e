"""Control's part of the ledger: brings new checkpoints before the witnesses, and publishes the keys and policies."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import httpx
import msgspec

from sekisho.assembly.home import Home, refusal, write_atomic
from sekisho.assembly.ledger import log_signer
from sekisho.assembly.witness import WITNESSES_FILE, RunningWitness
from sekisho.kernel.clock import Clock
from sekisho.kernel.errors import SekishoError
from sekisho.ledger.heads import HeadPublisher, WitnessRecord
from sekisho.ledger.keys import KeyHistory, SigningKey, observe, policy_of
from sekisho.ledger.receipts_http import policy_path
from sekisho.ledger.tlog.keys import VerifierKey
from sekisho.ledger.tlog.log import LogFault
from sekisho.ledger.tlog.policy import TrustPolicy
from sekisho.ledger.tlog.years import directory, origin_of, years

_log = logging.getLogger(__name__)
# A line for each request would bury the rest: what a witness did not do is said here.
logging.getLogger("httpx").setLevel(logging.WARNING)
POLL_S = 0.05
# No quorum yet, or a fault: not at full speed.
RETRY_S = 0.5
WITNESS_TIMEOUT_S = 2.0


class WitnessLag(msgspec.Struct, frozen=True, kw_only=True):
    """What control knows of a witness; `behind` is how far what it cosigned last is from the log."""

    name: str
    operator: str
    behind: int
    simulated: bool
    record: WitnessRecord


class HeadKeeper:
    """One for each control plane. Belongs to its event loop."""

    def __init__(self, home: Home, *, origin: str, witnesses: Path | None, clock: Clock) -> None:
        """`origin` is without the year. `witnesses`: a policy with the operators' witnesses, their groups and quorum;
        None: those of the demonstration, or nobody."""
        self._home = home
        self._origin = origin
        self._clock = clock
        self._configured = witnesses
        self._publishers: dict[int, HeadPublisher] = {}
        self._policies: dict[int, TrustPolicy] = {}
        self._witnesses: tuple[RunningWitness, ...] = ()
        self._size = 0
        self.fault: SekishoError | None = None

    def policy(self, origin: str) -> TrustPolicy:
        """The policy for the log with this origin; one that knows no log when there is none."""
        nobody = TrustPolicy(logs=(), witnesses=(), groups=(), quorum="none")
        return next((policy for policy in self._policies.values() if policy.log_keys(origin)), nobody)

    def witnesses(self) -> tuple[WitnessLag, ...]:
        """Every witness with its lag, for the pages."""
        publisher = self._publishers.get(max(self._publishers, default=0))
        records = publisher.witnesses if publisher else {}
        never = WitnessRecord()
        return tuple(
            WitnessLag(
                name=one.name,
                operator=one.operator,
                behind=max(0, self._size - records.get(one.name, never).size),
                simulated=one.simulated,
                record=records.get(one.name, never),
            )
            for one in self._witnesses
        )

    async def run(self) -> None:
        """For ever. Faults are kept for the pages and tried again."""
        async with httpx.AsyncClient(trust_env=False, limits=httpx.Limits(max_connections=64)) as client:
            while True:
                try:
                    await asyncio.to_thread(self._follow_keys)
                    counts = await self._step(client)
                    self.fault = None
                except LogFault:
                    counts = False  # there is no log before the first entry
                except (SekishoError, OSError) as error:
                    fault = error if isinstance(error, SekishoError) else refusal(self._home.ledger, error)
                    if self.fault is None or self.fault.fact != fault.fact:
                        _log.error("checkpoints are not cosigned: %s", fault)
                    self.fault = fault
                    counts = False
                await asyncio.sleep(POLL_S if counts else RETRY_S)

    async def _step(self, client: httpx.AsyncClient) -> bool:
        """Whether the newest head counts, or at least something was new."""
        counts = True
        # The year before, too: its last checkpoint came when the new log began.
        for year in years(self._home.ledger)[-2:]:
            if year not in self._policies:
                continue
            publisher = self._publishers.get(year)
            if publisher is None:
                signer = log_signer(self._home, origin_of(self._origin, year))
                publisher = self._publishers[year] = HeadPublisher(
                    directory(self._home.ledger, year), policy=self._policies[year], signer=signer, client=client
                )
            step = await publisher.step(now_s=time.monotonic(), timeout_s=WITNESS_TIMEOUT_S)
            self._size = step.size
            counts = step.cosigned == step.size
            for report in step.reports:
                if report.fault:
                    _log.warning("%s did not cosign %d: %s", report.name, step.size, report.fault)
        return counts

    def _follow_keys(self) -> None:
        """Brings history and policies up to date when witnesses, keys or the year have changed."""
        configured = TrustPolicy.parse(self._configured.read_bytes()) if self._configured else None
        witnesses = _of_operators(configured) if configured else _running(self._home)
        wanted = self._years()
        if witnesses == self._witnesses and wanted == tuple(self._policies):
            return
        base = self._home.ledger
        base.mkdir(mode=0o700, exist_ok=True)
        (base / "policy").mkdir(mode=0o700, exist_ok=True)
        path = base / "keys.json"
        history = KeyHistory.parse(path.read_bytes()) if path.exists() else KeyHistory()
        history = observe(history, self._signing(witnesses, wanted), now_s=int(self._clock.now()))
        write_atomic(path, history.encode(), mode=0o644)
        urls = {one.name: one.url for one in witnesses}
        policies = {}
        for year in wanted:
            origin = origin_of(self._origin, year)
            if configured is not None:
                logs = policy_of(history, origin).logs
                policies[year] = msgspec.structs.replace(configured, logs=logs)
                write_atomic(policy_path(base, year), policies[year].encode(), mode=0o644)
                continue
            # Published without addresses: verifying is offline, and they change at each start.
            write_atomic(policy_path(base, year), policy_of(history, origin).encode(), mode=0o644)
            policies[year] = policy_of(history, origin, urls)
        self._policies, self._witnesses = policies, witnesses
        self._publishers = {}

    def _years(self) -> tuple[int, ...]:
        this = datetime.fromtimestamp(self._clock.now(), UTC).year
        return tuple(sorted({*years(self._home.ledger), this, this + 1}))

    def _signing(self, witnesses: Iterable[RunningWitness], wanted: Iterable[int]) -> list[SigningKey]:
        signing = [
            SigningKey(role="log", key=log_signer(self._home, origin_of(self._origin, year)).verifier)
            for year in wanted
        ]
        for one in witnesses:
            signing += [
                SigningKey(
                    role="witness", key=VerifierKey.parse(vkey), operator=one.operator, simulated=one.simulated
                )
                for vkey in one.vkeys
            ]
        return signing


def _of_operators(policy: TrustPolicy) -> tuple[RunningWitness, ...]:
    return tuple(
        RunningWitness(
            name=witness.key.name,
            operator=witness.name,
            url=witness.url,
            vkeys=(witness.key.vkey,),
            simulated=False,
        )
        for witness in policy.witnesses
    )


def _running(home: Home) -> tuple[RunningWitness, ...]:
    try:
        return msgspec.json.decode((home.run / WITNESSES_FILE).read_bytes(), type=tuple[RunningWitness, ...])
    except FileNotFoundError:
        return ()
    except (OSError, msgspec.MsgspecError) as error:
        raise LogFault(f"{home.run / WITNESSES_FILE} can't be read: {error}") from None
