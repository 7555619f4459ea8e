"""The places of the laboratory and the lines between them, as values."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec

from sekisho.kernel.errors import SekishoError

# An interface is named `to-<site>` and the kernel takes 15 bytes (IFNAMSIZ, netdevice(7)).
_SITE_ID = re.compile(r"[a-z][a-z0-9-]{0,11}")
_MAX_SITES = 250
_MAX_DELAY_MS = 60_000.0


class TopologyRefused(SekishoError):
    """The places and lines do not fit together."""

    code = "lab.topology"


class Place(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A site of the laboratory: one network namespace. `country` is ISO 3166-1 alpha-2; degrees are WGS 84."""

    id: str
    name: str
    country: str
    latitude: float = 0.0
    longitude: float = 0.0


class Line(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A line between two sites, the same in both directions.

    `rtt_ms` is there and back; `jitter_ms` is what one way takes longer at most (uniform, never out of order);
    `loss` a share of packets, one way; `mbit` megabits a second, one way (None: no limit), with room for `queue_ms`
    of waiting packets before the tail is dropped.
    """

    a: str
    b: str
    rtt_ms: float
    jitter_ms: float = 0.0
    loss: float = 0.0
    mbit: float | None = None
    queue_ms: float = 100.0

    @property
    def ends(self) -> frozenset[str]:
        return frozenset((self.a, self.b))


class Topology(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sites and lines. A line whose ends lie in different countries crosses the border of `jurisdiction` when one
    of them is it."""

    sites: tuple[Place, ...]
    lines: tuple[Line, ...]
    jurisdiction: str = "JP"

    def site(self, id: str) -> Place:
        for site in self.sites:
            if site.id == id:
                return site
        raise TopologyRefused(f"the laboratory has no site {id!r}", hint=f"there are {', '.join(self.ids)}")

    def line(self, a: str, b: str) -> Line:
        """The line between two sites, whichever way round it was written."""
        for line in self.lines:
            if line.ends == {a, b}:
                return line
        self.site(a), self.site(b)
        raise TopologyRefused(f"there is no line between {a} and {b}", hint="name two sites that a line joins")

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(site.id for site in self.sites)

    def address(self, id: str) -> str:
        """The IPv4 address of a site (RFC 1918; nothing of it leaves the machine)."""
        self.site(id)
        return f"10.88.0.{self.ids.index(id) + 1}"

    def crosses_border(self, line: Line) -> bool:
        inside = [self.site(end).country == self.jurisdiction for end in (line.a, line.b)]
        return inside[0] != inside[1]

    @property
    def border(self) -> tuple[Line, ...]:
        """The lines that cross it, the end inside first."""
        return tuple(
            line
            if self.site(line.a).country == self.jurisdiction
            else msgspec.structs.replace(line, a=line.b, b=line.a)
            for line in self.lines
            if self.crosses_border(line)
        )


def check(topology: Topology) -> Topology:
    """The topology itself; TopologyRefused when it can't be built."""
    ids = topology.ids
    for site in topology.sites:
        if not _SITE_ID.fullmatch(site.id):
            raise TopologyRefused(
                f"{site.id!r} can't name a site here",
                hint="write 1 to 12 lower-case letters, digits and hyphens: it names an interface too",
            )
    if len(set(ids)) != len(ids):
        raise TopologyRefused("two sites have one id", hint="give each its own")
    if len(ids) > _MAX_SITES:
        raise TopologyRefused(f"{len(ids)} sites are too many", hint=f"at most {_MAX_SITES}")
    seen: set[frozenset[str]] = set()
    for line in topology.lines:
        topology.site(line.a), topology.site(line.b)
        if line.a == line.b or line.ends in seen:
            raise TopologyRefused(f"the line {line.a}–{line.b} is there twice, or leads nowhere", hint="take it out")
        seen.add(line.ends)
        check_line(delay_ms=line.rtt_ms / 2, jitter_ms=line.jitter_ms, loss=line.loss, mbit=line.mbit)
    return topology


def check_line(*, delay_ms: float, jitter_ms: float, loss: float, mbit: float | None) -> None:
    """TopologyRefused for what no line can do. `delay_ms` is one way."""
    if not (0 <= delay_ms <= _MAX_DELAY_MS and 0 <= jitter_ms <= _MAX_DELAY_MS):
        raise TopologyRefused(
            f"delay {delay_ms:g} ms and jitter {jitter_ms:g} ms are not both between 0 and one minute",
            hint="milliseconds, one way",
        )
    if not 0 <= loss <= 1:
        raise TopologyRefused(f"a loss of {loss:g} is no share", hint="write 0.01 for one packet in a hundred")
    if mbit is not None and not mbit > 0:
        raise TopologyRefused(f"{mbit:g} Mbit/s carry nothing", hint="leave it out for no limit, or cut the line")


def read_topology(path: Path) -> Topology:
    """From TOML: `[[sites]]` and `[[lines]]` with the fields above. TopologyRefused says what is wrong with it."""
    try:
        return check(msgspec.convert(tomllib.loads(path.read_text("utf-8")), Topology))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise TopologyRefused(f"{path} is no topology: {error}", hint="see docs/tutorial/laboratory.en.md") from None


def _japan() -> Topology:
    """Typical round trips over fibre (field notes): Tokyo–Osaka 8–10 ms, –Ishikari 15–17, –Fukuoka 17–20, –US West
    100–110, –Virginia 150–180; the middles are used. Pairs that the notes do not name go over Tokyo, but Fukuoka's
    line goes through Osaka and Virginia's through the US West."""
    tokyo = {"osaka": 9.0, "ishikari": 16.0, "fukuoka": 18.5, "us-west": 105.0, "virginia": 165.0}
    through = {("osaka", "fukuoka"), ("us-west", "virginia")}
    names = list(tokyo)
    lines = [Line(a="tokyo", b=name, rtt_ms=rtt) for name, rtt in tokyo.items()]
    for index, a in enumerate(names):
        for b in names[index + 1 :]:
            rtt = tokyo[b] - tokyo[a] if (a, b) in through else tokyo[a] + tokyo[b]
            lines.append(Line(a=a, b=b, rtt_ms=rtt))
    return check(
        Topology(
            sites=(
                Place(id="tokyo", name="東京 Tokyo", country="JP", latitude=35.68, longitude=139.77),
                Place(id="osaka", name="大阪 Osaka", country="JP", latitude=34.69, longitude=135.50),
                Place(id="ishikari", name="石狩 Ishikari", country="JP", latitude=43.19, longitude=141.33),
                Place(id="fukuoka", name="福岡 Fukuoka", country="JP", latitude=33.59, longitude=130.40),
                Place(id="us-west", name="US West", country="US", latitude=47.23, longitude=-119.85),
                Place(id="virginia", name="Virginia", country="US", latitude=38.95, longitude=-77.45),
            ),
            lines=tuple(lines),
        )
    )


JAPAN = _japan()
"""The laboratory's default: four places in Japan, two in the United States of America, a line between every two."""
