"""Wires location proofs: the register of landmarks is a file of the home directory, keys are enrolled agents'; what
agents that are landmarks measure comes in at their door."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import msgspec

from sekisho.assembly.home import Home
from sekisho.federation import enrolments
from sekisho.federation.landmark import Landmark, Latitude, Longitude, SignedMeasurement
from sekisho.federation.model import Federation
from sekisho.federation.report import Target
from sekisho.federation.sites import AnsweringSite
from sekisho.residency.evidence import EvidenceService
from sekisho.residency.location.land import natural_earth
from sekisho.residency.location.rounds import Rounds
from sekisho.residency.location.service import VALIDITY_S, LocationRefused, LocationService, claimed
from sekisho.runtime.database import Database

LANDMARKS = "landmarks.json"


class SiteLandmark(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An enrolled site that counts as a landmark, because whoever runs this installation knows where it stands and
    trusts its clock. Its key is its agent's, whatever that is today."""

    site: str
    latitude: Latitude
    longitude: Longitude
    position_error_km: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 1.0


class Register(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file `landmarks.json`. `limits_ms`: by site and landmark, the slowest answer that the site's operator
    allows itself; empty (the default) means that slowness contradicts nobody."""

    landmarks: tuple[Landmark, ...] = ()
    sites: tuple[SiteLandmark, ...] = ()
    limits_ms: dict[str, dict[str, float]] = {}


def read_register(path: Path) -> Register:
    """What the file says; nothing when there is none. Raises LocationRefused when it can't be read."""
    try:
        register = msgspec.json.decode(path.read_bytes(), type=Register)
    except FileNotFoundError:
        return Register()
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LocationRefused(
            f"the register of landmarks {path} can't be read: {error}",
            code="location.landmarks",
            hint="mend it, or remove it to go without landmarks",
        ) from None
    names = [*(landmark.id for landmark in register.landmarks), *(each.site for each in register.sites)]
    if len(set(names)) != len(names):
        raise LocationRefused(
            f"the register {path} names a landmark twice", code="location.landmarks", hint="keep one of each id"
        )
    return register


def locations(
    home: Home,
    database: Database,
    evidence: EvidenceService,
    *,
    federation: Callable[[], Federation],
    sites: Callable[[], Sequence[AnsweringSite]],
    validity_s: float = VALIDITY_S,
) -> AgentLocations:
    """`sites`: the enrolled ones and where they answer."""

    def keys(site: str) -> tuple[bytes, ...]:
        with database.read() as connection:
            agent = enrolments.find_agent(connection, site)
        return () if agent is None else (base64.b64decode(agent.spki),)

    def register() -> Register:
        return read_register(home.root / LANDMARKS)

    def limits(site: str) -> Mapping[str, float]:
        return register().limits_ms.get(site, {})

    def landmarks() -> dict[str, Landmark]:
        known = register()
        found = {landmark.id: landmark for landmark in known.landmarks}
        for each in known.sites:
            for key in keys(each.site):
                found[each.site] = Landmark(
                    id=each.site,
                    latitude=each.latitude,
                    longitude=each.longitude,
                    position_error_km=each.position_error_km,
                    spki=key,
                )
        return found

    service = LocationService(
        evidence,
        sites=lambda: {site.id: site for site in federation().sites},
        keys=keys,
        landmarks=landmarks,
        land=natural_earth,
        limits=limits,
        since=lambda site: next((each.since for each in sites() if each.site == site), 0.0),
        validity_s=validity_s,
    )
    return AgentLocations(
        service,
        landmark_sites=lambda: frozenset(each.site for each in register().sites),
        landmarks=landmarks,
        sites=sites,
        rounds=Rounds(every_s=validity_s / 3, chance=random.SystemRandom()),
    )


class AgentLocations:
    """`console.agents.Locations`: who measures whom now, and what comes of it."""

    def __init__(
        self,
        service: LocationService,
        *,
        landmark_sites: Callable[[], frozenset[str]],
        landmarks: Callable[[], Mapping[str, Landmark]],
        sites: Callable[[], Sequence[AnsweringSite]],
        rounds: Rounds,
    ) -> None:
        self.service = service
        self._landmark_sites = landmark_sites
        self._landmarks = landmarks
        self._sites = sites
        self._rounds = rounds
        self._since: dict[str, float] = {}

    def tasks(self, site: str, *, now: float) -> tuple[Landmark | None, tuple[Target, ...]]:
        """As which landmark an agent counts, and whom it shall measure now. Nobody measures itself."""
        if site not in self._landmark_sites():
            return None, ()
        landmark = self._landmarks().get(site)
        if landmark is None:
            return None, ()
        everybody = self._sites()
        for each in everybody:
            if self._since.setdefault(each.site, each.since) != each.since:  # moved, or replaced
                self._since[each.site] = each.since
                self.ask(each.site)
        others = {each.site: each for each in everybody if each.site != site and each.location}
        due = self._rounds.due(landmark.id, tuple(others), now=now)
        return landmark, tuple(
            Target(site=name, address=others[name].location, spki=base64.b64decode(others[name].spki)) for name in due
        )

    def take(self, measurements: Sequence[SignedMeasurement], *, now: float) -> dict[str, str]:
        """The verdict about each site. Raises LocationRefused."""
        verdicts: dict[str, str] = {}
        for each in measurements:
            found = claimed(each)
            verdicts[found.site] = self.service.take(
                found.site, (each,), now=now, actor=f"landmark/{found.landmark}"[:64]
            ).verdict
            self._rounds.measured(found.landmark, found.site, now=now)
        return verdicts

    def ask(self, site: str) -> tuple[str, ...]:
        """Has every landmark among the sites measure this one at its next heart-beat; these landmarks."""
        asked = tuple(sorted(self._landmark_sites() & self._landmarks().keys() - {site}))
        self._rounds.ask(asked, site)
        return asked
