"""Shares: slots of endpoints that belong to a tenant, lent while their owner does not use them.

Who may take a slot of an endpoint is decided under the board's lock, from counts that all workers see:

    free    slots that nobody uses
    kept    free slots that an owner has used lately (`keep_warm_s`)
    wanted  slots that owners within their share are waiting for

An owner within its share takes one of its kept slots, or any free one that is not kept for another. Everybody else
needs more free slots than are kept and wanted. So nothing lies idle that somebody could use, but for what an owner
used a moment ago; and from the moment that an owner waits, no borrower starts before it (running ones finish).
How many shares there are does not matter: a request looks at its own share and at three counts of the endpoint.

A slot that an owner gives back and that would be kept for it stays in this worker's hand for `SETTLE_S` first
(`spare`): on the board it is still the owner's. Who asks again meanwhile has it without the lock, which is what an
owner's request would otherwise spend most of its admission on.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from itertools import islice
from time import time as wall_time
from typing import TYPE_CHECKING, Final, Protocol

from sekisho.gateway.limits import Board, BoardFull, Slots

if TYPE_CHECKING:
    from sekisho.gateway.live import Grant, Route
    from sekisho.gateway.upstream import Endpoint

SETTLE_S: Final = 0.004  # an owner's request in another worker may wait so long for a slot that lies in hand here
_TRIES: Final = 8  # places of one class that are asked at a time when a slot is free
_LOOKED_AFTER: Final = 1000  # places a sweep
_log = logging.getLogger("sekisho.gateway.shares")


class Waiter(Protocol):
    """What waits for a slot of its share; `waiting` is False when it has left."""

    waiting: bool


class EndpointSlots(Slots):
    """The slots of an endpoint. Without shares on it they are leased like all others."""

    __slots__ = ("freed", "hungry", "kept_row", "shared", "want", "want_row")

    def __init__(self, board: Board, name: str, limit: int) -> None:
        self.shared = False
        self.kept_row = -1
        self.want_row = -1
        self.want = 0
        # places whose owner waits in this worker, by data class: a higher one is served first
        self.hungry: list[dict[Place, None]] = [{}, {}, {}, {}]
        self.freed: Place | None = None  # whose own request has just ended while others of it wait
        super().__init__(board, name, limit)

    def share(self, shared: bool, name: str) -> None:
        """Whether somebody has a share here. Workers then hold nothing idle: a slot is free for all at once."""
        if shared and self.kept_row < 0:
            self.kept_row = self._board.row(f"k/{name}")
            self.want_row = self._board.row(f"w/{name}")
        if shared != self.shared:
            self.shared = shared
            self.resize(self.limit)
            if shared:
                self.give_back()

    def resize(self, limit: int) -> None:
        super().resize(limit)
        if self.shared:
            self._spare = 0

    def take(self) -> bool:
        """A slot for somebody who has no share here, or has used it up."""
        if not self.shared:
            return super().take()
        board = self._board
        board.lock()
        free = self.limit - board.total(self._row)
        found = free > 0 and free > board.total(self.kept_row) + board.total(self.want_row)
        if found:
            self.seize()
        board.unlock()
        return found

    def release(self) -> None:
        if self.shared:
            self.surrender(1)
        else:
            super().release()

    def surrender(self, count: int) -> None:
        """So many are used no longer. Only this worker writes there, and less is safe unlocked."""
        self.in_use -= count
        self._held -= count
        self._board.set_mine(self._row, self._held)

    def free(self) -> int:
        """Under the lock: slots that no worker uses."""
        return self.limit - self._board.total(self._row)

    def seize(self) -> None:
        """Under the lock: one more is used here."""
        self._held += 1
        self.in_use += 1
        self._board.set_mine(self._row, self._held)

    def set_want(self, want: int) -> None:
        """Owners within their share wait here for so many more than before (or fewer)."""
        self.want += want
        self._board.set_mine(self.want_row, self.want)


class Place:
    """One share at one endpoint, as this worker sees it."""

    __slots__ = (
        "_board", "_kept", "_low", "_running", "_shares", "_since", "_waiting", "claims", "endpoint", "keep_warm_s",
        "running", "share", "slots", "spare", "want",
    )  # fmt: skip

    def __init__(self, board: Board, share: Share, endpoint: Endpoint, claims: EndpointSlots, shares: Shares) -> None:
        self._board = board
        self._shares = shares
        self.share = share
        self.endpoint = endpoint
        self.claims = claims
        self.slots = 0
        self.keep_warm_s = 0.0
        self.running = 0  # of the owner, in this worker, within its share and beyond; `spare` among them
        self.spare = 0  # given back, and in hand
        self.want = 0
        name = f"{share.name}\n{endpoint.id}"
        self._running = board.row(f"s/{name}")
        self._kept = board.row(f"v/{name}")
        self._waiting = board.row(f"q/{name}")
        self._low = 0  # the fewest that were kept here since `_since`
        self._since = 0.0

    def take(self) -> bool:
        """A slot for the owner, if it is within its share and one is there for it."""
        claims, board = self.claims, self._board
        if not claims.shared:
            return False
        if self.spare and board.total(self._running) <= self.slots:
            self.spare -= 1
            return True
        if self.running >= self.slots:
            return False
        board.lock()
        found = board.total(self._running) < self.slots and self._seize(claims.free())
        board.unlock()
        return found

    def _seize(self, free: int) -> bool:
        if free <= 0:
            return False
        board, claims = self._board, self.claims
        if board.total(self._kept):
            self._spend()
        elif free <= board.total(claims.kept_row):
            return False
        claims.seize()
        self.running += 1
        board.set_mine(self._running, self.running)
        return True

    def _spend(self) -> None:
        """One that was kept, in whatever worker, is kept no longer."""
        board = self._board
        worker = board.first(self._kept)
        board.add(self._kept, worker, -1)
        board.add(self.claims.kept_row, worker, -1)
        self._low = min(self._low, board.mine(self._kept))

    def join(self) -> None:
        """The owner took a slot here like anybody else: it counts towards its share all the same."""
        board = self._board
        self.running += 1
        board.lock()
        board.set_mine(self._running, self.running)
        if board.total(self._kept) and board.total(self._running) + board.total(self._kept) > self.slots:
            self._spend()
        board.unlock()

    def release(self) -> None:
        """Give a slot back; while the owner has less than its share, keep it for a while."""
        board, claims = self._board, self.claims
        if not claims.shared:
            self.running -= 1
            board.set_mine(self._running, self.running)
            claims.release()
            return
        # In hand only what would be kept anyway, and while nobody of the owner waits, here or elsewhere.
        if (
            self.keep_warm_s > 0
            and self.running <= self.slots
            and not self.share.count
            and not board.total(self._waiting)
            and board.total(self._running) + board.total(self._kept) <= self.slots
        ):
            self.spare += 1
            if self.spare == 1:
                self._shares.hold(self)
            return
        board.lock()
        self._give_back(1)
        board.unlock()
        if self.share.count:
            claims.freed = self

    def settle(self) -> None:
        """Under the lock: what lies in hand goes back to the board."""
        spare, self.spare = self.spare, 0
        if spare:
            self._give_back(spare)

    def _give_back(self, count: int) -> None:
        board, claims = self._board, self.claims
        self.running -= count
        board.set_mine(self._running, self.running)
        claims.surrender(count)
        if self.keep_warm_s > 0 or board.total(self._waiting) > 0:
            keep = min(count, self.slots - board.total(self._running) - board.total(self._kept))
            if keep > 0:
                board.add(self._kept, board.worker, keep)
                board.add(claims.kept_row, board.worker, keep)
                self._shares.active[self] = None

    def look_again(self, count: int) -> None:
        """`count` requests of the owner wait in this worker: say how many slots they may claim here."""
        board, claims = self._board, self.claims
        board.set_mine(self._waiting, count)
        want = 0
        if count and self.slots and not self.endpoint.ejected and claims.shared:
            want = max(min(count, self.slots - board.total(self._running)), 0)
        if want != self.want:
            claims.set_want(want - self.want)
            self.want = want
        hungry = claims.hungry[self.share.data_class]
        if count and self.slots:
            hungry[self] = None
        else:
            hungry.pop(self, None)

    def sweep(self, now: float) -> bool:
        """Lend what was kept and not used for `keep_warm_s`. False: nothing is left to look after."""
        board = self._board
        mine = board.mine(self._kept)
        if not mine:
            self._low = 0
            return False
        self._low = min(self._low, mine)
        if now - self._since >= self.keep_warm_s or not self.slots:
            board.lock()
            mine = board.mine(self._kept)
            over = mine if not self.slots else min(self._low, mine)
            if self.slots and board.total(self._waiting):
                over = 0  # the owner waits in another worker: it is about to come for them
            if over:
                board.add(self._kept, board.worker, -over)
                board.add(self.claims.kept_row, board.worker, -over)
            board.unlock()
            self._low = mine - over
            self._since = now
        return True


class Share:
    """What one tenant may count on for one model and data class: places at endpoints, and who waits for them."""

    __slots__ = (
        "closes_at",
        "count",
        "data_class",
        "granted",
        "grants",
        "name",
        "places",
        "route",
        "slots",
        "waiting",
    )

    def __init__(self, name: str, data_class: int) -> None:
        self.name = name
        self.data_class = data_class
        self.granted: list[Grant] = []  # as the table has it
        self.grants: list[Grant] = []  # of those, what has not ended
        self.closes_at = float("inf")  # Unix seconds: when the first of the grants ends
        self.places: dict[str, Place] = {}
        self.slots = 0
        self.route: Route | None = None
        self.waiting: deque[Waiter] = deque()
        self.count = 0  # of those that still wait

    @property
    def room(self) -> bool:
        """Whether one more may wait as part of the reservation, whatever the queue's own bound says."""
        return self.count < self.slots

    def take(self, route: Route, prefix_hash: int | None, tried: tuple[Endpoint, ...]) -> Place | None:
        """A place with a slot taken for the owner: the prefix's own endpoint first, else the least busy."""
        if route is not self.route or wall_time() >= self.closes_at:
            self.regrant(route)
        places = self.places
        if not self.slots:
            return None
        if len(places) == 1:
            for only in places.values():
                return only if self._usable(only, tried) and only.take() else None
        if prefix_hash is not None:
            order = [places[e.id] for e in route.owners(prefix_hash) if e.id in places]
        else:
            order = sorted(places.values(), key=_load)
        for place in order:
            if self._usable(place, tried) and place.take():
                return place
        return None

    def _usable(self, place: Place, tried: tuple[Endpoint, ...]) -> bool:
        return place.slots > 0 and not place.endpoint.ejected and place.endpoint not in tried

    def at(self, endpoint: Endpoint) -> Place | None:
        """The place at this endpoint, where the owner has just taken a slot like anybody else."""
        place = self.places.get(endpoint.id)
        if place is not None:
            place.join()
        return place

    def wait(self, waiter: Waiter) -> None:
        """From now on no borrower starts before this one, while the owner has less than its share."""
        self.waiting.append(waiter)
        self.count += 1
        self.look_again()

    def left(self) -> None:
        """One that waited does not any more."""
        self.count -= 1
        if not self.count:
            self.waiting.clear()
        self.look_again()

    def pop(self) -> Waiter | None:
        """Who has waited longest, still in line: the caller takes it out of the queue."""
        waiting = self.waiting
        while waiting:
            waiter = waiting.popleft()
            if waiter.waiting:
                return waiter
        return None

    def look_again(self) -> None:
        for place in self.places.values():
            place.look_again(self.count)

    def regrant(self, route: Route) -> None:
        """What is owned now, inside the route and nowhere else: grants end by themselves, whether control is there or
        not, and so do the endpoints of a route."""
        now = wall_time()
        self.route = route
        self.grants = [grant for grant in self.grants if grant.until > now]
        self.closes_at = min([grant.until for grant in self.grants], default=float("inf"))
        for place in self.places.values():
            place.slots = 0
            place.keep_warm_s = 0.0
        for grant in self.grants:
            for endpoint, slots in grant.places:
                place = self.places[endpoint.id]
                if endpoint not in route.endpoints:
                    continue
                place.slots += slots
                place.keep_warm_s = max(place.keep_warm_s, grant.keep_warm_s)
        self.slots = sum(place.slots for place in self.places.values())
        self.look_again()


