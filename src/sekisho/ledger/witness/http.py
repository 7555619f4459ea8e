"""Witnesses over HTTP: `POST <prefix>/add-checkpoint` of c2sp.org/tlog-witness, and what a witness says of itself.

A plain ASGI application: a witness should be small enough to be read by the operator who runs it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, assert_never

import msgspec

from sekisho.kernel.clock import Clock
from sekisho.kernel.errors import SekishoError
from sekisho.ledger.tlog.note import MAX_NOTE_BYTES
from sekisho.ledger.witness.service import Answer, Conflict, Cosigned, Refused, Witness

_log = logging.getLogger(__name__)
# A proof of 63 hashes, and a note.
MAX_BODY_BYTES = MAX_NOTE_BYTES + 64 * 45
BODY_TIMEOUT_S = 10.0
METRICS = ("sekisho_witness_requests_total", "sekisho_witness_log_entries", "sekisho_witness_log_forks")
_METRICS_TYPE = "text/plain; version=0.0.4"
_PLAIN = "text/plain; charset=utf-8"
SIZE_TYPE = "text/x.tlog.size"

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class _Reply(msgspec.Struct, frozen=True, kw_only=True):
    status: int
    body: bytes
    media_type: str = _PLAIN
    allow: str = ""


class WitnessApp:
    """Serves witnesses, each under its own prefix (`""` for the only one, `/ishikari` for one of several).

    - `POST <prefix>/add-checkpoint` as specified;
    - `GET <prefix>/keys`: the vkeys, a line each;
    - `GET <prefix>/logs`: size, root and seen forks of every log (JSON);
    - `GET /metrics`: counts of all of them, for Prometheus.
    """

    def __init__(self, witnesses: Mapping[str, Witness], *, clock: Clock) -> None:
        self._witnesses = dict(witnesses)
        self._clock = clock
        self._counts: Counter[tuple[str, str]] = Counter()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        if scope["type"] != "http":
            return
        reply = await self._answer(scope["method"], scope["path"], receive)
        headers = [
            (b"content-type", reply.media_type.encode()),
            (b"content-length", b"%d" % len(reply.body)),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
        ]
        if reply.allow:
            headers.append((b"allow", reply.allow.encode()))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else reply.body})

    async def _answer(self, method: str, path: str, receive: Receive) -> _Reply:
        prefix, _, what = path.rpartition("/")
        witness = self._witnesses.get(prefix)
        if path == "/healthz":
            return _Reply(status=200, body=b"ok\n")
        if path == "/metrics":
            return _Reply(status=200, body=self._metrics(), media_type=_METRICS_TYPE)
        if witness is None or what not in ("add-checkpoint", "keys", "logs"):
            return _Reply(status=404, body=b"nothing is here\n")
        if what == "add-checkpoint":
            if method != "POST":
                return _Reply(status=405, body=b"POST a checkpoint\n", allow="POST")
            return await self._add(witness, receive)
        return _told(witness, method, what)

    async def _add(self, witness: Witness, receive: Receive) -> _Reply:
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                body = await _body(receive)
        except TimeoutError:
            return _Reply(status=408, body=b"the request took too long\n")
        if body is None:
            return _Reply(status=413, body=b"this is longer than a checkpoint can be\n")
        try:
            # In a thread: it waits for the disk.
            answer = await asyncio.to_thread(witness.add_checkpoint, body, at_s=int(self._clock.now()))
        except SekishoError as error:
            _log.error("%s: %s", witness.name, error)
            self._counts[witness.name, "fault"] += 1
            return _Reply(status=500, body=f"{error.fact} [{error.code}]\n".encode())
        self._counts[witness.name, _kind(answer)] += 1
        if isinstance(answer, Conflict) and answer.fork:
            _log.error("%s was shown a second history of a log at size %d: kept", witness.name, answer.size)
        return _reply(answer)

    def _metrics(self) -> bytes:
        requests, entries, forks = METRICS
        lines = [f"# TYPE {requests} counter"]
        for (name, answer), count in sorted(self._counts.items()):
            lines.append(f'{requests}{{witness="{_label(name)}",answer="{answer}"}} {count}')
        logs = [(witness.name, log) for witness in self._witnesses.values() for log in witness.logs()]
        for series, values in ((entries, [log.size for _, log in logs]), (forks, [log.forks for _, log in logs])):
            lines.append(f"# TYPE {series} gauge")
            for (name, log), value in zip(logs, values, strict=True):
                lines.append(f'{series}{{witness="{_label(name)}",log="{_label(log.origin)}"}} {value}')
        return "\n".join([*lines, ""]).encode()


def _label(text: str) -> str:
    """Escapes of the exposition format."""
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _kind(answer: Answer) -> str:
    match answer:
        case Cosigned():
            return "cosigned"
        case Conflict(fork=fork):
            return "fork" if fork else "conflict"
        case Refused():
            return "refused"
        case _:
            assert_never(answer)


def _told(witness: Witness, method: str, what: str) -> _Reply:
    if method not in ("GET", "HEAD"):
        return _Reply(status=405, body=b"this can be read only\n", allow="GET, HEAD")
    if what == "keys":
        return _Reply(status=200, body="".join(f"{key.vkey}\n" for key in witness.keys).encode())
    return _Reply(status=200, body=msgspec.json.encode(witness.logs()), media_type="application/json")


def _reply(answer: Answer) -> _Reply:
    match answer:
        case Cosigned():
            return _Reply(status=200, body=answer.lines)
        case Conflict():
            return _Reply(status=409, body=b"%d\n" % answer.size, media_type=SIZE_TYPE)
        case Refused():
            return _Reply(status=answer.status, body=f"{answer.fact}\n".encode())
        case _:
            assert_never(answer)


async def _body(receive: Receive) -> bytes | None:
    """The whole body; None when it is too long or its sender left."""
    parts: list[bytes] = []
    taken = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part = message.get("body", b"")
        taken += len(part)
        if taken > MAX_BODY_BYTES:
            return None
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
