"""Where a site can be, judged from signed answers alone. Pure: no clock, no disk, no network.

Every error is counted against the proof: the landmark's position, the drift of its clock, the map's lines, depth
below the ellipsoid. A slow answer makes a disc larger and so a proof weaker; it can't make it wrong.

Why "no outline is in reach, and the declared place is not foreign" means that no foreign point is in reach: caps of
the Earth below a hemisphere are convex, so their intersection is in one piece; a piece that meets no outline lies
wholly on one side of all of them; and the declared place is in it. Discs of more than `WIDEST_KM` are therefore left
out, which only makes the region larger.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from math import dist, floor

from sekisho.residency.location.earth import DEPTH_KM, fibre_radius_km, point, radius_km
from sekisho.residency.location.land import MAP_ERROR_KM, Ball, Country, Land, Nearest, excess_km
from sekisho.residency.location.model import Claim, Disc, Finding, Sighting, Why
from sekisho.residency.model import LocationFacts, LocationVerdict

# Linux slews CLOCK_MONOTONIC by at most 500 ppm (adjtimex(2)): a second it shows may have lasted that much longer.
CLOCK_ERROR = 500e-6
# A straight line of 8,000 km spans 78 degrees of the Earth: below the hemisphere with room for the ellipsoid's shape.
WIDEST_KM = 8000.0
# A landmark's wall clock may be ahead of ours by this much; later than that its measurement does not count yet.
CLOCK_AHEAD_S = 60.0


def decide(claim: Claim, sightings: Iterable[Sighting], land: Land, *, now: float, validity_s: float) -> Finding:
    """The verdict from the newest sighting of each landmark that is not older than `validity_s`."""
    used = _newest(sightings, now=now, validity_s=validity_s)
    if not used:
        return Finding(claim=claim, verdict="declared", why="location.unmeasured")
    declared = point(claim.latitude, claim.longitude)
    discs = tuple(_disc(each, declared) for each in used)
    outside_km = max(disc.distance_km - disc.radius_km for disc in discs) - claim.error_km
    slow = tuple(disc.landmark for disc in discs if disc.rtt_ms > claim.limits_ms.get(disc.landmark, disc.rtt_ms))
    # also by the error of the declared place, so that it lies in the region whenever it is not contradicted
    wider_km = max(MAP_ERROR_KM, claim.error_km)
    balls = [Ball(point(disc.latitude, disc.longitude), disc.radius_km + wider_km) for disc in discs if disc.decides]
    nearest = _foreign(claim, balls, land) if balls else None
    margin_km = 0.0 if nearest is None else nearest.excess_km
    verdict: LocationVerdict
    why: Why
    if outside_km > 0:
        verdict, why = "contradicted", "location.declared_outside"
    elif slow:
        verdict, why = "contradicted", "location.too_slow"
    elif margin_km > 0 and not _home_in_reach(claim, balls, land):
        verdict, why = "consistent", "location.no_land"
    elif margin_km > 0:
        verdict, why = "proven", "location.inside"
    else:
        verdict, why = "consistent", "location.foreign_in_reach"
    at = min(each.at for each in used)
    return Finding(
        claim=claim,
        verdict=verdict,
        why=why,
        margin_km=margin_km,
        outside_km=max(0.0, outside_km),
        land=nearest,
        fibre_margin_km=_fibre_margin_km(claim, discs, land),
        slow=slow,
        discs=discs,
        at=at,
        until=at + validity_s,
        digest=_digest(used),
    )


def facts(finding: Finding) -> LocationFacts:
    """What the policy may know of it. The margin is rounded down: it never looks larger than it is."""
    return LocationFacts(
        verdict=finding.verdict,
        margin_km=floor(finding.margin_km),
        at=finding.at,
        until=finding.until,
        digest=finding.digest,
    )


def _newest(sightings: Iterable[Sighting], *, now: float, validity_s: float) -> list[Sighting]:
    newest: dict[str, Sighting] = {}
    for each in sightings:
        if now - validity_s < each.at <= now + CLOCK_AHEAD_S:
            known = newest.get(each.landmark)
            if known is None or (each.at, each.digest) > (known.at, known.digest):
                newest[each.landmark] = each
    return [newest[landmark] for landmark in sorted(newest)]


def _disc(sighting: Sighting, declared: tuple[float, float, float]) -> Disc:
    slack = sighting.position_error_km + DEPTH_KM
    longest_ms = sighting.rtt_ms * (1 + CLOCK_ERROR)
    radius = radius_km(longest_ms) + slack
    return Disc(
        landmark=sighting.landmark,
        latitude=sighting.latitude,
        longitude=sighting.longitude,
        rtt_ms=sighting.rtt_ms,
        radius_km=radius,
        fibre_km=fibre_radius_km(longest_ms) + slack,
        distance_km=dist(declared, point(sighting.latitude, sighting.longitude)),
        decides=radius + MAP_ERROR_KM <= WIDEST_KM,
    )


def _foreign(claim: Claim, balls: Sequence[Ball], land: Land) -> Nearest | None:
    """The foreign land that decides; its excess is the margin (above 0: nothing foreign is in reach).

    None when there is none at all, which no map of the Earth has.
    """

    def foreign(country: Country) -> bool:
        return country.code != claim.country

    below = next(filter(foreign, land.countries_at(claim.latitude, claim.longitude)), None)
    if below is not None:
        # Whatever the outlines say: the declared place itself is abroad, and it is as far inside as it can be.
        here = excess_km(point(claim.latitude, claim.longitude), balls)
        nearest = land.nearest(balls, foreign)
        value = min(here, 0.0) if nearest is None else min(here, 0.0, nearest.excess_km)
        return Nearest(excess_km=value, country=below, latitude=claim.latitude, longitude=claim.longitude)
    return _best(claim, balls, land)


def _best(claim: Claim, balls: Sequence[Ball], land: Land) -> Nearest | None:
    """The largest excess that any of the discs give, without the widest where that allows more.

    Grown by more than what is left to the hemisphere, discs say nothing any more: a wide one limits the margin that
    the narrow ones prove alone. So a landmark that answers late makes the proof no stronger by dropping out.
    """

    def foreign(country: Country) -> bool:
        return country.code != claim.country

    best: Nearest | None = None
    rest = sorted(balls, key=lambda ball: ball.radius_km)
    while rest:
        nearest = land.nearest(rest, foreign)
        if nearest is None:
            return None
        room = WIDEST_KM - rest.pop().radius_km
        within = Nearest(
            excess_km=min(nearest.excess_km, room),
            country=nearest.country,
            latitude=nearest.latitude,
            longitude=nearest.longitude,
        )
        if best is None or within.excess_km > best.excess_km:
            best = within
        if nearest.excess_km <= room:
            break  # with fewer discs foreign land is only nearer
    return best


def _home_in_reach(claim: Claim, balls: Sequence[Ball], land: Land) -> bool:
    """A region of open sea proves nothing about a country."""

    def home(country: Country) -> bool:
        return country.code == claim.country

    below = land.countries_at(claim.latitude, claim.longitude)
    return any(map(home, below)) or land.nearest(balls, home, within_km=0.0) is not None


def _fibre_margin_km(claim: Claim, discs: Sequence[Disc], land: Land) -> float | None:
    balls = [Ball(point(disc.latitude, disc.longitude), disc.fibre_km + MAP_ERROR_KM) for disc in discs]
    balls = [ball for ball in balls if ball.radius_km <= WIDEST_KM]
    nearest = _foreign(claim, balls, land) if balls else None
    return None if nearest is None else nearest.excess_km


def _digest(used: Sequence[Sighting]) -> str:
    """SHA-256 over the digests of the measurements, in the order of the landmarks' names."""
    digest = hashlib.sha256(b"sekisho/location-finding/v1\0")
    for each in used:
        digest.update(each.digest.encode() + b"\n")
    return digest.hexdigest()
