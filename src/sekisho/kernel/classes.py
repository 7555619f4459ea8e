"""Data classes: how far data may travel, from `public` to `restricted`."""

from __future__ import annotations

import enum


class DataClass(enum.IntEnum):
    """Ordered: a higher class never has more endpoints than a lower one (law 1)."""

    PUBLIC = 0
    INTERNAL = 1
    CONFIDENTIAL = 2
    RESTRICTED = 3

    @property
    def label(self) -> str:
        """The name on the wire, in configuration and in the interface: `confidential`."""
        return LABELS[self]

    @property
    def guarded(self) -> bool:
        """Whether a passage of this class needs a working journal and fresh evidence."""
        return self >= DataClass.CONFIDENTIAL

    @classmethod
    def parse(cls, text: str) -> DataClass | None:
        """`confidential` → CONFIDENTIAL; None for anything else (no trimming, no case folding)."""
        return _BY_LABEL.get(text)


LABELS: tuple[str, ...] = tuple(member.name.lower() for member in DataClass)
_BY_LABEL = dict(zip(LABELS, DataClass, strict=True))
