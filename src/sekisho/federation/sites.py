"""Sites while they work: requests of their agents, heart-beats, suspension, and what of it is in the federation
now."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Mapping, Sequence
from urllib.parse import urlsplit

import msgspec
import sqlalchemy as sa

from sekisho.federation import enrolments as sql
from sekisho.federation.address import AddressRefused, check_url
from sekisho.federation.declare import SiteDeclaration
from sekisho.federation.enrol import stored_operators
from sekisho.federation.enrolments import Agent
from sekisho.federation.errors import AgentRefused, Conflict, EnrolmentRefused, UnknownName
from sekisho.federation.model import Endpoint, Federation, Operator, Pool, Site, UpstreamTls
from sekisho.federation.records import append_version, current
from sekisho.federation.report import Heartbeat, Inventory
from sekisho.federation.signing import agent_signed, parse_spki, pin_of_spki, request_text, rotation_text
from sekisho.federation.views import SiteView
from sekisho.kernel.ids import NAME
from sekisho.runtime.changes import record_change
from sekisho.runtime.database import Database

# How far an agent's clock may be off: its counter is the time, so that a lost state can't make it repeat one.
CLOCK_S = 120.0
_decode_heartbeat = msgspec.json.Decoder(Heartbeat).decode
_decode_declaration = msgspec.json.Decoder(SiteDeclaration).decode


class SignedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request of an agent as it came. `counter`: microseconds of its clock, above that of every request before."""

    method: str
    path: str
    site: str
    counter: int
    signature: str
    body: bytes


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """`renew`: the route table has to be made anew for what this heart-beat brought."""

    suspended: bool
    renew: bool


class AnsweringSite(msgspec.Struct, frozen=True, kw_only=True):
    """An enrolled site, the key of its agent (base64 SubjectPublicKeyInfo) and where it answers location challenges
    (`host:port`; empty: nowhere)."""

    site: str
    spki: str
    location: str
    since: float


