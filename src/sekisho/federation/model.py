"""Operators, sites, endpoints, and the tenants that use them: the values that everything else talks about."""

from __future__ import annotations

from typing import Literal

import msgspec

from sekisho.kernel.classes import DataClass


class SecretRef(msgspec.Struct, frozen=True, kw_only=True):
    """Where a secret lies, never the secret itself: exactly one of a file and an environment variable."""

    file: str | None = None
    env: str | None = None


class UpstreamTls(msgspec.Struct, frozen=True, kw_only=True):
    """TLS towards an endpoint. `pins` are `sha256:<hex>` of the server certificate's SubjectPublicKeyInfo."""

    ca: str | None = None
    server_name: str | None = None
    pins: tuple[str, ...] = ()
    client_cert: str | None = None
    client_key: str | None = None


class Operator(msgspec.Struct, frozen=True, kw_only=True):
    """Who runs sites. `law` is the law that governs the operator (its own country by default)."""

    id: str
    name: str
    country: str
    law: str


class Subcontractor(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody else who works on a site, and for what (`maintenance`, `security`, `re-outsourcing` …)."""

    name: str
    country: str
    law: str
    tasks: tuple[str, ...] = ()


class Declaration(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator signs about a site, beyond where it stands. What is not declared allows least.

    `law` governs the contract; `owner_country` is the country of whoever controls the operator; `foreign_laws` could
    compel disclosure (ISO 3166-1 alpha-2 codes); `operator_can_read`: somebody at the operator can read the memory
    of a running model; `readers` says who. `key_custody`: who holds the keys of data at rest.
    """

    law: str = ""
    court: str = ""
    owner_country: str = ""
    foreign_owned_percent: int = 100
    foreign_laws: tuple[str, ...] = ()
    operator_can_read: bool = True
    readers: tuple[str, ...] = ()
    key_custody: Literal["operator", "tenant", "third-party"] = "operator"
    personnel: Literal["unscreened", "screened", "cleared"] = "unscreened"
    subcontractors: tuple[Subcontractor, ...] = ()
    log_retention_days: int = 0


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """A building with GPUs. `country` is where the machines stand. `valid_until` (Unix seconds) is when the
    operator's declaration about this site runs out; None means that it is renewed with every route table. `enrolled`:
    it came in with an invitation, and its place is its own operator's word; the others stand in this installation's
    configuration."""

    id: str
    operator: str
    name: str
    country: str
    prefecture: int | None = None
    latitude: float | None = None
    longitude: float | None = None
    simulated: bool = False
    enrolled: bool = False
    valid_until: float | None = None
    declaration: Declaration = Declaration()


class Maintenance(msgspec.Struct, frozen=True, kw_only=True):
    """`gpus` of a pool (None: all) are not for sale from `start` to `end` (Unix seconds, on quarters of an hour)."""

    start: int
    end: int
    gpus: int | None = None


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """GPUs of one model at a site. `memory_mib` is what one of them has; 0: not known. `simulated`: nobody counted
    real ones. `hold_back` of them are never reserved; None leaves limit and price to the administrators."""

    id: str
    site: str
    gpu: str
    count: int
    memory_mib: int = 0
    simulated: bool = False
    hold_back: int = 0
    tenant_limit: int | None = None
    yen_per_gpu_hour: int | None = None
    maintenance: tuple[Maintenance, ...] = ()


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A server of the OpenAI API at a site. `url` ends before the path of the call (`http://host:port/v1`).

    `tenants`: it serves these and is not there for others; None: all. `open_until` (Unix seconds): the end of the
    window that it was started for.
    """

    id: str
    site: str
    url: str
    models: tuple[str, ...]
    slots: int = 8
    api_key: SecretRef | None = None
    tls: UpstreamTls | None = None
    tenants: tuple[str, ...] | None = None
    open_until: float | None = None

    def is_for(self, tenant: str) -> bool:
        """Whether it is there for this tenant at all; policy decides what it may serve then."""
        return self.tenants is None or tenant in self.tenants


class Limits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What a tenant may use, for each model and in all; None means no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """Who sends work. `floor` is the lowest class that its requests can have. `models` None means all."""

    id: str
    name: str
    floor: DataClass
    models: tuple[str, ...] | None = None
    limits: Limits = Limits()
    model_limits: dict[str, Limits] = {}
    # Names of policy profiles that hold for this tenant on top of the default (`gov-cloud`, `appi-28` …).
    profiles: tuple[str, ...] = ()


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant's key, kept as SHA-256 of the key (keys are random: 256 bits, so no slow hash is needed)."""

    id: str
    tenant: str
    sha256: str
    expires_at: float | None = None


class Federation(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the route table is compiled from, checked for consistency (`federation.build.assemble`)."""

    operators: tuple[Operator, ...]
    sites: tuple[Site, ...]
    endpoints: tuple[Endpoint, ...]
    tenants: tuple[Tenant, ...]
    keys: tuple[ApiKey, ...]
    aliases: dict[str, str]
    pools: tuple[Pool, ...] = ()
