"""The request as it is read: whose it is, its class and model; and what is answered without an endpoint."""

from __future__ import annotations

import re
import zlib
from time import time as wall_time
from typing import TYPE_CHECKING, Final

from sekisho.gateway.answering import Answering
from sekisho.gateway.answers import own_head
from sekisho.gateway.body import BodyRefused, read_body, splice_model, splice_usage
from sekisho.gateway.ending import INFERENCE, OVER, WAITING
from sekisho.gateway.http1 import Form, RequestHead
from sekisho.gateway.live import LiveTable, Tenant
from sekisho.gateway.refusals import Refusal, of
from sekisho.kernel.classes import DataClass

if TYPE_CHECKING:
    from sekisho.gateway.receipts import ReceiptAnswer

_RECEIPTS: Final = b"/v1/receipts/"
_DECISION_ID: Final = re.compile(rb"[0-9a-f]{32}")
_RECEIPT_FORMS: Final = {b"": "proof", b"format=proof": "proof", b"format=cose": "cose"}
CONFIDENTIAL: Final = int(DataClass.CONFIDENTIAL)


class KnownHead:
    """What was read in a head, and who it was under the current route table."""

    __slots__ = (
        "data_class", "expires_at", "form", "guarded", "keep_alive", "key_id", "path", "tenant", "trace", "version",
    )  # fmt: skip

    def __init__(
        self,
        *,
        version: int,
        keep_alive: bool,
        path: bytes,
        tenant: Tenant,
        key_id: str,
        expires_at: float | None,
        data_class: DataClass,
        guarded: bool,
        trace: bytes | None,
    ) -> None:
        self.form: Form | None = None  # once the same head has come again
        self.version = version
        self.keep_alive = keep_alive
        self.path = path
        self.tenant = tenant
        self.key_id = key_id
        self.expires_at = expires_at
        self.data_class = data_class
        self.guarded = guarded
        self.trace = trace


