"""The shape of the configuration file, as people write it.

These structs are what `sekisho config schema` prints and what a file is read against; `config.py` turns them into
the values that the rest of the code speaks of. Every field says what it is, because the schema is the reference.
An empty string in a required field means: its value was refused, and that has been reported.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from sekisho.assembly.config_gateway import RawGateway
from sekisho.assembly.config_kinds import (
    Count,
    Country,
    Days,
    Duration,
    FilePath,
    KeyText,
    Listen,
    ModelName,
    Name,
    Percent,
    Pin,
    RawTable,
    Size,
    Slots,
    Text,
    says,
)
from sekisho.kernel.classes import LABELS


class RawSecret(RawTable, frozen=True, kw_only=True):
    """Where a secret lies: exactly one of a file and an environment variable."""

    file: Annotated[FilePath | None, says("a file that holds the secret and nothing else")] = None
    env: Annotated[
        Annotated[
            str,
            Meta(
                title="the name of an environment variable", pattern="^[A-Za-z_][A-Za-z0-9_]*$", examples=["SITE_KEY"]
            ),
        ]
        | None,
        says("an environment variable of the gateway"),
    ] = None


class RawControl(RawTable, frozen=True, kw_only=True):
    """The control plane and its console."""

    listen: Annotated[Listen, says("where the console and the API answer")] = "127.0.0.1:8081"
    database: Annotated[
        RawSecret | None,
        says("where the address of a PostgreSQL database lies (it holds a password); SQLite in the home without it"),
    ] = None


class RawResidency(RawTable, frozen=True, kw_only=True):
    """Where guarded work may be served."""

    jurisdiction: Annotated[Country, says("the country inside which guarded work stays")] = "JP"
    evidence_validity: Annotated[
        Duration, says("how long evidence about a site holds; without control, guarded routes close after it")
    ] = "24h"
    heartbeat_validity: Annotated[
        Duration, says("how long an enrolled site's heart-beat holds; guarded routes to it close when none came")
    ] = "60s"
    policies: Annotated[
        FilePath | None,
        says("directory of policy files (`*.cedar`, `profiles/*.cedar`), used over and beside the default ones"),
    ] = None


class RawLedger(RawTable, frozen=True, kw_only=True):
    """The transparency log."""

    origin: Annotated[
        Annotated[
            str,
            Meta(
                title="a host name and a path, without a scheme",
                pattern=r"^[a-z0-9][a-z0-9.-]{0,126}(/[A-Za-z0-9._-]{1,40}){0,2}$",
                examples=["log.example.jp/sekisho"],
            ),
        ]
        | None,
        says("name of the log, to which the year is added (default: a name of its own); never change it"),
    ] = None
    witnesses: Annotated[
        FilePath | None,
        says("a policy (c2sp.org/tlog-policy) with `witness` lines that have addresses, groups and the quorum"),
    ] = None
    keep_journals: Annotated[
        Duration, says("how long a journal segment stays once it is in the log and in the database; 0s: for ever")
    ] = "168h"


class RawDemo(RawTable, frozen=True, kw_only=True):
    """The demonstration: a real small model behind every simulated site, on this machine."""

    enabled: Annotated[bool, says("start a model server for every endpoint of a simulated site")] = False
    threads: Annotated[
        Annotated[int, Meta(title="a whole number from 1 to 256", ge=1, le=256, examples=[1])],
        says("threads of each model server"),
    ] = 1


class RawOperator(RawTable, frozen=True, kw_only=True):
    """Who runs sites."""

    id: Annotated[Name, says("id")]
    country: Annotated[Country, says("country of the operator")]
    # No default on purpose: which law can compel an operator is a statement that somebody has to make.
    law: Annotated[Country, says("country whose law governs the operator; decides about restricted work")]
    name: Annotated[Text | None, says("name for people (default: the id)")] = None


class RawSubcontractor(RawTable, frozen=True, kw_only=True):
    """Somebody else who works on a site."""

    name: Annotated[Text, says("who it is")]
    country: Annotated[Country, says("where it sits")]
    law: Annotated[Country, says("country whose law governs it")]
    tasks: Annotated[list[Text], says("what it does there, as in maintenance, security, re-outsourcing")] = (
        msgspec.field(default_factory=list)
    )


class RawDeclaration(RawTable, frozen=True, kw_only=True):
    """What the operator declares about a site; what is not declared allows least."""

    law: Annotated[Country | None, says("country whose law governs the contract")] = None
    court: Annotated[Text | None, says("court that decides about it")] = None
    owner_country: Annotated[Country | None, says("country of whoever controls the operator")] = None
    foreign_owned_percent: Annotated[Percent, says("share of the operator in foreign hands")] = 100
    foreign_laws: Annotated[list[Country], says("foreign laws that could compel it to disclose")] = msgspec.field(
        default_factory=list
    )
    operator_can_read: Annotated[bool, says("somebody at the operator can read the memory of a running model")] = True
    readers: Annotated[list[Text], says("who can")] = msgspec.field(default_factory=list)
    key_custody: Annotated[
        Literal["operator", "tenant", "third-party"], says("who holds the keys of data at rest")
    ] = "operator"
    personnel: Annotated[
        Literal["unscreened", "screened", "cleared"], says("how those with access were examined")
    ] = "unscreened"
    log_retention_days: Annotated[Days, says("how long the site keeps its access logs")] = 0
    subcontractors: Annotated[list[RawSubcontractor], says("who else works there")] = msgspec.field(
        default_factory=list
    )


class RawSite(RawTable, frozen=True, kw_only=True):
    """A building with GPUs."""

    id: Annotated[Name, says("id")]
    operator: Annotated[Name, Meta(examples=["sakura"]), says("id of the operator")]
    country: Annotated[Country, says("where the machines stand; decides about confidential work")]
    name: Annotated[Text | None, says("name for people (default: the id)")] = None
    prefecture: Annotated[
        Annotated[str | int, Meta(title="a prefecture", examples=["Hokkaido", "北海道", 1, "JP-01"])] | None,
        says("prefecture (JIS X 0401), for sites in Japan: 13, JP-13, 東京都 or Tokyo"),
    ] = None
    latitude: Annotated[
        Annotated[float, Meta(title="degrees from -90 to 90", ge=-90, le=90, examples=[43.19])] | None,
        says("degrees north; together with longitude"),
    ] = None
    longitude: Annotated[
        Annotated[float, Meta(title="degrees from -180 to 180", ge=-180, le=180, examples=[141.33])] | None,
        says("degrees east; together with latitude"),
    ] = None
    simulated: Annotated[bool, says("a site of a demonstration, labelled as such everywhere")] = False
    valid_until: Annotated[
        Annotated[
            datetime, Meta(title="a date and time with its zone", tz=True, examples=["2027-03-31T23:59:59+09:00"])
        ]
        | None,
        says("when the operator's declaration about this site runs out (default: renewed with every table)"),
    ] = None
    declaration: Annotated[RawDeclaration, says("what the operator declares about it")] = RawDeclaration()


class RawMaintenance(RawTable, frozen=True, kw_only=True):
    """When GPUs of a pool can't be reserved. Reservations in the way are planned anew, and their tenants told."""

    start: Annotated[
        Annotated[
            datetime, Meta(title="a date and time with its zone", tz=True, examples=["2027-03-01T00:00:00+09:00"])
        ],
        says("on a quarter of an hour"),
    ]
    end: Annotated[
        Annotated[
            datetime, Meta(title="a date and time with its zone", tz=True, examples=["2027-03-01T06:00:00+09:00"])
        ],
        says("on a quarter of an hour"),
    ]
    gpus: Annotated[Count | None, says("how many of them (default: all)")] = None


