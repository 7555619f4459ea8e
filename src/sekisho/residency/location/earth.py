"""Places on the Earth as points in space, and distances that nothing can undercut.

A signal needs at least `distance / c`, whatever carries it. The distance that holds against everyone is therefore the
straight line through space, not a way along the ground: with WGS 84 in Cartesian coordinates there is no sphere to
approximate, and its rounding is below a millimetre.

Heights need no allowance above the ellipsoid: the nearest-point projection onto a convex body moves no two points
further apart, so the true distance of two raised places is never below that of their feet on the ellipsoid. Below it
(the geoid's deepest dent is 106 m, and cellars go deeper) `DEPTH_KM` is allowed for.
"""

from __future__ import annotations

from math import asin, atan2, cos, degrees, radians, sin, sqrt

# NGA.STND.0036 (WGS 84): semi-major axis and flattening.
SEMI_MAJOR_KM = 6378.137
FLATTENING = 1 / 298.257223563
_ECCENTRICITY_2 = FLATTENING * (2 - FLATTENING)

LIGHT_KM_PER_MS = 299.792458  # vacuum, exact (SI)
FIBRE_KM_PER_MS = LIGHT_KM_PER_MS * 2 / 3  # glass with a refractive index of about 1.5

DEPTH_KM = 0.5

Point = tuple[float, float, float]
"""Earth-centred, Earth-fixed coordinates in km."""


def point(latitude: float, longitude: float) -> Point:
    """Degrees (geodetic) to the point on the ellipsoid, km."""
    phi, lam = radians(latitude), radians(longitude)
    sine = sin(phi)
    normal = SEMI_MAJOR_KM / sqrt(1 - _ECCENTRICITY_2 * sine * sine)
    across = normal * cos(phi)
    return (across * cos(lam), across * sin(lam), normal * (1 - _ECCENTRICITY_2) * sine)


def place(at: Point) -> tuple[float, float]:
    """Latitude and longitude (degrees) of a point near the surface; good to a metre within 10 km of it."""
    x, y, z = at
    return degrees(atan2(z, (1 - _ECCENTRICITY_2) * sqrt(x * x + y * y))), degrees(atan2(y, x))


def ground_km(chord_km: float) -> float:
    """The way along a sphere of the Earth's mean radius (6,371.0088 km, IUGG) that a straight line of this length
    spans; for drawing and for people, never for a verdict."""
    return 2 * 6371.0088 * asin(min(1.0, chord_km / (2 * 6371.0088)))


def radius_km(rtt_ms: float) -> float:
    """How far something that answered within `rtt_ms` can be: there and back at the speed of light in vacuum."""
    return rtt_ms / 2 * LIGHT_KM_PER_MS


def fibre_radius_km(rtt_ms: float) -> float:
    """The same for glass: what honest networks can reach. It is shown; nothing is decided on it."""
    return rtt_ms / 2 * FIBRE_KM_PER_MS
