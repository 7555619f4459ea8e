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
        return self.name.lower()

    @property
    def guarded(self) -> bool:
        """Whether a passage of this class needs a working journal and fresh evidence."""
        return self >= DataClass.CONFIDENTIAL

    @classmethod
    def parse(cls, text: str) -> DataClass | None:
        """`confidential` → CONFIDENTIAL; None for anything else (no trimming, no case folding)."""
        return _BY_LABEL.get(text)


_BY_LABEL = {member.label: member for member in DataClass}
LABELS: tuple[str, ...] = tuple(_BY_LABEL)