class RawPool(RawTable, frozen=True, kw_only=True):
    """GPUs of one model at a site. An enrolled site's agent counts its own."""

    id: Annotated[Name, says("id")]
    site: Annotated[Name, says("id of the site")]
    gpu: Annotated[Text, Meta(examples=["NVIDIA H200"]), says("model of the GPUs")]
    count: Annotated[Count, says("how many there are")]
    memory: Annotated[Size | None, says("memory of one of them")] = None
    simulated: Annotated[bool, says("nobody counted real ones")] = False
    hold_back: Annotated[
        Annotated[int, Meta(title="a whole number from 0", ge=0, le=1_000_000, examples=[2])],
        says("how many of them are never reserved"),
    ] = 0
    tenant_limit: Annotated[
        Count | None, says("the most of them that one tenant may hold at a time (default: all)")
    ] = None
    yen_per_gpu_hour: Annotated[
        Annotated[int, Meta(title="whole yen from 0", ge=0, le=100_000_000, examples=[400])] | None,
        says("price of a reserved GPU for an hour (default: what an administrator set)"),
    ] = None
    maintenance: Annotated[list[RawMaintenance], says("when it is maintained")] = msgspec.field(default_factory=list)


class RawUpstreamTls(RawTable, frozen=True, kw_only=True):
    """TLS towards an endpoint."""

    ca: Annotated[FilePath | None, says("trust this authority only (PEM)")] = None
    server_name: Annotated[
        Annotated[
            str,
            Meta(
                title="a host name",
                pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$",
                examples=["gpu.example.jp"],
            ),
        ]
        | None,
        says("name that the certificate must have (default: the host of the url)"),
    ] = None
    pins: Annotated[list[Pin], says("SHA-256 of the SubjectPublicKeyInfo; one of them must match")] = msgspec.field(
        default_factory=list
    )
    client_cert: Annotated[FilePath | None, says("our certificate (PEM); together with client_key")] = None
    client_key: Annotated[FilePath | None, says("its private key (PEM)")] = None


