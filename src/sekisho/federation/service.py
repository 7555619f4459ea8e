"""Keys and endpoints change here: one transaction a call, the record in the same transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec
import sqlalchemy as sa

from sekisho.federation.enrolments import suspended_sites
from sekisho.federation.errors import Conflict, UnknownName
from sekisho.federation.keys import hash_key, key_id, new_key, parse_key_hash
from sekisho.federation.model import ApiKey, Endpoint, Federation, Tenant
from sekisho.federation.sites import SiteService, merge, with_windows
from sekisho.federation.store import (
    StoredKey,
    insert_key,
    mark_revoked,
    set_suspended,
    stored_keys,
    suspended_endpoints,
)
from sekisho.federation.views import KeyView, NewKey
from sekisho.runtime.changes import record_change
from sekisho.runtime.database import Database

_FOREVER = float("inf")
_Working = tuple[tuple[tuple[Tenant, ...], tuple[ApiKey, ...], list[StoredKey]], float, tuple[ApiKey, ...]]


class FederationService:
    """`federation` gives the configuration as it is now; a reload changes what it answers. `sites` adds those that
    were enrolled; without it there are none. `windows`: the endpoints that run for tenants' windows now."""

    def __init__(
        self,
        database: Database,
        federation: Callable[[], Federation],
        *,
        sites: SiteService | None = None,
        windows: Callable[[], Sequence[Endpoint]] = tuple,
    ) -> None:
        self._database = database
        self._federation = federation
        self._sites = sites
        self._windows = windows
        # The keys that work, what they were found under, and until when they all do: of ten thousand tenants they are
        # otherwise gone through for every table.
        self._working: _Working = ((), (), []), -_FOREVER, ()

    def keys(self) -> list[KeyView]:
        """Declared and made keys, revoked ones included, in the order of their tenants."""
        with self._database.read() as connection:
            stored = {key.id: key for key in stored_keys(connection)}
        declared = {key.id: key for key in self._federation().keys}
        views = [_declared_view(key, stored.get(key.id)) for key in declared.values()]
        views += [_stored_view(key) for key in stored.values() if key.id not in declared]
        return sorted(views, key=lambda view: (view.tenant, view.created_at or 0.0, view.id))

    def create_key(self, *, tenant: str, label: str, expires_at: float | None, now: float, actor: str) -> NewKey:
        if tenant not in {known.id for known in self._federation().tenants}:
            raise UnknownName(f"there is no tenant {tenant!r}", hint="`sekisho status` lists the tenants")
        if expires_at is not None and expires_at <= now:
            raise Conflict("the key would already be expired", hint="give an `expires_at` in the future")
        plain = new_key()
        digest = parse_key_hash(hash_key(plain))
        assert digest is not None  # noqa: S101 - two functions of one module; narrows the type
        key = StoredKey(
            id=key_id(digest),
            tenant=tenant,
            sha256=digest,
            label=label,
            created_at=now,
            expires_at=expires_at,
            revoked_at=None,
        )
        with self._database.write() as connection:
            insert_key(connection, key)
            record_change(
                connection,
                now=now,
                actor=actor,
                action="key.created",
                subject=f"key/{key.id}",
                detail={"tenant": tenant},
            )
        return NewKey(id=key.id, tenant=tenant, key=plain, expires_at=expires_at)

    def revoke_key(self, key_id: str, *, now: float, actor: str) -> None:
        declared = {key.id: key for key in self._federation().keys}
        with self._database.write() as connection:
            known = {key.id: key for key in stored_keys(connection)}
            if key_id in known:
                if not mark_revoked(connection, key_id, now=now):
                    raise Conflict(f"the key {key_id} was revoked before", hint="nothing needs to be done")
                tenant = known[key_id].tenant
            elif key_id in declared:
                # A declared key gets a row of its own: the revocation outlives a restart with the old file.
                key = declared[key_id]
                tenant = key.tenant
                insert_key(
                    connection,
                    StoredKey(
                        id=key.id,
                        tenant=tenant,
                        sha256=key.sha256,
                        label="declared in the configuration",
                        created_at=now,
                        expires_at=key.expires_at,
                        revoked_at=now,
                    ),
                )
            else:
                raise UnknownName(f"there is no key {key_id!r}", hint="`GET /api/v1/keys` lists them")
            record_change(
                connection,
                now=now,
                actor=actor,
                action="key.revoked",
                subject=f"key/{key_id}",
                detail={"tenant": tenant},
            )

    def set_suspended(self, endpoint: str, suspended: bool, *, now: float, actor: str) -> bool:
        """False when the endpoint was in that state already."""
        with self._database.write() as connection:
            if endpoint not in {known.id for known in self._merged(connection).endpoints}:
                raise UnknownName(f"there is no endpoint {endpoint!r}", hint="`sekisho status` lists the endpoints")
            changed = set_suspended(connection, endpoint, suspended, now=now)
            if changed:
                record_change(
                    connection,
                    now=now,
                    actor=actor,
                    action="endpoint.suspended" if suspended else "endpoint.resumed",
                    subject=f"endpoint/{endpoint}",
                )
        return changed

    def suspended(self) -> frozenset[str]:
        """Endpoints that serve nobody: suspended themselves, or at a suspended site."""
        with self._database.read() as connection:
            sites = suspended_sites(connection)
            at_sites = (
                {each.id for each in self._merged(connection).endpoints if each.site in sites} if sites else set()
            )
            return suspended_endpoints(connection) | at_sites

    def effective(self, *, now: float) -> Federation:
        """Configured and enrolled sites with their endpoints, and the keys that work now: declared and made, less
        revoked and expired."""
        with self._database.read() as connection:
            stored = stored_keys(connection)
            federation = self._merged(connection)
        under, until, working = self._working
        if not (
            under[0] is federation.tenants and under[1] is federation.keys and under[2] == stored and now < until
        ):
            tenants = {tenant.id for tenant in federation.tenants}
            revoked = {key.sha256 for key in stored if key.revoked_at is not None}
            made = [key.as_api_key() for key in stored if key.tenant in tenants]
            by_hash = {key.sha256: key for key in (*federation.keys, *made)}
            working = tuple(_working(by_hash.values(), revoked=revoked, now=now))
            until = min((key.expires_at for key in working if key.expires_at is not None), default=_FOREVER)
            self._working = (federation.tenants, federation.keys, stored), until, working
        return msgspec.structs.replace(federation, keys=working)

    def has_site(self, site: str) -> bool:
        """Whether the configuration or an enrolment has this site."""
        with self._database.read() as connection:
            return any(known.id == site for known in self._merged(connection).sites)

    def _merged(self, connection: sa.Connection) -> Federation:
        found = self._federation()
        tls = {}
        if self._sites is not None:
            found, tls = merge(found, self._sites.enrolled(connection)), self._sites.tls(connection)
        return with_windows(found, self._windows(), tls)


def _working(keys: Iterable[ApiKey], *, revoked: set[str], now: float) -> Iterable[ApiKey]:
    for key in keys:
        if key.sha256 not in revoked and (key.expires_at is None or key.expires_at > now):
            yield key


def _declared_view(key: ApiKey, stored: StoredKey | None) -> KeyView:
    return KeyView(
        id=key.id,
        tenant=key.tenant,
        label="",
        source="configuration",
        expires_at=key.expires_at,
        revoked_at=stored.revoked_at if stored else None,
    )


def _stored_view(key: StoredKey) -> KeyView:
    return KeyView(
        id=key.id,
        tenant=key.tenant,
        label=key.label,
        source="console",
        created_at=key.created_at,
        expires_at=key.expires_at,
        revoked_at=key.revoked_at,
    )
