"""From what people wrote (`config_schema`) to what the code speaks of; what does not fit is reported at its line."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from sekisho.assembly import config_gateway as gateway_schema
from sekisho.assembly import config_schema as written
from sekisho.assembly.config_files import Files
from sekisho.assembly.config_read import Reader
from sekisho.assembly.sockets import ListenRefused, parse_address
from sekisho.capacity.grid import MAX_SPAN, SLOT_S
from sekisho.federation import build
from sekisho.federation.address import AddressRefused, check_url, is_loopback
from sekisho.federation.countries import is_country
from sekisho.federation.keys import HASH_PREFIX, hash_key, key_fault, key_id, parse_key_hash
from sekisho.federation.model import (
    ApiKey,
    Declaration,
    Endpoint,
    Federation,
    Limits,
    Maintenance,
    Operator,
    Pool,
    SecretRef,
    Site,
    Subcontractor,
    Tenant,
)
from sekisho.gateway.settings import GatewaySettings
from sekisho.kernel.classes import DataClass
from sekisho.kernel.jurisdictions import Prefecture
from sekisho.kernel.units import parse_duration_s, parse_size_bytes
from sekisho.ledger.tlog.policy import PolicyRefused as WitnessesRefused
from sekisho.ledger.tlog.policy import TrustPolicy
from sekisho.residency.policy.bundle import PolicyRefused, load_bundle
from sekisho.residency.policy.read import examine
from sekisho.runtime.toml import Problem, TomlPath


class ControlSettings(msgspec.Struct, frozen=True, kw_only=True):
    listen: str = "127.0.0.1:8081"
    database: SecretRef | None = None


class ResidencySettings(msgspec.Struct, frozen=True, kw_only=True):
    jurisdiction: str = "JP"
    evidence_validity_s: float = 86_400.0
    heartbeat_validity_s: float = 60.0
    policies: Path | None = None


class LedgerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`origin` None: a name made of the log's key. `witnesses`: the file with those of the operators; None: the
    demonstration's, or nobody. `keep_journals_s` 0: for ever."""

    origin: str | None = None
    witnesses: str | None = None
    keep_journals_s: float = 604_800.0


class DemoSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the supervisor starts a model server for each endpoint of a simulated site."""

    enabled: bool = False
    threads: int = 1


class Translator:
    """One for a document; problems go to its reader, `warnings` grows beside them."""

    def __init__(self, reader: Reader, *, directory: Path | None) -> None:
        self.warnings: list[Problem] = []
        self._reader = reader
        self._refuse = reader.refuse
        self._directory = directory or Path()
        self._files = Files(directory or Path(), refuse=reader.refuse, warn=self._warn)

    def _warn(self, path: TomlPath, what: str, mend: str) -> None:
        self.warnings.append(self._reader.document.problem(path, what, mend))

    # -- processes

    def gateway(self, raw: gateway_schema.RawGateway) -> GatewaySettings:
        values: dict[str, Any] = {}
        for field in msgspec.structs.fields(GatewaySettings):
            name = gateway_schema.raw_name(field.name)
            value = getattr(raw, name)
            path = ("gateway", name)
            if field.name == "tls":
                value = self._files.listen_tls(value)
            elif name != field.name and value is not None:
                value = self._quantity(field.name, value, path)
            elif name == "otlp_endpoint" and value is not None:
                value = self._url(value, path)
            values[field.name] = value
        settings = GatewaySettings(**values)
        host = self._listen(settings.listen, ("gateway", "listen"))
        if settings.tls is not None and settings.proxy_protocol:
            self._refuse(
                ("gateway", "proxy_protocol"),
                "the PROXY protocol and [gateway.tls] can't be used together: balancers send its header before TLS",
                "let the load balancer terminate TLS, or take proxy_protocol out",
            )
        if settings.tls is None and not _stays_here(host):
            self._warn(
                ("gateway", "listen"),
                "clients reach the gateway over the network without TLS: keys and prompts can be read on the way",
                "add [gateway.tls], or let a proxy on this machine terminate TLS",
            )
        if settings.max_buffered_bytes < settings.max_body_bytes:
            self._refuse(
                ("gateway", "max_buffered"),
                "`max_buffered` is smaller than `max_body`: the largest allowed body could never be taken",
                "raise the one or lower the other",
            )
        if settings.eject_max_s < settings.eject_base_s:
            self._refuse(
                ("gateway", "eject_max"),
                "`eject_max` is shorter than `eject_base`",
                "raise the one or lower the other",
            )
        return settings

    def control(self, raw: written.RawControl, gateway: GatewaySettings) -> ControlSettings:
        path = ("control", "listen")
        if not _stays_here(self._listen(raw.listen, path)):
            self._warn(
                path,
                "the console and its admin token can be reached over the network without TLS",
                "listen on 127.0.0.1 and let a proxy terminate TLS",
            )
        if raw.listen == gateway.listen and not raw.listen.endswith(":0"):
            self._refuse(path, "control and gateway listen on the same address", "give each a port of its own")
        return ControlSettings(listen=raw.listen, database=self._files.secret(raw.database, ("control", "database")))

    def residency(self, raw: written.RawResidency) -> ResidencySettings:
        self._country(raw.jurisdiction, ("residency", "jurisdiction"))
        validity_s = self._quantity("evidence_validity_s", raw.evidence_validity, ("residency", "evidence_validity"))
        policies = None if raw.policies is None else self._directory / raw.policies
        heartbeat_s = self._quantity(
            "heartbeat_validity_s", raw.heartbeat_validity, ("residency", "heartbeat_validity")
        )
        return ResidencySettings(
            jurisdiction=raw.jurisdiction,
            evidence_validity_s=validity_s,
            heartbeat_validity_s=heartbeat_s,
            policies=policies,
        )

    def policies(self, residency: ResidencySettings, federation: Federation) -> None:
        """Policy files that can't be used, and profiles of tenants that are in none of them."""
        path: TomlPath = ("residency", "policies")
        try:
            bundle = load_bundle(residency.policies)
        except PolicyRefused as error:
            self._refuse(path, error.fact, error.hint)
            return
        for mistake in examine(bundle)[1]:
            where = f"{mistake.file}:{mistake.line}:{mistake.column}"
            self._refuse(path, f"policy file {where}: {mistake.what}", mistake.mend)
        for place, tenant in enumerate(federation.tenants):
            for position, profile in enumerate(tenant.profiles):
                if profile and profile not in bundle.profiles:
                    self._refuse(
                        ("tenant", place, "profiles", position),
                        f"there is no policy profile `{profile}`",
                        build.did_you_mean(profile, bundle.profiles),
                    )

    def ledger(self, raw: written.RawLedger) -> LedgerSettings:
        keep_s = self._quantity("keep_journals_s", raw.keep_journals, ("ledger", "keep_journals"))
        witnesses = self._files.readable(raw.witnesses, ("ledger", "witnesses"))
        if witnesses is not None:
            try:
                TrustPolicy.parse(Path(witnesses).read_bytes())
            except WitnessesRefused as error:
                self._refuse(("ledger", "witnesses"), f"`{raw.witnesses}`: {error.fact}", "mend that file")
        return LedgerSettings(origin=raw.origin, witnesses=witnesses, keep_journals_s=keep_s)

    def demo(self, raw: written.RawDemo, federation: Federation) -> DemoSettings:
        simulated = {site.id for site in federation.sites if site.simulated}
        for position, endpoint in enumerate(federation.endpoints):
            if not (raw.enabled and endpoint.site in simulated and endpoint.url):
                continue
            parts = urlsplit(endpoint.url)
            if parts.scheme != "http" or not is_loopback(endpoint.url) or parts.port is None:
                self._refuse(
                    ("endpoint", position, "url"),
                    f"endpoint `{endpoint.id}` is at a simulated site, but its url is not a port of this machine",
                    "write it as http://127.0.0.1:9101/v1, or set simulated = false at the site",
                )
        return DemoSettings(enabled=raw.enabled, threads=raw.threads)

    # -- the federation

    def federation(self, raw: written.RawConfig) -> Federation:
        operators = tuple(self._operator(each, ("operator", place)) for place, each in enumerate(raw.operator))
        sites = tuple(self.site(each, ("site", place)) for place, each in enumerate(raw.site))
        endpoints = tuple(self._endpoint(each, ("endpoint", place)) for place, each in enumerate(raw.endpoint))
        pools = tuple(self._pool(each, ("pool", place)) for place, each in enumerate(raw.pool))
        tenants = tuple(self._tenant(each, ("tenant", place)) for place, each in enumerate(raw.tenant))
        keys: list[ApiKey] = []
        key_paths: list[TomlPath] = []
        for place, tenant in enumerate(raw.tenant):
            if not tenant.keys and tenant.id and not raw.demo.enabled:
                self._warn(
                    ("tenant", place), f"tenant `{tenant.id}` has no key: nobody can use it yet", "`sekisho key new`"
                )
            for position, key in enumerate(tenant.keys):
                path: TomlPath = ("tenant", place, "keys", position)
                read = self._key(tenant.id, key, path)
                if read is not None:
                    keys.append(read)
                    key_paths.append(path)
        aliases = [(alias.name, alias.model) for alias in raw.alias]
        for fault in build.find_faults(
            operators=operators,
            sites=sites,
            endpoints=endpoints,
            tenants=tenants,
            keys=keys,
            aliases=aliases,
            pools=pools,
        ):
            path = fault.path
            if path[0] == "key" and isinstance(path[1], int):
                path = key_paths[path[1]]
            self._refuse(path, fault.what, fault.mend)
        for kind, parts in (("endpoint", endpoints), ("tenant", tenants)):
            if not parts:
                self._warn((), f"there is no {kind}: every request will be refused", f"add one with [[{kind}]]")
        return Federation(
            operators=operators,
            sites=sites,
            endpoints=endpoints,
            tenants=tenants,
            keys=tuple(keys),
            aliases=dict(aliases),
            pools=pools,
        )

    def _operator(self, raw: written.RawOperator, path: TomlPath) -> Operator:
        self._country(raw.country, (*path, "country"))
        self._country(raw.law, (*path, "law"))
        return Operator(id=raw.id, name=raw.name or raw.id, country=raw.country, law=raw.law)

    def site(self, raw: written.RawSite, path: TomlPath) -> Site:
        self._country(raw.country, (*path, "country"))
        prefecture = None
        if raw.prefecture is not None:
            found = Prefecture.parse(str(raw.prefecture))
            prefecture = found.code if found else None
            where = (*path, "prefecture")
            if found is None:
                self._refuse(
                    where, "`prefecture` is not one of the 47 prefectures", "write 13, JP-13, 東京都 or Tokyo"
                )
            elif raw.country not in ("JP", ""):
                self._refuse(
                    where, f"a site in {raw.country} has a prefecture of Japan", "remove it, or mend country"
                )
        # What was written, not what was read: a latitude that was refused is there.
        there = [name for name in ("latitude", "longitude") if (*path, name) in self._reader.document.lines]
        if len(there) == 1:
            missing = "longitude" if there == ["latitude"] else "latitude"
            self._refuse(
                (*path, there[0]),
                f"there is a `{there[0]}` without a `{missing}`",
                f"add `{missing}`",
            )
        return Site(
            id=raw.id,
            operator=raw.operator,
            name=raw.name or raw.id,
            country=raw.country,
            prefecture=prefecture,
            latitude=raw.latitude,
            longitude=raw.longitude,
            simulated=raw.simulated,
            valid_until=_unix_s(raw.valid_until),
            declaration=self._declaration(raw.declaration, (*path, "declaration")),
        )

    def _declaration(self, raw: written.RawDeclaration, path: TomlPath) -> Declaration:
        for name, code in (("law", raw.law), ("owner_country", raw.owner_country)):
            self._country(code or "", (*path, name))
        for place, code in enumerate(raw.foreign_laws):
            self._country(code, (*path, "foreign_laws", place))
        for place, each in enumerate(raw.subcontractors):
            self._country(each.country, (*path, "subcontractors", place, "country"))
            self._country(each.law, (*path, "subcontractors", place, "law"))
        return declaration_of(raw)

    def _pool(self, raw: written.RawPool, path: TomlPath) -> Pool:
        memory = parse_size_bytes(raw.memory) if raw.memory else None
        if raw.memory and not memory:
            self._refuse((*path, "memory"), f"`memory` is {raw.memory}, no size", "write it as 141GiB")
        if raw.hold_back > raw.count:
            self._refuse(
                (*path, "hold_back"), f"`hold_back` is {raw.hold_back} of {raw.count} GPUs", "hold back fewer"
            )
        return Pool(
            id=raw.id,
            site=raw.site,
            gpu=raw.gpu,
            count=raw.count,
            memory_mib=(memory or 0) >> 20,
            simulated=raw.simulated,
            hold_back=raw.hold_back,
            tenant_limit=raw.tenant_limit,
            yen_per_gpu_hour=raw.yen_per_gpu_hour,
            maintenance=tuple(
                [
                    self._maintenance(each, raw.count, (*path, "maintenance", place))
                    for place, each in enumerate(raw.maintenance)
                ]
            ),
        )

    def _maintenance(self, raw: written.RawMaintenance, count: int, path: TomlPath) -> Maintenance:
        start, end = raw.start.timestamp(), raw.end.timestamp()
        for name, moment in (("start", start), ("end", end)):
            if moment % SLOT_S:
                self._refuse(
                    (*path, name), f"`{name}` is not on the quarter of an hour", "write :00, :15, :30 or :45"
                )
        if end <= start:
            self._refuse((*path, "end"), "the window ends before it begins", "write an end after the start")
        elif end - start > SLOT_S << MAX_SPAN:
            self._refuse(
                (*path, "end"), "the window is longer than 3.7 years", "take the GPUs out of `count` instead"
            )
        if (raw.gpus or 0) > count:
            self._refuse(
                (*path, "gpus"), f"`gpus` is {raw.gpus} of {count} GPUs", "write fewer, or leave it out for all"
            )
        return Maintenance(start=int(start), end=int(end), gpus=raw.gpus)

    def _endpoint(self, raw: written.RawEndpoint, path: TomlPath) -> Endpoint:
        url = self._url(raw.url, (*path, "url"))
        if url.startswith("http://"):
            if raw.tls is not None:
                self._refuse((*path, "tls"), "there is TLS for a url that begins with http://", "write https://")
            if not is_loopback(url):
                say = self._warn if raw.readable_on_the_way else self._refuse
                say(
                    (*path, "url"),
                    f"endpoint `{raw.id}` is reached over the network without TLS:"
                    " prompts and answers can be read and changed on the way",
                    "write https:// and, if its certificate is its own, [endpoint.tls] with ca or pins;"
                    " readable_on_the_way = true allows it as it is",
                )
        return Endpoint(
            id=raw.id,
            site=raw.site,
            url=url,
            models=tuple(dict.fromkeys(raw.models)),
            slots=raw.slots,
            api_key=self._files.secret(raw.api_key, (*path, "api_key")),
            tls=self._files.upstream_tls(raw.tls, (*path, "tls")),
        )

    def _tenant(self, raw: written.RawTenant, path: TomlPath) -> Tenant:
        # Positions stay those of the file, for the lines of faults; the table compiler drops what is there twice.
        return Tenant(
            id=raw.id,
            name=raw.name or raw.id,
            floor=DataClass.parse(raw.floor) or DataClass.PUBLIC,
            models=None if raw.models is None else tuple(raw.models),
            profiles=tuple(dict.fromkeys(raw.profiles)),
            limits=_limits(raw.limits),
            model_limits={model: _limits(limits) for model, limits in raw.model_limits.items()},
        )

    def _key(self, tenant: str, raw: str | written.RawKey, path: TomlPath) -> ApiKey | None:
        text, expires_at = (raw, None) if isinstance(raw, str) else (raw.hash, _unix_s(raw.expires_at))
        if not text:
            return None  # refused before
        digest = parse_key_hash(text)
        if digest is None:
            fault = key_fault(text)
            if fault is not None:
                self._refuse(path, f"a key of tenant `{tenant}` {fault}", "make one with `sekisho key new`")
                return None
            digest = hash_key(text).removeprefix(HASH_PREFIX)
            self._warn(
                path,
                f"a key of tenant `{tenant}` stands here in plain text",
                "put its hash in its place (`sekisho key hash`), and better a new key: this one was on a disk",
            )
        return ApiKey(id=key_id(digest), tenant=tenant, sha256=digest, expires_at=expires_at)

    # -- values

    def _quantity(self, field: str, text: str, path: TomlPath) -> Any:
        """Seconds of `30s` or bytes of `16MiB`, as the field's suffix says."""
        name = gateway_schema.raw_name(field)
        in_seconds = field.endswith("_s")
        parse: Callable[[str], float | None] = parse_duration_s if in_seconds else parse_size_bytes
        write: Callable[[Any], str] = gateway_schema.write_duration if in_seconds else gateway_schema.write_size
        usual: tuple[float, float] = (
            gateway_schema.DURATION_RANGE_S if in_seconds else gateway_schema.SIZE_RANGE_BYTES
        )
        least, most = gateway_schema.RANGES.get(name, usual)
        value = parse(text)
        if value is None or not math.isfinite(value) or not least <= value <= most:
            self._refuse(
                path, f"`{name}` is {text}, out of range", f"choose a value from {write(least)} to {write(most)}"
            )
            return least
        return value

    def _listen(self, text: str, path: TomlPath) -> str:
        try:
            return parse_address(text)[0]
        except ListenRefused as error:
            self._refuse(path, "`listen` has a port that does not exist", error.hint)
            return "localhost"

    def _country(self, code: str, path: TomlPath) -> None:
        if code and not is_country(code):
            mend = "the code of the United Kingdom is GB" if code == "UK" else "use ISO 3166-1, as in JP, US or GB"
            self._refuse(path, f"`{path[-1]}` is {code}, which is no country", mend)

    def _url(self, text: str, path: TomlPath) -> str:
        checked = check_url(text) if text else ""
        if isinstance(checked, AddressRefused):
            self._refuse(path, checked.what, checked.mend)
            return ""
        return checked


def declaration_of(raw: written.RawDeclaration) -> Declaration:
    return Declaration(
        law=raw.law or "",
        court=raw.court or "",
        owner_country=raw.owner_country or "",
        foreign_owned_percent=raw.foreign_owned_percent,
        foreign_laws=tuple(raw.foreign_laws),
        operator_can_read=raw.operator_can_read,
        readers=tuple(raw.readers),
        key_custody=raw.key_custody,
        personnel=raw.personnel,
        subcontractors=tuple(
            Subcontractor(name=each.name, country=each.country, law=each.law, tasks=tuple(each.tasks))
            for each in raw.subcontractors
        ),
        log_retention_days=raw.log_retention_days,
    )


def _limits(raw: written.RawLimits) -> Limits:
    return Limits(
        requests_per_minute=raw.requests_per_minute,
        tokens_per_minute=raw.tokens_per_minute,
        concurrency=raw.concurrency,
    )


def _unix_s(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


def _stays_here(host: str) -> bool:
    return is_loopback(f"http://[{host}]" if ":" in host else f"http://{host}")
