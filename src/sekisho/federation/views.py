"""What is shown of keys, operators and sites: what the API answers and the commands read.

Nothing else is imported here, so that a command does not load a database and a web framework to print a table.
"""

from __future__ import annotations

import msgspec

from sekisho.federation.declare import SignedDeclaration
from sekisho.federation.report import Inventory


class KeyView(msgspec.Struct, frozen=True, kw_only=True):
    """What may be shown of a key. `source` says where it was declared."""

    id: str
    tenant: str
    label: str
    source: str
    created_at: float | None = None
    expires_at: float | None = None
    revoked_at: float | None = None

    def live(self, now: float) -> bool:
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > now)


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    """The only time that the key itself is seen."""

    id: str
    tenant: str
    key: str
    expires_at: float | None = None


class OperatorView(msgspec.Struct, frozen=True, kw_only=True):
    """`source`: `configuration` or `enrolment`. `key`: with which it signs declarations; empty: none is known."""

    id: str
    name: str
    country: str
    law: str
    source: str
    key: str = ""


class NewInvitation(msgspec.Struct, frozen=True, kw_only=True):
    """The only time that the token is seen. `expires_at` in Unix seconds."""

    id: str
    operator: str
    site: str
    token: str
    expires_at: float


class SiteView(msgspec.Struct, frozen=True, kw_only=True):
    """A site as people see it. `state`: `configured`, `waiting`, `approved`, `stale` (no heart-beat in time),
    `rejected`. Times in Unix seconds; `valid_until`: when its evidence runs out; None: renewed with every table.
    `key`: its agent's (base64 SubjectPublicKeyInfo); `location`: where that answers landmarks (`host:port`)."""

    id: str
    operator: str
    name: str
    country: str
    source: str
    state: str
    suspended: bool
    simulated: bool
    endpoints: tuple[str, ...] = ()
    pin: str = ""
    heard_at: float | None = None
    valid_until: float | None = None
    inventory: Inventory | None = None
    version: str = ""
    key: str = ""
    location: str = ""


class EnrolmentView(msgspec.Struct, frozen=True, kw_only=True):
    """What was handed in for a site, and what became of it. Times in Unix seconds."""

    id: str
    state: str
    pin: str
    at: float
    decided_at: float | None
    decided_by: str | None
    declaration: SignedDeclaration


class VersionView(msgspec.Struct, frozen=True, kw_only=True):
    """Which version of a site's declaration was approved by whom, and when (Unix seconds)."""

    version: int
    at: float
    actor: str


class SiteDetail(msgspec.Struct, frozen=True, kw_only=True):
    site: SiteView
    enrolments: tuple[EnrolmentView, ...]
    versions: tuple[VersionView, ...]


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    site: str
    state: str
    pin: str


class SiteChanged(msgspec.Struct, frozen=True, kw_only=True):
    """`table_version` obeys the change; `changed` is false when it was so before."""

    site: str
    suspended: bool
    changed: bool
    table_version: int


class MeasurementAsked(msgspec.Struct, frozen=True, kw_only=True):
    """The landmarks that measure the site at their next heart-beat."""

    landmarks: tuple[str, ...]
