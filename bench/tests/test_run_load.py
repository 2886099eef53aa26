"""From options to a load: which suite or preset, whose arrivals, and what contradicts itself."""

from __future__ import annotations

from typing import Any

import pytest

from sluice_bench.run_load import LoadOptions, RunLoad, choose_load
from sluice_bench.schedule_options import ScheduleOptions
from sluice_bench.workloads import preset_plan, suites
from sluice_bench.workloads.corpus import load_corpus


def load(**given: Any) -> RunLoad:
    options: dict[str, Any] = {
        "requests": 30,
        "seed": 5,
        "concurrency": None,
        "arrivals": ScheduleOptions(),
        "suite": "short",
        "preset": None,
        "fit": None,
    }
    return choose_load(LoadOptions(**options | given))


def test_a_suite_in_a_closed_loop_has_no_schedule() -> None:
    chosen = load(concurrency=4, suite="rag-edit")
    assert chosen.workload == suites.build(load_corpus(), "rag-edit", 30, seed=5)
    assert chosen.schedule is None
    assert chosen.remark == ""


def test_a_preset_brings_its_own_arrivals_and_says_what_it_is_not() -> None:
    chosen = load(preset="burstgpt-api", fit=1024)
    assert chosen.schedule == preset_plan.schedule("burstgpt-api", 30, 5)
    assert len(chosen.workload.items) == 30
    assert chosen.remark.startswith("Shaped after BurstGPT, GPT-3.5 by API, not the trace itself.")
    assert "(218)" in chosen.remark
    assert "Lengths are scaled by 0.125." in chosen.remark


def test_a_preset_can_be_sent_otherwise() -> None:
    closed = load(preset="qwen-api", concurrency=2)
    opened = load(preset="qwen-api", arrivals=ScheduleOptions(rate=3.0, arrival="constant"))
    assert closed.schedule is None
    assert opened.schedule is not None
    assert opened.schedule.kind == "constant"
    assert closed.workload == opened.workload


def test_published_dispersion_stands_beside_that_of_a_burst_only() -> None:
    assert "IDC 10 s" in load(preset="code-azure23-spiky", fit=512).remark
    assert "IDC" not in load(preset="code-azure23-spiky", fit=512, concurrency=2).remark


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({}, "either --concurrency N"),
        ({"concurrency": 2, "arrivals": ScheduleOptions(rate=1.0)}, "either --concurrency N"),
        ({"arrivals": ScheduleOptions(rate=1.0, ramp="1:2:3")}, "either --concurrency N"),
        ({"concurrency": 2, "preset": "qwen-api", "arrivals": ScheduleOptions(rate=1.0)}, "either"),
        ({"concurrency": 2, "fit": 1024}, "--fit scales the lengths of a --preset"),
        ({"preset": "agent-coding", "fit": 1024}, "sessions set the pace of agent-coding"),
        ({"preset": "qwen-api", "fit": 3}, "at least 16"),
    ],
)
def test_options_that_contradict_each_other_get_a_sentence(given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        load(**given)
