"""When which landmark measures which site: on a schedule with jitter, and on demand. Memory only: after a restart
everybody is measured once more."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

JITTER = 0.2
# What was handed out and brought nothing is handed out again after this time.
RETRY_S = 60.0
# In one heart-beat's answer: bursts follow one another, and a site that is silent takes seconds.
MOST_AT_ONCE = 8


class Rounds:
    """`every_s`: between two measurements of a pair, give or take a fifth at random: nobody can be ready for it."""

    def __init__(self, *, every_s: float, chance: Random) -> None:
        self._every_s = every_s
        self._chance = chance
        self._due: dict[tuple[str, str], float] = {}

    def due(self, landmark: str, sites: Sequence[str], *, now: float) -> tuple[str, ...]:
        """Whom this landmark shall measure now, those that waited longest first."""
        waiting = sorted((self._due.get((landmark, site), 0.0), site) for site in sites)
        found = tuple(site for at, site in waiting if at <= now)[:MOST_AT_ONCE]
        for site in found:
            self._due[landmark, site] = now + RETRY_S
        return found

    def measured(self, landmark: str, site: str, *, now: float) -> None:
        self._due[landmark, site] = now + self._every_s * (1 + JITTER * (2 * self._chance.random() - 1))

    def ask(self, landmarks: Sequence[str], site: str) -> None:
        """These measure this site as soon as they ask what to do."""
        for landmark in landmarks:
            self._due[landmark, site] = 0.0
