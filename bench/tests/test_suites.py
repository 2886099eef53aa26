"""What each suite asks: its lengths, what is shared and what is not, and the order of turns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tokenizers import Tokenizer

from sluice_bench.workloads import suites
from sluice_bench.workloads.corpus import Corpus, CorpusError, SuiteName, load_corpus
from sluice_bench.workloads.items import Workload, WorkloadItem

NAMES = tuple(suites.NEEDS)
TINY = Path(__file__).parents[2] / "worker-core" / "models" / "sluice-tiny"
SINGLE = tuple(name for name in NAMES if name != "multi-turn")
DIGESTS = {
    "short": "c67772a1248be1adceaff6b70649d97421d90ade3d911549e617d4fae4090dcd",
    "long": "9efd83adae515809c6cebdb62f5d4d54511f8d9e87735c824dc27a2883845f1c",
    "stress": "5afb3ac53bc9342da5430284578375be0b58fef70d2ec90f3d37a4bb649a8c43",
    "shared-prefix": "3ed88c4ce472edd6a9c3a59d24e2be85a25e3e7d8164b69b25ff908bb8a82dae",
    "multi-turn": "339ebc7674a7f023be7484a19ad7f2cc1bd8771f6ff6594e794f45c97b73620f",
    "tools": "e9a489981ad9ebf022dc8eac43497e43559ee3d640483f85a2e49787b1aa9791",
    "json": "d56a4ab17ae0fb97a7bbcbfa7b23da7ba6a0365809c35e0f4b4d3ec7180baf8a",
    "rag-edit": "b371e43f9c0182ee6ccfa26959c213ba3df1661d384ef833f84af8f4b7736bc4",
}


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return load_corpus()


def first_text(item: WorkloadItem) -> str:
    text: str = item.body["messages"][0]["content"]
    return text


def words(item: WorkloadItem) -> int:
    return sum(len(message["content"].split()) for message in item.body["messages"])


@pytest.mark.parametrize("name", [name for name in NAMES if name != "stress"])
def test_all_but_stress_fit_into_the_bundled_model(corpus: Corpus, name: SuiteName) -> None:
    """It has 1,024 positions; 32 are left for the marks of its chat template."""
    tokenizer = Tokenizer.from_file(str(TINY / "tokenizer.json"))
    positions = json.loads((TINY / "config.json").read_text())["max_position_embeddings"]
    for item in suites.build(corpus, name, 130, seed=1).items:
        text = json.dumps(item.body.get("tools", "")) + "".join(m["content"] for m in item.body["messages"])
        assert len(tokenizer.encode(text).ids) + item.max_tokens <= positions - 32


def distinct_beginnings(items: tuple[WorkloadItem, ...]) -> int:
    return len({first_text(item)[:14] for item in items})


@pytest.mark.parametrize("name", NAMES)
def test_a_workload_is_the_same_everywhere(corpus: Corpus, name: SuiteName) -> None:
    assert suites.build(corpus, name, 150, seed=3).sha256 == DIGESTS[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_longer_workload_begins_with_the_shorter_one(corpus: Corpus, name: SuiteName) -> None:
    longer, shorter = suites.build(corpus, name, 90, seed=1), suites.build(corpus, name, 30, seed=1)
    assert longer.items[:30] == shorter.items
    assert len(longer.items) == 90


@pytest.mark.parametrize("name", NAMES)
def test_ids_stay_unique_when_the_corpus_is_used_up(corpus: Corpus, name: SuiteName) -> None:
    items = suites.build(corpus, name, 400, seed=1).items
    assert len({item.id for item in items}) == 400
    assert items[0].id.startswith(f"{name}-0000")


@pytest.mark.parametrize("name", [name for name in SINGLE if name != "shared-prefix"])
def test_no_two_prompts_begin_alike(corpus: Corpus, name: SuiteName) -> None:
    items = suites.build(corpus, name, 400, seed=1).items
    assert distinct_beginnings(items) == 400


@pytest.mark.parametrize("name", NAMES)
def test_no_prompt_begins_as_one_of_another_seed(corpus: Corpus, name: SuiteName) -> None:
    """Else a repeat, or a warm-up, would fill the prefix cache for the next."""
    both = suites.build(corpus, name, 60, seed=1).items + suites.build(corpus, name, 60, seed=2).items
    beginnings = [{first_text(item)[:14] for item in part} for part in (both[:60], both[60:])]
    assert beginnings[0].isdisjoint(beginnings[1])


@pytest.mark.parametrize("name", NAMES)
def test_every_seed_asks_for_the_same_amount_of_work(corpus: Corpus, name: SuiteName) -> None:
    one, other = suites.build(corpus, name, 40, seed=1), suites.build(corpus, name, 40, seed=2)
    assert [words(item) for item in one.items] == [words(item) for item in other.items]
    assert [item.max_tokens for item in one.items] == [item.max_tokens for item in other.items]
    assert one.sha256 != other.sha256


@pytest.mark.parametrize(
    ("name", "shortest", "longest", "tokens"),
    [
        ("short", 80, 110, {64}),
        ("long", 408, 440, {128}),
        ("stress", 10, 1310, {8, 16, 32, 64, 128, 256, 512}),
        ("shared-prefix", 340, 440, {64}),
        ("multi-turn", 15, 420, {96}),
        ("tools", 10, 45, {128}),
        ("json", 40, 80, {160}),
        ("rag-edit", 170, 250, {96, 320}),
    ],
)
def test_lengths_are_as_documented(
    corpus: Corpus, name: SuiteName, shortest: int, longest: int, tokens: set[int]
) -> None:
    items = suites.build(corpus, name, 120, seed=1).items
    assert shortest <= min(words(item) for item in items)
    assert max(words(item) for item in items) <= longest
    assert {item.max_tokens for item in items} == tokens


def test_stress_mixes_lengths_over_seven_octaves(corpus: Corpus) -> None:
    lengths = [words(item) for item in suites.build(corpus, "stress", 72, seed=1).items]
    for octave in range(7):
        assert any(10 << octave <= length - 1 < 20 << octave for length in lengths), octave


def test_a_shared_prefix_is_shared_within_a_run_and_nothing_after_it(corpus: Corpus) -> None:
    items = suites.build(corpus, "shared-prefix", 200, seed=1).items
    systems = {first_text(item) for item in items}
    questions = {item.body["messages"][1]["content"][:14] for item in items}
    assert len(systems) == 4
    assert all(len(system.split()) >= 320 for system in systems)
    assert len({system[:8] for system in systems}) == 4
    assert len(questions) == 200


def test_a_turn_comes_after_the_one_before_and_repeats_what_was_said(corpus: Corpus) -> None:
    items = suites.build(corpus, "multi-turn", 300, seed=1).items
    places = {item.id: place for place, item in enumerate(items)}
    by_id = {item.id: item for item in items}
    followers = [item for item in items if item.after is not None]
    for item in followers:
        assert item.after is not None
        before = by_id[item.after]
        assert places[item.id] - places[before.id] == suites.CONVERSATIONS
        messages: list[dict[str, Any]] = item.body["messages"]
        assert messages[:-2] == before.body["messages"]
        assert [message["role"] for message in messages[-2:]] == ["assistant", "user"]
        assert 500_000_000 <= item.think_ns <= 4_000_000_000
    assert len(followers) > 150
    openers = tuple(item for item in items if item.after is None)
    assert distinct_beginnings(openers) == len(openers)
    assert all(item.think_ns == 0 for item in openers)


def test_tools_differ_from_their_first_description_on(corpus: Corpus) -> None:
    """Chat templates put them in front of everything, where they would be a shared prefix."""
    items = suites.build(corpus, "tools", 100, seed=1).items
    encoded = {msgspec.json.encode(item.body["tools"]) for item in items}
    assert len(encoded) == 100
    assert all(item.needs == {"tools"} for item in items)
    assert all(tool["type"] == "function" for item in items for tool in item.body["tools"])


def test_json_asks_for_a_strict_schema(corpus: Corpus) -> None:
    items = suites.build(corpus, "json", 64, seed=1).items
    for item in items:
        form = item.body["response_format"]["json_schema"]
        assert form["strict"] is True
        assert form["schema"]["required"] == list(form["schema"]["properties"])
        assert item.needs == {"json_schema"}


def test_a_workload_says_what_it_needs(corpus: Corpus) -> None:
    assert suites.build(corpus, "tools", 3, seed=1).needs == {"tools"}
    assert suites.build(corpus, "short", 3, seed=1).needs == frozenset()


def test_the_digest_sees_every_field_and_not_the_order_of_a_set() -> None:
    item = WorkloadItem(
        id="a",
        endpoint="chat",
        body={"x": 1, "y": 2},
        max_tokens=3,
        needs=frozenset({"tools", "json_schema"}),
    )
    same = msgspec.structs.replace(item, needs=frozenset({"json_schema", "tools"}))
    changes: list[dict[str, Any]] = [
        {"id": "b"},
        {"endpoint": "completions"},
        {"body": {"x": 1, "y": 3}},
        {"body": {"y": 2, "x": 1}},
        {"max_tokens": 4},
        {"min_tokens": 1},
        {"after": "z"},
        {"think_ns": 1},
        {"needs": frozenset()},
    ]
    digests = {Workload.of("w", [msgspec.structs.replace(item, **change)]).sha256 for change in changes}
    assert Workload.of("w", [item]).sha256 == Workload.of("w", [same]).sha256
    assert len(digests | {Workload.of("w", [item]).sha256}) == len(changes) + 1


def test_a_suite_that_the_corpus_does_not_have_is_a_sentence() -> None:
    with pytest.raises(CorpusError, match="no prompts of long"):
        suites.build(Corpus(shared={}, prompts=(), sha256=""), "long", 1, seed=1)
