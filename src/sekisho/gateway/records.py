"""Records of the usual passage, prepared: what stays the same for a tenant, class, model, path and endpoint under one
route table is encoded once (a lane), and a passage fills in what is its own.

The bytes are those that `ledger.model.encode_record` would give, up to members that it would omit because they are
zero; a test holds the two together. Whatever is not usual takes the general way through `Decision`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from sekisho.gateway.meter import Tokens
from sekisho.gateway.metrics import Metrics
from sekisho.ledger.model import Dispatch, encode_record

if TYPE_CHECKING:
    from sekisho.gateway.live import LiveTable, Route, Tenant
    from sekisho.gateway.upstream import Endpoint

_DISPATCH_START: Final = b'{"kind":"dispatch","id":"'


def _members(**values: object) -> str:
    """Members of a JSON object, without the braces."""
    return msgspec.json.encode(values).decode()[1:-1]


class Lane:
    """Everything about a passage that is known once its endpoint is chosen."""

    __slots__ = (
        "_decision_attempt", "_decision_end", "_decision_middle", "_dispatch_end", "answer_head",
        "metrics", "request_head", "valid_until_ms",
    )  # fmt: skip

    def __init__(
        self,
        *,
        gateway: str,
        metrics: Metrics,
        table: LiveTable,
        tenant: Tenant,
        key: str,
        data_class: str,
        asked: str,
        model: str,
        path: bytes,
        route: Route,
        endpoint: Endpoint,
    ) -> None:
        place = {
            "endpoint": endpoint.id, "site": endpoint.site, "operator": endpoint.operator,
            "country": endpoint.country,
        }  # fmt: skip
        text = path.decode("latin-1")
        sample = encode_record(
            Dispatch(
                id="@", at_ms=0, tenant=tenant.entry.id, key=key, data_class=data_class, model=asked, path=text,
                table=table.version, policy=table.policy, **place,
            )
        )  # fmt: skip
        start = _DISPATCH_START + b'@","at_ms":0'
        assert sample.startswith(start), "the form of Dispatch has changed"
        self._dispatch_end = sample[len(start) :]
        self._decision_middle = "," + _members(gateway=gateway, outcome="completed") + ',"status":'
        usual = _members(
            path=text, tenant=tenant.entry.id, key=key, floor=tenant.floor.label, data_class=data_class, model=asked,
            served_model=model if model != asked else "", rules=route.rules, **place,
        )  # fmt: skip
        attempt = _members(endpoint=endpoint.id, result="ok")
        self._decision_attempt = f',{usual},"attempts":[{{{attempt},"duration_us":'
        self.valid_until_ms = route.valid_until_ms
        under = _members(table=table.version, policy=table.policy, valid_until_ms=route.valid_until_ms)
        if endpoint.entry.evidence:
            under += "," + _members(evidence=endpoint.entry.evidence)
        self._decision_end = f"}}],{under},"
        self.answer_head = b"%bx-sekisho-class: %b\r\nx-sekisho-decision: " % (
            endpoint.answer_head,
            data_class.encode(),
        )
        self.request_head = endpoint.request_head(path)
        self.metrics = metrics.lane(tenant=tenant.entry.id, data_class=data_class, site=endpoint.site)

    def dispatch(self, id: bytes, at_ms: int) -> bytes:
        """The dispatch record."""
        return b"".join((_DISPATCH_START, id, b'","at_ms":', str(at_ms).encode(), self._dispatch_end))

    def completed(
        self,
        id: str,
        at_ms: int,
        status: int,
        attempt_us: int,
        stream: str,
        tokens: Tokens,
        first_byte_us: int,
        queue_us: int,
        duration_us: int,
        bytes_in: int,
        bytes_out: int,
        request_commitment: str,
        response_commitment: str,
    ) -> bytes:
        """The decision of a passage that its first endpoint answered. `stream`: `true` or `false`."""
        return (
            f'{{"kind":"decision","id":"{id}","at_ms":{at_ms}{self._decision_middle}{status}'
            f'{self._decision_attempt}{attempt_us}{self._decision_end}"stream":{stream},'
            f'"tokens_in":{tokens.tokens_in},"tokens_out":{tokens.tokens_out},"tokens_cached":{tokens.cached},'
            f'"partial":{"false" if tokens.exact else "true"},"first_byte_us":{first_byte_us},"queue_us":{queue_us},'
            f'"duration_us":{duration_us},"bytes_in":{bytes_in},"bytes_out":{bytes_out},'
            f'"request_commitment":"{request_commitment}","response_commitment":"{response_commitment}"}}'
        ).encode()
