from __future__ import annotations

from itertools import pairwise

import pytest

from sluice_bench.journeys.prompts import Prompts
from sluice_bench.workloads.corpus import load_corpus


@pytest.fixture(scope="module")
def corpus():
    return load_corpus()


def text(item):
    return item.body["messages"][-1]["content"]


def test_no_prompt_comes_twice_in_a_process_nor_in_two(corpus):
    one, other = Prompts(corpus, 1), Prompts(corpus, 2)
    said = [text(source.item("short"))[:14] for source in (one, other) for _ in range(200)]

    assert len(set(said)) == 400


def test_the_same_seed_says_the_same(corpus):
    one, other = Prompts(corpus, 3), Prompts(corpus, 3)

    assert [one.item("rag-edit") for _ in range(70)] == [other.item("rag-edit") for _ in range(70)]


def test_a_conversation_is_its_turns_in_order(corpus):
    prompts = Prompts(corpus, 1)
    for turns in (prompts.conversation() for _ in range(60)):
        assert turns[0].after is None
        assert [turn.after for turn in turns[1:]] == [turn.id for turn in turns[:-1]]
        for earlier, later in pairwise(turns):
            assert later.body["messages"][:-2] == earlier.body["messages"]