class Reading(Answering):
    """What a client's connection calls while the request comes in."""

    __slots__ = ()

    def _admit(self) -> Refusal | None:
        """Whether the request may go on (the class that knows routes and limits has it)."""
        raise NotImplementedError

    # -- the request

    def read_head(self, head: RequestHead) -> Refusal | None:
        """Authenticate and classify. None: go on with the body."""
        self._version = head.version
        self._keep_alive = head.keep_alive
        path = head.target
        query = b""
        if b"?" in path:
            path, _, query = path.partition(b"?")
        self._path = path if len(path) <= 64 else path[:64]
        table = self.table
        if table is None:
            return of("gateway.no_table")
        headers = head.headers
        bearer = headers.get(b"authorization")
        if bearer is None:
            return of("auth.key_missing")
        if bearer[:7].lower() != b"bearer ":
            return of("auth.key_unknown")
        known = table.keys.get(self.gateway.sha256(bearer[7:].strip(b" ")).digest())
        if known is None or (known.expires_at is not None and known.expires_at <= self.at_ms / 1000):
            return of("auth.key_unknown")
        self.key_id, self._expires_at = known.id, known.expires_at
        tenant = self.tenant = table.tenants[known.tenant]
        data_class = tenant.floor
        wanted = headers.get(b"x-sekisho-class")
        if wanted is not None:
            asked = DataClass.parse(wanted.decode("latin-1"))
            if asked is None:
                return of("class.invalid")
            data_class = max(data_class, asked)
        self.data_class = data_class
        self.guarded = data_class >= CONFIDENTIAL
        if path not in INFERENCE:
            self._query = query
            if path != b"/v1/models" and not path.startswith(_RECEIPTS):
                return of("http.not_found")
            return None if head.method == b"GET" else of("http.method_not_allowed")
        if head.method != b"POST":
            return of("http.method_not_allowed")
        if query:
            return of("http.not_found", en="The inference paths take no query.", ja="推論パスにクエリは使えません。")
        kind = headers.get(b"content-type")
        if kind is not None and kind != b"application/json" and not _is_json(kind):
            return of("http.unsupported_media_type")
        if b"content-encoding" in headers:
            return of("http.unsupported_media_type", en="The body is compressed.", ja="本文が圧縮されています。")
        if head.length > self.gateway.tuning.max_body_bytes:
            return of("http.body_too_large")
        self._trace = headers.get(b"traceparent")
        return None

    def recall(self, known: KnownHead) -> Refusal | None:
        """Take over what `read_head` found in an equal head under the same route table."""
        if known.expires_at is not None and known.expires_at <= self.at_ms / 1000:
            return of("auth.key_unknown")
        self._version = known.version
        self._keep_alive = known.keep_alive
        self._path = known.path
        self.tenant = known.tenant
        self.key_id, self._expires_at = known.key_id, known.expires_at
        self.data_class = known.data_class
        self.guarded = known.guarded
        self._trace = known.trace
        return None

    def known_head(self) -> KnownHead | None:
        """What `recall` needs; None when the head was not that of an inference request."""
        tenant, data_class = self.tenant, self.data_class
        if tenant is None or data_class is None or self._path not in INFERENCE:
            return None
        return KnownHead(
            version=self._version,
            keep_alive=self._keep_alive,
            path=self._path,
            tenant=tenant,
            key_id=self.key_id,
            expires_at=self._expires_at,
            data_class=data_class,
            guarded=self.guarded,
            trace=self._trace,
        )

    def hold(self, size: int) -> bool:
        """Count bytes of the body that are kept. False: this tenant, or the worker, holds too much."""
        gateway, tenant = self.gateway, self.tenant
        self._counted += size
        gateway.buffered += size
        most = gateway.tuning.max_buffered_bytes
        if tenant is None:
            return gateway.buffered <= most
        tenant.buffered += size
        return gateway.buffered <= most and tenant.buffered <= max(most // 4, gateway.tuning.max_body_bytes)

    def read_body(self, body: bytes) -> None:
        """The whole body is here: route, admit and send it on, or refuse."""
        self.bytes_in = size = len(body)
        self.hold(size - self._counted)  # until the answer is complete: another endpoint may need it
        tenant, table, data_class, path = self.tenant, self.table, self.data_class, self._path
        assert tenant is not None and table is not None and data_class is not None
        if self._expires_at is not None and self._expires_at <= wall_time():
            self.refuse(of("auth.key_unknown"))  # it ran out while the body was on its way
            return
        if path == b"/v1/models":
            self._list_models(tenant, table, data_class)
            return
        if path.startswith(_RECEIPTS):
            self._get_receipt(tenant)
            return
        tuning = self.gateway.tuning
        try:
            reading = read_body(
                body, prefix_bytes=tuning.affinity_prefix_bytes, prefix_min_bytes=tuning.affinity_min_bytes
            )
        except BodyRefused as refused:
            words = _sentence(refused.what)
            self.refuse(of(refused.code, en=words, way_out=refused.way_out, way_out_ja=refused.way_out_ja))
            return
        self._asked = self._model = model = reading.model
        hasher = tenant.commitment(self._id)
        self._commit_answer = hasher.copy()
        self._hasher, self._unhashed = hasher, body
        alias = table.aliases.get(model)
        if alias is not None:
            body = splice_model(body, alias)
            self._model = alias
        if reading.stream and not reading.wants_usage and INFERENCE[path]:
            body = splice_usage(body)
            self._inject = True
        self._body = body
        if len(reading.prefix) >= tuning.affinity_min_bytes:
            self._prefix_hash = zlib.crc32(reading.prefix, zlib.crc32(tenant.entry.id.encode()))
        per_choice = reading.max_tokens if reading.max_tokens is not None else tuning.default_max_tokens
        self._estimate = size // 4 + (per_choice * reading.choices if path != b"/v1/embeddings" else 0)
        refusal = self._admit()
        if refusal is not None:
            self.refuse(refusal)
            return
        self._asked_now = True  # the table was asked just now, and nothing is waited for
        self._seek()
        self._asked_now = False
        self._commit_request()

    def _list_models(self, tenant: Tenant, table: LiveTable, data_class: DataClass) -> None:
        """Only what the caller may use, at this class, now."""
        body = self.gateway.models_body(tenant, table, data_class)
        self.bytes_out = len(body)
        if self._finish("completed", 200):
            head = own_head(
                200, len(body), date=self.gateway.date, extra=b"", decision=self.id, keep_alive=self._keep_alive
            )
            self.client.send(head + body)
            self._end()

    def _get_receipt(self, tenant: Tenant) -> None:
        """The receipt of an earlier passage of the same tenant; whose it is, control decides."""
        decision = self._path[len(_RECEIPTS) :]
        form = _RECEIPT_FORMS.get(self._query)
        if form is None or _DECISION_ID.fullmatch(decision) is None:
            self.refuse(of("receipt.invalid"))
        elif self.gateway.receipts is None:
            self.refuse(of("receipt.unavailable"))
        else:
            self._state = WAITING
            self.gateway.receipts.ask(
                tenant=tenant.entry.id, decision=decision.decode(), form=form, done=self._on_receipt
            )

    def _on_receipt(self, answer: ReceiptAnswer) -> None:
        if self._state == OVER:
            return  # the client left
        status = answer.status
        if status == 404:
            self.refuse(of("receipt.not_found"))
        elif status == 429:
            self.refuse(of("receipt.busy"))
        elif status not in (200, 202):
            self.refuse(of("receipt.unavailable"))
        else:
            self.bytes_out = len(answer.body)
            if self._finish("completed", status):
                extra = b"retry-after: %b\r\n" % answer.retry_after if answer.retry_after else b""
                head = own_head(
                    status, len(answer.body), date=self.gateway.date, extra=extra, decision=self.id,
                    keep_alive=self._keep_alive, kind=answer.content_type or b"application/octet-stream",
                )  # fmt: skip
                self.client.send(head + answer.body)
                self._end()


def _is_json(kind: bytes) -> bool:
    """`application/json`, in any case, with no parameter but charset=utf-8."""
    essence, _, parameter = kind.lower().partition(b";")
    return essence.strip() == b"application/json" and parameter.strip().replace(b'"', b"") in (b"", b"charset=utf-8")


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."
