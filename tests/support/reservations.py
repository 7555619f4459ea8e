"""A world of four pools for reservations. Residency is a stand-in that says so."""

from __future__ import annotations

import itertools

import msgspec

from sekisho.capacity import store
from sekisho.capacity.grid import SLOTS_PER_DAY, current_slot
from sekisho.capacity.model import Wanted
from sekisho.capacity.service import CapacityService
from sekisho.capacity.upkeep import Upkeep
from sekisho.kernel.clock import FixedClock
from sekisho.runtime.database import Database

NOW = 1_800_000_000.0
HERE = current_slot(NOW)
FIRST = HERE + 10 * SLOTS_PER_DAY
DAY = SLOTS_PER_DAY
POOLS = (("ishikari", "h100", 16), ("osaka", "h100", 8), ("osaka", "b200", 8), ("us-west", "h100", 64))
HOME = frozenset({"ishikari", "osaka"})


def allowed(_tenant: str, data_class: str) -> frozenset[str]:
    """A stand-in for residency: guarded work stays at home."""
    return HOME if data_class in ("confidential", "restricted") else HOME | {"us-west"}


class World:
    def __init__(self, database: Database) -> None:
        self.clock = FixedClock(NOW)
        count = itertools.count(1)

        def new_id() -> str:
            return f"id{next(count):04d}"

        self.capacity = CapacityService(
            database,
            allowed_sites=allowed,
            tenants=lambda: frozenset({"hospital", "bank", "city"}),
            sites=lambda: HOME | {"us-west"},
            clock=self.clock,
            new_id=new_id,
        )
        self.life = Upkeep(self.capacity, clock=self.clock, new_id=new_id)
        self.database = database
        for site, gpu, gpus in (
            ("ishikari", "h100", 16),
            ("osaka", "h100", 8),
            ("osaka", "b200", 8),
            ("us-west", "h100", 64),
        ):
            self.capacity.set_pool(
                site=site, gpu=gpu, gpus=gpus, tenant_limit=None, yen_per_gpu_hour=400, who="admin"
            )

    def number(self, name: str) -> int:
        return next(pool.number for pool in self.capacity.pools() if pool.id == name)

    def notices(self, tenant: str) -> list[str]:
        with self.database.read() as connection:
            return [notice.kind for notice in store.notices(connection, tenant=tenant)]


def wish(gpus: int = 8, slots: int = DAY, **given: object) -> Wanted:
    usual: dict[str, object] = {
        "tenant": "hospital",
        "data_class": "confidential",
        "gpu_models": ("h100",),
        "gpus": gpus,
        "gpus_min": gpus,
        "first": FIRST,
        "latest": FIRST,
        "slots": slots,
    }
    return msgspec.convert({**usual, **given}, Wanted)