def _load(place: Place) -> tuple[float, int]:
    """By what is under way; among equals where a slot lies in hand."""
    return (place.running - place.spare) / place.slots if place.slots else 1.0, -place.spare


class Shares:
    """All shares that this worker has met. They outlive a route table: what runs and waits is theirs."""

    def __init__(self, board: Board, *, later: Callable[[], None] = lambda: None) -> None:
        """`later` sees to it that `settle` is called SETTLE_S from now; `sweep` does it in any case."""
        self._board = board
        self._later = later
        self._slots: dict[str, EndpointSlots] = {}
        self._known: dict[str, Share] = {}
        self._holding: dict[Place, None] = {}
        self.active: dict[Place, None] = {}  # where something is kept

    def hold(self, place: Place) -> None:
        """This place has slots in hand."""
        if not self._holding:
            self._later()
        self._holding[place] = None

    def settle(self) -> None:
        """All that lies in hand goes back to the board, where other workers see it."""
        holding = self._holding
        if not holding:
            return
        self._board.lock()
        while holding:
            place, _ = holding.popitem()
            place.settle()
        self._board.unlock()

    def slots(self, endpoint: str, limit: int) -> EndpointSlots:
        """The one object for this endpoint in this worker: two would overwrite each other's count on the board."""
        slots = self._slots.get(endpoint)
        if slots is None:
            slots = self._slots[endpoint] = EndpointSlots(self._board, f"e/{endpoint}", limit)
        else:
            slots.resize(limit)
        return slots

    def adopt(self, shared: set[str]) -> None:
        """A new route table is in force: endpoints with these ids carry shares."""
        self.settle()
        for id, slots in self._slots.items():
            try:
                slots.share(id in shared, id)
            except BoardFull as error:
                _log.error("shares at %s don't count here: %s", id, error)

    def find(self, *, tenant: str, data_class: int, model: str, grants: list[Grant]) -> Share | None:
        """The share of this tenant for this class and model, with what the newest table grants."""
        name = f"{tenant}\n{data_class}\n{model}"
        share = self._known.get(name)
        if share is None:
            share = self._known[name] = Share(name, data_class)
        if share.granted is not grants:
            share.granted = share.grants = grants
            try:
                for grant in grants:
                    for endpoint, _ in grant.places:
                        place = share.places.get(endpoint.id)
                        if place is None:
                            claims = self.slots(endpoint.id, endpoint.slots.limit)
                            place = Place(self._board, share, endpoint, claims, self)
                            share.places[endpoint.id] = place
                        else:
                            place.endpoint = endpoint
            except BoardFull as error:
                _log.error("a share of %s does not count here: %s", tenant, error)
                return None
            share.route = None
        return share

    def next_owner(self, endpoint_id: str) -> Place | None:
        """A place at this endpoint whose owner waits, with a slot taken for it."""
        claims = self._slots.get(endpoint_id)
        if claims is None or not claims.shared:
            return None
        freed, claims.freed = claims.freed, None
        if freed is not None and self._owed(freed):
            return freed
        for hungry in reversed(claims.hungry):
            if not hungry:
                continue
            for place in list(islice(hungry, _TRIES)):
                if self._owed(place):
                    return place
                if place in hungry:  # the others have their turn before this one is asked again
                    del hungry[place]
                    hungry[place] = None
        return None

    def _owed(self, place: Place) -> bool:
        """Whether a slot was taken for the owner that waits here. What runs elsewhere may have ended meanwhile."""
        share = place.share
        if share.route is not None and wall_time() >= share.closes_at:
            share.regrant(share.route)
        place.look_again(share.count)
        return place.want > 0 and place.take()

    def sweep(self, now: float) -> None:
        """Every half second: what owners kept and did not use is lent."""
        self.settle()
        some = list(islice(self.active, _LOOKED_AFTER))
        for place in some:
            del self.active[place]
            if place.sweep(now):
                self.active[place] = None
