"""Spans of sampled requests: one for the request, one for each attempt at an engine.

The request's span is of kind SERVER, an attempt's of kind CLIENT with the attributes of the GenAI semantic
conventions; the attempt's context goes to the engine, so that its spans hang below. Spans are exported by a
thread of the SDK, in batches. Source: OpenTelemetry semantic conventions for GenAI client spans.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from sluice_gateway.exchange import Exchange
from sluice_gateway.tracing.context import Parent, Sampler
from sluice_gateway.tracing.settings import Tracing

_OPERATIONS = {
    "chat": "chat",
    "messages": "chat",
    "responses": "chat",
    "completions": "text_completion",
    "embeddings": "embeddings",
}


class RequestTrace:
    """The spans of one sampled request."""

    def __init__(self, provider: TracerProvider, exchange: Exchange, parent: Parent | None) -> None:
        self._tracer = provider.get_tracer("sluice_gateway")
        self._exchange = exchange
        self._attempt: Span | None = None
        self._span = self._tracer.start_span(
            f"POST {exchange.path}",
            set_span_in_context(_remote(parent)) if parent is not None else None,
            SpanKind.SERVER,
            {
                "http.request.method": "POST",
                "http.route": exchange.path,
                "sluice.request_id": exchange.request_id,
            },
        )

    def begin_attempt(self, model: str) -> bytes:
        """Start the span of an attempt; returns the `traceparent` for its engine."""
        exchange = self._exchange
        operation = _OPERATIONS.get(exchange.kind, exchange.kind)
        self._attempt = self._tracer.start_span(
            f"{operation} {model}",
            set_span_in_context(self._span),
            SpanKind.CLIENT,
            {
                "gen_ai.operation.name": operation,
                "gen_ai.provider.name": exchange.backend,
                "gen_ai.request.model": model,
                "sluice.endpoint": exchange.endpoint,
                "sluice.attempt": exchange.attempts,
            },
        )
        context = self._attempt.get_span_context()
        return b"00-%032x-%016x-%02x" % (context.trace_id, context.span_id, context.trace_flags)

    def end_attempt(self, failure: str | None) -> None:
        """The attempt is over; `failure` names what went wrong, `None` when nothing did."""
        attempt, self._attempt = self._attempt, None
        if attempt is None:
            return
        usage = self._exchange.usage
        if usage is not None:
            attempt.set_attribute("gen_ai.usage.input_tokens", usage.prompt_tokens)
            attempt.set_attribute("gen_ai.usage.output_tokens", usage.completion_tokens)
            attempt.set_attribute("gen_ai.usage.cache_read.input_tokens", usage.cached_tokens)
        _end(attempt, failure)

    def note_resumption(self, endpoint: str, tokens: int) -> None:
        """See `Trace`."""
        self._span.add_event(
            "sluice.resumption", {"sluice.endpoint": endpoint, "sluice.delivered_tokens": tokens}
        )

    def end(self) -> None:
        """The request is over."""
        exchange = self._exchange
        self.end_attempt(exchange.outcome if exchange.failure else None)
        self._span.set_attributes(
            {
                "http.response.status_code": exchange.status,
                "sluice.key": exchange.key_id,
                "sluice.tenant": exchange.tenant,
                "sluice.queue_ms": exchange.queued_s * 1000,
                "sluice.attempts": exchange.attempts,
            }
        )
        if exchange.first_token_s is not None:
            self._span.set_attribute("gen_ai.response.time_to_first_chunk", exchange.first_token_s)
        _end(self._span, exchange.outcome if exchange.failure else None)


class Tracer:
    """Makes the traces. One for the whole gateway."""

    def __init__(
        self,
        settings: Tracing,
        *,
        exporter: SpanExporter | None = None,
        random_number: Callable[[], float] = random.random,
    ) -> None:
        """`exporter` is where spans go instead of to `settings.otlp_endpoint`."""
        endpoint = f"{(settings.otlp_endpoint or '').rstrip('/')}/v1/traces"
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": settings.service_name}), shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter(endpoint=endpoint)))
        self._sampler = Sampler(settings.sample_ratio, random_number)

    def begin(self, header: bytes | None, exchange: Exchange) -> RequestTrace | None:
        """The trace of a request with this `traceparent`; `None` when it is not sampled."""
        sampled, parent = self._sampler.decide(header)
        return RequestTrace(self._provider, exchange, parent) if sampled else None

    def close(self) -> None:
        """Export what is left. Blocks for as long as the exporter does."""
        self._provider.shutdown()


def _remote(parent: Parent) -> Span:
    flags = TraceFlags(TraceFlags.SAMPLED)
    return NonRecordingSpan(SpanContext(parent.trace_id, parent.span_id, is_remote=True, trace_flags=flags))


def _end(span: Span, failure: str | None) -> None:
    if failure is not None:
        span.set_attribute("error.type", failure)
        span.set_status(Status(StatusCode.ERROR))
    span.end()
