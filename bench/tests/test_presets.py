"""Traffic shaped after traces: what is published comes out, and the text is as planned."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import pytest

from sluice_bench import arrivals
from sluice_bench.arrivals import NS_PER_S
from sluice_bench.workloads import preset_plan
from sluice_bench.workloads.corpus import Corpus, load_corpus
from sluice_bench.workloads.lengths import Lengths
from sluice_bench.workloads.preset_plan import Planned, dispersion, reused_share
from sluice_bench.workloads.presets import PRESETS, PresetName

NAMES = tuple(PRESETS)
TRACE_REQUESTS: dict[str, int] = {"kimi-conv": 12_031, "kimi-toolagent": 23_608, "reasoning": 10_812}
"""Reuse grows with the number of requests: it is compared at the trace's own, where that is small enough."""


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return load_corpus()


def content(item: Any) -> str:
    text: str = item.body["messages"][0]["content"]
    return text


@pytest.mark.parametrize("name", NAMES)
def test_lengths_and_reuse_are_those_published(name: PresetName) -> None:
    planned = preset_plan.plan(name, 30_000, seed=1)
    found = preset_plan.achieved(planned, None)
    found["reused"] = reused_share(planned[: TRACE_REQUESTS.get(name)])
    for what, published in PRESETS[name].published.items():
        if what == "reused":
            assert found[what] == pytest.approx(published, abs=0.02)
        elif not what.startswith("IDC"):
            assert found[what] == pytest.approx(published, rel=0.05), what


@pytest.mark.parametrize("seconds", [1, 10, 60])
def test_bursts_have_the_dispersion_published(seconds: int) -> None:
    """By theory, and drawn: of some 270 bursts, because the 20 of the trace's own hour scatter widely."""
    preset = PRESETS["code-azure23-spiky"]
    bursts = preset.bursts
    schedule = preset_plan.schedule("code-azure23-spiky", 100_000, seed=3)
    assert bursts is not None
    assert schedule is not None
    high = bursts.high_s / (bursts.high_s + bursts.low_s)
    mean = high * bursts.high_per_s + (1 - high) * bursts.low_per_s
    variance = high * (1 - high) * (bursts.high_per_s - bursts.low_per_s) ** 2
    memory_s = 1 / (1 / bursts.high_s + 1 / bursts.low_s)
    kept = 1 - memory_s / seconds * (1 - math.exp(-seconds / memory_s))
    theory = 1 + 2 * variance * memory_s / mean * kept
    assert theory == pytest.approx(preset.published[f"IDC {seconds} s"], rel=0.12)
    assert dispersion(schedule.offsets_ns, seconds) == pytest.approx(theory, rel=0.2)


@pytest.mark.parametrize("name", [name for name in NAMES if PRESETS[name].rate_per_s])
def test_requests_arrive_at_the_rate_published(name: PresetName) -> None:
    schedule = preset_plan.schedule(name, 20_000, seed=2)
    assert schedule is not None
    bursty = PRESETS[name].bursts is not None
    rate = 20_000 / (schedule.offsets_ns[-1] / NS_PER_S)
    assert rate == pytest.approx(PRESETS[name].rate_per_s, rel=0.25 if bursty else 0.05)


@pytest.mark.parametrize("name", NAMES)
def test_a_longer_plan_begins_with_the_shorter_one(name: PresetName) -> None:
    assert preset_plan.plan(name, 300, seed=4)[:90] == preset_plan.plan(name, 90, seed=4)
    assert preset_plan.plan(name, 90, seed=4) != preset_plan.plan(name, 90, seed=5) or name == "b2b-prefix"
    longer, shorter = preset_plan.schedule(name, 300, seed=4), preset_plan.schedule(name, 90, seed=4)
    if longer is not None and shorter is not None:
        assert longer.offsets_ns[:90] == shorter.offsets_ns


@pytest.mark.parametrize("name", NAMES)
def test_scaled_lengths_fit(name: PresetName) -> None:
    whole, scaled = preset_plan.plan(name, 500, seed=1), preset_plan.plan(name, 500, seed=1, fit=1024)
    assert all(request.input + request.output <= 1024 for request in scaled)
    assert all(1 <= after.input <= before.input for before, after in zip(whole, scaled, strict=True))
    assert [request.prefix for request in whole] == [request.prefix for request in scaled]
    assert all(request.shared <= request.input for request in scaled)


