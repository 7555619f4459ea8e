from __future__ import annotations

from collections.abc import Iterator

import pytest

from support import shared


@pytest.fixture(scope="module")
def _lab() -> Iterator[shared.Lab]:
    with shared.lab() as made:
        yield made


@pytest.fixture
def lab(_lab: shared.Lab) -> shared.Lab:
    """The module's worker, with healthy endpoints and nothing received."""
    _lab.fresh()
    return _lab
