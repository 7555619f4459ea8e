"""Evidence about sites: challenges, appraisals, and what stands now. One transaction that writes a call."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from sekisho.federation.attester import NONCE_BYTES
from sekisho.residency import evidence_store as store
from sekisho.residency.attestation.appraise import Anchors, Appraisal, appraise
from sekisho.residency.attestation.refusals import Refused, refuse
from sekisho.residency.attestation.token import TokenClaims, open_token, sign_token
from sekisho.residency.evidence_keeper import ATTESTATION, EvidenceKeeper, EvidenceRefused, EvidenceUnknown
from sekisho.residency.evidence_store import Evidence
from sekisho.residency.model import AttestationFacts, LocationFacts, LocationVerdict, SiteEvidence
from sekisho.runtime.changes import record_change
from sekisho.runtime.database import Database

__all__ = [
    "ATTESTATION",
    "LOCATION",
    "RELEASE",
    "Challenge",
    "EvidenceRefused",
    "EvidenceService",
    "EvidenceUnknown",
    "attestation_facts",
    "location_facts",
]
CHALLENGE_S = 120.0
VALIDITY_S = 3600.0
MAX_KEY_BYTES = 1024
LOCATION, RELEASE = "location", "release"
_AGAINST = ("contraindicated", "contradicted")


class Challenge(msgspec.Struct, frozen=True, kw_only=True):
    """`nonce` has 32 bytes; an answer is taken once, before `expires_at` (Unix seconds)."""

    site: str
    nonce: bytes
    expires_at: float


class EvidenceService(EvidenceKeeper):
    """`key` signs results; `known` says whether a site exists; `random` gives that many unpredictable bytes.

    `since`: by site, from when on evidence counts (Unix seconds): what an agent proved is not true of the one that
    took its place.
    """

    def __init__(
        self,
        database: Database,
        *,
        key: Ed25519PrivateKey,
        known: Callable[[str], bool],
        random: Callable[[int], bytes] = secrets.token_bytes,
        since: Callable[[], Mapping[str, float]] = dict,
        validity_s: float = VALIDITY_S,
        anchors: Anchors | None = None,
    ) -> None:
        super().__init__(database, key=key, random=random, makers=anchors or Anchors())
        self._known = known
        self._since = since
        self._validity_s = validity_s

    # -- challenge and answer

    def challenge(self, site: str, *, now: float, purpose: str = ATTESTATION) -> Challenge:
        """A fresh nonce for this site. Raises EvidenceUnknown."""
        self._require(site)
        made = Challenge(site=site, nonce=self._random(NONCE_BYTES), expires_at=now + CHALLENGE_S)
        with self._database.write() as connection:
            store.insert_challenge(
                connection,
                nonce=made.nonce.hex(),
                site=site,
                purpose=purpose,
                now=now,
                expires_at=made.expires_at,
            )
        return made

    def submit(
        self,
        site: str,
        nonce: bytes,
        evidence: bytes,
        public_key: bytes,
        *,
        now: float,
        purpose: str = ATTESTATION,
    ) -> Evidence | Refused:
        """The evidence as it is kept, or why it is not accepted. Either way the challenge is used up.

        `public_key`: DER SubjectPublicKeyInfo of the key that the evidence binds. What is refused is kept in the
        history; only genuine hardware that says something bad of itself displaces what stood before. Evidence for the
        purpose `release` never stands for a site: it speaks for one workload's key.
        """
        self._require(site)
        with self._database.read() as connection:
            found = store.find_challenge(connection, nonce=nonce.hex(), site=site, purpose=purpose)
            anchors = self._anchors_in(connection)
        if found is None:
            return refuse("attestation.unknown_challenge")
        expires_at, used_at = found
        if used_at is not None:
            return refuse("attestation.replayed")
        result: Appraisal | Refused
        if not now < expires_at:
            result = refuse("attestation.stale")
        elif not _is_public_key(public_key):
            result = refuse("attestation.wrong_key", "public key")
        else:
            result = appraise(
                evidence,
                site=site,
                nonce=nonce,
                public_key=public_key,
                anchors=anchors,
                now=now,
                validity_s=self._validity_s,
            )
        row = self._row(site, purpose, evidence, result, now=now)
        with self._database.write() as connection:
            if not store.use_challenge(connection, nonce=nonce.hex(), site=site, now=now):
                return refuse("attestation.replayed")
            store.insert_evidence(connection, row)
            record_change(
                connection,
                now=now,
                actor=f"site/{site}"[:64],
                action="evidence.refused" if isinstance(result, Refused) else "evidence.taken",
                subject=f"site/{site}",
                detail={"id": row.id, "about": row.about, "kind": row.kind, "level": row.level, "code": row.code},
            )
        return result if isinstance(result, Refused) else row

    def _row(self, site: str, purpose: str, evidence: bytes, result: Appraisal | Refused, *, now: float) -> Evidence:
        evidence_id = self._random(16).hex()
        if isinstance(result, Refused):
            return Evidence(
                id=evidence_id,
                site=site,
                about=purpose,
                kind="none",
                level="none",
                stands=False,
                code=result.code,
                at=now,
                until=now,
                digest=hashlib.sha256(evidence).hexdigest(),
                appraisal=msgspec.json.encode(result.finding).decode(),
            )
        return Evidence(
            id=evidence_id,
            site=site,
            about=purpose,
            kind=result.kind,
            stands=purpose == ATTESTATION,
            level=result.status,
            registered=result.registered,
            code=result.findings[0].code if result.findings else "",
            at=now,
            until=result.until,
            digest=result.digest,
            key_digest=result.key,
            appraisal=msgspec.json.encode(result, order="deterministic").decode(),
            token=sign_token(result, evidence_id, self._key),
        )

    def record_location(
        self,
        site: str,
        *,
        verdict: LocationVerdict,
        margin_km: int,
        until: float,
        digest: str,
        detail: bytes,
        now: float,
        actor: str,
    ) -> Evidence:
        """Keeps what was measured of where a site stands. `detail`: JSON of the measurement; `digest`: SHA-256 (hex)
        of the signed measurements. Raises EvidenceUnknown."""
        self._require(site)
        row = Evidence(
            id=self._random(16).hex(),
            site=site,
            about=LOCATION,
            kind=LOCATION,
            level=verdict,
            margin_km=margin_km,
            at=now,
            until=until,
            digest=digest,
            appraisal=detail.decode(),
        )
        with self._database.write() as connection:
            store.insert_evidence(connection, row)
            record_change(
                connection,
                now=now,
                actor=actor,
                action="location.measured",
                subject=f"site/{site}",
                detail={"id": row.id, "verdict": verdict, "margin_km": str(margin_km)},
            )
        return row

    # -- what stands

    def standing(self, now: float) -> dict[str, SiteEvidence]:
        """For each site with any: the newest evidence of each subject that counts and has not run out; what speaks
        against a site stands until something newer replaces it."""
        with self._database.read() as connection:
            rows = [row for row in store.newest_standing(connection) if row.until > now or row.level in _AGAINST]
        since = self._since()
        rows = [row for row in rows if row.at >= since.get(row.site, 0.0)]
        found: dict[str, SiteEvidence] = {}
        for row in rows:
            before = found.get(row.site, SiteEvidence())
            if row.about == ATTESTATION:
                found[row.site] = msgspec.structs.replace(before, attestation=attestation_facts(row))
            else:
                found[row.site] = msgspec.structs.replace(before, location=location_facts(row))
        return found

    def history(self, site: str = "", *, limit: int = 50) -> list[Evidence]:
        """The newest first, refused ones included; of all sites when none is named."""
        with self._database.read() as connection:
            return store.evidence_of(connection, site, limit=limit)

    def find(self, evidence_id: str) -> Evidence:
        with self._database.read() as connection:
            found = store.find_evidence(connection, evidence_id)
        if found is None:
            raise EvidenceUnknown(
                f"there is no evidence {evidence_id!r}", hint="`sekisho attestation list` names them"
            )
        return found

    def holder_of(self, token: str, *, now: float) -> TokenClaims | None:
        """Whose token this is, as long as its own evidence holds and what stands for its site is affirmed."""
        claims = open_token(token, self._key.public_key())
        if claims is None or not now < claims.exp or not self._known(claims.sub):
            return None
        with self._database.read() as connection:
            own = store.find_evidence(connection, claims.jti)
        if own is None or not now < own.until or own.level != "affirming" or own.token != token:
            return None
        stands = self.standing(now).get(claims.sub, SiteEvidence()).attestation
        return claims if stands.level == "affirming" and stands.until > now else None

    @property
    def public_key(self) -> Ed25519PublicKey:
        """What tokens are verified with."""
        return self._key.public_key()

    def _require(self, site: str) -> None:
        if not self._known(site):
            raise EvidenceUnknown(f"there is no site {site!r}", hint="`sekisho status` names the sites")


def attestation_facts(row: Evidence) -> AttestationFacts:
    """Evidence as rules see it."""
    return msgspec.convert(
        {
            "kind": row.kind,
            "level": row.level,
            "hardware_registered": row.registered,
            "at": row.at,
            "until": row.until,
            "digest": row.digest,
        },
        type=AttestationFacts,
    )


def location_facts(row: Evidence) -> LocationFacts:
    return msgspec.convert(
        {
            "verdict": row.level,
            "margin_km": row.margin_km,
            "at": row.at,
            "until": row.until,
            "digest": row.digest,
        },
        type=LocationFacts,
    )


def _is_public_key(der: bytes) -> bool:
    if len(der) > MAX_KEY_BYTES:
        return False
    try:
        load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm):
        return False
    return True