def test_nothing_is_scaled_up_and_no_context_is_too_small_silently() -> None:
    assert preset_plan.scale("chat-azure24", 1_000_000) == 1.0
    with pytest.raises(ValueError, match="at least 16"):
        preset_plan.scale("chat-azure24", 5)


@pytest.mark.parametrize("name", NAMES)
def test_prompts_are_as_long_as_planned(corpus: Corpus, name: PresetName) -> None:
    planned = preset_plan.plan(name, 40, seed=1, fit=4096)
    made = preset_plan.workload(corpus, name, planned, seed=1)
    for request, item in zip(planned, made.items, strict=True):
        assert len(content(item).split()) == pytest.approx(request.input / 1.3, abs=1.1)
        assert item.max_tokens == request.output
    assert made == preset_plan.workload(corpus, name, planned, seed=1)
    assert made.sha256 != preset_plan.workload(corpus, name, planned, seed=2).sha256


@pytest.mark.parametrize("name", ["kimi-conv", "agent-coding", "b2b-prefix"])
def test_prompts_share_what_was_planned_and_no_more(corpus: Corpus, name: PresetName) -> None:
    """Held against the twin that compares every prompt with every earlier one, word by word."""
    planned = preset_plan.plan(name, 60, seed=1, fit=2048)
    words = [content(item).split() for item in preset_plan.workload(corpus, name, planned, seed=1).items]
    reused = 0
    for place, prompt in enumerate(words):
        reused += max((_common(prompt, earlier) for earlier in words[:place]), default=0)
    assert reused / sum(map(len, words)) == pytest.approx(reused_share(planned), abs=0.01)


def _common(one: list[str], other: list[str]) -> int:
    return next(
        (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def test_a_round_of_a_session_comes_after_the_one_before(corpus: Corpus) -> None:
    planned = preset_plan.plan("agent-coding", 400, seed=1)
    followers = [(place, request) for place, request in enumerate(planned) if request.after is not None]
    for place, request in followers:
        assert request.after is not None
        before = planned[request.after]
        assert place - request.after == 8
        assert before.prefix.split(".")[0] == request.prefix.split(".")[0]
        assert request.think_ns >= NS_PER_S
        if before.prefix == request.prefix:
            assert request.input > before.input + before.output
    assert len(followers) > 300
    items = preset_plan.workload(
        corpus, "agent-coding", preset_plan.plan("agent-coding", 20, 1, 512), 1
    ).items
    assert items[12].after in {None, items[4].id}


def test_reuse_is_what_an_earlier_prompt_of_the_prefix_had() -> None:
    planned = [
        Planned(input=100, output=1, prefix="a", shared=40),
        Planned(input=100, output=1, prefix="a", shared=60),
        Planned(input=100, output=1, prefix="b", shared=90),
        Planned(input=100, output=1, prefix="a", shared=50),
    ]
    assert reused_share(planned) == pytest.approx((40 + 50) / 400)


def test_dispersion_tells_poisson_from_even_arrivals() -> None:
    assert dispersion(arrivals.poisson(10.0, 20_000, 1), 1) == pytest.approx(1.0, abs=0.1)
    assert dispersion(arrivals.constant(10.0, 1001), 10) == 0.0
    assert dispersion((0, 5), 1) == 0.0


def test_lengths_meet_their_percentiles_and_their_cap() -> None:
    lengths = Lengths(p50=100, p90=700, p99=2000, cap=2500)
    assert [lengths.at(share) for share in (0.5, 0.9, 0.99, 0.9999)] == [100, 700, 2000, 2500]
    # Lognormal below p90: as far below the median in the logarithm as above it.
    z = NormalDist().inv_cdf(0.3)
    assert lengths.at(0.3) == round(100 * math.exp(z / NormalDist().inv_cdf(0.9) * math.log(7)))
    assert lengths.at(1e-12) == 1
    assert [Lengths.fixed(7).at(share) for share in (0.01, 0.5, 0.99)] == [7, 7, 7]
