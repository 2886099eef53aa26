"""What the figures of a run are worth."""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec
import pytest

from sluice_bench.metrics import Objective
from sluice_bench.records import Failure, RequestRecord
from sluice_bench.runs.run_estimates import estimate_run

from ..recording.invented_run import START_NS, small_run


def waited(waits_ms: Sequence[float]) -> list[RequestRecord]:
    """Requests ten milliseconds apart, in an order that is not that of their schedule."""
    records = []
    for index, wait in enumerate(waits_ms):
        due = START_NS + index * 10_000_000
        first = due + round(wait * 1e6)
        records.append(
            RequestRecord(
                index=index,
                stream=True,
                scheduled_ns=due,
                written_ns=due,
                first_token_ns=first,
                last_token_ns=first,
            )
        )
    random.Random(1).shuffle(records)
    return records


def test_percentiles_have_bounds_from_their_minimum_counts_on() -> None:
    source = random.Random(2)
    found = estimate_run(waited([source.uniform(50, 60) for _ in range(130)]), Objective())
    ttft = found.latencies_ms["ttft_user"]
    assert [ttft[share].claimed for share in (0.5, 0.9, 0.95, 0.99)] == [True, True, True, False]
    assert 50 < (ttft[0.5].low or 0) < ttft[0.5].value < (ttft[0.5].high or 0) < 60
    assert ttft[0.99].n == 130
    assert "tpot" not in found.latencies_ms


def test_goodput_is_over_scheduled_requests() -> None:
    records = [*waited([50.0] * 9), msgspec.structs.replace(waited([50.0])[0], failure=Failure.TIMEOUT)]
    found = estimate_run(records, Objective(ttft_ms=100)).goodput
    assert (found.value, found.n) == (0.9, 10)
    assert (found.low or 0) == pytest.approx(0.555, abs=0.001)  # Clopper and Pearson
    assert (found.high or 0) == pytest.approx(0.9975, abs=0.001)


def test_the_beginning_is_found_in_the_order_of_the_schedule() -> None:
    source = random.Random(3)
    cold = [500 - 10 * index for index in range(40)]
    found = estimate_run(waited([*cold, *(source.uniform(95, 105) for _ in range(160))]), Objective()).steady
    assert found is not None
    assert found.metric == "user TTFT"
    assert 35 <= found.warm_up.length <= 50 and found.warm_up.settled
    assert found.last_left_out == found.warm_up.length - 1
    assert found.p50_ms == pytest.approx(100, abs=2)


def test_plain_answers_are_judged_by_e2e_and_nothing_by_nothing() -> None:
    plain, never = small_run().requests[4:6]
    found = estimate_run([plain], Objective())
    assert found.steady is not None and found.steady.metric == "E2E"
    assert estimate_run([never], Objective()).steady is None


def test_requests_to_warm_up_are_left_out() -> None:
    measured = waited([50.0] * 20)
    warm_up = [msgspec.structs.replace(record, phase="warm_up") for record in waited([900.0] * 20)]
    assert estimate_run([*warm_up, *measured], Objective()) == estimate_run(measured, Objective())
