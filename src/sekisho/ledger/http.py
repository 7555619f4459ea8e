"""The log over HTTP, as C2SP tlog-tiles has it: files that may be kept for ever, and one that may not.

Checkpoints and tiles are hashes, and open to everybody. Entry bundles name tenants: they need the admin token.
"""

from __future__ import annotations

import asyncio
import hmac
from pathlib import Path
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, Router, get
from litestar.di import NamedDependency
from litestar.exceptions import NotAuthorizedException, NotFoundException
from litestar.params import FromPath, PathParameter

from sekisho.ledger.tlog.log import LogReader
from sekisho.ledger.tlog.tiles import TileName
from sekisho.ledger.tlog.years import directory, years

# "its headers SHOULD prevent caching beyond a few seconds" (c2sp.org/tlog-tiles)
_CHECKPOINT_HEADERS = {"Cache-Control": "no-cache", "Access-Control-Allow-Origin": "*"}
_TILE_HEADERS = {"Cache-Control": "public, max-age=31536000, immutable", "Access-Control-Allow-Origin": "*"}
_BUNDLE_HEADERS = {"Cache-Control": "private, max-age=31536000, immutable"}

Year = Annotated[int, PathParameter(ge=1000, le=9999)]


class LogFiles:
    """The logs of this installation, and who may read their entries."""

    def __init__(self, base: Path, admin_token: str) -> None:
        self.base = base
        self._token = admin_token.encode()

    def may_read_entries(self, authorization: str) -> bool:
        scheme, _, given = authorization.partition(" ")
        return hmac.compare_digest(given.strip().encode(), self._token) and scheme.lower() == "bearer"

    def reader(self, year: int) -> LogReader:
        """NotFoundException when there is no log of that year."""
        if year not in years(self.base):
            raise NotFoundException(f"there is no log of the year {year}")
        return LogReader(directory(self.base, year), cached_tiles=1)


class LogListed(msgspec.Struct, frozen=True, kw_only=True):
    """One log. `prefix`: where its files are served, below this server's address."""

    year: int
    origin: str
    size: int
    prefix: str


@get("/log", include_in_schema=False)
async def logs(log_files: NamedDependency[LogFiles]) -> list[LogListed]:
    """The logs, oldest first."""

    def read() -> list[LogListed]:
        found = []
        for year in years(log_files.base):
            head = log_files.reader(year).checkpoint()
            found.append(LogListed(year=year, origin=head.origin, size=head.size, prefix=f"/log/{year:04d}"))
        return found

    return await asyncio.to_thread(read)


@get("/log/{year:int}/checkpoint", include_in_schema=False)
async def checkpoint(log_files: NamedDependency[LogFiles], year: Year) -> Response[bytes]:
    """The signed head."""
    note = await asyncio.to_thread(lambda: log_files.reader(year).checkpoint_note())
    return Response(note, media_type="text/plain", headers=_CHECKPOINT_HEADERS)


@get("/log/{year:int}/tile/{rest:path}", include_in_schema=False)
async def tile(
    request: Request[Any, Any, Any], log_files: NamedDependency[LogFiles], year: Year, rest: FromPath[str]
) -> Response[bytes]:
    """A tile or a bundle of entries."""
    name = TileName.parse(f"tile/{rest.lstrip('/')}")
    if name is None:
        raise NotFoundException("there is no such tile")
    if name.level is None and not log_files.may_read_entries(request.headers.get("Authorization", "")):
        raise NotAuthorizedException("entries name tenants: they need the admin token")
    data = await asyncio.to_thread(lambda: _published(log_files.reader(year), name))
    if data is None:
        raise NotFoundException("there is no such tile")
    return Response(
        data,
        media_type="application/octet-stream",
        headers=_BUNDLE_HEADERS if name.level is None else _TILE_HEADERS,
    )


def _published(reader: LogReader, name: TileName) -> bytes | None:
    """The file, if the published checkpoint stands for all of it: what is cached for ever must not change."""
    end = (name.index * 256 + name.width) << 8 * (name.level or 0)
    return reader.file(name) if end <= reader.size else None


def log_router() -> Router:
    """GET /log, /log/YEAR/checkpoint, /log/YEAR/tile/…; depends on `log_files`."""
    return Router("/", route_handlers=[logs, checkpoint, tile])
