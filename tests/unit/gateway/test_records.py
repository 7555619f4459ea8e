"""Prepared records say what the general encoder would say."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from sekisho.gateway import live as live_tables
from sekisho.gateway.limits import Board, Slots
from sekisho.gateway.live import LiveTable, Route
from sekisho.gateway.meter import Tokens
from sekisho.gateway.metrics import Metrics
from sekisho.gateway.records import Lane
from sekisho.gateway.settings import GatewaySettings
from sekisho.gateway.tuning import Tuning
from sekisho.gateway.upstream import Endpoint
from sekisho.kernel.classes import DataClass
from sekisho.ledger.model import Attempt, Decision, Dispatch, decode_record
from sekisho.residency.model import AttestationFacts, SiteEvidence
from sekisho.residency.table import EndpointEntry
from support.gateway import Place, Who, compiled, federation


async def _lane(board: Board, *, with_evidence: bool) -> tuple[Lane, LiveTable, Route]:
    loop = asyncio.get_running_loop()

    def make(entry: EndpointEntry) -> Endpoint:
        return Endpoint(
            entry,
            settings=GatewaySettings(),
            tuning=Tuning(GatewaySettings()),
            slots=Slots(board, f"e/{entry.id}", entry.slots),
            loop=loop,
            on_usable=lambda _: None,
            write=lambda _transport, _data: None,
        )

    source = federation([Place("jp", "http://127.0.0.1:9/v1")], [Who("hospital", DataClass.CONFIDENTIAL)])
    attested = AttestationFacts(kind="snp", level="affirming", until=time.time() + 60, digest="e" * 64)
    evidence = {"site-jp": SiteEvidence(attestation=attested)} if with_evidence else {}
    live = await live_tables.build(compiled(source, evidence=evidence), None, make)
    tenant = live.tenants[0]
    route = tenant.routes[DataClass.CONFIDENTIAL]["m"]
    assert isinstance(route, Route)
    lane = Lane(
        gateway="g/w0",
        metrics=Metrics(),
        table=live,
        tenant=tenant,
        key="k-hospital",
        data_class="confidential",
        asked="gpt-4o-mini",
        model="m",
        path=b"/v1/chat/completions",
        route=route,
        endpoint=route.endpoints[0],
    )
    return lane, live, route


@pytest.mark.parametrize("with_evidence", [False, True])
def test_a_prepared_decision_reads_as_the_decision_it_stands_for(tmp_path: Path, with_evidence: bool) -> None:
    board = Board(tmp_path / "limits", worker=0, workers=1)
    lane, live, route = asyncio.run(_lane(board, with_evidence=with_evidence))
    tokens = Tokens()
    tokens.tokens_in, tokens.tokens_out, tokens.cached, tokens.exact = 7, 11, 3, True
    now_ms = int(time.time() * 1000)
    read = decode_record(
        lane.completed("a" * 32, now_ms, 200, 41, "true", tokens, 17, 5, 99, 360, 612, "1" * 64, "2" * 64)
    )
    assert read == Decision(
        id="a" * 32,
        at_ms=now_ms,
        gateway="g/w0",
        outcome="completed",
        status=200,
        path="/v1/chat/completions",
        tenant="hospital",
        key="k-hospital",
        floor="confidential",
        data_class="confidential",
        model="gpt-4o-mini",
        served_model="m",
        rules=route.rules,
        endpoint="jp",
        site="site-jp",
        operator="op-jp",
        country="JP",
        attempts=(Attempt(endpoint="jp", result="ok", duration_us=41),),
        table=live.version,
        policy=live.policy,
        evidence=("e" * 64,) if with_evidence else (),
        valid_until_ms=route.valid_until_ms,
        stream=True,
        tokens_in=7,
        tokens_out=11,
        tokens_cached=3,
        first_byte_us=17,
        queue_us=5,
        duration_us=99,
        bytes_in=360,
        bytes_out=612,
        request_commitment="1" * 64,
        response_commitment="2" * 64,
    )
    dispatch = decode_record(lane.dispatch(b"a" * 32, now_ms))
    assert isinstance(dispatch, Dispatch)
    assert (dispatch.id, dispatch.at_ms, dispatch.endpoint, dispatch.policy) == ("a" * 32, now_ms, "jp", live.policy)
    board.close()
