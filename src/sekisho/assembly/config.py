"""The configuration: what a file (or the built-in default) says, checked as a whole.

`load_config` either gives a Config that everything can rely on, or ConfigRefused with every mistake at its line.
A plain key in a file is hashed as soon as it is read; no value that leaves this module holds one.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from sekisho.assembly.config_read import Reader
from sekisho.assembly.config_schema import RawConfig
from sekisho.assembly.config_translate import (
    ControlSettings,
    DemoSettings,
    LedgerSettings,
    ResidencySettings,
    Translator,
)
from sekisho.federation.build import assemble
from sekisho.federation.keys import HASH_PREFIX, hash_key, key_fault, key_id
from sekisho.federation.model import ApiKey, Federation
from sekisho.gateway.settings import GatewaySettings
from sekisho.kernel.errors import SekishoError
from sekisho.runtime.toml import ConfigRefused, Document, Problem, TomlPath, parse_toml, read_toml

__all__ = [
    "Config",
    "ConfigRefused",
    "ControlSettings",
    "DemoSettings",
    "LedgerSettings",
    "LoadedConfig",
    "Problem",
    "ResidencySettings",
    "load_config",
    "parse_config",
    "schema",
    "with_demo_keys",
]

DEFAULT_FILE = "default.toml"


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that an installation is told. `lines` says where in `file` each value stands (see `effective`)."""

    gateway: GatewaySettings
    control: ControlSettings
    residency: ResidencySettings
    ledger: LedgerSettings
    demo: DemoSettings
    federation: Federation
    file: str
    lines: Mapping[TomlPath, int]


class LoadedConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration and what its author should know about it."""

    config: Config
    warnings: tuple[Problem, ...]


class DemoKeyRefused(SekishoError):
    """A demonstration key that no tenant can have."""

    code = "config.demo_key"


def load_config(path: Path | None) -> LoadedConfig:
    """The configuration in this file, or the built-in default; raises ConfigRefused with all problems."""
    if path is None:
        text = resources.files("sekisho.assembly").joinpath(DEFAULT_FILE).read_text(encoding="utf-8")
        return parse_config(parse_toml(text, file=DEFAULT_FILE), directory=None)
    return parse_config(read_toml(path), directory=path.parent)


def parse_config(document: Document, *, directory: Path | None) -> LoadedConfig:
    """The configuration in this document. File names in it are relative to `directory`."""
    reader = Reader(document)
    raw = reader.table(RawConfig, document.data, ())
    translator = Translator(reader, directory=directory)
    gateway = translator.gateway(raw.gateway)
    control = translator.control(raw.control, gateway)
    residency = translator.residency(raw.residency)
    ledger = translator.ledger(raw.ledger)
    federation = translator.federation(raw)
    translator.policies(residency, federation)
    demo = translator.demo(raw.demo, federation)
    if reader.problems:
        raise ConfigRefused(reader.problems)
    return LoadedConfig(
        config=Config(
            gateway=gateway,
            control=control,
            residency=residency,
            ledger=ledger,
            demo=demo,
            federation=federation,
            file=document.file,
            lines=document.lines,
        ),
        warnings=tuple(sorted(translator.warnings, key=lambda warning: warning.line)),
    )


def with_demo_keys(config: Config, keys: Mapping[str, str]) -> Config:
    """The configuration with one more key for each of these tenants; only hashes are kept.

    Raises DemoKeyRefused for a tenant that is not there or a key that can't be one.
    """
    federation = config.federation
    tenants = {tenant.id for tenant in federation.tenants}
    have = {key.sha256 for key in federation.keys}
    added: list[ApiKey] = []
    for tenant, key in keys.items():
        fault = key_fault(key)
        if tenant not in tenants or fault is not None:
            what = f"the key {fault}" if fault is not None else "there is no such tenant"
            raise DemoKeyRefused(
                f"no demonstration key for tenant `{tenant}`: {what}",
                hint="remove secrets/demo_keys.json; new keys are made at the next start",
            )
        digest = hash_key(key).removeprefix(HASH_PREFIX)
        if digest not in have:
            have.add(digest)
            added.append(ApiKey(id=key_id(digest), tenant=tenant, sha256=digest))
    return msgspec.structs.replace(
        config,
        federation=assemble(
            operators=federation.operators,
            sites=federation.sites,
            endpoints=federation.endpoints,
            tenants=federation.tenants,
            keys=(*federation.keys, *added),
            aliases=federation.aliases,
            pools=federation.pools,
        ),
    )


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the configuration file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_without_null(msgspec.json.schema(RawConfig)),
    }


def _without_null(node: Any) -> Any:
    """The schema without the alternative `null`, which TOML can't write: a field is there or it is not."""
    match node:
        case {"anyOf": [*kinds]} if {"type": "null"} in kinds:
            left = [kind for kind in kinds if kind != {"type": "null"}]
            rest = {
                name: value for name, value in node.items() if name != "anyOf" and (name, value) != ("default", None)
            }
            return _without_null({**(left[0] if len(left) == 1 else {"anyOf": left}), **rest})
        case dict():
            return {name: _without_null(value) for name, value in node.items() if value is not None}
        case list():
            return [_without_null(value) for value in node]
        case _:
            return node
