"""Who signs and who signed: the keys of logs and witnesses with their history, and the policies that follow from it.

The history only grows. A retired key still verifies what it signed; a revoked one verifies nothing any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from sekisho.kernel.errors import SekishoError
from sekisho.ledger.tlog.keys import VerifierKey
from sekisho.ledger.tlog.note import NoteRefused
from sekisho.ledger.tlog.policy import NO_QUORUM, Group, Log, TrustPolicy, Witness, majority

SCHEMA = 1
Role = Literal["log", "witness"]


class KeysDamaged(SekishoError):
    """The history of keys can't be read."""

    code = "keys.damaged"


class KnownKey(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One key. Times in Unix seconds; `until_s` None while it signs. `operator`: who runs the witness."""

    role: Role
    vkey: str
    since_s: int
    until_s: int | None = None
    revoked: bool = False
    operator: str = ""
    simulated: bool = False


class KeyHistory(msgspec.Struct, frozen=True, kw_only=True):
    """What is published under /.well-known/sekisho/keys.json: the oldest first."""

    schema: int = SCHEMA
    keys: tuple[KnownKey, ...] = ()

    def encode(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"

    @classmethod
    def parse(cls, data: bytes) -> KeyHistory:
        """KeysDamaged when it is none, or of a later form."""
        try:
            history = msgspec.json.decode(data, type=cls)
            for known in history.keys:
                VerifierKey.parse(known.vkey)
        except (msgspec.MsgspecError, NoteRefused) as error:
            raise KeysDamaged(f"the history of keys can't be read: {error}", hint="put back a copy of it") from None
        if history.schema != SCHEMA:
            raise KeysDamaged(f"the history of keys has the form {history.schema}", hint="use a newer version")
        return history


class SigningKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key that signs now. `operator` and `simulated` are a witness's."""

    role: Role
    key: VerifierKey
    operator: str = ""
    simulated: bool = False


def observe(history: KeyHistory, signing: Iterable[SigningKey], *, now_s: int) -> KeyHistory:
    """The history with the keys that sign now; those that signed before and don't any more are retired now."""
    current = {one.key.vkey: one for one in signing}
    keys = [
        known if known.until_s is not None or known.vkey in current else msgspec.structs.replace(known, until_s=now_s)
        for known in history.keys
    ]
    known_ones = {known.vkey for known in keys}
    keys += [
        KnownKey(role=one.role, vkey=vkey, since_s=now_s, operator=one.operator, simulated=one.simulated)
        for vkey, one in current.items()
        if vkey not in known_ones
    ]
    return KeyHistory(keys=tuple(keys))


def policy_of(history: KeyHistory, origin: str, urls: Mapping[str, str] | None = None) -> TrustPolicy:
    """The policy for the log `origin`: more than half of the operators have cosigned, one witness of each.

    `urls`: name of a witness → where it is asked; retired keys have no address. Without witnesses the quorum is
    `none`, and the log's own signature is all that there is.
    """
    logs, witnesses = [], []
    operators: dict[str, tuple[str, ...]] = {}
    for known in history.keys:
        key = VerifierKey.parse(known.vkey)
        if known.revoked:
            continue
        if known.role == "log" and key.name == origin:
            logs.append(Log(key=key))
        elif known.role == "witness":
            name = f"{key.name}#{key.key_id.hex()}"
            url = (urls or {}).get(key.name, "") if known.until_s is None else ""
            witnesses.append(Witness(name=name, key=key, url=url))
            operators[known.operator] = (*operators.get(known.operator, ()), name)
    groups: tuple[Group, ...] = ()
    quorum = NO_QUORUM
    if witnesses:
        groups, quorum = majority(operators)
    return TrustPolicy(logs=tuple(logs), witnesses=tuple(witnesses), groups=groups, quorum=quorum)
