"""What is to run in a window, what a site is told of it, and what the site says. Times in Unix seconds."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from sekisho.kernel.ids import MODEL

MAX_REPLICAS = 64
# The longest name of a replica: it is a directory of a site's agent and the name of an application on a cluster.
REPLICA = r"wl-[0-9a-f]{16}\.[0-9]{1,9}\.[0-9]{1,3}"
Replica = Annotated[str, Meta(pattern=f"^{REPLICA}$")]
ModelName = Annotated[str, Meta(pattern=f"^{MODEL.pattern}$", max_length=128)]
EngineName = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9.-]{0,31}$")]
_Short = Annotated[str, Meta(max_length=300)]


class Parameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an owner may choose of an engine: numbers between bounds. Commands, files and addresses are the site's."""

    slots: Annotated[int, Meta(ge=1, le=1024)] = 8
    context_tokens: Annotated[int, Meta(ge=256, le=1 << 20)] = 4096


class Spec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`model` is one that the site's operator offers on this engine; clients ask for it as `name`. `grace_s`: how
    long requests that run when the window ends may go on."""

    engine: EngineName
    model: ModelName
    name: ModelName
    replicas: Annotated[int, Meta(ge=1, le=MAX_REPLICAS)] = 1
    gpus_per_replica: Annotated[int, Meta(ge=1, le=4096)] = 1
    parameters: Parameters = Parameters()
    grace_s: Annotated[int, Meta(ge=0, le=600)] = 60


# There is no `failed`: an engine that dies is started again until its window ends, and the time is paid back.
State = Literal["planned", "starting", "serving", "down", "stopped", "draining", "ended"]
ReplicaState = Literal["starting", "ready", "waiting", "draining", "gone"]


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One replica, as its site is told. `run` False: no new requests, end when the running ones are done, at
    `until` + `grace_s` at the latest. The same order may come any number of times."""

    replica: Replica
    engine: EngineName
    model: ModelName
    name: ModelName
    gpus: Annotated[int, Meta(ge=1)]
    parameters: Parameters
    run: bool
    until: float
    grace_s: float

    @property
    def ends_at(self) -> float:
        """Nothing of it is alive after this, whatever else is down."""
        return self.until + self.grace_s


class ReplicaReport(msgspec.Struct, frozen=True, kw_only=True):
    """One replica, as its site sees it. `waiting`: it died and is started again later. `url`: where gateways reach
    it, up to the path of the call."""

    replica: Replica
    state: ReplicaState
    url: Annotated[str, Meta(max_length=2000)] = ""
    restarts: Annotated[int, Meta(ge=0)] = 0
    last_exit: _Short = ""


class Offered(msgspec.Struct, frozen=True, kw_only=True):
    """A model that the site's operator lets tenants run, and on which engine."""

    engine: EngineName
    model: ModelName


class SiteReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a site runs for tenants' windows, and what it could run."""

    offers: Annotated[tuple[Offered, ...], Meta(max_length=256)] = ()
    replicas: Annotated[tuple[ReplicaReport, ...], Meta(max_length=4096)] = ()


class SiteOrders(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a site shall run. What it runs and what is not in here ends at once."""

    orders: tuple[Order, ...] = ()
    every_s: float = 2.0


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A replica as control knows it. `run`, `until`: what its site is told now. `leash_until`: the latest end that
    the site was ever told; until then it may be alive, unless it is reported gone."""

    replica: str
    pool: int
    site: str
    gpus: int
    run: bool
    until: float
    leash_until: float
    state: ReplicaState = "starting"
    url: str = ""
    restarts: int = 0
    last_exit: str = ""

    @property
    def ready(self) -> bool:
        return self.run and self.state == "ready"


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """A workload as one version has it. `wanted`: its owner wants it to run. `opened_at`: since when it should run;
    0: it should not. `down_gpu_s`: GPU seconds, counted up to `counted_at`, in which a replica that should have
    served did not; `refunded` of them, in GPU slots, are paid back."""

    reservation: str
    tenant: str
    spec: Spec
    wanted: bool = True
    state: State = "planned"
    replicas: tuple[Seen, ...] = ()
    opened_at: float = 0.0
    counted_at: float = 0.0
    down_gpu_s: float = 0.0
    refunded: int = 0

    @property
    def ready(self) -> int:
        return sum(each.ready for each in self.replicas)


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    version: int
    body: Body


class WorkloadVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a workload's history."""

    version: int
    at_ms: int
    who: str
    why: str
    body: Body


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """A replica that serves now: what federation makes an endpoint of. `until`: when its window ends."""

    replica: str
    site: str
    url: str
    name: str
    slots: int
    tenant: str
    until: float
