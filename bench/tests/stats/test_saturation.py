"""The highest rate, of servers whose highest rate is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice_bench.stats.percentile import percentile_of
from sluice_bench.stats.saturation import Probe, Saturation, SaturationSearch, Step, isotonic

from .simulators import ManyServers


def searched(
    probe: Callable[[Step], float], low: float, high: float, probes: int = 8
) -> tuple[Saturation, list[Step]]:
    search, steps = SaturationSearch(low, high, probes), []
    while step := search.next_step():
        steps.append(step)
        search.add(probe(step))
    return search.result(), steps


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("servers", "cap_s"), [(4, 1.0), (8, 2.0), (16, 0.5)])
def test_a_queue_of_many_servers_within_3_percent_in_8_probes(servers: int, cap_s: float, seed: int) -> None:
    queue = ManyServers(servers, Random(seed))

    def strain(step: Step) -> float:
        return percentile_of(queue.waits(step.rate, 150_000)[2_000:], 0.99) / cap_s

    found, steps = searched(strain, servers / 10, 1.5 * servers)
    assert found.rate == pytest.approx(queue.highest_rate(0.99, cap_s), rel=0.03)
    assert len(steps) <= 8


def test_the_simulated_queue_waits_as_erlang_says() -> None:
    queue = ManyServers(8, Random(4))
    waits = queue.waits(6.0, 400_000)
    assert sum(wait > 0 for wait in waits) / len(waits) == pytest.approx(queue.queueing_chance(6.0), rel=0.05)
    assert percentile_of(waits, 0.99) == pytest.approx(queue.wait_percentile(6.0, 0.99), rel=0.1)


@pytest.mark.parametrize("limit", [2.0, 5.5, 9.7])
def test_a_cliff_is_found_and_not_interpolated(limit: float) -> None:
    found, _ = searched(lambda step: 0.2 if step.rate <= limit else math.inf, 1, 10)
    assert found.cliff
    assert found.met is not None and found.failed is not None
    assert found.rate == found.met <= limit < found.failed
    assert found.failed - found.met < 0.3


@pytest.mark.parametrize("seed", range(12))
def test_noisy_probes_cost_little(seed: int) -> None:
    source = Random(seed)
    found, _ = searched(lambda step: (step.rate / 6) ** 4 * math.exp(source.gauss(0, 0.1)), 1, 12)
    assert found.rate == pytest.approx(6, rel=0.08)


@pytest.mark.parametrize("unlucky", [0, 1, 2])
@pytest.mark.parametrize("luck", [1.3, 1 / 1.3])
def test_one_unlucky_probe_does_not_decide(unlucky: int, luck: float) -> None:
    asked = []

    def strain(step: Step) -> float:
        asked.append(step.rate)
        return step.rate / 8 * (luck if len(asked) == unlucky + 1 else 1)

    found, _ = searched(strain, 1, 12)
    assert found.rate == pytest.approx(8, rel=0.1)


def test_neighbours_that_contradict_each_other_are_averaged() -> None:
    fitted = isotonic([Probe(5, 0.6), Probe(6, 1.3), Probe(7, 0.7), Probe(9, 1.2)])
    assert [probe.strain for probe in fitted] == pytest.approx([0.6, 0.91**0.5, 0.91**0.5, 1.2])
    again = isotonic([Probe(5, 0.6), Probe(6, 0.8), Probe(6, 1.3), Probe(9, 1.2)])
    assert [probe.strain for probe in again] == pytest.approx([0.6, 1.04**0.5, 1.04**0.5, 1.2])


def test_after_a_failure_the_server_gets_time_to_settle() -> None:
    """Each overload leaves a queue behind, which spoils the next probe unless that one waits."""
    queue = [0.0]

    def strain(step: Step) -> float:
        left = 0.0 if step.settle else queue[0]
        queue[0] = max(0.0, step.rate - 6)
        return step.rate / 6 + left

    found, _ = searched(strain, 1, 12)
    assert found.rate == pytest.approx(6, rel=0.02)


@pytest.mark.parametrize("recovers", [True, False])
def test_a_server_that_does_not_come_back_from_overload_is_reported(recovers: bool) -> None:
    def strain(step: Step) -> float:
        collapsed = step.overload_rate is not None and step.overload_rate > 6 and not recovers
        return 8.0 if collapsed else step.rate / 6

    found, steps = searched(strain, 1, 12)
    assert found.recovers is recovers
    assert found.rate == pytest.approx(6, rel=0.01)
    last = steps[-1]
    assert last.overload_rate == found.failed and last.settle
    assert last.rate == pytest.approx(0.9 * (found.met or 0))


def test_a_range_that_is_all_good_or_all_bad_says_so() -> None:
    good, steps = searched(lambda _: 0.5, 1, 10)
    assert good.failed is None and good.rate == good.met
    assert good.rate is not None and good.rate > 9.9
    assert good.recovers is None and len(steps) == 8
    bad, _ = searched(lambda _: 3.0, 1, 10)
    assert (bad.rate, bad.met, bad.cliff) == (None, None, False)
    assert bad.failed is not None and bad.failed < 1.1


def test_it_ends_when_it_is_precise_enough() -> None:
    _, steps = searched(lambda step: step.rate / 1.9, 1.8, 2.0, probes=30)
    assert len(steps) < 10


@given(st.lists(st.floats(0.11, 9.0), min_size=1, max_size=12))
def test_the_fit_is_the_isotonic_one(strains: list[float]) -> None:
    """By its min-max formula: the largest, over beginnings, of the smallest mean, over ends."""
    logs = [math.log(strain) for strain in strains]

    def mean(first: int, last: int) -> float:
        return sum(logs[first : last + 1]) / (last - first + 1)

    n = len(logs)
    expected = [max(min(mean(i, j) for j in range(k, n)) for i in range(k + 1)) for k in range(n)]
    fitted = isotonic([Probe(float(rate), strain) for rate, strain in enumerate(strains)])
    assert [math.log(probe.strain) for probe in fitted] == pytest.approx(expected, abs=1e-9)


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="low < high"):
        SaturationSearch(5, 5)
    with pytest.raises(ValueError, match="step"):
        SaturationSearch(1, 5).add(0.5)
    search = SaturationSearch(1, 5)
    assert search.next_step() == search.next_step()
    with pytest.raises(ValueError, match="strain"):
        search.add(math.nan)