class Enrolled(msgspec.Struct, frozen=True, kw_only=True):
    """What enrolment adds to the configuration."""

    operators: tuple[Operator, ...] = ()
    sites: tuple[Site, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    pools: tuple[Pool, ...] = ()


class SiteService:
    """`federation` gives the configuration; `validity_s` how long a heart-beat holds; `tls` with what gateways show
    themselves to agents (file names of certificate and key), pins being added for each site; `placed` names enrolled
    sites whose place stands in this installation's configuration as well: those that it simulates."""

    def __init__(
        self,
        database: Database,
        federation: Callable[[], Federation],
        *,
        validity_s: Callable[[], float],
        tls: UpstreamTls,
        placed: Callable[[], frozenset[str]] = frozenset,
    ) -> None:
        self._database = database
        self._federation = federation
        self._validity_s = validity_s
        self._tls = tls
        self._placed = placed

    # -- agents

    def authenticate(self, request: SignedRequest, *, now: float) -> Agent:
        """The agent whose key signed this request, once: its counter is taken. Raises AgentRefused."""
        with self._database.read() as connection:
            agent = sql.find_agent(connection, request.site)
            if agent is None:
                raise _not_approved(connection, request.site)
        if not _signed(request, agent.spki):
            raise AgentRefused(
                "the request is not signed with the key that was approved",
                code="agent.signature",
                hint="if the agent lost its key, ask for an invitation with --replace",
            )
        if abs(request.counter / 1e6 - now) > CLOCK_S:
            raise AgentRefused(
                f"the request was made {request.counter / 1e6 - now:+.0f} s from now",
                code="agent.clock",
                hint="set the clock of the site's machine (NTP)",
            )
        with self._database.write() as connection:
            if not sql.advance(connection, agent.site, pin=agent.pin, counter=request.counter):
                raise AgentRefused(
                    "this request, or a later one, came before",
                    code="agent.replayed",
                    hint="run one agent a site, and let it make each request anew",
                )
        return agent

    def heartbeat(self, agent: Agent, body: bytes, *, now: float) -> Heard:
        """Takes over what an authenticated agent reports. Raises EnrolmentRefused for a report that can't be so."""
        try:
            report = _decode_heartbeat(body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise EnrolmentRefused(
                f"the heart-beat can't be read: {error}",
                code="agent.report",
                hint="do the agent and the control plane have the same version?",
            ) from None
        self._check(agent, report)
        text = msgspec.json.encode(report).decode()
        with self._database.write() as connection:
            self._free_of_clashes(connection, agent.site, report)
            before = sql.find_agent(connection, agent.site)
            if before is None or before.pin != agent.pin:
                raise AgentRefused(
                    "the key was replaced a moment ago", code="agent.signature", hint="use the new key"
                )
            changed = _record_endpoints(connection, agent, report, now=now, actor=f"site/{agent.site}"[:64])
            moved = bool(before.report) and not hosts(report) <= hosts(_decode_heartbeat(before.report.encode()))
            if moved:
                sql.moved(connection, agent.site, at=now)
                record_change(
                    connection,
                    now=now,
                    actor=f"site/{agent.site}"[:64],
                    action="site.moved",
                    subject=f"site/{agent.site}",
                    detail={"hosts": ", ".join(sorted(hosts(report)))[:200]},
                )
            sql.heard(connection, agent.site, at=now, report=text)
            suspended = agent.site in sql.suspended_sites(connection)
            validity_s = self._validity_s()
            stale = before.heard_at is None or before.heard_at + validity_s <= now
            if stale:
                record_change(
                    connection,
                    now=now,
                    actor=f"site/{agent.site}"[:64],
                    action="site.heard_again" if before.heard_at is not None else "site.first_heard",
                    subject=f"site/{agent.site}",
                    detail={"endpoints": str(len(report.endpoints))},
                )
        return Heard(suspended=suspended, renew=changed or stale or moved)

    def rotate(self, agent: Agent, *, spki: str, proof: bytes, now: float) -> str:
        """Changes an authenticated agent's key; the new one signs that it is there. The answer is the new pin."""
        key = parse_spki(spki)
        if key is None or not agent_signed(key, proof, rotation_text(site=agent.site, old=agent.spki, new=spki)):
            raise EnrolmentRefused(
                "the new key is no P-256 key, or did not sign the change",
                code="agent.rotation",
                hint="run `sekisho site rotate` again",
            )
        pin = pin_of_spki(spki)
        with self._database.write() as connection:
            now_there = sql.find_agent(connection, agent.site)
            if now_there is None or now_there.pin != agent.pin:
                raise Conflict("the key was changed a moment ago", hint="nothing needs to be done")
            if sql.pin_in_use(connection, pin):
                raise EnrolmentRefused("this key was used before", code="enrol.key_used", hint="make a new one")
            sql.rekey(connection, agent.site, spki=spki, pin=pin, now=now)
            record_change(
                connection,
                now=now,
                actor=f"site/{agent.site}"[:64],
                action="site.key_rotated",
                subject=f"site/{agent.site}",
                detail={"old": agent.pin, "pin": pin},
            )
        return pin

    def _check(self, agent: Agent, report: Heartbeat) -> None:
        ids = [endpoint.id for endpoint in report.endpoints]
        if len(set(ids)) != len(ids):
            raise EnrolmentRefused(
                "an endpoint is reported twice", code="agent.report", hint="give each endpoint an id of its own"
            )
        for endpoint in report.endpoints:
            checked = check_url(endpoint.url)
            if isinstance(checked, AddressRefused) or checked != endpoint.url or not checked.startswith("https://"):
                why = (
                    checked.what if isinstance(checked, AddressRefused) else "the url is not https in its plain form"
                )
                raise EnrolmentRefused(
                    f"endpoint {endpoint.id} of {agent.site}: {why}",
                    code="agent.report",
                    hint="write it as https://host:port/v1, as gateways reach the agent",
                )

    def _free_of_clashes(self, connection: sa.Connection, site: str, report: Heartbeat) -> None:
        taken = {endpoint.id: "the configuration" for endpoint in self._federation().endpoints}
        for other, endpoint in _stored_endpoints(connection):
            if other != site:
                taken[endpoint.id] = f"site {other}"
        for reported in report.endpoints:
            if reported.id in taken:
                raise EnrolmentRefused(
                    f"{taken[reported.id]} has an endpoint {reported.id!r}",
                    code="agent.endpoint_clash",
                    hint="give it another id in the agent's file",
                )

    # -- people

    def set_suspended(self, site: str, suspended: bool, *, now: float, actor: str) -> bool:
        """A whole site, configured or enrolled, out of every route or back. False when it was so before."""
        with self._database.write() as connection:
            known = {each.id for each in self._federation().sites} | {each.site for each in sql.agents(connection)}
            if site not in known:
                raise UnknownName(f"there is no site {site!r}", hint="`sekisho site list` names them")
            changed = sql.set_site_suspended(connection, site, suspended, now=now, actor=actor)
            if changed:
                record_change(
                    connection,
                    now=now,
                    actor=actor,
                    action="site.suspended" if suspended else "site.resumed",
                    subject=f"site/{site}",
                )
        return changed

    def suspended(self) -> frozenset[str]:
        with self._database.read() as connection:
            return sql.suspended_sites(connection)

    def views(self, *, now: float) -> list[SiteView]:
        """Every site there is or may be: configured, enrolled, waiting."""
        configured = self._federation()
        with self._database.read() as connection:
            suspended = sql.suspended_sites(connection)
            enrolled = list(_enrolled(connection))
            waiting = sql.enrolments(connection, state="waiting")
        views = [_configured_view(site, configured, suspended=site.id in suspended) for site in configured.sites]
        taken = {site.id for site in configured.sites}
        validity_s = self._validity_s()
        for agent, declaration, report in enrolled:
            if agent.site not in taken:
                views.append(
                    _agent_view(
                        agent, declaration, report, suspended=agent.site in suspended, now=now, validity_s=validity_s
                    )
                )
                taken.add(agent.site)
        for each in waiting:
            if each.site not in taken:
                views.append(_waiting_view(each))
        return views

    def since(self) -> dict[str, float]:
        """From when on evidence about each enrolled site counts: an agent that was replaced, or that moved to other
        hosts, has proved nothing yet; a rotated key is the same agent's."""
        with self._database.read() as connection:
            return {agent.site: agent.since for agent in sql.agents(connection)}

    def answering(self) -> tuple[AnsweringSite, ...]:
        """Every site with an approved agent."""
        with self._database.read() as connection:
            return tuple(
                AnsweringSite(site=agent.site, spki=agent.spki, location=report.location, since=agent.since)
                for agent, _, report in _enrolled(connection)
            )

    # -- the federation

    def tls(self, connection: sa.Connection) -> dict[str, UpstreamTls]:
        """By site, for those that stand behind an approved agent: what gateways show and whom they believe."""
        configured = {each.id for each in self._federation().sites}
        return {
            agent.site: msgspec.structs.replace(self._tls, pins=(agent.pin,))
            for agent in sql.agents(connection)
            if agent.site not in configured
        }

    def enrolled(self, connection: sa.Connection) -> Enrolled:
        """Sites with an approved agent, their operators, endpoints and GPUs. The configuration wins on an id
        clash."""
        configured = self._federation()
        validity_s = self._validity_s()
        known_operators = {each.id for each in configured.operators}
        operators = [each for each in stored_operators(connection).values() if each.id not in known_operators]
        known_operators |= {each.id for each in operators}
        placed = self._placed()
        taken_sites = {each.id for each in configured.sites}
        taken_endpoints = {each.id for each in configured.endpoints}
        sites: list[Site] = []
        endpoints: list[Endpoint] = []
        pools: list[Pool] = []
        for agent, declaration, report in _enrolled(connection):
            if agent.site in taken_sites or declaration.operator not in known_operators:
                continue
            heard_at = agent.heard_at if agent.heard_at is not None else agent.since
            site = declaration.as_site(valid_until=heard_at + validity_s)
            sites.append(msgspec.structs.replace(site, enrolled=False) if site.id in placed else site)
            tls = msgspec.structs.replace(self._tls, pins=(agent.pin,))
            for each in report.endpoints:
                if each.id not in taken_endpoints:
                    taken_endpoints.add(each.id)
                    endpoints.append(
                        Endpoint(
                            id=each.id, site=agent.site, url=each.url, models=each.models, slots=each.slots, tls=tls
                        )
                    )
            pools += pools_of(agent.site, report.inventory)
        return Enrolled(
            operators=tuple(operators), sites=tuple(sites), endpoints=tuple(endpoints), pools=tuple(pools)
        )


def with_windows(federation: Federation, windows: Sequence[Endpoint], tls: Mapping[str, UpstreamTls]) -> Federation:
    """The federation with the endpoints of tenants' windows, as far as its sites are there. `tls`: how gateways reach
    sites that stand behind an agent."""
    sites = {site.id for site in federation.sites}
    taken = {endpoint.id for endpoint in federation.endpoints}
    added = [
        msgspec.structs.replace(each, tls=tls.get(each.site))
        for each in windows
        if each.site in sites and each.id not in taken
    ]
    return msgspec.structs.replace(federation, endpoints=(*federation.endpoints, *added)) if added else federation


def hosts(report: Heartbeat) -> frozenset[str]:
    """Where a site is reached: what its endpoints and its answers to landmarks are asked at, without ports."""
    named = {urlsplit(each.url).hostname or "" for each in report.endpoints}
    return frozenset(named | {report.location.rpartition(":")[0].strip("[]").lower()} - {""})


def merge(configured: Federation, enrolled: Enrolled) -> Federation:
    """One federation; ids of `enrolled` don't clash with the configuration's."""
    if enrolled == Enrolled():
        return configured
    taken = {pool.site for pool in configured.pools}
    return msgspec.structs.replace(
        configured,
        operators=(*configured.operators, *enrolled.operators),
        sites=(*configured.sites, *enrolled.sites),
        endpoints=(*configured.endpoints, *enrolled.endpoints),
        # where GPUs of a site are configured, its inventory is shown but not counted again
        pools=(*configured.pools, *(pool for pool in enrolled.pools if pool.site not in taken)),
    )


def pools_of(site: str, inventory: Inventory) -> list[Pool]:
    """One pool a GPU model, named by site and model: `ishikari-2.nvidia-h200`."""
    counts: dict[tuple[str, int], int] = {}
    for gpu in inventory.gpus:
        kind = (gpu.name, gpu.memory_mib)
        counts[kind] = counts.get(kind, 0) + 1
    pools: dict[str, Pool] = {}
    for (name, memory_mib), count in sorted(counts.items()):
        slug = "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in name.lower()).strip("-")
        base = f"{site[: 60 - len(slug[:40])]}.{slug[:40] or 'gpu'}"
        made = base if base not in pools else f"{base[:58]}.{memory_mib % 100_000}"
        if NAME.fullmatch(made):
            pools[made] = Pool(
                id=made, site=site, gpu=name, count=count, memory_mib=memory_mib, simulated=inventory.simulated
            )
    return list(pools.values())


def _not_approved(connection: sa.Connection, site: str) -> AgentRefused:
    found = sql.enrolments(connection, site=site)
    if found and found[0].state == "waiting":
        return AgentRefused(
            f"site {site} waits for approval",
            code="agent.waiting",
            hint="an administrator runs `sekisho site approve`",
        )
    if found and found[0].state == "rejected":
        return AgentRefused(
            f"the enrolment of {site} was rejected", code="agent.rejected", hint="ask for another invitation"
        )
    return AgentRefused(
        f"no agent of {site!r} is enrolled", code="agent.unknown", hint="run `sekisho site enrol` first"
    )


def _signed(request: SignedRequest, spki: str) -> bool:
    key = parse_spki(spki)
    try:
        signature = base64.b64decode(request.signature, validate=True)
    except (binascii.Error, ValueError):
        return False
    text = request_text(
        method=request.method, path=request.path, site=request.site, counter=request.counter, body=request.body
    )
    return key is not None and agent_signed(key, signature, text)


def _record_endpoints(connection: sa.Connection, agent: Agent, report: Heartbeat, *, now: float, actor: str) -> bool:
    """A new version of each endpoint that differs from the last report; load and connections are no such thing."""
    before = {endpoint.id: endpoint for site, endpoint in _stored_endpoints(connection) if site == agent.site}
    changed = False
    wanted = {
        each.id: Endpoint(id=each.id, site=agent.site, url=each.url, models=each.models, slots=each.slots)
        for each in report.endpoints
    }
    for name, endpoint in wanted.items():
        if append_version(connection, kind="endpoint", id=name, body=endpoint, now=now, actor=actor):
            changed = True
            record_change(
                connection,
                now=now,
                actor=actor,
                action="endpoint.reported",
                subject=f"endpoint/{name}",
                detail={"site": agent.site, "url": endpoint.url, "slots": str(endpoint.slots)},
            )
    for name, endpoint in before.items():
        if name not in wanted:
            changed = True
            append_version(connection, kind="endpoint", id=name, body=endpoint, now=now, actor=actor, retired=True)
            record_change(
                connection,
                now=now,
                actor=actor,
                action="endpoint.retired",
                subject=f"endpoint/{name}",
                detail={"site": agent.site},
            )
    return changed


def _stored_endpoints(connection: sa.Connection) -> Iterable[tuple[str, Endpoint]]:
    for record in current(connection, "endpoint").values():
        endpoint = msgspec.json.decode(record.body, type=Endpoint)
        yield endpoint.site, endpoint


def _enrolled(connection: sa.Connection) -> Sequence[tuple[Agent, SiteDeclaration, Heartbeat]]:
    declared = current(connection, "site")
    return [
        (
            agent,
            _decode_declaration(declared[agent.site].body),
            _decode_heartbeat(agent.report.encode()) if agent.report else Heartbeat(),
        )
        for agent in sql.agents(connection)
        if agent.site in declared
    ]


def _configured_view(site: Site, federation: Federation, *, suspended: bool) -> SiteView:
    return SiteView(
        id=site.id,
        operator=site.operator,
        name=site.name,
        country=site.country,
        source="configuration",
        state="configured",
        suspended=suspended,
        simulated=site.simulated,
        endpoints=tuple(endpoint.id for endpoint in federation.endpoints if endpoint.site == site.id),
        valid_until=site.valid_until,
    )


def _agent_view(
    agent: Agent, declaration: SiteDeclaration, report: Heartbeat, *, suspended: bool, now: float, validity_s: float
) -> SiteView:
    fresh_until = (agent.heard_at if agent.heard_at is not None else agent.since) + validity_s
    return SiteView(
        id=agent.site,
        operator=declaration.operator,
        name=declaration.name or agent.site,
        country=declaration.country,
        source="enrolment",
        state="approved" if fresh_until > now else "stale",
        suspended=suspended,
        simulated=declaration.simulated,
        endpoints=tuple(endpoint.id for endpoint in report.endpoints),
        pin=agent.pin,
        heard_at=agent.heard_at,
        valid_until=min(fresh_until, declaration.valid_until),
        inventory=report.inventory if agent.report else None,
        version=report.version,
        key=agent.spki,
        location=report.location,
    )


def _waiting_view(enrolment: sql.Enrolment) -> SiteView:
    document = msgspec.json.decode(enrolment.declaration, type=_Outer).declaration
    return SiteView(
        id=enrolment.site,
        operator=enrolment.operator,
        name=document.name or enrolment.site,
        country=document.country,
        source="enrolment",
        state="waiting",
        suspended=False,
        simulated=document.simulated,
        pin=enrolment.pin,
        valid_until=document.valid_until,
    )


class _Outer(msgspec.Struct):
    declaration: SiteDeclaration
