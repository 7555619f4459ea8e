"""A small federation and a control plane on a temporary home, for the tests of control and console."""

from __future__ import annotations

import hashlib
from pathlib import Path

from sekisho.assembly.home import Home, create, ensure_secrets
from sekisho.assembly.plane import ControlPlane, Loaded
from sekisho.federation.model import ApiKey, Endpoint, Federation, Operator, Site, Tenant
from sekisho.kernel.classes import DataClass
from sekisho.kernel.clock import Clock, SystemClock

HOSPITAL_KEY = "sk-test-hospital-0123456789abcdef"
MODEL = "smollm2-135m"


def key_of(tenant: str, plain: str) -> ApiKey:
    digest = hashlib.sha256(plain.encode()).hexdigest()
    return ApiKey(id=digest[:12], tenant=tenant, sha256=digest)


FEDERATION = Federation(
    operators=(
        Operator(id="azure", name="Microsoft Azure", country="US", law="US"),
        Operator(id="sakura", name="Sakura Internet", country="JP", law="JP"),
        Operator(id="softbank", name="SoftBank", country="JP", law="JP"),
    ),
    sites=(
        Site(
            id="azure-japan-east",
            operator="azure",
            name="Azure Japan East",
            country="JP",
            prefecture=11,
            simulated=True,
        ),
        Site(
            id="sakura-ishikari",
            operator="sakura",
            name="Sakura Ishikari",
            country="JP",
            prefecture=1,
            simulated=True,
        ),
        Site(
            id="softbank-osaka",
            operator="softbank",
            name="SoftBank Osaka",
            country="JP",
            prefecture=27,
            simulated=True,
        ),
        Site(id="azure-us-west-2", operator="azure", name="Azure US West 2", country="US", simulated=True),
    ),
    endpoints=(
        Endpoint(id="japan-east-1", site="azure-japan-east", url="http://127.0.0.1:9101/v1", models=(MODEL,)),
        Endpoint(id="ishikari-1", site="sakura-ishikari", url="http://127.0.0.1:9103/v1", models=(MODEL,)),
        Endpoint(id="osaka-1", site="softbank-osaka", url="http://127.0.0.1:9104/v1", models=(MODEL,)),
        Endpoint(id="us-west-1", site="azure-us-west-2", url="http://127.0.0.1:9105/v1", models=(MODEL,)),
    ),
    tenants=(
        Tenant(id="hospital", name="総合病院", floor=DataClass.CONFIDENTIAL),
        Tenant(id="manufacturer", name="製造", floor=DataClass.INTERNAL),
        Tenant(id="developer", name="開発", floor=DataClass.PUBLIC),
    ),
    keys=(key_of("hospital", HOSPITAL_KEY),),
    aliases={"gpt-4o-mini": MODEL},
)


def loaded(federation: Federation = FEDERATION, *, evidence_validity_s: float = 3600.0) -> Loaded:
    return Loaded(
        federation=federation,
        jurisdiction="JP",
        evidence_validity_s=evidence_validity_s,
        listen="127.0.0.1:0",
    )


def new_plane(root: Path, *, clock: Clock | None = None, federation: Federation = FEDERATION) -> ControlPlane:
    home = Home.at(root)
    create(home)
    ensure_secrets(home)
    return ControlPlane(home, load=lambda: loaded(federation), clock=clock or SystemClock())
