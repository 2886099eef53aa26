"""The JSON of `vllm bench serve --save-result --save-detailed`, field by field.

Source: vLLM 0.32, `benchmarks/serve.py` and `benchmarks/lib/endpoint_request_func.py`.

Times are seconds of `perf_counter`. A request starts when its client turns to it, so connecting is in its
TTFT; its first token is the first event with a choice, be that empty; its last one is the last such event.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from sluice_bench.convert.field_map import Mapped
from sluice_bench.convert.figures import NS, seconds
from sluice_bench.records import RequestRecord

REMARKS = (
    "vLLM's TTFT is the first event with a choice, be it empty, from when its client turned to the request.",
    "Events without text are not in our records, but for the first with a choice; a finish event of its own "
    "would add one gap to vLLM's itls and come last in its latency.",
    "Percentiles are interpolated, as NumPy does, and cover complete requests; ours are nearest-rank.",
    "`max_output_tokens_per_s` counts chunks in seconds of the run, as vLLM does.",
)


def succeeded(record: RequestRecord) -> bool:
    """As vLLM counts it: complete, and with at least one event that has a choice."""
    return record.failure is None and record.first_choice_ns is not None


def choice_stamps(record: RequestRecord) -> list[int]:
    """Arrivals of events with a choice, as far as they are known: the first, and all with text."""
    first = record.first_choice_ns
    if first is None:
        return []
    later = [chunk.arrived_ns for chunk in record.chunks]
    return later if later and later[0] == first else [first, *later]


def ttft_s(record: RequestRecord) -> float:
    """0 for a request that failed, as vLLM leaves it."""
    return _known(seconds(record.dispatched_ns, record.first_choice_ns)) if succeeded(record) else 0.0


def latency_s(record: RequestRecord) -> float:
    """To the last event with a choice; 0 for a request that failed."""
    stamps = choice_stamps(record)
    if not stamps or not succeeded(record):
        return 0.0
    return _known(seconds(record.dispatched_ns, max(stamps[-1], record.last_token_ns or 0)))


def itls_s(record: RequestRecord) -> list[float]:
    """Gaps between events with a choice, whatever number of tokens they bring."""
    if not succeeded(record):
        return []
    return [(later - earlier) * NS for earlier, later in pairwise(choice_stamps(record))]


def output_len(record: RequestRecord) -> int | None:
    """0 for a request that failed; `None` where vLLM would tokenize the text again."""
    return record.output_tokens if succeeded(record) else 0


def tpot_s(record: RequestRecord) -> float | None:
    """(latency - TTFT) / (tokens - 1); `None` for fewer than two tokens."""
    tokens = record.output_tokens
    if not succeeded(record) or tokens is None or tokens <= 1:
        return None
    return (latency_s(record) - ttft_s(record)) / (tokens - 1)


def start_s(record: RequestRecord) -> float:
    """On the clock of the run."""
    return (record.dispatched_ns or record.scheduled_ns) * NS


def _known(value: float | None) -> float:
    return 0.0 if value is None else value


ROWS: Sequence[Mapped[RequestRecord]] = (
    Mapped("input_lens", "prompt tokens", lambda record: record.prompt_tokens),
    Mapped("output_lens", "output tokens; 0 for failures", output_len),
    Mapped("ttfts", "first choice - dispatched", ttft_s),
    Mapped("itls", "gaps between events with a choice, not divided by tokens", itls_s),
    Mapped("latencies", "last text - dispatched", latency_s),
    Mapped("start_times", "dispatched", start_s),
    Mapped(
        "queue_times",
        "dispatched - scheduled",
        lambda record: _known(seconds(record.scheduled_ns, record.dispatched_ns)),
    ),
    Mapped("errors", "failure and message", lambda r: f"{r.failure}: {r.message}" if r.failure else ""),
)
"""Lists with an entry for each request."""

REFUSED_OF_OURS = {
    "generated_texts": "texts are not kept, only their digest",
    "tokenizer_id": "our client has no tokenizer",
    "label": "vLLM's own",
    "request_goodput": "vLLM lets an answer of one token meet any TPOT; give its command --goodput",
    "rtfx": "audio only",
    "ramp_up_strategy": "other ramps; ours keep their schedule's digest",
    "rps_change_events": "other ramps",
}

TAKEN = {
    "start_times": "dispatched",
    "queue_times": "scheduled is this long before dispatched",
    "ttfts": "first choice",
    "itls": "chunks, where there are as many as tokens",
    "latencies": "last token",
    "input_lens": "prompt tokens",
    "output_lens": "output tokens",
    "generated_texts": "bytes and digest of the text",
    "errors": "failure and message",
    "endpoint_type": "whether the first choice has text",
    "backend": "as endpoint_type",
    "model_id": "model",
    "date": "start of the run, in the clock of its machine",
    "max_concurrency": "concurrency",
    "request_rate": "rate",
}
"""Of their fields, what becomes what of ours."""

DERIVED = "derived; ours are derived from the requests"
REFUSED_OF_THEIRS = {
    **dict.fromkeys(
        (
            "completed",
            "failed",
            "duration",
            "total_input_tokens",
            "total_output_tokens",
            "request_throughput",
            "request_goodput",
            "output_throughput",
            "total_token_throughput",
            "max_output_tokens_per_s",
            "max_concurrent_requests",
            "rtfx",
            "num_prompts",
            *(
                f"{kind}_{metric}_ms"
                for kind in ("mean", "median", "std")
                for metric in ("ttft", "tpot", "itl", "e2el", "queue_time", "e2el_including_queue")
            ),
        ),
        DERIVED,
    ),
    "tokenizer_id": "no place in our records",
    "label": "no place in our records",
    "burstiness": "no schedule to check it against",
    "ramp_up_strategy": "no schedule to check it against",
    "ramp_up_start_rps": "no schedule to check it against",
    "ramp_up_end_rps": "no schedule to check it against",
    "rps_change_events": "no schedule to check it against",
}
