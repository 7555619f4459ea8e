"""Route tables for the benchmarks, compiled and signed as the control plane does it."""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bench import content
from sekisho.federation.model import ApiKey, Endpoint, Federation, Limits, Operator, Site, Tenant
from sekisho.kernel.classes import DataClass
from sekisho.residency.compile import compile_table
from sekisho.residency.decide import BuiltinPolicy
from sekisho.residency.table import RouteTable

# Every limit is set, so that admission does all of its work; none is reached.
_LIMITS = Limits(requests_per_minute=1_000_000_000, tokens_per_minute=1_000_000_000_000, concurrency=1_000_000)
SLOTS = 16384


def public_key_hex(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes_raw().hex()


def federation(*, key: str, upstream: int, tenants: int = 1, endpoints: int = 1) -> Federation:
    """A federation in Japan whose first tenant holds `key`. Endpoints beyond the first serve other models too, and
    tenants beyond the first differ in floor and in the models they may use (32 kinds)."""
    operators = tuple(
        Operator(id=f"operator-{n}", name=f"Operator {n}", country="JP", law="JP" if n % 3 else "US")
        for n in range(1, 1 + min(10, endpoints))
    )
    sites = tuple(
        Site(
            id=f"site-{n}",
            operator=operators[n % len(operators)].id,
            name=f"Site {n}",
            country="JP" if n == 0 or n % 4 else "US",
            prefecture=1 + n % 47 if n == 0 or n % 4 else None,
        )
        for n in range(min(50, endpoints))
    )
    models = (content.MODEL, *(f"model-{n}" for n in range(20)))
    served = tuple(
        Endpoint(
            id=f"endpoint-{n}",
            site=sites[n % len(sites)].id,
            url=f"http://127.0.0.1:{upstream}/v1",
            models=(content.MODEL,) if n == 0 else (models[1 + n % 20], models[1 + (n * 7) % 20]),
            slots=SLOTS,
        )
        for n in range(endpoints)
    )
    offered = {model for endpoint in served for model in endpoint.models}
    extra = tuple(model for model in models[1:] if model in offered)

    def tenant(number: int) -> Tenant:
        floor = DataClass.CONFIDENTIAL if number == 0 else DataClass(number % 4)
        kind = (number // 4) % 8
        wanted = None if number == 0 or kind == 0 else (content.MODEL, *extra[kind : kind + 6])
        return Tenant(id=f"tenant-{number}", name=f"Tenant {number}", floor=floor, models=wanted, limits=_LIMITS)

    def api_key(number: int) -> ApiKey:
        secret = key if number == 0 else f"sk-bench-tenant-{number}"
        digest = hashlib.sha256(secret.encode()).hexdigest()
        return ApiKey(id=digest[:12], tenant=f"tenant-{number}", sha256=digest)

    return Federation(
        operators=operators,
        sites=sites,
        endpoints=served,
        tenants=tuple(tenant(number) for number in range(tenants)),
        keys=tuple(api_key(number) for number in range(tenants)),
        aliases={"gpt-4o-mini": content.MODEL},
    )


def compiled(source: Federation, *, version: int, now: float) -> RouteTable:
    """Under the built-in rules of Japan, with evidence that holds for a day."""
    salts = {each.id: hashlib.sha256(each.id.encode()).digest()[:16] for each in source.tenants}
    return compile_table(
        source,
        BuiltinPolicy(jurisdiction="JP"),
        version=version,
        now=now,
        jurisdiction="JP",
        evidence_validity_s=86_400.0,
        salts=salts,
    )
