"""Measurements of a site come in, the verdict stands as evidence: one transaction a call.

What is kept with the evidence are the signed measurements themselves. They are checked again whenever they are used:
a landmark that moved or a key that was changed takes its old measurements out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from sekisho.federation.errors import UnknownName
from sekisho.federation.landmark import (
    Landmark,
    Measurement,
    MeasurementRefused,
    SignedMeasurement,
    check_measurement,
)
from sekisho.federation.model import Site
from sekisho.kernel.errors import SekishoError
from sekisho.residency.evidence import LOCATION, EvidenceService
from sekisho.residency.location.decide import decide, facts
from sekisho.residency.location.land import Land
from sekisho.residency.location.model import Claim, Finding, Sighting

VALIDITY_S = 3600.0
MAX_MEASUREMENTS = 64
_HISTORY = 50


class LocationRefused(SekishoError):
    """Measurements that can't count, or a site whose place nobody declared."""

    code = "location.refused"


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in the evidence: the verdict and what it rests on."""

    finding: Finding
    measurements: tuple[SignedMeasurement, ...]


class LocationService:
    """`sites` are those in force by id; `keys` the keys of a site (DER SubjectPublicKeyInfo) that count today;
    `landmarks` the register; `limits` the operator's own limits in ms by landmark, for each site that has any;
    `since`: what was measured of a site before counts no longer (Unix seconds)."""

    def __init__(
        self,
        evidence: EvidenceService,
        *,
        sites: Callable[[], Mapping[str, Site]],
        keys: Callable[[str], tuple[bytes, ...]],
        landmarks: Callable[[], Mapping[str, Landmark]],
        land: Callable[[], Land],
        limits: Callable[[str], Mapping[str, float]] = lambda _site: {},
        since: Callable[[str], float] = lambda _site: 0.0,
        validity_s: float = VALIDITY_S,
    ) -> None:
        self._evidence = evidence
        self._sites = sites
        self._keys = keys
        self._landmarks = landmarks
        self._land = land
        self._limits = limits
        self._since = since
        self._validity_s = validity_s

    def take(self, site: str, given: Sequence[SignedMeasurement], *, now: float, actor: str) -> Finding:
        """The verdict with these measurements and those that still count. Raises LocationRefused or
        UnknownName; then nothing of it is kept."""
        claim, since = self._claim(site), self._since(site)
        # Before anything else: what nobody of ours signed costs us two signatures and no more.
        fresh: list[tuple[Measurement, SignedMeasurement]] = []
        for each in given:
            found = self._check(site, each)
            if isinstance(found, MeasurementRefused):
                raise LocationRefused(found.what, code=found.code, hint=found.mend)
            if found.at < since:
                raise LocationRefused(
                    "it was measured before the site's agent came to where it is now", hint="measure again"
                )
            fresh.append((found, each))
        known: dict[str, tuple[Measurement, SignedMeasurement]] = {}
        for each in self._kept(site):
            old = self._check(site, each)
            if isinstance(old, Measurement) and old.at >= since:
                _newer(known, old, each)
        before = dict(known)
        for found, each in fresh:
            _newer(known, found, each)
        if known == before:  # sent again: nothing is learnt of it
            return self.latest(site, now=now)
        finding = decide(
            claim,
            [_sighting(measurement, signed) for measurement, signed in known.values()],
            self._land(),
            now=now,
            validity_s=self._validity_s,
        )
        if finding.why == "location.unmeasured":
            raise LocationRefused(
                "none of the measurements is recent enough to count",
                hint="measure again; set the clock of the landmark (NTP) if its times are in the future",
            )
        used = {disc.landmark for disc in finding.discs}
        kept = Kept(finding=finding, measurements=tuple(known[name][1] for name in sorted(used)))
        standing = facts(finding)
        self._evidence.record_location(
            site,
            verdict=standing.verdict,
            margin_km=standing.margin_km,
            until=standing.until,
            digest=standing.digest,
            detail=msgspec.json.encode(kept),
            now=now,
            actor=actor,
        )
        return finding

    def latest(self, site: str, *, now: float) -> Finding:
        """The verdict that stands; `declared` when there is none. Raises LocationRefused and
        UnknownName."""
        claim = self._claim(site)
        stands = self._evidence.standing(now).get(site)
        if stands is not None and stands.location.digest:
            for row in self._evidence.history(site, limit=_HISTORY):
                if row.about == LOCATION and row.digest == stands.location.digest:
                    return msgspec.json.decode(row.appraisal, type=Kept).finding
        return Finding(claim=claim, verdict="declared", why="location.unmeasured")

    def _claim(self, site: str) -> Claim:
        found = self._sites().get(site)
        if found is None:
            raise UnknownName(f"there is no site {site!r}", hint="`sekisho site list` names the sites")
        if found.latitude is None or found.longitude is None:
            raise LocationRefused(
                f"nobody has declared where {site} stands",
                hint="add latitude and longitude to its declaration, or to the configuration",
            )
        return Claim(
            site=site,
            country=found.country,
            latitude=found.latitude,
            longitude=found.longitude,
            limits_ms=dict(self._limits(site)),
        )

    def _kept(self, site: str) -> tuple[SignedMeasurement, ...]:
        for row in self._evidence.history(site, limit=_HISTORY):
            if row.about == LOCATION:
                return msgspec.json.decode(row.appraisal, type=Kept).measurements
        return ()

    def _check(self, site: str, given: SignedMeasurement) -> Measurement | MeasurementRefused:
        return check_measurement(given, landmarks=self._landmarks(), site=site, site_keys=self._keys(site))


def _newer(
    known: dict[str, tuple[Measurement, SignedMeasurement]], found: Measurement, signed: SignedMeasurement
) -> None:
    before = known.get(found.landmark)
    if before is None or before[0].at <= found.at:
        known[found.landmark] = (found, signed)


def _sighting(measurement: Measurement, signed: SignedMeasurement) -> Sighting:
    return Sighting(
        landmark=measurement.landmark,
        latitude=measurement.latitude,
        longitude=measurement.longitude,
        position_error_km=measurement.position_error_km,
        rtt_ms=measurement.rtt_ns / 1e6,
        at=measurement.at,
        digest=signed.digest,
    )


def claimed(given: SignedMeasurement) -> Measurement:
    """What a measurement says of itself, before anybody checked it. Raises LocationRefused."""
    try:
        return msgspec.json.decode(given.body, type=Measurement)
    except (msgspec.DecodeError, ValueError) as error:
        raise LocationRefused(
            f"the measurement can't be read: {error}",
            code="measurement.unreadable",
            hint="send what `sekisho site measure` made",
        ) from None