class RawEndpoint(RawTable, frozen=True, kw_only=True):
    """A server of the OpenAI API at a site."""

    id: Annotated[Name, says("id")]
    site: Annotated[Name, says("id of the site")]
    url: Annotated[
        Annotated[str, Meta(title="a url", min_length=1, max_length=2000, examples=["http://127.0.0.1:9103/v1"])],
        says("http or https, up to the path of the call (`…/v1`)"),
    ]
    models: Annotated[
        Annotated[
            list[ModelName],
            Meta(title="a list of model names", min_length=1, max_length=1000, examples=[["smollm2-135m"]]),
        ],
        says("names of the models that it serves"),
    ]
    slots: Annotated[Slots, says("requests that it works on at a time")] = 8
    api_key: Annotated[RawSecret | None, says("where the key of the endpoint lies")] = None
    tls: Annotated[RawUpstreamTls | None, says("TLS towards the endpoint")] = None
    readable_on_the_way: Annotated[
        bool, says("allow http:// to another machine: whoever is on the way can read and change prompts and answers")
    ] = False


class RawLimits(RawTable, frozen=True, kw_only=True, omit_defaults=True):
    """What a tenant may use; what is not named has no limit."""

    requests_per_minute: Annotated[Count | None, says("requests a minute")] = None
    tokens_per_minute: Annotated[Count | None, says("tokens a minute, in and out")] = None
    concurrency: Annotated[Count | None, says("requests at the same time")] = None


class RawKey(RawTable, frozen=True, kw_only=True):
    """A key with an end."""

    hash: Annotated[KeyText, says("`sha256:<64 hex digits>`, made by `sekisho key hash`")]
    expires_at: Annotated[
        Annotated[
            datetime, Meta(title="a date and time with its zone", tz=True, examples=["2027-03-31T23:59:59+09:00"])
        ]
        | None,
        says("when the key stops (default: never)"),
    ] = None


class RawTenant(RawTable, frozen=True, kw_only=True):
    """Who sends work."""

    id: Annotated[Name, says("id")]
    name: Annotated[Text | None, says("name for people (default: the id)")] = None
    # The safe one of the defaults: who says nothing about a tenant keeps its work inside the jurisdiction.
    floor: Annotated[
        Annotated[
            str,
            Meta(
                title=f"a data class ({', '.join(LABELS)})",
                pattern=f"^({'|'.join(LABELS)})$",
                examples=["confidential", *LABELS],
            ),
        ],
        says("lowest class that its requests can have"),
    ] = "confidential"
    keys: Annotated[list[KeyText | RawKey], says("its keys, as hashes; a plain key is accepted with a warning")] = (
        msgspec.field(default_factory=list)
    )
    models: Annotated[
        Annotated[
            list[ModelName],
            Meta(title="a list of model names", min_length=1, max_length=1000, examples=[["smollm2-135m"]]),
        ]
        | None,
        says("models that it may use (default: all)"),
    ] = None
    profiles: Annotated[
        Annotated[list[Name], Meta(title="a list of policy profiles", max_length=20, examples=[["gov-cloud"]])],
        says("policy profiles that hold for it on top of the default: `gov-cloud`, `appi-28` …"),
    ] = msgspec.field(default_factory=list)
    limits: Annotated[RawLimits, says("limits over all models")] = RawLimits()
    model_limits: Annotated[dict[ModelName, RawLimits], says("limits for single models")] = msgspec.field(
        default_factory=dict
    )


class RawAlias(RawTable, frozen=True, kw_only=True):
    """Another name for a model."""

    name: Annotated[ModelName, says("name that clients may send")]
    model: Annotated[ModelName, says("the model that it stands for")]


class RawConfig(RawTable, frozen=True, kw_only=True):
    """The configuration file. Durations are written as `30s`, `5ms` or `24h`, sizes as `16MiB`."""

    gateway: RawGateway = msgspec.field(default_factory=RawGateway)
    control: RawControl = RawControl()
    residency: RawResidency = RawResidency()
    ledger: RawLedger = RawLedger()
    demo: RawDemo = RawDemo()
    operator: list[RawOperator] = msgspec.field(default_factory=list)
    site: list[RawSite] = msgspec.field(default_factory=list)
    endpoint: list[RawEndpoint] = msgspec.field(default_factory=list)
    pool: list[RawPool] = msgspec.field(default_factory=list)
    tenant: list[RawTenant] = msgspec.field(default_factory=list)
    alias: list[RawAlias] = msgspec.field(default_factory=list)
