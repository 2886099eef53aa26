"""A load that the client cannot carry is refused before it starts."""

from __future__ import annotations

import re

import pytest

from sluice_bench import arrivals
from sluice_bench.loops import ClosedLoop, LoadPlan, OpenLoop
from sluice_bench.runs.capacity import MOST_CORES, cores_needed, planned_rates, refusal
from sluice_bench.target import Target, WireRequest


def plan(loop: ClosedLoop | OpenLoop, count: int, tokens: int = 100, stream: bool = True) -> LoadPlan:
    requests = [WireRequest(b"", stream, asked_tokens=tokens)] * count
    return LoadPlan(target=Target(host="h", port=1), requests=requests, loop=loop)


def test_an_open_loop_asks_for_its_rate_times_its_answers() -> None:
    assert planned_rates(plan(OpenLoop(arrivals.constant(10, 100)), 100)) == (10.0, 1000.0)


def test_the_height_of_a_ramp_counts() -> None:
    offsets = (*arrivals.constant(1, 20), *(20_000_000_000 + due for due in arrivals.constant(50, 500)))
    assert planned_rates(plan(OpenLoop(offsets), 520))[0] == 50.0


def test_a_closed_loop_asks_for_its_users_at_a_fast_servers_pace() -> None:
    assert planned_rates(plan(ClosedLoop(8), 1000)) == (4.0, 400.0)
    assert planned_rates(plan(ClosedLoop(8), 2))[1] == 100.0


def test_plain_answers_have_no_events() -> None:
    assert planned_rates(plan(OpenLoop(arrivals.constant(10, 100)), 100, stream=False)) == (10.0, 0.0)


@pytest.mark.parametrize("loop", [ClosedLoop(3000), OpenLoop(arrivals.constant(1500, 20_000))])
def test_what_is_refused_is_taken_by_the_processes_that_it_names(loop: ClosedLoop | OpenLoop) -> None:
    heavy = plan(loop, 20_000)
    sentence = refusal(heavy, 1)
    named = re.search(r"--processes (\d+)", sentence)
    assert named is not None and "--force" in sentence
    enough = int(named[1])
    assert refusal(heavy, enough) == "" and refusal(heavy, enough - 1)
    assert cores_needed(heavy) > MOST_CORES


def test_a_usual_load_is_not_refused() -> None:
    assert refusal(plan(ClosedLoop(256), 1000), 1) == ""
    assert refusal(plan(OpenLoop(arrivals.poisson(100, 1000, 1)), 1000), 1) == ""
