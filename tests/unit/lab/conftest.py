"""The laboratory's tests need root and /dev/net/tun; those of its pure parts do not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sekisho.lab.namespaces import unavailable
from sekisho.lab.network import Lab
from sekisho.lab.topology import Line, Place, Topology


@pytest.fixture(scope="session")
def possible() -> None:
    reason = unavailable()
    if reason is not None:
        pytest.skip(reason)


def small(**line: float) -> Topology:
    """Tokyo, Osaka and a place abroad, 10 ms of round trip between every two."""
    return Topology(
        sites=(
            Place(id="tokyo", name="Tokyo", country="JP"),
            Place(id="osaka", name="Osaka", country="JP"),
            Place(id="us-west", name="US West", country="US"),
        ),
        lines=tuple(
            Line(a=a, b=b, **{"rtt_ms": 10.0, **line})
            for a, b in (("tokyo", "osaka"), ("tokyo", "us-west"), ("osaka", "us-west"))
        ),
    )


@pytest.fixture
def lab(possible: None) -> Iterator[Lab]:
    with Lab(small()) as made:
        yield made
