"""Replays without a database: what an evidence pack carries of a table and a policy, and deciding again from that.

The inputs of a table name one tenant only: a pack is read outside, and the others are nobody's business there.
"""

from __future__ import annotations

from typing import Any

import msgspec

from sekisho.ledger.pack.model import PackRefused, Replayed
from sekisho.residency.policy.bundle import Bundle, PolicyRefused
from sekisho.residency.policy.engine import CedarPolicy
from sekisho.residency.policy.source import Passage, Source, SourceMissing, decide_again

_MAX_KEPT = 8


class _Policy(msgspec.Struct, frozen=True, kw_only=True):
    jurisdiction: str
    bundle: Bundle


class _Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """The members of a logged decision that a replay needs."""

    id: str
    at_ms: int
    tenant: str = ""
    data_class: str = ""
    model: str = ""
    served_model: str = ""
    endpoint: str = ""
    code: str = ""
    rules: tuple[str, ...] = ()
    table: int = 0
    policy: str = ""


def inputs_of(source: Source, tenant: str) -> bytes:
    """The sources of a table as JSON, with this tenant alone, and of endpoints nothing that decides nothing."""
    federation = source.federation
    return msgspec.json.encode(
        msgspec.structs.replace(
            source,
            federation=msgspec.structs.replace(
                federation,
                tenants=tuple(known for known in federation.tenants if known.id == tenant),
                endpoints=tuple(
                    msgspec.structs.replace(endpoint, url="", api_key=None, tls=None)
                    for endpoint in federation.endpoints
                ),
                keys=(),
            ),
        ),
        order="deterministic",
    )


def policy_of(bundle: Bundle, jurisdiction: str) -> bytes:
    """A policy's files as JSON."""
    return msgspec.json.encode(_Policy(jurisdiction=jurisdiction, bundle=bundle))


class OfflineReplay:
    """`ledger.pack.model.Replay` over such bytes; a policy that was read is kept for the next decision."""

    def __init__(self) -> None:
        self._policies: dict[bytes, CedarPolicy] = {}

    def __call__(self, entry: dict[str, Any], *, inputs: bytes, policy: bytes) -> Replayed:
        """PackRefused when the bytes are no inputs or no policy, or not those that the entry names."""
        try:
            source = msgspec.json.decode(inputs, type=Source)
            recorded = msgspec.convert(entry, _Recorded)
            rules = self._policies.get(policy) or self._read(policy)
        except (msgspec.MsgspecError, PolicyRefused, ValueError) as error:
            raise PackRefused(f"the inputs of a replay can't be read: {error}", code="pack.changed") from None
        if source.version != recorded.table or rules.hash != recorded.policy:
            raise PackRefused(
                f"decision {recorded.id} was made under another table or policy than the pack has",
                code="pack.changed",
            )
        passage = Passage(
            id=recorded.id, at=recorded.at_ms / 1000, table=recorded.table, policy=recorded.policy,
            tenant=recorded.tenant, data_class=recorded.data_class, model=recorded.served_model or recorded.model,
            endpoint=recorded.endpoint, code=recorded.code, rules=recorded.rules,
        )  # fmt: skip
        try:
            told = decide_again(source, rules, passage)
        except SourceMissing as error:
            return Replayed(same=False, fact=error.fact)
        return Replayed(same=told.outcome != "different", fact="; ".join(told.differences))

    def _read(self, policy: bytes) -> CedarPolicy:
        read = msgspec.json.decode(policy, type=_Policy)
        made = CedarPolicy(read.bundle, jurisdiction=read.jurisdiction)
        if len(self._policies) >= _MAX_KEPT:
            self._policies.clear()
        self._policies[policy] = made
        return made
