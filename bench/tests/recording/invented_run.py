"""A small run with everything in it that a file may lose."""

from __future__ import annotations

import random

from sluice_bench.calibration import Calibration
from sluice_bench.metrics import Objective
from sluice_bench.recording.run_record import LoadSettings, RunMeta, RunRecord, ServerState, recorded
from sluice_bench.records import Chunk, Failure, RequestRecord, TokenSource

from ..invented_machine import TEST_MACHINE

START_NS = 987_654_321_012
MS = 1_000_000


def streamed(index: int, tokens: int, source: random.Random) -> RequestRecord:
    """A stream whose tokens come every 20 ms or so."""
    scheduled = START_NS + index * 7 * MS
    arrived, chunks = scheduled + 80 * MS, []
    for _ in range(tokens):
        chunks.append(Chunk(arrived, 1, source.randrange(180, 200)))
        arrived += source.randrange(19 * MS, 21 * MS)
    return RequestRecord(
        index=index,
        item=f"short-{index:04d}",
        stream=True,
        scheduled_ns=scheduled,
        dispatched_ns=scheduled + 1_000,
        connected_ns=scheduled + 2_000,
        written_ns=scheduled + 3_000,
        headers_ns=scheduled + 70 * MS,
        first_byte_ns=scheduled + 70 * MS,
        first_choice_ns=scheduled + 75 * MS,
        first_token_ns=chunks[0].arrived_ns,
        first_answer_ns=chunks[0].arrived_ns,
        last_token_ns=chunks[-1].arrived_ns,
        end_ns=chunks[-1].arrived_ns + MS,
        status=200,
        reused_connection=True,
        n_reads=tokens,
        n_events=tokens + 3,
        chunks=tuple(chunks),
        token_source=TokenSource.USAGE_SPREAD,
        asked_tokens=tokens,
        prompt_tokens=17,
        output_tokens=tokens,
        cached_tokens=0,
        finish_reason="length",
        text_bytes=tokens * 4,
        text_sha256=f"{index:064x}",
        backend="gpu-1",
    )


def plain_without_usage(index: int) -> RequestRecord:
    """Of which little is known."""
    at = START_NS + index * 7 * MS
    return RequestRecord(
        index=index, stream=False, scheduled_ns=at, last_token_ns=at + MS, end_ns=at + MS, status=200
    )


def never_sent(index: int) -> RequestRecord:
    """Of which nothing is known."""
    at = START_NS + index * 7 * MS
    return RequestRecord(
        index=index, stream=True, scheduled_ns=at, end_ns=at, failure=Failure.NOT_SENT, message="hard stop"
    )


def run_of(*requests: RequestRecord) -> RunRecord:
    """A run with these requests."""
    meta = RunMeta(
        variant="test",
        command="sluice-bench run",
        started_utc="2026-01-01T00:00:00+00:00",
        start_ns=START_NS,
        environment=TEST_MACHINE,
        load=LoadSettings(
            loop="closed",
            concurrency=2,
            seed=1,
            warm_connections=2,
            request_timeout_s=300.0,
            hard_stop_s=3600.0,
        ),
        workload="short",
        requests_sha256="0" * 64,
        objective=Objective(ttft_ms=100.0),
        server=ServerState(url="http://h:8000", model="m", metrics_before="a 1\n", metrics_after="a 2\n"),
        calibration=Calibration(
            probes=40, null_p50_ms=0.1, null_p99_ms=0.2, dispatch_lag_p99_ms=0.1, reference_p99_ms=90.0
        ),
    )
    return recorded(meta, requests)


def small_run() -> RunRecord:
    """Streams, a plain answer of unknown length, and a request that never went."""
    source = random.Random(5)
    streams = [streamed(index, 9, source) for index in range(4)]
    return run_of(*streams, plain_without_usage(4), never_sent(5))
