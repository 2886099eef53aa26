"""Sampled requests leave spans that hang together, others nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from sluice_gateway.errors import Failure
from sluice_gateway.exchange import Exchange
from sluice_gateway.tracing.context import Sampler, parse_traceparent
from sluice_gateway.tracing.settings import Tracing
from sluice_gateway.tracing.tracer import Tracer
from sluice_router.types import Usage

PARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = PARENT[:-1] + b"0"


def exchange_of() -> Exchange:
    exchange = Exchange("req_1", "chat", "/v1/chat/completions", 0.0)
    exchange.backend, exchange.endpoint, exchange.attempts, exchange.status = "vllm", "vllm-0", 1, 200
    return exchange


def spans_of(exchange: Exchange, header: bytes | None, ratio: float = 0.0) -> list[ReadableSpan]:
    exporter = InMemorySpanExporter()
    tracer = Tracer(Tracing(sample_ratio=ratio), exporter=exporter, random_number=lambda: 0.5)
    trace = tracer.begin(header, exchange)
    if trace is not None:
        trace.begin_attempt("m")
        exchange.usage = Usage(prompt_tokens=7, completion_tokens=2, cached_tokens=3)
        trace.end_attempt(None)
        trace.end()
    tracer.close()
    return list(exporter.get_finished_spans())


def test_the_attempt_hangs_below_the_request_and_that_below_the_client() -> None:
    attempt, request = spans_of(exchange_of(), PARENT)
    assert request.kind is SpanKind.SERVER
    assert attempt.kind is SpanKind.CLIENT
    assert request.parent is not None
    assert request.parent.span_id == 0xB7AD6B7169203331
    assert attempt.parent is not None
    assert attempt.parent.span_id == request.context.span_id
    assert {span.context.trace_id for span in (request, attempt)} == {0x0AF7651916CD43DD8448EB211C80319C}
    assert attempt.name == "chat m"
    assert attempt.attributes is not None
    assert attempt.attributes["gen_ai.usage.input_tokens"] == 7
    assert attempt.attributes["gen_ai.provider.name"] == "vllm"


def test_a_failure_is_named() -> None:
    exchange = exchange_of()
    exchange.failure, exchange.status = Failure.UPSTREAM_LOST, 502
    _, request = spans_of(exchange, PARENT)
    assert request.attributes is not None
    assert request.attributes["error.type"] == "upstream_lost"
    assert not request.status.is_ok


def test_the_clients_decision_wins_and_the_ratio_decides_for_the_others() -> None:
    assert spans_of(exchange_of(), UNSAMPLED, ratio=1.0) == []
    assert spans_of(exchange_of(), None, ratio=0.4) == []
    assert len(spans_of(exchange_of(), None, ratio=0.6)) == 2
    assert len(spans_of(exchange_of(), b"nonsense", ratio=0.6)) == 2


@given(st.binary(max_size=70))
def test_any_header_is_a_parent_or_none(header: bytes) -> None:
    found = parse_traceparent(header)
    assert found is None or found.trace_id


def test_versions_to_come_are_read_and_wrong_ones_are_not() -> None:
    assert parse_traceparent(b"01" + PARENT[2:] + b"-more") is not None
    assert parse_traceparent(PARENT + b"-more") is None
    assert parse_traceparent(b"ff" + PARENT[2:]) is None
    assert parse_traceparent(b"00-" + b"0" * 32 + PARENT[35:]) is None
    assert Sampler(0.0, lambda: 0.0).decide(None) == (False, None)


def test_an_answer_that_another_engine_goes_on_with_is_one_request() -> None:
    exporter = InMemorySpanExporter()
    tracer = Tracer(Tracing(sample_ratio=1.0), exporter=exporter, random_number=lambda: 0.5)
    trace = tracer.begin(None, exchange_of())
    assert trace is not None
    trace.begin_attempt("m")
    trace.end_attempt("upstream_lost")
    trace.note_resumption("vllm-0", 12)
    trace.begin_attempt("m")
    trace.end_attempt(None)
    trace.end()
    tracer.close()
    cut, rest, request = exporter.get_finished_spans()
    [event] = request.events
    assert event.attributes == {"sluice.endpoint": "vllm-0", "sluice.delivered_tokens": 12}
    assert not cut.status.is_ok
    assert rest.parent is not None and rest.parent.span_id == request.context.span_id
