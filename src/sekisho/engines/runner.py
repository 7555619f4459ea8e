"""Carries out a site's orders: one pass over all replicas, again and again, from what lies on the disk.

The life of a replica here: (1) its order is on the disk before anything is started; (2) its engine starts it, and
the lease says how long it may live without us; (3) each pass looks, renews the lease, or starts it again with a
growing pause; (4) at the end of its window, or when control says so, it ends as soon as nothing runs on it, and at
`ends_at` whatever runs; (5) its name goes when control asks for it no more. A runner that was killed at any step
does the same from the disk; what control never ordered, or orders no more, is ended by its recorded name.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from sekisho.capacity.workloads.model import Offered, Order, ReplicaReport, ReplicaState, SiteOrders, SiteReport
from sekisho.engines.adapter import Adapter, Status
from sekisho.engines.decide import Kept, decide
from sekisho.kernel.errors import SekishoError

_log = logging.getLogger(__name__)
_STATE = "replicas.json"


class Replica(msgspec.Struct, frozen=True, kw_only=True):
    """One replica after a pass. `port` and `path`: where it answers on this machine."""

    order: Order
    state: ReplicaState
    port: int = 0
    path: str = ""
    restarts: int = 0
    last_exit: str = ""


class Runner:
    """One for each site. `root` is a directory of its own; `adapters` by the names of their engines. Not thread-safe:
    whoever owns it calls it from one thread at a time."""

    def __init__(self, root: Path, adapters: Mapping[str, Adapter]) -> None:
        self._file = root / _STATE
        self._adapters = dict(adapters)
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._kept: dict[str, Kept] = self._load()
        self._listed: frozenset[str] = frozenset(self._kept)
        self.replicas: tuple[Replica, ...] = ()

    @property
    def offers(self) -> tuple[Offered, ...]:
        return tuple(
            Offered(engine=engine, model=model)
            for engine, adapter in sorted(self._adapters.items())
            for model in adapter.models
        )

    def report(self, url: Callable[[Replica], str]) -> SiteReport:
        """What is told to control. `url` says where gateways reach a replica that answers; empty: nowhere yet."""
        reports = []
        for each in self.replicas:
            where = url(each) if each.port else ""
            state: ReplicaState = "starting" if each.state == "ready" and not where else each.state
            reports.append(
                ReplicaReport(
                    replica=each.order.replica,
                    state=state,
                    url=where,
                    restarts=each.restarts,
                    last_exit=each.last_exit,
                )
            )
        return SiteReport(offers=self.offers, replicas=tuple(reports))

    def obey(self, told: SiteOrders, *, now: float) -> None:
        """Takes over control's whole list. On the disk before anything follows from it."""
        wanted = {order.replica: order for order in told.orders}
        kept = dict(self._kept)
        for name, order in wanted.items():
            before = kept.get(name)
            kept[name] = Kept(order=order) if before is None else msgspec.structs.replace(before, order=order)
        for name, each in self._kept.items():
            if name not in wanted and (each.order.run or each.order.ends_at > now):
                ended = msgspec.structs.replace(each.order, run=False, until=min(each.order.until, now), grace_s=0.0)
                kept[name] = msgspec.structs.replace(each, order=ended)
        self._listed = frozenset(wanted)
        if kept != self._kept:
            self._save(kept)
            self._kept = kept

    def step(self, *, now: float) -> None:
        """One pass."""
        passed: list[Replica] = []
        for name, kept in sorted(self._kept.items()):
            adapter = self._adapters.get(kept.order.engine)
            if adapter is None:
                said = f"this site has no engine {kept.order.engine}"
                state: ReplicaState = "waiting" if kept.order.run else "gone"
                passed.append(Replica(order=kept.order, state=state, last_exit=said))
                self._drop(name, state)
                continue
            passed.append(self._pass(adapter, name, kept, now=now))
        for engine, adapter in self._adapters.items():
            self._end_strangers(engine, adapter)
        self.replicas = tuple(passed)

    def close(self) -> None:
        for adapter in self._adapters.values():
            adapter.close()

    def _pass(self, adapter: Adapter, name: str, kept: Kept, *, now: float) -> Replica:
        status = Status(alive=True)
        state: ReplicaState = "starting"
        try:
            status = adapter.status(name)
            decision = decide(kept, status, now=now)
            kept, state = decision.kept, decision.state
            if decision.action == "start":
                # The disk first: a start that is not remembered would be without its pause after a crash.
                self._save({**self._kept, name: kept})
                adapter.start(kept.order)
            elif decision.action == "renew":
                adapter.renew(kept.order)
            elif decision.action == "stop":
                adapter.stop(name)
        except (SekishoError, OSError) as error:
            _log.error("%s: %s", name, error)
            kept = msgspec.structs.replace(kept, last_exit=str(error)[:300])
        self._kept[name] = kept
        if state == "gone":
            adapter.forget(name)
        self._drop(name, state)
        return Replica(
            order=kept.order,
            state=state,
            port=status.port if status.ready else 0,
            path=status.path,
            restarts=kept.restarts,
            last_exit=kept.last_exit,
        )

    def _drop(self, name: str, state: ReplicaState) -> None:
        if state == "gone" and name not in self._listed:
            self._kept.pop(name, None)
            self._save(self._kept)

    def _end_strangers(self, engine: str, adapter: Adapter) -> None:
        try:
            for name in adapter.found():
                known = self._kept.get(name)
                if known is None or known.order.engine != engine:
                    _log.warning("%s is not ours to run any more: it is ended", name)
                    adapter.stop(name)
                    if not adapter.status(name).alive:
                        adapter.forget(name)
        except (SekishoError, OSError) as error:
            _log.error("%s: %s", engine, error)

    def _load(self) -> dict[str, Kept]:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=dict[str, Kept])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError) as error:
            # Nothing is lost with it: control says again what shall run, and the engines know what does.
            _log.error("%s was not read: %s", self._file, error)
            return {}

    def _save(self, kept: Mapping[str, Kept]) -> None:
        descriptor, temporary = tempfile.mkstemp(dir=self._file.parent, prefix=f".{_STATE}.")
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(kept))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self._file)
