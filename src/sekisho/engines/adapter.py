"""What the runner needs of an engine. README.md says what an adapter must promise."""

from __future__ import annotations

from typing import Protocol

import msgspec

from sekisho.capacity.workloads.model import Order
from sekisho.kernel.errors import SekishoError


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """One replica, as its engine has it now. `alive`: something of it may still run. `port`: where it answers on the
    loopback address; `path`: what stands before `/v1`. `busy`: requests that it works on; None: nobody knows."""

    alive: bool
    ready: bool = False
    port: int = 0
    path: str = ""
    busy: int | None = None
    last_exit: str = ""


class EngineFault(SekishoError):
    """An engine could not do what it was asked; it is asked again."""

    code = "engine.fault"


class Adapter(Protocol):
    """One kind of engine at one site. Calls block for seconds at most, come one at a time, and may be repeated."""

    @property
    def models(self) -> tuple[str, ...]: ...

    def found(self) -> frozenset[str]:
        """Replicas of which something may be alive, by the engine's own records."""
        ...

    def start(self, order: Order) -> None:
        """Begins to start it, or does nothing when it is alive. EngineFault when it can't."""
        ...

    def status(self, replica: str) -> Status: ...

    def renew(self, order: Order) -> None:
        """Prolongs its lease to `order.ends_at`, and no further than that."""
        ...

    def stop(self, replica: str) -> None:
        """Begins to end it; `status` says when nothing is left."""
        ...

    def forget(self, replica: str) -> None:
        """Nothing of it is alive, and nobody will ask again."""
        ...

    def close(self) -> None:
        """The agent goes; replicas stay."""
        ...
