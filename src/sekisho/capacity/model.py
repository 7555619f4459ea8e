"""What is reserved, by whom, and what is offered instead. Slots are absolute (see `grid`); money is whole yen."""

from __future__ import annotations

import hashlib
from enum import IntEnum
from typing import Literal

import msgspec


class Rank(IntEnum):
    """How firmly an allocation holds: a lower number pushes a higher one out."""

    FIRM = 0
    BORROWED = 1
    BACKFILL = 2


Priority = Literal["critical", "standard", "backfill"]
State = Literal["booked", "cancelled", "displaced", "no-show", "ended"]
PRIORITY_RANK: dict[Priority, int] = {"critical": 0, "standard": 1, "backfill": 2}


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """GPUs of one model at one site. `tenant_limit`: the most that one tenant may hold at a time."""

    number: int
    id: str
    site: str
    gpu: str
    gpus: int
    tenant_limit: int
    yen_per_gpu_hour: int
    revision: int = 0


class Maintained(msgspec.Struct, frozen=True, kw_only=True):
    """GPUs of a pool that are declared to be out of use from slot `first` to `until`; None: all of them."""

    first: int
    until: int
    gpus: int | None = None


def declared_block(pool: Pool) -> str:
    """The id of everything that is blocked in a pool because it is declared to be maintained."""
    return f"block-d{pool.number}"


class Declared(msgspec.Struct, frozen=True, kw_only=True):
    """A pool as the configuration or an agent's inventory says it; None leaves the price or the limit as it is."""

    site: str
    gpu: str
    gpus: int
    tenant_limit: int | None = None
    yen_per_gpu_hour: int | None = None
    maintenance: tuple[Maintained, ...] = ()

    @property
    def id(self) -> str:
        return f"{self.site}.{self.gpu}"

    @property
    def digest(self) -> str:
        """Tells whether it is what was adopted before. Maintenance comes and goes with time and is looked at each
        time: it must not bring back what an administrator has changed since."""
        said = {name: getattr(self, name) for name in ("site", "gpu", "gpus", "tenant_limit", "yen_per_gpu_hour")}
        return hashlib.sha256(msgspec.json.encode(said)).hexdigest()[:16]


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """GPUs of a pool that are maintained or held back."""

    id: str
    pool: int
    first: int
    until: int
    gpus: int


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant's part of a pool. It lends up to `lends` of it to its cohort and borrows up to `borrows`."""

    pool: int
    tenant: str
    cohort: str
    nominal: int
    lends: int
    borrows: int


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """So many GPUs of one pool, in the window of the reservation."""

    pool: int
    gpus: int


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A request. Begins in [first, latest], takes `slots`; `sites` and `pools` empty mean: any that is allowed.

    `gpus_min` < `gpus`: part of it is better than nothing. `spread`: pools may be combined.
    """

    tenant: str
    data_class: str
    gpu_models: tuple[str, ...]
    gpus: int
    gpus_min: int
    first: int
    latest: int
    slots: int
    sites: tuple[str, ...] = ()
    spread: bool = False
    priority: Priority = "standard"
    note: str = ""


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Where and when: parts in the order of their pools."""

    parts: tuple[Part, ...]
    first: int
    until: int

    @property
    def gpus(self) -> int:
        return sum(part.gpus for part in self.parts)


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """A reservation as one version has it."""

    tenant: str
    data_class: str
    priority: Priority
    state: State
    first: int
    until: int
    parts: tuple[Part, ...]
    rank: int
    price_yen: int
    refund_yen: int = 0
    gpus_min: int = 1
    claimed: bool = False
    warned: bool = False
    note: str = ""
    # What the tenant asked for, so that a re-plan obeys the same wishes.
    gpu_models: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    spread: bool = False

    @property
    def gpus(self) -> int:
        return sum(part.gpus for part in self.parts)


class Reservation(msgspec.Struct, frozen=True, kw_only=True):
    """`version` is its ETag: a change names the version that it was made for."""

    id: str
    version: int
    body: Body


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a reservation's history."""

    version: int
    at_ms: int
    who: str
    why: str
    body: Body


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """Something that can be had. `differs` says how it differs from what was asked: empty when it is just that."""

    id: str
    placement: Placement
    price_yen: int
    differs: tuple[str, ...]
    score: float


class StoredOffer(msgspec.Struct, frozen=True, kw_only=True):
    """An offer together with the wish that it answers."""

    offer: Offer
    wanted: Wanted


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """A wish that waits."""

    id: str
    at_ms: int
    wanted: Wanted


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """What a tenant is told about its reservation, in both languages."""

    tenant: str
    reservation: str
    at_ms: int
    kind: str
    en: str
    ja: str


class Booking(msgspec.Struct, frozen=True, kw_only=True):
    """What the authority decides on: a placement for a tenant."""

    id: str
    placement: Placement
    body: Body
    key: str = ""
    digest: str = ""


class Booked(msgspec.Struct, frozen=True, kw_only=True):
    """Yes. `id` is the earlier reservation when the idempotency key was seen before."""

    id: str
    again: bool = False


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """No, and why: `taken`, `limit`, `key` or `unknown`; `free` is what the pool still has for this window."""

    reason: Literal["taken", "limit", "key", "unknown"]
    pool: int = 0
    free: int = 0


Decision = Booked | Refused
