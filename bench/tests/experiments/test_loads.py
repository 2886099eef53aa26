"""What is asked: the same in every repeat but for tags, and lengths that a server cannot foresee."""

from __future__ import annotations

import statistics

from sluice_bench.experiments.loads import (
    ENDINGS,
    AnswerLengths,
    Load,
    fixed_answers,
    numbered,
    tiny_prompts,
    token_prompts,
    unforeseen_answers,
)
from sluice_bench.workload import geometric_lengths

LENGTHS = AnswerLengths(mean=48, least=8, most=192, allowed=256)


def load(**given: object) -> Load:
    usual: dict[str, object] = {
        "name": "some",
        "requests": 6,
        "concurrency": 2,
        "workload_of": unforeseen_answers("short", LENGTHS),
    }
    return Load(**usual | given)  # type: ignore[arg-type]


def test_answers_have_very_different_lengths_within_their_bounds() -> None:
    lengths = geometric_lengths(2000, mean=48, low=8, high=192, seed=1)

    assert lengths == geometric_lengths(2000, mean=48, low=8, high=192, seed=1)
    assert (min(lengths), max(lengths)) == (8, 192)
    assert 44 < statistics.mean(lengths) < 50
    assert statistics.median(lengths) < 40


def test_a_request_may_take_many_tokens_and_ends_after_few() -> None:
    items = unforeseen_answers("short", LENGTHS)(20, 7).items

    assert {item.max_tokens for item in items} == {256}
    assert {tuple(item.body["stop"]) for item in items} == {ENDINGS}
    assert len({item.min_tokens for item in items}) > 10
    assert all(8 <= (item.min_tokens or 0) <= 192 for item in items)


def test_repeats_differ_in_tags_alone() -> None:
    first, second = (load().build(repeat).workload for repeat in (0, 1))

    assert load().build(0).workload == first
    assert first.sha256 != second.sha256
    for one, other in zip(first.items, second.items, strict=True):
        text, again = one.body["messages"][0]["content"], other.body["messages"][0]["content"]
        assert text.split(" ", 1)[0] != again.split(" ", 1)[0]
        assert text.split(" ", 1)[1] == again.split(" ", 1)[1]
        assert one.min_tokens == other.min_tokens


def test_no_two_loads_and_repeats_share_tags_and_none_is_that_of_warming_up() -> None:
    loads = numbered([load(), load(), load()])
    seeds = [each.seed(repeat) for each in loads for repeat in range(50)]

    assert len(set(seeds)) == len(seeds)
    assert 0 not in seeds


def test_an_open_loop_is_due_at_the_same_times_in_every_repeat() -> None:
    open_loop = load(concurrency=None, rate_per_s=50.0)
    first, second = open_loop.build(0).schedule, open_loop.build(1).schedule

    assert first is not None
    assert first == second
    assert len(first.offsets_ns) == 6
    assert load().build(0).schedule is None


def test_token_prompts_are_exactly_as_long_as_asked() -> None:
    items = token_prompts([5, 6, 7], 9, 4)(3, 1).items

    assert [len(item.body["prompt"]) for item in items] == [9, 9, 9]
    assert {token for item in items for token in item.body["prompt"]} <= {5, 6, 7}
    assert {item.endpoint for item in items} == {"completions"}


def test_tiny_prompts_keep_their_tag() -> None:
    items = tiny_prompts(4, 8)(3, 1).items
    texts = [item.body["messages"][0]["content"] for item in items]

    assert [len(text.split()) for text in texts] == [4, 4, 4]
    assert len({text.split()[0] for text in texts}) == 3
    assert {item.max_tokens for item in items} == {8}


def test_fixed_answers_leave_the_prompt_as_it_is() -> None:
    item = fixed_answers("short", 5)(1, 1).items[0]

    assert (item.max_tokens, item.min_tokens) == (5, None)
    assert list(item.body) == ["messages"]
