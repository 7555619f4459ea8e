"""What evidence is held against: approved values, collateral, the register. One transaction a call.

A change of these weighs at once what stands.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import msgspec
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sekisho.kernel.errors import SekishoError
from sekisho.residency import evidence_store as store
from sekisho.residency.attestation import snp, tdx
from sekisho.residency.attestation.appraise import Anchors, Appraisal, reweigh, vcek_name
from sekisho.residency.attestation.references import Reference
from sekisho.residency.attestation.register import SignedEntry, Signer, fault_of
from sekisho.residency.attestation.token import sign_token
from sekisho.residency.evidence_store import ApprovedReference, CollateralRow
from sekisho.runtime.changes import record_change
from sekisho.runtime.database import Database

ATTESTATION = "attestation"


class EvidenceRefused(SekishoError):
    """Something that an administrator imports is not what it should be."""

    code = "evidence.unusable"


class EvidenceUnknown(SekishoError):
    """There is no such site, reference value, signer or piece of evidence."""

    code = "evidence.unknown"


class EvidenceKeeper:
    """The half of `EvidenceService` that administrators use."""

    def __init__(
        self, database: Database, *, key: Ed25519PrivateKey, random: Callable[[int], bytes], makers: Anchors
    ) -> None:
        self._database = database
        self._key = key
        self._random = random
        # Makers' roots other than the vendored ones; the rest of the anchors comes from the database.
        self._makers = makers

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
            return self._anchors_in(connection)

    def _weigh_anew(self, connection: sa.Connection, *, now: float, actor: str) -> None:
        """Keeps a new row for each site whose evidence is judged otherwise now; the old row stays in the history."""
        anchors = self._anchors_in(connection)
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

    def _anchors_in(self, connection: sa.Connection) -> Anchors:
        return msgspec.structs.replace(
            self._makers,
            references=store.current_references(store.references(connection)),
            register=store.entry_index(store.register_entries(connection)),
            collateral=store.collateral_bodies(connection),
        )
