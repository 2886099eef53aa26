"""The definitions, with numbers that can be checked in the head (one unit is a millisecond)."""

from __future__ import annotations

import msgspec
import pytest

from sluice_bench import metrics
from sluice_bench.metrics import Objective, summarise
from sluice_bench.records import Chunk, Failure, RequestRecord, TokenSource

MS = 1_000_000


def streamed(
    arrivals: list[tuple[int, int]],
    *,
    scheduled: int = 0,
    written: int = 10,
    output: int | None = None,
    failure: Failure | None = None,
    index: int = 0,
    n_choices: int = 1,
    prompt: int | None = 3,
    cached: int | None = 0,
) -> RequestRecord:
    """Arrivals are (ms, tokens)."""
    chunks = tuple(Chunk(stamp * MS, tokens, 10) for stamp, tokens in arrivals)
    return RequestRecord(
        index=index,
        stream=True,
        scheduled_ns=scheduled * MS,
        dispatched_ns=written * MS,
        written_ns=written * MS,
        first_token_ns=chunks[0].arrived_ns if chunks else None,
        last_token_ns=chunks[-1].arrived_ns if chunks else None,
        end_ns=(arrivals[-1][0] + 50) * MS if arrivals else None,
        chunks=chunks,
        output_tokens=output if output is not None else sum(tokens for _, tokens in arrivals),
        prompt_tokens=prompt,
        cached_tokens=cached,
        failure=failure,
        n_choices=n_choices,
        token_source=TokenSource.USAGE_SPREAD,
    )


def test_the_user_waits_from_the_schedule_and_the_server_answers_from_the_write() -> None:
    late = streamed([(110, 1), (130, 1)], scheduled=0, written=100)
    assert metrics.ttft_user_s(late) == pytest.approx(0.110)
    assert metrics.ttft_service_s(late) == pytest.approx(0.010)
    assert metrics.dispatch_lag_s(late) == pytest.approx(0.100)


def test_e2e_ends_at_the_last_token_and_not_at_the_end_of_the_response() -> None:
    assert metrics.e2e_s(streamed([(100, 1), (200, 1)])) == pytest.approx(0.2)


def test_tpot_leaves_out_the_first_chunk_with_all_its_tokens() -> None:
    assert metrics.tpot_s(streamed([(100, 3), (300, 4)])) == pytest.approx(0.2 / 4)


def test_ntpot_is_the_whole_wait_over_all_tokens() -> None:
    assert metrics.ntpot_s(streamed([(100, 3), (300, 3)])) == pytest.approx(0.3 / 6)


@pytest.mark.parametrize(
    "record",
    [
        streamed([(100, 1)]),
        streamed([(100, 8)]),
        streamed([(100, 2), (100, 2)]),
        streamed([]),
        streamed([(100, 1), (200, 1)], n_choices=2),
    ],
)
def test_tpot_does_not_exist_without_two_arrivals_of_one_choice(record: RequestRecord) -> None:
    assert metrics.tpot_s(record) is None
    assert list(metrics.token_gaps(record)) == []


def test_a_gap_before_several_tokens_is_divided_and_weighted_by_them() -> None:
    record = streamed([(100, 2), (140, 4), (150, 1)])
    gaps = [(round(gap * 1000, 6), weight) for gap, weight in metrics.token_gaps(record)]
    assert gaps == [(10.0, 4), (10.0, 1)]
    assert metrics.stall_s(record) == pytest.approx(0.040)


def test_chunks_of_one_read_are_one_arrival() -> None:
    together = streamed([(100, 1), (140, 1), (140, 1), (140, 2)])
    assert [(round(g * 1000, 6), n) for g, n in metrics.token_gaps(together)] == [(10.0, 4)]


def test_an_arrival_without_tokens_adds_its_gap_to_the_next() -> None:
    record = streamed([(100, 1), (120, 0), (140, 2)])
    assert [(round(g * 1000, 6), n) for g, n in metrics.token_gaps(record)] == [(20.0, 2)]


def test_a_tail_percentile_needs_an_observation_beyond_it() -> None:
    few, many = metrics.distribution(range(99)), metrics.distribution(range(100))
    assert few is not None and few.p99 is None and few.p95 == 94
    assert many is not None and many.p99 == 98


