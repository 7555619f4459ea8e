"""Evidence about sites: challenges, appraisals, and what stands now. One transaction that writes a call."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable

import msgspec
import sqlalchemy as sa
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from sekisho.federation.attester import NONCE_BYTES
from sekisho.kernel.errors import SekishoError
from sekisho.residency import evidence_store as store
from sekisho.residency.attestation import snp, tdx
from sekisho.residency.attestation.appraise import Anchors, Appraisal, appraise, reweigh, vcek_name
from sekisho.residency.attestation.references import Reference
from sekisho.residency.attestation.refusals import Refused, refuse
from sekisho.residency.attestation.register import SignedEntry, Signer, fault_of
from sekisho.residency.attestation.token import TokenClaims, open_token, sign_token
from sekisho.residency.evidence_store import ApprovedReference, CollateralRow, Evidence
from sekisho.residency.model import AttestationFacts, LocationFacts, LocationVerdict, SiteEvidence
from sekisho.runtime.changes import record_change
from sekisho.runtime.database import Database

CHALLENGE_S = 120.0
VALIDITY_S = 3600.0
MAX_KEY_BYTES = 1024
ATTESTATION, LOCATION, RELEASE = "attestation", "location", "release"


class EvidenceRefused(SekishoError):
    """Something that an administrator imports is not what it should be."""

    code = "evidence.unusable"


class EvidenceUnknown(SekishoError):
    """There is no such site, reference value, signer or piece of evidence."""

    code = "evidence.unknown"


class Challenge(msgspec.Struct, frozen=True, kw_only=True):
    """`nonce` has 32 bytes; an answer is taken once, before `expires_at` (Unix seconds)."""

    site: str
    nonce: bytes
    expires_at: float


class EvidenceService:
    """`key` signs results; `known` says whether a site exists; `random` gives that many unpredictable bytes."""

    def __init__(
        self,
        database: Database,
        *,
        key: Ed25519PrivateKey,
        known: Callable[[str], bool],
        random: Callable[[int], bytes] = secrets.token_bytes,
        validity_s: float = VALIDITY_S,
        anchors: Anchors | None = None,
    ) -> None:
        self._database = database
        self._key = key
        self._known = known
        self._random = random
        self._validity_s = validity_s
        # Makers' roots other than the vendored ones; the rest of the anchors comes from the database.
        self._makers = anchors or Anchors()

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
            anchors = self._anchors(connection)
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
        """For each site with any: the newest evidence of each subject that counts and has not run out."""
        with self._database.read() as connection:
            rows = [row for row in store.newest_standing(connection) if row.until > now]
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

    # -- what an administrator keeps

    def approve(self, reference: Reference, *, now: float, actor: str) -> int:
        """Its version. What stands is weighed anew at once, as with every change of values and register."""
        with self._database.write() as connection:
            version = store.insert_reference(connection, reference, now=now, actor=actor)
            self._weigh_anew(connection, now=now, actor=actor)
            record_change(
                connection,
                now=now,
                actor=actor,
                action="reference.approved",
                subject=f"reference/{reference.name}",
                detail={"version": str(version), "kind": reference.kind},
            )
        return version

    def withdraw(self, name: str, *, now: float, actor: str) -> None:
        with self._database.write() as connection:
            if not store.withdraw_reference(connection, name, now=now):
                raise EvidenceUnknown(
                    f"no reference value {name!r} is in force", hint="`sekisho attestation references` lists them"
                )
            self._weigh_anew(connection, now=now, actor=actor)
            record_change(connection, now=now, actor=actor, action="reference.withdrawn", subject=f"reference/{name}")

    def references(self) -> list[ApprovedReference]:
        """Every version that was ever approved."""
        with self._database.read() as connection:
            return store.references(connection)

    def import_collateral(self, document: bytes, *, now: float, actor: str) -> CollateralRow:
        """Keeps TDX collateral (JSON) or a VCEK (DER) in the country's cache. Nothing is fetched: it is a file."""
        tdx_names, chip = tdx.name_collateral(document), snp.chip_of_certificate(document)
        if tdx_names is not None:
            kind, name, until = "tdx", tdx_names.fmspc, tdx_names.until
        elif chip is not None:
            kind, name, until = "snp", vcek_name(chip[0]), chip[1]
        else:
            raise EvidenceRefused(
                "this is neither TDX collateral nor a VCEK",
                hint="give the JSON that a PCCS client writes, or the DER certificate of AMD's KDS",
            )
        if until <= now:
            raise EvidenceRefused(
                "this collateral has run out", code="evidence.collateral_expired", hint="fetch a newer one"
            )
        row = CollateralRow(
            name=name,
            kind=kind,
            digest=hashlib.sha256(document).hexdigest(),
            until=until,
            imported_by=actor,
            imported_at=now,
        )
        with self._database.write() as connection:
            store.put_collateral(connection, row, document)
            record_change(
                connection,
                now=now,
                actor=actor,
                action="collateral.imported",
                subject=f"collateral/{row.name}",
                detail={"digest": row.digest},
            )
        return row

    def collateral(self) -> list[CollateralRow]:
        with self._database.read() as connection:
            return store.collateral_rows(connection)

    def import_entry(self, signed: SignedEntry, *, now: float, actor: str) -> None:
        """Takes an entry into the register when operator and auditor signed it. Raises EvidenceRefused."""
        with self._database.write() as connection:
            fault = fault_of(signed, store.signers(connection))
            if fault:
                raise EvidenceRefused(
                    f"the entry for {signed.entry.hardware_id[:40]} does not count: {fault}",
                    code="evidence.register_refused",
                    hint="`sekisho attestation signers` lists whose signature counts",
                )
            store.put_entry(connection, signed, now=now, actor=actor)
            self._weigh_anew(connection, now=now, actor=actor)
            record_change(
                connection,
                now=now,
                actor=actor,
                action="register.entered",
                subject=f"site/{signed.entry.site}",
                detail={"hardware_id": signed.entry.hardware_id, "building": signed.entry.building},
            )

    def register(self) -> list[SignedEntry]:
        with self._database.read() as connection:
            return store.register_entries(connection)

    def trust_signer(self, signer: Signer, *, now: float, actor: str) -> None:
        """From now on this key's signature counts in the register. One key can't be both operator and auditor."""
        with self._database.write() as connection:
            if any(one.key == signer.key and one.role != signer.role for one in store.signers(connection)):
                raise EvidenceRefused(
                    "this key signs in the other role already", hint="operator and auditor need keys of their own"
                )
            store.put_signer(connection, signer, now=now)
            record_change(
                connection,
                now=now,
                actor=actor,
                action="signer.trusted",
                subject=f"signer/{signer.key}",
                detail={"role": signer.role, "name": signer.name},
            )

    def distrust_signer(self, key: str, *, now: float, actor: str) -> None:
        """Entries that it signed before stay: supersede them by new ones where that is wanted."""
        with self._database.write() as connection:
            if not store.drop_signer(connection, key):
                raise EvidenceUnknown("there is no such signer", hint="`sekisho attestation signers` lists them")
            record_change(connection, now=now, actor=actor, action="signer.distrusted", subject=f"signer/{key}")

    def signers(self) -> list[Signer]:
        with self._database.read() as connection:
            return store.signers(connection)

    def anchors(self) -> Anchors:
        """What evidence is held against now."""
        with self._database.read() as connection:
            return self._anchors(connection)

    def _weigh_anew(self, connection: sa.Connection, *, now: float, actor: str) -> None:
        """Keeps a new row for each site whose evidence is judged otherwise now; the old row stays in the history."""
        anchors = self._anchors(connection)
        for row in store.newest_standing(connection):
            if row.about != ATTESTATION or row.until <= now:
                continue
            before = msgspec.json.decode(row.appraisal, type=Appraisal)
            after = reweigh(before, anchors, now=now)
            if after.parts == before.parts and after.until == before.until:
                continue
            evidence_id = self._random(16).hex()
            store.insert_evidence(
                connection,
                msgspec.structs.replace(
                    row,
                    id=evidence_id,
                    level=after.status,
                    registered=after.registered,
                    code=after.findings[0].code if after.findings else "",
                    until=after.until,
                    appraisal=msgspec.json.encode(after, order="deterministic").decode(),
                    token=sign_token(after, evidence_id, self._key),
                ),
            )
            record_change(
                connection,
                now=now,
                actor=actor,
                action="evidence.weighed_anew",
                subject=f"site/{row.site}",
                detail={"id": evidence_id, "before": row.level, "level": after.status},
            )

    def _anchors(self, connection: sa.Connection) -> Anchors:
        return msgspec.structs.replace(
            self._makers,
            references=store.current_references(store.references(connection)),
            register=store.entry_index(store.register_entries(connection)),
            collateral=store.collateral_bodies(connection),
        )

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
