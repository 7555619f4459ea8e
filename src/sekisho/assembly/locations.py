"""Wires location proofs: the register of landmarks is a file of the home directory, keys are enrolled agents'."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from sekisho.assembly.home import Home
from sekisho.federation import enrolments
from sekisho.federation.landmark import Landmark
from sekisho.federation.model import Federation
from sekisho.residency.evidence import EvidenceService
from sekisho.residency.location.land import natural_earth
from sekisho.residency.location.service import LocationRefused, LocationService
from sekisho.runtime.database import Database

LANDMARKS = "landmarks.json"


class Register(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file `landmarks.json`. `limits_ms`: by site and landmark, the slowest answer that the site's operator
    allows itself; empty (the default) means that slowness contradicts nobody."""

    landmarks: tuple[Landmark, ...] = ()
    limits_ms: dict[str, dict[str, float]] = {}


def read_register(path: Path) -> Register:
    """What the file says; nothing when there is none. Raises LocationRefused when it can't be read."""
    try:
        register = msgspec.json.decode(path.read_bytes(), type=Register)
    except FileNotFoundError:
        return Register()
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LocationRefused(
            f"the register of landmarks {path} can't be read: {error}",
            code="location.landmarks",
            hint="mend it, or remove it to go without landmarks",
        ) from None
    names = [landmark.id for landmark in register.landmarks]
    if len(set(names)) != len(names):
        raise LocationRefused(
            f"the register {path} names a landmark twice", code="location.landmarks", hint="keep one of each id"
        )
    return register


def locations(
    home: Home, database: Database, evidence: EvidenceService, *, federation: Callable[[], Federation]
) -> LocationService:
    def keys(site: str) -> tuple[bytes, ...]:
        with database.read() as connection:
            agent = enrolments.find_agent(connection, site)
        return () if agent is None else (base64.b64decode(agent.spki),)

    def register() -> Register:
        return read_register(home.root / LANDMARKS)

    def limits(site: str) -> Mapping[str, float]:
        return register().limits_ms.get(site, {})

    return LocationService(
        evidence,
        sites=lambda: {site.id: site for site in federation().sites},
        keys=keys,
        landmarks=lambda: {landmark.id: landmark for landmark in register().landmarks},
        land=natural_earth,
        limits=limits,
    )
