"""Real routes over endpoints that nobody connects to, for what chooses and waits."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sekisho.gateway.limits import Board, Slots
from sekisho.gateway.live import Route
from sekisho.gateway.settings import GatewaySettings
from sekisho.gateway.tuning import Tuning
from sekisho.gateway.upstream import Endpoint
from sekisho.residency.table import EndpointEntry, RouteSet


@contextmanager
def endpoints(slots: Sequence[int]) -> Iterator[tuple[Endpoint, ...]]:
    """`e0`, `e1`, … with these many slots."""
    loop = asyncio.new_event_loop()
    with tempfile.TemporaryDirectory() as folder:
        board = Board(Path(folder) / "limits.shm", worker=0, workers=1)
        entries = [
            EndpointEntry(
                id=f"e{index}", site="s", operator="o", country="JP", url="http://127.0.0.1:1/v1", slots=count
            )
            for index, count in enumerate(slots)
        ]
        yield tuple(
            Endpoint(
                entry,
                settings=GatewaySettings(),
                tuning=Tuning(GatewaySettings()),
                slots=Slots(board, f"e/{entry.id}", entry.slots),
                loop=loop,
                on_usable=lambda _: None,
                write=lambda *_: None,
            )
            for entry in entries
        )
        board.close()
    loop.close()


def over(*members: Endpoint) -> Route:
    return Route(members, RouteSet(endpoints=tuple(range(len(members))), rules=("any",)))


@contextmanager
def route(slots: Sequence[int]) -> Iterator[Route]:
    with endpoints(slots) as members:
        yield over(*members)
