"""Fixtures of the journeys: real processes, the real model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from running import Federation, default_config


@pytest.fixture(scope="session")
def federation_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """The embedded default (five sites) on free ports, shared by all journeys. A test that breaks something waits
    until it is whole again."""
    federation = Federation(tmp_path_factory.mktemp("up"), default_config())
    try:
        federation.wait_until_ready()
        yield federation
    finally:
        federation.stop()


@pytest.fixture
def small_federation(tmp_path: Path) -> Iterator[Callable[..., Federation]]:
    """Starts a federation of one's own, to be ended by the test: `small_federation(sites=("sakura-ishikari",))`."""
    started: list[Federation] = []

    def start(*, sites: tuple[str, ...] = ("sakura-ishikari",), gateway: str = "") -> Federation:
        federation = Federation(tmp_path, default_config(sites=sites, gateway=gateway))
        started.append(federation)
        federation.wait_until_ready()
        return federation

    yield start
    for federation in started:
        federation.stop()
