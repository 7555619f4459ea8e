"""What is measured of a site's place, and what follows from it."""

from __future__ import annotations

from typing import Literal

import msgspec

from sekisho.residency.location.land import Nearest
from sekisho.residency.model import LocationVerdict

# Codes; docs/explanation/location-proofs has a line on each.
Why = Literal[
    "location.inside",  # no foreign land can be reached
    "location.no_land",  # nothing but sea can be reached
    "location.foreign_in_reach",  # the answers were not fast enough to rule foreign land out
    "location.declared_outside",  # the declared place cannot be reached within the time of an answer
    "location.too_slow",  # slower than the limit that the operator itself set
    "location.unmeasured",  # no measurement that counts
]


class Sighting(msgspec.Struct, frozen=True, kw_only=True):
    """A measurement whose signatures were checked: within `rtt_ms` of asking, the site's key answered.

    `at` in Unix seconds. The position is the landmark's registered one, good to `position_error_km`.
    """

    landmark: str
    latitude: float
    longitude: float
    position_error_km: float
    rtt_ms: float
    at: float
    digest: str = ""  # SHA-256 (hex) of the signed measurement


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """Where a site says that it is. `country`: ISO 3166-1 alpha-2; `error_km`: how exactly the place is declared.

    `limits_ms`: for each landmark, the slowest answer that the operator allows itself. Slowness alone proves nothing:
    whoever wants it to count has to say so here, and then a congested line may close the site's routes.
    """

    site: str
    country: str
    latitude: float
    longitude: float
    error_km: float = 1.0
    limits_ms: dict[str, float] = {}


class Disc(msgspec.Struct, frozen=True, kw_only=True):
    """What one landmark knows. `radius_km` holds against everyone; `fibre_km` only on honest networks.

    `distance_km` is the straight line to the declared place; `decides` is false where the disc is so large that it
    bounds nothing.
    """

    landmark: str
    latitude: float
    longitude: float
    rtt_ms: float
    radius_km: float
    fibre_km: float
    distance_km: float
    decides: bool = True


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict about one claim, and all that it rests on.

    `margin_km`: by how much every disc could still grow before foreign land is in reach; negative: by how much they
    would have to shrink. `outside_km`: how far the declared place lies outside (0: inside). `land` is the foreign
    land that decides. `fibre_margin_km` is the margin if every network were honest glass: never decided on.
    `at` and `until` in Unix seconds.
    """

    claim: Claim
    verdict: LocationVerdict
    why: Why
    margin_km: float = 0.0
    outside_km: float = 0.0
    land: Nearest | None = None
    fibre_margin_km: float | None = None
    slow: tuple[str, ...] = ()  # landmarks beyond their limit
    discs: tuple[Disc, ...] = ()
    at: float = 0.0
    until: float = 0.0
    digest: str = ""
