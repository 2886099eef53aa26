"""How much the overhead measurement does."""

from __future__ import annotations

import pytest

from sluice_bench.gateway_lanes import count_for
from sluice_bench.gateway_overhead import OverheadLoad, number_of_steps


def test_the_number_of_steps_counts_warm_ups_and_repeats() -> None:
    assert number_of_steps(OverheadLoad(repeats=5)) == 3 + 5 * 2 * 3


@pytest.mark.parametrize("per_second", [50, 400, 5000])
def test_a_repeat_gets_as_many_requests_as_fit_its_time(per_second: int) -> None:
    trials: list[int] = []

    def run(count: int) -> float:
        trials.append(count)
        return count / per_second

    assert count_for(2.0, 16, run) == pytest.approx(2.0 * per_second, abs=1)
    assert trials == sorted(trials)


def test_a_very_slow_target_still_gets_one_request_per_connection() -> None:
    assert count_for(1.0, 16, lambda count: count * 3.0) == 16


def test_a_target_that_seems_to_take_no_time_does_not_get_requests_without_end() -> None:
    assert count_for(1.0, 16, lambda count: 0.0) == 60_000
