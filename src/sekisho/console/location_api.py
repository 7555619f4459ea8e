"""The API of location proofs under /api/v1: the verdict about a site, its map, and measurements that come in."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal, Protocol, TypeAlias, runtime_checkable

import msgspec
from litestar import Response, Router, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, PathParameter, QueryParameter
from msgspec import Meta

from sekisho.console.api import admin_only
from sekisho.console.inject import TheActor, TheControl
from sekisho.federation.landmark import SignedMeasurement
from sekisho.federation.views import MeasurementAsked
from sekisho.kernel.ids import NAME
from sekisho.residency.location.land import natural_earth
from sekisho.residency.location.model import Finding
from sekisho.residency.location.picture import draw
from sekisho.residency.location.service import MAX_MEASUREMENTS, LocationService

SiteName = Annotated[str, PathParameter(pattern=f"^{NAME.pattern}$")]


class Measurements(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What landmarks signed about one site (`body` and `signature` in base64)."""

    measurements: Annotated[tuple[SignedMeasurement, ...], Meta(min_length=1, max_length=MAX_MEASUREMENTS)]


@runtime_checkable
class LocationRounds(Protocol):
    """The schedule of measurements."""

    def ask(self, site: str) -> tuple[str, ...]: ...


TheLocations: TypeAlias = NamedDependency[LocationService]
TheRounds: TypeAlias = NamedDependency[LocationRounds]


@get(
    "/sites/{site_id:str}/location",
    operation_id="location",
    summary="Where a site can be: the verdict that stands, its discs and its margin",
    sync_to_thread=True,
)
def get_location(control: TheControl, locations: TheLocations, site_id: SiteName) -> Finding:
    return locations.latest(site_id, now=control.clock.now())


@get(
    "/sites/{site_id:str}/location/map",
    operation_id="locationMap",
    summary="The same, drawn (SVG)",
    sync_to_thread=True,
)
def get_map(
    control: TheControl,
    locations: TheLocations,
    site_id: SiteName,
    lang: Annotated[Literal["en", "ja"], QueryParameter()] = "en",
) -> Response[bytes]:
    finding = locations.latest(site_id, now=control.clock.now())
    return Response(draw(finding, natural_earth(), lang).encode(), media_type="image/svg+xml")


@post(
    "/sites/{site_id:str}/location",
    operation_id="takeMeasurements",
    summary="Take in what landmarks measured; the verdict is in force when this answers",
    status_code=200,
)
async def take_measurements(
    control: TheControl, actor: TheActor, locations: TheLocations, site_id: SiteName, data: JSONBody[Measurements]
) -> Finding:
    finding = await asyncio.to_thread(
        locations.take, site_id, data.measurements, now=control.clock.now(), actor=actor
    )
    await control.changed()
    return finding


@post(
    "/sites/{site_id:str}/location/measure",
    operation_id="measureNow",
    summary="Have every landmark among the sites measure this one at its next heart-beat",
    status_code=202,
    sync_to_thread=True,
)
def measure_now(
    control: TheControl, locations: TheLocations, rounds: TheRounds, site_id: SiteName
) -> MeasurementAsked:
    locations.latest(site_id, now=control.clock.now())  # refuses a site that can't be measured
    return MeasurementAsked(landmarks=rounds.ask(site_id))


def location_router() -> Router:
    handlers: list[Any] = [get_location, get_map, take_measurements, measure_now]
    return Router(
        "/api/v1", route_handlers=handlers, guards=[admin_only], security=[{"admin": []}], tags=["location"]
    )
