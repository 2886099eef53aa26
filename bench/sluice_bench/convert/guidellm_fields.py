"""GuideLLM's report, field by field: for each request its times of day, and what follows from them.

Source: GuideLLM 0.8.1, `schemas/base/request_stats.py`, `schemas/base/info.py` and `benchmark/schemas`. A
request starts just before its HTTP library is called, so connecting is in its TTFT; it ends when the answer
has ended, `[DONE]` included. Its TPOT has the first token's time in it; its inter-token latency is what
others call TPOT.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sluice_bench.convert.field_map import Mapped
from sluice_bench.convert.figures import milliseconds, seconds
from sluice_bench.metrics import known_total
from sluice_bench.records import RequestRecord

REMARKS = (
    "GuideLLM's TPOT includes the first token's time and counts from the request's start; its ITL is TPOT.",
    "Its request latency ends with the answer, `[DONE]` included.",
    "`config` is GuideLLM's own scenario, so GuideLLM cannot load the file as a whole.",
)


def ratio(amount: int | None, time_s: float | None) -> float | None:
    """Per second; `None` where it has no meaning."""
    return amount / time_s if amount is not None and time_s else None


def latency_s(record: RequestRecord) -> float | None:
    """From the request's start to the answer's end."""
    return seconds(record.dispatched_ns, record.end_ns)


def total_tokens(record: RequestRecord) -> int | None:
    """GuideLLM takes an unknown count as 0; here the sum is then unknown."""
    return known_total((record.prompt_tokens, record.output_tokens))


def _tpot_ms(record: RequestRecord) -> float | None:
    end = record.end_ns if record.last_token_ns is None else record.last_token_ns
    whole = milliseconds(record.dispatched_ns, end)
    return whole / record.output_tokens if whole is not None and record.output_tokens else None


def _itl_ms(record: RequestRecord) -> float | None:
    span, tokens = milliseconds(record.first_token_ns, record.last_token_ns), record.output_tokens
    return span / (tokens - 1) if span is not None and tokens is not None and tokens > 1 else None


def _tokens_an_iteration(record: RequestRecord) -> float | None:
    chunks, tokens = len(record.chunks), record.output_tokens
    return tokens / chunks if chunks and tokens is not None else None


def _later_tokens_an_iteration(record: RequestRecord) -> float | None:
    chunks, tokens = len(record.chunks), record.output_tokens
    return (tokens - 1) / (chunks - 1) if tokens is not None and tokens > 1 and chunks > 1 else None


FIGURES: Sequence[Mapped[RequestRecord]] = (
    Mapped("request_latency", "end - dispatched", latency_s),
    Mapped(
        "request_scheduled_latency",
        "end - scheduled",
        lambda r: seconds(r.scheduled_ns, r.end_ns),
    ),
    Mapped(
        "request_dispatch_delay",
        "dispatched - scheduled",
        lambda r: seconds(r.scheduled_ns, r.dispatched_ns),
    ),
    Mapped("prompt_tokens", "prompt tokens", lambda r: r.prompt_tokens),
    Mapped("cached_tokens", "cached tokens", lambda r: r.cached_tokens),
    Mapped("output_tokens", "output tokens", lambda r: r.output_tokens),
    Mapped("total_tokens", "prompt and output tokens", total_tokens),
    Mapped(
        "time_to_first_token_ms",
        "first token - dispatched",
        lambda r: milliseconds(r.dispatched_ns, r.first_token_ns),
    ),
    Mapped(
        "time_to_first_output_token_ms",
        "first answer - dispatched",
        lambda r: milliseconds(r.dispatched_ns, r.first_answer_ns),
    ),
    Mapped("time_per_output_token_ms", "(last token - dispatched) / output tokens", _tpot_ms),
    Mapped("inter_token_latency_ms", "(last - first token) / (output tokens - 1)", _itl_ms),
    Mapped(
        "tokens_per_second",
        "prompt and output tokens / (end - dispatched)",
        lambda r: ratio(total_tokens(r), latency_s(r)),
    ),
    Mapped(
        "output_tokens_per_second",
        "output tokens / (end - dispatched)",
        lambda r: ratio(r.output_tokens, latency_s(r)),
    ),
    Mapped("output_tokens_per_iteration", "output tokens / chunks", _tokens_an_iteration),
    Mapped(
        "iter_tokens_per_iteration",
        "(output tokens - 1) / (chunks - 1)",
        _later_tokens_an_iteration,
    ),
)
"""What a request's entry has beside its times."""

SUMMARISED: Mapping[str, Callable[[RequestRecord], float | None]] = {
    field.theirs: field.value
    for field in FIGURES
    if field.theirs in ("request_latency", "time_to_first_token_ms", "time_to_first_output_token_ms")
} | {
    "prompt_token_count": lambda r: r.prompt_tokens,
    "output_token_count": lambda r: r.output_tokens,
    "total_token_count": total_tokens,
}
"""Distributions over requests, one value a request; GuideLLM's percentiles are nearest-rank."""

REFUSED_OF_OURS = {
    "config": "GuideLLM's own scenario",
    "benchmarks[].config": "GuideLLM's own scenario",
    "benchmarks[].scheduler_state": "GuideLLM's own scheduler",
    "benchmarks[].scheduler_metrics": "GuideLLM's own scheduler",
    "metrics.time_per_output_token_ms": "weighted by tokens; derive it from the requests",
    "metrics.inter_token_latency_ms": "weighted by tokens; derive it from the requests",
    "metrics.*_per_second": "weighted by time; derive it from the requests",
    "metrics.request_concurrency": "weighted by time; derive it from the requests",
    "output": "texts are not kept, only their digest",
    "request_args": "requests are not kept, only their digest",
    "info.timings.*_request_iteration": "counts lines of the answer, which are not kept",
    "time_to_last_round_trip_ms": "for sessions over WebSocket",
    "avg_round_trip_time_ms": "for sessions over WebSocket",
}

TAKEN_TIMINGS = (
    "targeted_start",
    "request_start",
    "first_token_iteration",
    "first_output_token_iteration",
    "last_token_iteration",
    "request_end",
)
REFUSED_TIMINGS = {
    **dict.fromkeys(
        (
            "queued",
            "dequeued",
            "scheduled_at",
            "resolve_start",
            "resolve_end",
            "finalized",
            "predecessor_completed",
        ),
        "a step of GuideLLM's own",
    ),
    **dict.fromkeys(
        ("first_request_iteration", "last_request_iteration", "request_iterations"),
        "counts lines of the answer",
    ),
    "token_iterations": "how many chunks there are, but not when each came",
    **dict.fromkeys(
        (
            "last_request_sent",
            "request_sent_sum",
            "request_sent_count",
            "token_received_sum",
            "token_received_count",
        ),
        "for sessions over WebSocket",
    ),
}
TAKEN = ("request_id", "info", "input_metrics", "output_metrics", "output")
DERIVED = "derived; ours are derived from the requests"
REFUSED_OF_THEIRS = {
    **{field.theirs: DERIVED for field in FIGURES},
    **dict.fromkeys(("request_start_time", "request_end_time"), DERIVED),
    **dict.fromkeys(("turn_predecessor_delay", "turn_scheduling_delay"), "of conversations"),
    **dict.fromkeys(("time_to_last_round_trip_ms", "avg_round_trip_time_ms"), "for sessions over WebSocket"),
    **dict.fromkeys(
        ("type_", "response_id", "request_args", "reasoning_output", "tool_calls", "response_metrics"),
        "no place in our records",
    ),
}
