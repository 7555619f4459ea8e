"""The map of the Gateway screen: where each site can be, and what was counted at the border. Live, a table first."""

from __future__ import annotations

import asyncio
import hashlib

import msgspec
from litestar import Response, get

from sekisho.console.border_api import TheBorders
from sekisho.console.http import SignedOut, frame_of, page, part, query_of, signed_in
from sekisho.console.i18n import Language
from sekisho.console.inject import Asked, TheControl, TheSessions
from sekisho.console.location_api import TheLocations
from sekisho.console.render import View, with_query
from sekisho.console.services import Control
from sekisho.console.session import COOKIE
from sekisho.federation.border_service import BorderService, BorderView
from sekisho.federation.model import Site
from sekisho.kernel.errors import SekishoError
from sekisho.residency.location.land import natural_earth
from sekisho.residency.location.model import Disc, Finding
from sekisho.residency.location.overview import overview
from sekisho.residency.location.service import LocationRefused, LocationService
from sekisho.residency.location.words import LIMITS, headline, land_name


class SitePlace(msgspec.Struct, frozen=True, kw_only=True):
    """A site and where it can be. `finding` None: nobody declared its place. `disc`: the smallest that bounds it."""

    site: Site
    finding: Finding | None

    @property
    def verdict(self) -> str:
        return "unplaced" if self.finding is None else self.finding.verdict

    @property
    def disc(self) -> Disc | None:
        found = [] if self.finding is None else [disc for disc in self.finding.discs if disc.decides]
        return min(found, key=lambda each: each.radius_km, default=None)

    def lead(self, language: Language) -> str:
        return "" if self.finding is None else headline(self.finding).in_(language)

    def land(self, language: Language) -> str:
        if self.finding is None or self.finding.land is None:
            return ""
        return land_name(self.finding.land).in_(language)


class MapView(View, frozen=True, kw_only=True):
    """`chosen`: the site whose discs are drawn alone. `picture` changes its address when what it shows changes."""

    places: tuple[SitePlace, ...]
    borders: tuple[BorderView, ...]
    home: str
    failed: str
    chosen: SitePlace | None
    language: Language
    read_at: float

    @property
    def template(self) -> str:
        return "map.html"

    @property
    def refresh(self) -> str:
        return with_query("/gateway/map/live", {"site": self.chosen.site.id} if self.chosen else {})

    @property
    def picture(self) -> str:
        shown = [(place.site.id, place.verdict, place.finding and place.finding.digest) for place in self.places]
        version = hashlib.sha256(repr((shown, self.home)).encode()).hexdigest()[:12]
        return with_query("/gateway/map.svg", {"in": self.language, "v": version})

    @property
    def chosen_picture(self) -> str:
        if self.chosen is None or self.chosen.finding is None:
            return ""
        path = f"/api/v1/sites/{self.chosen.site.id}/location/map"
        return with_query(path, {"lang": self.language, "v": self.chosen.finding.digest[:12]})

    @property
    def limits(self) -> tuple[str, ...]:
        return tuple(limit.in_(self.language) for limit in LIMITS)


def places_of(control: Control, locations: LocationService) -> tuple[SitePlace, ...]:
    state = control.table()
    now = control.clock.now()
    found = []
    for site in state.federation.sites if state is not None else ():
        try:
            finding = locations.latest(site.id, now=now)
        except LocationRefused:
            finding = None
        found.append(SitePlace(site=site, finding=finding))
    return tuple(found)


def map_view(
    control: Control, locations: LocationService, borders: BorderService, *, site: str, language: Language
) -> MapView:
    state = control.table()
    places: tuple[SitePlace, ...] = ()
    counted: tuple[BorderView, ...] = ()
    failed = ""
    try:
        places = places_of(control, locations)
        counted = tuple(borders.views())
    except SekishoError as error:
        failed = str(error)
    return MapView(
        places=places,
        borders=counted,
        home="" if state is None else state.table.jurisdiction,
        failed=failed,
        chosen=next((place for place in places if place.site.id == site), None),
        language=language,
        read_at=control.clock.now(),
    )


@get("/gateway/map", include_in_schema=False)
async def map_page(
    request: Asked, control: TheControl, sessions: TheSessions, locations: TheLocations, borders: TheBorders
) -> Response[bytes]:
    frame = frame_of(request, control, signed_in(request, control, sessions), section="gateway")
    site = query_of(request).get("site", "")
    view = await asyncio.to_thread(map_view, control, locations, borders, site=site, language=frame.language)
    return page(view, frame)


@get("/gateway/map/live", include_in_schema=False)
async def map_part(
    request: Asked, control: TheControl, sessions: TheSessions, locations: TheLocations, borders: TheBorders
) -> Response[bytes]:
    """What moves, for the refresh in place."""
    session = sessions.open(request.cookies.get(COOKIE, ""), now=control.clock.now())
    if session is None:
        raise SignedOut
    frame = frame_of(request, control, session)
    site = query_of(request).get("site", "")
    view = await asyncio.to_thread(map_view, control, locations, borders, site=site, language=frame.language)
    return part("parts/map.html", view, frame)


@get("/gateway/map.svg", include_in_schema=False)
async def map_picture(
    request: Asked, control: TheControl, sessions: TheSessions, locations: TheLocations
) -> Response[bytes]:
    """The picture of all sites. Its address has a hash of what it shows, so a browser asks once for each."""
    signed_in(request, control, sessions)
    language: Language = "ja" if query_of(request).get("in") == "ja" else "en"
    state = control.table()

    def drawn() -> str:
        findings = [place.finding for place in places_of(control, locations) if place.finding is not None]
        home = "" if state is None else state.table.jurisdiction
        return overview(findings, natural_earth(), language, home=home)

    return Response(
        (await asyncio.to_thread(drawn)).encode(),
        media_type="image/svg+xml",
        headers={"Cache-Control": "private, max-age=86400", "Vary": "Cookie"},
    )
