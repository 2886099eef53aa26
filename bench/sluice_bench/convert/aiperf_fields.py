"""AIPerf's `profile_export.jsonl`, field by field: a line a request, each metric with its unit.

Source: AIPerf 0.13, `common/models/record_models.py` and `metrics/types`. A request starts when its transport
is dispatched, so connecting is in its TTFT; content is text, reasoning or a tool call. Inter-token latency is
what others call TPOT. Token counts are the server's, as with its option `--use-server-token-count`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from sluice_bench.convert.field_map import Json, Mapped
from sluice_bench.convert.figures import MS, NS, milliseconds, seconds
from sluice_bench.records import RequestRecord, TokenSource

REMARKS = (
    "Token counts are the server's: compare with AIPerf's --use-server-token-count.",
    "AIPerf's ITL is TPOT; its ICL has the gaps between chunks, whatever number of tokens they bring.",
)

UNITS: Mapping[str, str] = {
    "time_to_first_token": "ms",
    "time_to_second_token": "ms",
    "time_to_first_output_token": "ms",
    "request_latency": "ms",
    "decode_duration": "ms",
    "inter_token_latency": "ms",
    "inter_chunk_latency": "ms",
    "output_token_throughput_per_user": "tokens/sec/user",
    "e2e_output_token_throughput": "tokens/sec/user",
    "prefill_throughput_per_user": "tokens/sec/user",
    "input_sequence_length": "tokens",
    "output_sequence_length": "tokens",
    "usage_prompt_tokens": "tokens",
    "usage_completion_tokens": "tokens",
    "usage_total_tokens": "tokens",
    "usage_prompt_cache_read_tokens": "tokens",
    "requested_osl": "tokens",
    "osl_mismatch_diff_pct": "%",
}


def itl_ms(record: RequestRecord) -> float | None:
    """(request latency - TTFT) / (tokens after those of the first chunk).

    How many the first chunk has is what per-chunk usage says; else it is taken to be one.
    """
    decode, tokens = milliseconds(record.first_token_ns, record.last_token_ns), record.output_tokens
    if decode is None or tokens is None or tokens < 2:
        return None
    told = record.token_source is TokenSource.RUNNING_USAGE and record.chunks
    first = record.chunks[0].n_tokens if told else 1
    return decode / (tokens - first if 0 < first < tokens else tokens - 1)


def _per_second(tokens: int | None, time_s: float | None) -> float | None:
    return tokens / time_s if tokens is not None and time_s else None


def _mismatch(record: RequestRecord) -> float | None:
    if record.output_tokens is None or not record.asked_tokens:
        return None
    return (record.output_tokens - record.asked_tokens) / record.asked_tokens * 100


def _chunk_gaps(record: RequestRecord) -> list[float] | None:
    stamps = [chunk.arrived_ns for chunk in record.chunks]
    return [(later - earlier) * MS for earlier, later in pairwise(stamps)] or None


def _second_token_ms(record: RequestRecord) -> float | None:
    stamps = [chunk.arrived_ns for chunk in record.chunks]
    return (stamps[1] - stamps[0]) * MS if len(stamps) > 1 else None


def _per_user(record: RequestRecord) -> float | None:
    gap = itl_ms(record)
    return 1000 / gap if gap else None


def _used_tokens(record: RequestRecord) -> int | None:
    if record.prompt_tokens is None or record.output_tokens is None:
        return None
    return record.prompt_tokens + record.output_tokens


METRICS: Sequence[Mapped[RequestRecord]] = (
    Mapped(
        "time_to_first_token",
        "first token - dispatched",
        lambda r: milliseconds(r.dispatched_ns, r.first_token_ns),
    ),
    Mapped("time_to_second_token", "second chunk - first chunk", _second_token_ms),
    Mapped(
        "time_to_first_output_token",
        "first answer - dispatched",
        lambda r: milliseconds(r.dispatched_ns, r.first_answer_ns),
    ),
    Mapped(
        "request_latency",
        "last token - dispatched",
        lambda r: milliseconds(r.dispatched_ns, r.last_token_ns),
    ),
    Mapped(
        "decode_duration",
        "last token - first token",
        lambda r: milliseconds(r.first_token_ns, r.last_token_ns),
    ),
    Mapped("inter_token_latency", "TPOT; one token in the first chunk unless usage says otherwise", itl_ms),
    Mapped("inter_chunk_latency", "gaps between chunks of text", _chunk_gaps),
    Mapped("output_token_throughput_per_user", "1 / inter_token_latency", _per_user),
    Mapped(
        "e2e_output_token_throughput",
        "output tokens / (last token - dispatched)",
        lambda r: _per_second(r.output_tokens, seconds(r.dispatched_ns, r.last_token_ns)),
    ),
    Mapped(
        "prefill_throughput_per_user",
        "prompt tokens / (first token - dispatched)",
        lambda r: _per_second(r.prompt_tokens, seconds(r.dispatched_ns, r.first_token_ns)),
    ),
    Mapped("input_sequence_length", "prompt tokens of usage", lambda r: r.prompt_tokens),
    Mapped("output_sequence_length", "output tokens", lambda r: r.output_tokens),
    Mapped("usage_prompt_tokens", "prompt tokens of usage", lambda r: r.prompt_tokens),
    Mapped(
        "usage_completion_tokens",
        "output tokens of usage",
        lambda r: None if r.prompt_tokens is None else r.output_tokens,
    ),
    Mapped("usage_total_tokens", "prompt and output tokens of usage", _used_tokens),
    Mapped("usage_prompt_cache_read_tokens", "cached tokens of usage", lambda r: r.cached_tokens),
    Mapped("requested_osl", "asked tokens", lambda r: r.asked_tokens),
    Mapped("osl_mismatch_diff_pct", "output tokens over asked tokens, less 1", _mismatch),
)
"""Left out of a line where they are unknown, as AIPerf does."""

REFUSED_OF_OURS = {
    "output_token_count": "our counts do not part reasoning from answers",
    "reasoning_token_count": "our counts do not part reasoning from answers",
    "stream_setup_latency": "experimental, and not in AIPerf's file unless asked for",
    "stream_prefill_latency": "experimental, and not in AIPerf's file unless asked for",
    "credit_drop_latency": "a step of AIPerf's own",
    "http_req_*": "taken inside AIPerf's HTTP library",
    "x_request_id": "our client sends none",
    "x_correlation_id": "our client sends none",
}

TAKEN_METADATA = (
    "session_num",
    "credit_issued_ns",
    "request_start_ns",
    "request_ack_ns",
    "request_end_ns",
    "benchmark_phase",
    "was_cancelled",
    "conversation_id",
)
TAKEN_METRICS = (
    "time_to_first_token",
    "time_to_first_output_token",
    "request_latency",
    "inter_chunk_latency",
    "input_sequence_length",
    "output_sequence_length",
    "usage_prompt_tokens",
    "usage_completion_tokens",
    "usage_prompt_cache_read_tokens",
    "requested_osl",
)

_NO_PLACE = "no place in our records"
_DERIVED = "derived; ours are derived from the requests"
REFUSED_METADATA = dict.fromkeys(
    (
        "x_request_id",
        "x_correlation_id",
        "turn_index",
        "source_trace_id",
        "source_outer_idx",
        "source_inner_idx",
        "source_kind",
        "worker_id",
        "record_processor_id",
        "phase_index",
        "profiling_index",
        "phase_name",
        "phase_kind",
        "cancellation_time_ns",
        "context_overflow_skip",
        "agent_depth",
        "parent_correlation_id",
        "root_correlation_id",
    ),
    _NO_PLACE,
)
REFUSED_METRICS = {
    **dict.fromkeys(
        (
            "time_to_second_token",
            "decode_duration",
            "inter_token_latency",
            "output_token_throughput_per_user",
            "e2e_output_token_throughput",
            "prefill_throughput_per_user",
            "usage_total_tokens",
            "osl_mismatch_diff_pct",
        ),
        _DERIVED,
    ),
    **dict.fromkeys(
        ("output_token_count", "reasoning_token_count", "usage_reasoning_tokens", "error_isl"), _NO_PLACE
    ),
    "http_req_*": "taken inside AIPerf's HTTP library",
}


def metric_entries(record: RequestRecord) -> Json:
    """As a line has them."""
    found = {field.theirs: field.value(record) for field in METRICS}
    return {name: {"value": value, "unit": UNITS[name]} for name, value in found.items() if value is not None}


def to_ns(metric: object) -> int | None:
    """Nanoseconds of a time with its unit; `None` when there is none. Raises `ValueError`."""
    if not isinstance(metric, dict):
        return None
    scale = {"ms": 1e6, "sec": 1 / NS, "s": 1 / NS, "us": 1e3, "ns": 1.0}.get(str(metric.get("unit")))
    if scale is None:
        raise ValueError(f"a time in {metric.get('unit')!r} is not known")
    return round(float(metric["value"]) * scale)
