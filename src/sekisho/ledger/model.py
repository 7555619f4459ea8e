"""What is written down of a passage."""

from __future__ import annotations

from typing import Literal

import msgspec

Outcome = Literal[
    "completed",  # the endpoint's whole answer was relayed
    "refused",  # the checkpoint said no; nothing was sent to an endpoint
    "failed",  # every attempt at an endpoint failed before the first byte; the client got an error
    "client_gone",  # the client left; what had been seen is marked partial
    "upstream_cut",  # the endpoint broke off after the first byte; the client saw an unfinished answer
    "worker_lost",  # the gateway process died; written by the recovery, from the dispatch record
]


class Attempt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One try at one endpoint. `result` is `ok`, or an error code such as `upstream.connect_failed`."""

    endpoint: str
    result: str
    duration_us: int


class Dispatch(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="dispatch", tag_field="kind"):
    """Written before the first byte of a request leaves for an endpoint (one for each attempt).

    A dispatch without a decision after it belongs to a process that died: the recovery turns it into a decision
    with the outcome `worker_lost`.
    """

    id: str
    at_ms: int
    tenant: str
    key: str
    data_class: str
    model: str
    path: str
    endpoint: str
    site: str
    operator: str
    country: str
    table: int
    policy: str


class Decision(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="decision", tag_field="kind"):
    """The record of one passage. Exactly one for each request that the checkpoint read (law 3).

    Times in Unix milliseconds and durations in microseconds. `*_commitment` are SHA-256 over the tenant's salt, the
    decision id and the body as the client sent or got it: content itself is never written. `evidence` are SHA-256
    (hex) of the attestation and the location proof that stood for the site. `partial` marks token counts that are
    what was seen until the passage broke off, not what the endpoint reported.
    """

    id: str
    at_ms: int
    gateway: str
    outcome: Outcome
    status: int
    path: str = ""
    tenant: str = ""
    key: str = ""
    floor: str = ""
    data_class: str = ""
    model: str = ""
    served_model: str = ""
    code: str = ""
    rules: tuple[str, ...] = ()
    endpoint: str = ""
    site: str = ""
    operator: str = ""
    country: str = ""
    attempts: tuple[Attempt, ...] = ()
    table: int = 0
    policy: str = ""
    evidence: tuple[str, ...] = ()
    valid_until_ms: int = 0
    stream: bool = False
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    partial: bool = False
    first_byte_us: int = 0
    queue_us: int = 0
    duration_us: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    request_commitment: str = ""
    response_commitment: str = ""


Record = Dispatch | Decision
encode_record = msgspec.json.Encoder().encode
decode_record = msgspec.json.Decoder(Record).decode
