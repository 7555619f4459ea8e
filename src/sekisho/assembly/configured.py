"""From the configuration file to what the control plane works with, and to what Settings shows of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from sekisho.assembly.config import Config, load_config, with_demo_keys
from sekisho.assembly.config_gateway import raw_name, write_duration, write_size
from sekisho.assembly.demo_plan import simulated_sites, without
from sekisho.assembly.home import Home, ensure_demo_keys
from sekisho.assembly.plane import Loaded
from sekisho.assembly.up import tenants_without_keys
from sekisho.console.services import Setting
from sekisho.federation.model import Endpoint, Operator, Pool, Site, Tenant
from sekisho.kernel.classes import DataClass
from sekisho.residency.policy.bundle import load_bundle
from sekisho.runtime.toml import TomlPath


def loader(home: Home, path: Path | None) -> Callable[[], Loaded]:
    """A function that reads the configuration anew, or raises ConfigRefused."""

    def load() -> Loaded:
        found = load_config(path)
        config = found.config
        if config.demo.enabled:
            config = with_demo_keys(config, ensure_demo_keys(home, tenants_without_keys(config)))
        simulated = simulated_sites(config)
        return Loaded(
            federation=without(config.federation, simulated),
            simulated=simulated,
            jurisdiction=config.residency.jurisdiction,
            evidence_validity_s=config.residency.evidence_validity_s,
            heartbeat_validity_s=config.residency.heartbeat_validity_s,
            listen=config.control.listen,
            policies=load_bundle(config.residency.policies),
            database=config.control.database,
            log_origin=config.ledger.origin,
            witnesses=Path(config.ledger.witnesses) if config.ledger.witnesses else None,
            settings=tuple(effective(found.config)),
            warnings=tuple(str(warning) for warning in found.warnings),
        )

    return load


def effective(config: Config) -> Iterator[Setting]:
    """Every value that is in force, in the order of the reference, with the line that it comes from.

    Keys are shown by their ids, and secrets by where they lie.
    """
    for section in ("gateway", "control", "residency", "ledger", "demo"):
        yield from _fields(config, getattr(config, section), (section,), section)
    federation = config.federation
    kinds: tuple[tuple[str, tuple[Operator | Site | Endpoint | Pool | Tenant, ...]], ...] = (
        ("operator", federation.operators),
        ("site", federation.sites),
        ("endpoint", federation.endpoints),
        ("pool", federation.pools),
        ("tenant", federation.tenants),
    )
    for kind, values in kinds:
        for index, value in enumerate(values):
            yield from _fields(config, value, (kind, index), f"{kind}.{value.id}")
    for tenant_index, tenant in enumerate(federation.tenants):
        ids = [key.id for key in federation.keys if key.tenant == tenant.id]
        if ids:
            path = ("tenant", tenant_index, "keys")
            yield Setting(name=f"tenant.{tenant.id}.keys", value=_text(ids), source=_source(config, path))
    for index, (name, model) in enumerate(federation.aliases.items()):
        yield Setting(name=f"alias.{name}", value=model, source=_source(config, ("alias", index, "model")))


# Known of a site, not written in the file.
_NO_SETTINGS = frozenset({"enrolled"})


def _fields(config: Config, value: msgspec.Struct, path: TomlPath, name: str) -> Iterator[Setting]:
    for field in value.__struct_fields__:
        if field in _NO_SETTINGS:
            continue
        raw = raw_name(field)
        inner = getattr(value, field)
        if isinstance(inner, msgspec.Struct):
            yield from _fields(config, inner, (*path, raw), f"{name}.{raw}")
        elif inner not in (None, (), {}):
            text = _written(field, inner)
            yield Setting(name=f"{name}.{raw}", value=text, source=_source(config, (*path, raw)))


def _written(field: str, value: object) -> str:
    if field.endswith("_s") and not field.endswith("_per_s") and isinstance(value, int | float):
        return write_duration(float(value))
    if field.endswith("_bytes") and isinstance(value, int):
        return write_size(value)
    return _text(value)


def _text(value: object) -> str:
    text = str(value)
    match value:
        case bool():
            text = "true" if value else "false"
        case DataClass():
            text = value.label
        case str():
            pass
        case dict():
            text = ", ".join(f"{key} = {_text(inner)}" for key, inner in value.items())
        case msgspec.Struct():
            fields = msgspec.structs.asdict(value).items()
            text = ", ".join(f"{key} {_text(inner)}" for key, inner in fields if inner is not None)
        case Iterable():
            text = ", ".join(_text(inner) for inner in value)
        case _:
            pass
    return text


def _source(config: Config, path: TomlPath) -> str:
    line = config.lines.get(path)
    return f"{config.file}:{line}" if line is not None else "default"
