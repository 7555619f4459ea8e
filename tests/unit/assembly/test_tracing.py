"""Spans are made of decisions: names, counts and ids, never content."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from sekisho.assembly.tracing import tracer
from sekisho.ledger.model import Decision


def _decision(**changes: object) -> Decision:
    values: dict[str, object] = {
        "id": "0" * 32, "at_ms": 1_700_000_000_000, "gateway": "g/w0", "outcome": "completed", "status": 200,
        "path": "/v1/chat/completions", "tenant": "hospital", "data_class": "confidential", "model": "gpt-4o-mini",
        "served_model": "smollm2-135m", "site": "sakura-ishikari", "operator": "sakura", "country": "JP",
        "tokens_in": 7, "tokens_out": 11, "duration_us": 2500,
    }  # fmt: skip
    return Decision(**{**values, **changes})  # type: ignore[arg-type]


def test_a_decision_becomes_one_span_with_the_genai_attributes() -> None:
    exporter = InMemorySpanExporter()
    record, stop = tracer(exporter, gateway="g/w0")
    record(_decision(), None)
    stop()
    (span,) = exporter.get_finished_spans()
    attributes = dict(span.attributes or {})
    assert span.name == "chat gpt-4o-mini"
    assert attributes["gen_ai.operation.name"] == "chat"
    assert attributes["gen_ai.request.model"] == "gpt-4o-mini"
    assert attributes["gen_ai.response.model"] == "smollm2-135m"
    assert (attributes["gen_ai.usage.input_tokens"], attributes["gen_ai.usage.output_tokens"]) == (7, 11)
    assert span.end_time is not None
    assert span.start_time is not None
    assert span.end_time - span.start_time == 2_500_000
    assert span.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("outcome", ["refused", "failed", "client_gone", "upstream_cut"])
def test_what_did_not_complete_is_an_error_with_its_code(outcome: str) -> None:
    exporter = InMemorySpanExporter()
    record, stop = tracer(exporter, gateway="g/w0")
    record(_decision(outcome=outcome, code="upstream.unavailable"), None)
    stop()
    (span,) = exporter.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR
    assert dict(span.attributes or {})["error.type"] == "upstream.unavailable"


def test_a_span_is_the_child_of_the_clients_and_a_malformed_parent_is_ignored() -> None:
    exporter = InMemorySpanExporter()
    record, stop = tracer(exporter, gateway="g/w0")
    record(_decision(), b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    record(_decision(), b"\xff not a traceparent")
    stop()
    child, root = exporter.get_finished_spans()
    assert child.context.trace_id == 0x4BF92F3577B34DA6A3CE929D0E0E4736
    assert child.parent is not None
    assert child.parent.span_id == 0x00F067AA0BA902B7
    assert root.parent is None
