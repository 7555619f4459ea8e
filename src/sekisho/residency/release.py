"""Tenants' data keys go to attested workloads only, and only while the evidence stands.

Request, challenge, evidence, token, secret (after Trustee's key broker): a workload inside the TEE makes an X25519
key, has the hardware bind it to a challenge, gets a token for it, and asks with that token for the key of a tenant
whose guarded work may be done at its site. What it gets can be opened with the bound key alone.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sekisho.federation.key_release import DATA_KEY_BYTES, parse_spki, wrap
from sekisho.kernel.classes import LABELS, DataClass
from sekisho.kernel.errors import SekishoError
from sekisho.ledger import outbox
from sekisho.residency import evidence_store as store
from sekisho.residency.attestation.refusals import Refused, refuse
from sekisho.residency.evidence import RELEASE, Challenge, EvidenceService
from sekisho.residency.evidence_store import Evidence
from sekisho.residency.table import RouteSet, RouteTable
from sekisho.runtime.changes import record_change
from sekisho.runtime.database import Database

_NONCE_BYTES = 12  # NIST SP 800-38D §8.2.1
_GUARDED = tuple(label for label in LABELS if (DataClass.parse(label) or DataClass.PUBLIC).guarded)


class KeysUnreadable(SekishoError):
    """A tenant's sealed key does not open with this installation's key."""

    code = "release.sealed"


class Released(msgspec.Struct, frozen=True, kw_only=True):
    """`wrapped` opens with `federation.key_release.unwrap`, the workload's key, this tenant and evidence."""

    tenant: str
    evidence: str
    wrapped: bytes


class ReleaseService:
    """`sealing_key` (32 bytes, from secrets/) protects the tenants' keys at rest; `entitled` says whether a tenant's
    guarded work may be done at a site now."""

    def __init__(
        self,
        database: Database,
        evidence: EvidenceService,
        *,
        sealing_key: bytes,
        entitled: Callable[[str, str], bool],
        random: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._database = database
        self._evidence = evidence
        self._aead = AESGCM(sealing_key)
        self._entitled = entitled
        self._random = random

    def challenge(self, site: str, *, now: float) -> Challenge:
        """For a workload at this site. Raises EvidenceUnknown."""
        return self._evidence.challenge(site, now=now, purpose=RELEASE)

    def attest(
        self, site: str, nonce: bytes, evidence: bytes, public_key: bytes, *, now: float
    ) -> Evidence | Refused:
        """Takes a workload's evidence; its `token` is what `release` asks for. `public_key`: X25519, DER."""
        if parse_spki(public_key) is None:
            return refuse("release.key")
        return self._evidence.submit(site, nonce, evidence, public_key, now=now, purpose=RELEASE)

    def release(self, site: str, token: str, tenant: str, public_key: bytes, *, now: float) -> Released | Refused:
        """The tenant's key, wrapped to the key that the token was given for. The first release makes it."""
        claims = self._evidence.holder_of(token, now=now)
        if claims is None or claims.sub != site:
            return refuse("release.token")
        key = parse_spki(public_key)
        if key is None or hashlib.sha256(public_key).hexdigest() != claims.cnf.get("spki_sha256"):
            return refuse("release.key")
        if not self._entitled(tenant, site):
            return refuse("release.not_entitled", tenant)
        with self._database.write() as connection:
            sealed = store.sealed_key(connection, tenant)
            if sealed is None:
                secret = self._random(DATA_KEY_BYTES)
                store.put_sealed_key(connection, tenant, self._seal(tenant, secret), now=now)
            else:
                secret = self._open(tenant, sealed)
            record_change(
                connection,
                now=now,
                actor=f"site/{site}"[:64],
                action="key.released",
                subject=f"tenant/{tenant}",
                detail={"site": site, "evidence": claims.jti},
            )
            outbox.append(
                connection,
                kind="key.released",
                at_ms=int(now * 1000),
                body={"tenant": tenant, "site": site, "evidence": claims.jti},
            )
        wrapped = wrap(secret, key, tenant=tenant, evidence=claims.jti)
        return Released(tenant=tenant, evidence=claims.jti, wrapped=wrapped)

    def _seal(self, tenant: str, secret: bytes) -> bytes:
        nonce = self._random(_NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, secret, tenant.encode())

    def _open(self, tenant: str, sealed: bytes) -> bytes:
        try:
            return self._aead.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], tenant.encode())
        except (InvalidTag, ValueError):
            raise KeysUnreadable(
                f"the data key of {tenant} does not open with secrets/sealing.key",
                hint="put back the secrets/sealing.key under which it was made",
            ) from None


def entitled_by(table: RouteTable, tenant: str, site: str, *, now: float) -> bool:
    """Whether some guarded route of this tenant has an endpoint at this site, and is open."""
    entry = next((entry for entry in table.tenants if entry.id == tenant), None)
    if entry is None:
        return False
    here = {index for index, endpoint in enumerate(table.endpoints) if endpoint.site == site}
    profile = table.profiles[entry.profile]
    routes = (table.routes[index] for label in _GUARDED for index in profile.routes.get(label, {}).values())
    return any(isinstance(route, RouteSet) and not here.isdisjoint(route.at(now)) for route in routes)