def test_goodput_counts_what_was_scheduled_and_not_what_was_answered() -> None:
    records = [
        streamed([(50, 1), (60, 1)], index=0),
        streamed([(500, 1), (510, 1)], index=1),
        streamed([(50, 1), (60, 1)], index=2, failure=Failure.TRUNCATED),
        streamed([], index=3, failure=Failure.NOT_SENT),
    ]
    summary = summarise(records, Objective(ttft_ms=100))
    assert (summary.scheduled, summary.complete, summary.good) == (4, 2, 1)
    assert summary.goodput_share == 0.25
    assert summary.failures == {"not_sent": 1, "truncated": 1}


def test_queueing_in_the_client_counts_against_the_objective() -> None:
    held_back = streamed([(1010, 1), (1020, 1)], scheduled=0, written=1000)
    assert not metrics.is_good(held_back, Objective(ttft_ms=100))


def test_a_metric_that_does_not_exist_meets_no_objective() -> None:
    one_token = streamed([(50, 1)])
    assert metrics.is_good(one_token, Objective(ttft_ms=100))
    assert not metrics.is_good(one_token, Objective(tpot_ms=1000))


def test_failures_are_not_in_the_percentiles_but_beside_them() -> None:
    summary = summarise(
        [streamed([(50, 1), (60, 1)]), streamed([(9000, 1)], failure=Failure.TIMEOUT)], Objective()
    )
    assert summary.ttft_user_ms is not None and summary.ttft_user_ms.high == pytest.approx(50)
    assert summary.failures == {"timeout": 1}


def test_the_steady_window_leaves_ramp_and_drain_out() -> None:
    records = [
        streamed([(100, 1), (200, 1)], written=0),
        streamed([(150, 1), (400, 1)], written=0),
        streamed([(300, 1), (500, 1)], scheduled=260, written=260),
    ]
    summary = summarise(records, Objective(), initial=2)
    assert summary.whole is not None and summary.whole.output_tokens == 6
    assert summary.whole.seconds == pytest.approx(0.55)
    assert summary.steady is not None and summary.steady.output_tokens == 1
    assert summary.steady.seconds == pytest.approx(0.110)


def test_one_wave_has_no_steady_window() -> None:
    assert summarise([streamed([(100, 1)]), streamed([(100, 1)])], Objective(), initial=2).steady is None


def test_requests_on_fresh_connections_are_told_from_those_on_open_ones() -> None:
    stamps = [{"connected_ns": 5, "reused_connection": True}, {"connected_ns": 5}, {}]
    records = [
        RequestRecord(index=index, stream=True, scheduled_ns=0, **found) for index, found in enumerate(stamps)
    ]
    summary = summarise(records, Objective())
    assert (summary.connected, summary.reused_connections) == (2, 1)


def test_a_total_of_which_a_part_is_unknown_is_unknown_and_the_parts_are_counted() -> None:
    told, untold = streamed([(100, 2)]), streamed([(100, 2)], prompt=None, cached=None)
    silent_cache = streamed([(100, 2)], cached=None)
    summary = summarise([told, untold, silent_cache], Objective())
    assert (summary.prompt_tokens, summary.cached_tokens, summary.output_tokens) == (None, None, 6)
    assert (summary.requests_without_usage, summary.requests_without_cached_tokens) == (1, 2)


def test_answers_of_another_length_than_asked_are_counted() -> None:
    asked = [
        msgspec.structs.replace(streamed([(100, 2)], index=index), asked_tokens=tokens)
        for index, tokens in enumerate((1, 2, 3, 4, None))
    ]
    summary = summarise(asked, Objective())
    assert (summary.shorter_than_asked, summary.longer_than_asked) == (2, 1)


def test_what_a_failed_request_did_not_tell_spoils_no_total() -> None:
    failed = streamed([], prompt=None, cached=None, failure=Failure.TIMEOUT)
    summary = summarise([streamed([(100, 2)]), failed], Objective())
    assert (summary.prompt_tokens, summary.cached_tokens, summary.requests_without_usage) == (3, 0, 0)


def test_the_throughput_of_answers_of_unknown_length_is_unknown() -> None:
    plain = RequestRecord(index=0, stream=False, scheduled_ns=0, last_token_ns=100 * MS, end_ns=100 * MS)
    summary = summarise([plain, streamed([(50, 2)], index=1)], Objective())
    assert summary.output_tokens is None
    assert summary.whole is not None
    assert (summary.whole.output_tokens, summary.whole.tokens_per_s) == (None, None)


def test_a_summary_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        summarise([], Objective())
