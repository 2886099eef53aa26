"""What requests are expected to cost, and what is learned from what they did cost."""

from __future__ import annotations

import random

import pytest

from sluice_router import cost
from sluice_router.cost import COLD_OUTPUT_TOKENS, ENOUGH, CostModel, work_of
from sluice_router.types import RequestFacts, Usage


def facts(**changes: object) -> RequestFacts:
    defaults = {"request_id": "r", "kind": "chat", "model": "m", "prompt_tokens_estimate": 100}
    return RequestFacts(**{**defaults, **changes})


def answer(
    model: CostModel, asked: RequestFacts, prompt: int, output: int, now: float = 0.0, cached: int = 0
):
    usage = Usage(prompt_tokens=prompt, completion_tokens=output, cached_tokens=cached)
    model.learn(asked, model.estimate(asked, now), usage, now)


@pytest.mark.parametrize(
    ("changes", "output"),
    [
        ({}, COLD_OUTPUT_TOKENS),
        ({"max_tokens": 16}, 16),
        ({"max_tokens": 100_000}, COLD_OUTPUT_TOKENS),
        ({"max_tokens": 0}, 0),
        ({"kind": "embeddings"}, 0),
        ({"kind": "rerank"}, 0),
        ({"kind": "messages"}, COLD_OUTPUT_TOKENS),
        ({"max_tokens": 16, "needs": frozenset({"multiple_choices"})}, COLD_OUTPUT_TOKENS),
    ],
)
def test_before_anything_was_seen_an_answer_has_the_cold_length_within_its_bound(changes, output):
    estimate = CostModel().estimate(facts(**changes), 0.0)

    found = estimate.prompt_tokens, estimate.output_tokens, estimate.work
    assert found == (100, output, 100 + 2 * output)
    assert estimate.footprint() == 100 + output
    assert estimate.footprint(cached_tokens=64) == 36 + output
    assert estimate.footprint(cached_tokens=1000) == output


def test_a_long_prompt_does_not_announce_a_long_answer():
    model = CostModel()

    assert model.estimate(facts(prompt_tokens_estimate=100_000), 0.0).output_tokens == COLD_OUTPUT_TOKENS


def test_the_output_is_the_upper_quartile_of_what_the_tenant_got():
    model = CostModel()
    for output in range(10, 110):
        answer(model, facts(tenant="a"), 100, output)

    assert model.estimate(facts(tenant="a"), 0.0).output_tokens == pytest.approx(85, rel=0.1)


def test_tenants_streams_and_tools_are_learned_apart():
    model = CostModel()
    shapes = [
        facts(tenant="a"),
        facts(tenant="a", stream=True),
        facts(tenant="a", needs=frozenset({"tools"})),
    ]
    for number, asked in enumerate([*shapes, facts(tenant="b")]):
        for _ in range(20):
            answer(model, asked, 100, 10 * 4**number)

    learned = [model.estimate(asked, 0.0).output_tokens for asked in [*shapes, facts(tenant="b")]]
    assert learned == pytest.approx([10, 40, 160, 640], rel=0.42)


def test_a_tenant_who_is_new_gets_what_the_others_got_from_that_model():
    model = CostModel()
    for _ in range(int(ENOUGH)):
        answer(model, facts(tenant="old"), 100, 20)

    assert model.estimate(facts(tenant="new"), 0.0).output_tokens <= 29
    assert model.estimate(facts(tenant="new", model="other"), 0.0).output_tokens == COLD_OUTPUT_TOKENS


def test_a_few_answers_are_not_enough():
    model = CostModel()
    for _ in range(int(ENOUGH) - 1):
        answer(model, facts(), 100, 20)

    assert model.estimate(facts(), 0.0).output_tokens == COLD_OUTPUT_TOKENS


def test_after_hours_without_an_answer_it_is_cold_again():
    model = CostModel()
    for _ in range(100):
        answer(model, facts(), 100, 20)

    assert model.estimate(facts(), 6 * 3600.0).output_tokens == COLD_OUTPUT_TOKENS


def test_the_tokens_of_a_prompt_are_learned_by_script_and_model():
    model = CostModel()
    for _ in range(200):
        answer(model, facts(script="three_byte", prompt_tokens_estimate=1000), 1800, 10)

    assert model.estimate(
        facts(script="three_byte", prompt_tokens_estimate=500), 0.0
    ).prompt_tokens == pytest.approx(900, rel=0.02)
    assert model.estimate(facts(prompt_tokens_estimate=500), 0.0).prompt_tokens == 500
    other = facts(script="three_byte", model="other", prompt_tokens_estimate=500)
    assert model.estimate(other, 0.0).prompt_tokens == 500


def test_a_usage_that_repeats_the_estimate_teaches_nothing_of_prompts():
    model = CostModel()
    for _ in range(50):
        answer(model, facts(prompt_tokens_estimate=1000), 2000, 10)
    learned = model.estimate(facts(prompt_tokens_estimate=1000), 0.0).prompt_tokens
    for _ in range(500):
        answer(model, facts(prompt_tokens_estimate=1000), 1000, 10)

    assert model.estimate(facts(prompt_tokens_estimate=1000), 0.0).prompt_tokens == learned > 1900


@pytest.mark.parametrize(("cached", "low", "high"), [(0, 0.9, 1.1), (900, 0.49, 0.6)])
def test_the_bias_of_a_tenant_corrects_the_work_within_bounds_and_never_the_footprint(cached, low, high):
    model, asked = CostModel(), facts(prompt_tokens_estimate=1000, max_tokens=10)
    plain = model.estimate(asked, 0.0)
    for _ in range(300):
        answer(model, asked, 1001, 10, cached=cached)

    corrected = model.estimate(asked, 0.0)
    assert low <= corrected.work / plain.work <= high
    assert corrected.footprint() == pytest.approx(plain.footprint(), abs=2)


def test_the_bias_of_estimates_against_a_trace_like_mix_is_a_few_percent():
    """Outputs as wide as published traces have them: median 41, 99th percentile about 700."""
    rng, model = random.Random(4), CostModel()
    estimated = actual = 0
    for number in range(4000):
        prompt = int(rng.lognormvariate(6.8, 1.0)) + 1
        output = min(1500, int(rng.lognormvariate(3.71, 1.2)) + 1)
        asked = facts(
            tenant=f"t{number % 5}", prompt_tokens_estimate=max(1, int(prompt * rng.uniform(0.8, 1.2)))
        )
        made = model.estimate(asked, number / 10)
        usage = Usage(prompt_tokens=prompt, completion_tokens=output)
        if number >= 500:
            estimated += made.work
            actual += work_of(usage)
        model.learn(asked, made, usage, number / 10)

    assert estimated / actual == pytest.approx(1.0, abs=0.05)


def test_what_is_remembered_about_names_that_clients_choose_is_bounded(monkeypatch):
    monkeypatch.setattr(cost, "REMEMBERED", 50)
    model = CostModel()
    for number in range(500):
        answer(model, facts(model=f"made-up-{number}", tenant=f"t{number}"), 110, 5)

    assert len(model._outputs) <= 51
    assert len(model._prompts) <= 51
    assert len(model._biases) <= 51


def test_work_of_a_usage_leaves_out_what_was_cached():
    assert work_of(Usage(prompt_tokens=100, completion_tokens=10, cached_tokens=64)) == 56
    assert work_of(Usage(prompt_tokens=10, completion_tokens=1, cached_tokens=64)) == 2
