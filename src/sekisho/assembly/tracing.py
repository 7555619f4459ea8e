"""OpenTelemetry traces of passages, with the GenAI conventions (off unless `otlp_endpoint` is set).

A span is made from the decision after the passage, so the hot path knows nothing of it; it carries counts, names and
ids, never content. Needs the extra `otel`.
"""

from __future__ import annotations

from collections.abc import Callable

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from sekisho.ledger.model import Decision

_OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
    "/v1/responses": "chat",
}


Recorder = Callable[[Decision, bytes | None], None]


def otlp_exporter(endpoint: str) -> SpanExporter:
    """An exporter to an OTLP/HTTP collector (`http://host:4318/v1/traces`)."""
    return OTLPSpanExporter(endpoint=endpoint)


def tracer(exporter: SpanExporter, *, gateway: str) -> tuple[Recorder, Callable[[], None]]:
    """(what turns a decision and the client's `traceparent` into a span, what flushes and stops at the end)."""
    provider = TracerProvider(resource=Resource.create({"service.name": "sekisho", "service.instance.id": gateway}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    spans = provider.get_tracer("sekisho.gateway")

    propagator = TraceContextTextMapPropagator()

    def record(decision: Decision, traceparent: bytes | None) -> None:
        parent = propagator.extract({"traceparent": traceparent.decode("latin-1")}) if traceparent else None
        start = decision.at_ms * 1_000_000
        operation = _OPERATIONS.get(decision.path, "")
        span = spans.start_span(
            f"{operation or decision.path} {decision.model}".strip(),
            kind=SpanKind.SERVER,
            context=parent,
            start_time=start,
            attributes={
                # https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/
                "gen_ai.operation.name": operation,
                "gen_ai.provider.name": decision.operator,
                "gen_ai.request.model": decision.model,
                "gen_ai.response.model": decision.served_model or decision.model,
                "gen_ai.usage.input_tokens": decision.tokens_in,
                "gen_ai.usage.output_tokens": decision.tokens_out,
                "http.response.status_code": decision.status,
                "sekisho.decision": decision.id,
                "sekisho.tenant": decision.tenant,
                "sekisho.class": decision.data_class,
                "sekisho.site": decision.site,
                "sekisho.country": decision.country,
                "sekisho.outcome": decision.outcome,
                "sekisho.queue_us": decision.queue_us,
                "sekisho.first_byte_us": decision.first_byte_us,
            },
        )
        if decision.outcome != "completed":
            span.set_attribute("error.type", decision.code)
            span.set_status(Status(StatusCode.ERROR, decision.code))
        span.end(end_time=start + decision.duration_us * 1000)

    return record, provider.shutdown
