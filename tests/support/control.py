"""A small federation and a control plane on a temporary home, for the tests of control and console."""

from __future__ import annotations

import functools
import hashlib
import struct
import tempfile
import zlib
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from litestar import Litestar

from sekisho.assembly.app import build_app, serve
from sekisho.assembly.home import Home, create, ensure_secrets
from sekisho.assembly.plane import ControlPlane, Loaded
from sekisho.assembly.schema import migrate
from sekisho.federation.model import ApiKey, Endpoint, Federation, Operator, SecretRef, Site, Tenant
from sekisho.kernel.classes import DataClass
from sekisho.kernel.clock import Clock, SystemClock
from sekisho.ledger.model import Attempt, Decision, Dispatch, encode_record
from sekisho.runtime.database import Database, sqlite_url

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


def loaded(
    federation: Federation = FEDERATION,
    *,
    evidence_validity_s: float = 3600.0,
    database: SecretRef | None = None,
    listen: str = "127.0.0.1:0",
) -> Loaded:
    return Loaded(
        federation=federation,
        jurisdiction="JP",
        evidence_validity_s=evidence_validity_s,
        listen=listen,
        database=database,
    )


def new_plane(
    root: Path,
    *,
    clock: Clock | None = None,
    federation: Federation = FEDERATION,
    database: sa.URL | None = None,
    listen: str = "127.0.0.1:0",
) -> ControlPlane:
    """`database`: the address of a PostgreSQL; SQLite in the home without it."""
    home = Home.at(root)
    create(home)
    ensure_secrets(home)
    place = None
    if database is not None:
        place = SecretRef(file=str(home.secrets / "database"))
        (home.secrets / "database").write_text(database.render_as_string(hide_password=False))
    else:
        with_tables(home.root / "control.sqlite")
    return ControlPlane(
        home, load=lambda: loaded(federation, database=place, listen=listen), clock=clock or SystemClock()
    )


def app_of(plane: ControlPlane) -> Litestar:
    """The one application of this test process, with this plane behind it: for tests that run one at a time."""
    app = _app()
    serve(app, plane)
    return app


@functools.cache
def _app() -> Litestar:
    with tempfile.TemporaryDirectory() as root:
        plane = new_plane(Path(root))
        plane.database.close()
        return build_app(plane)


@functools.cache
def _migrated() -> bytes:
    """An SQLite file with all tables: a fresh control plane runs its migrations in a third of a second."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "control.sqlite"
        database = Database(sqlite_url(path))
        migrate(database)
        database.close()  # the last connection takes what is in the write-ahead log into the file
        return path.read_bytes()


def with_tables(path: Path) -> None:
    """A database with all tables, where there is none."""
    if not path.exists():
        path.write_bytes(_migrated())


def frame(payload: bytes) -> bytes:
    """A record as the journal has it (ledger/journal.py)."""
    return struct.pack("<II", len(payload), zlib.crc32(payload)) + payload


def decision(number: int, **given: Any) -> Decision:
    """A synthetic decision: no gateway made it. `number` orders it in time."""
    at_ms = given.pop("at_ms", 1_795_000_000_000 + number * 1_000)
    usual: dict[str, Any] = {
        "gateway": "gateway",
        "outcome": "completed",
        "status": 200,
        "path": "/v1/chat/completions",
        "tenant": "hospital",
        "key": "eea948230d91",
        "floor": "confidential",
        "data_class": "confidential",
        "model": "gpt-4o-mini",
        "served_model": MODEL,
        "rules": ("site-in-jurisdiction",),
        "endpoint": "ishikari-1",
        "site": "sakura-ishikari",
        "operator": "sakura",
        "country": "JP",
        "attempts": (Attempt(endpoint="ishikari-1", result="ok", duration_us=120_000),),
        "table": 1,
        "policy": "64da4e4d",
        "tokens_in": 20,
        "tokens_out": 40,
        "first_byte_us": 90_000,
        "duration_us": 1_200_000,
    }
    return Decision(id=f"{at_ms:012x}{1:010x}{number:010x}", at_ms=at_ms, **{**usual, **given})


def refusal(number: int, **given: Any) -> Decision:
    usual: dict[str, Any] = {
        "outcome": "refused",
        "status": 403,
        "code": "residency.no_eligible_endpoint",
        "endpoint": "",
        "site": "",
        "operator": "",
        "country": "",
        "attempts": (),
        "tokens_in": 0,
        "tokens_out": 0,
        "first_byte_us": 0,
        "duration_us": 1_000,
    }
    return decision(number, **{**usual, **given})


def write_segment(
    root: Path, worker: int, number: int, records: list[Decision | Dispatch], *, room: int = 4096
) -> Path:
    """A synthetic segment, with the zeros that a writer has reserved behind it."""
    directory = root / "journal" / f"w{worker}"
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{number:08d}.journal"
    path.write_bytes(b"".join(frame(encode_record(record)) for record in records) + bytes(room))
    return path
