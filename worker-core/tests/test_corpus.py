"""The corpus is the same text for the same seed, and what is held out is really unseen."""

import hashlib
import itertools
import json
import random

import pytest
from training.chat import segments
from training.corpus import Document, Split, is_held_out, question, shard_documents
from training.corpus.arithmetic import arithmetic
from training.corpus.mixture import PRACTICE
from training.questions import SKILLS, held_out_questions

SAMPLE = 20_000
FIRST_DOCUMENTS_SHA256 = "83f3732edafb446f3840d2d1a0d19abdfb97b5d3a4fd994cc2dec93c60bb0b0a"
# In these skills the last user turn alone carries the slots, so training may not ask that text anywhere.
ONE_TURN = (
    "facts",
    "sluice",
    "arithmetic",
    "multiplication",
    "json",
    "copying",
    "reversing",
    "lists",
    "unknown",
)


@pytest.fixture(scope="module")
def sample() -> list[Document]:
    """Return a slice of shards as training draws them, from every stage of the curriculum."""
    shards = [stage.first_shard + 1 for stage in PRACTICE]
    return [d for shard in shards for d in itertools.islice(shard_documents(shard), SAMPLE // len(shards))]


def test_the_same_seed_writes_the_same_text():
    text = hashlib.sha256()
    for shard in (stage.first_shard for stage in PRACTICE):
        for document in itertools.islice(shard_documents(shard), 1000):
            text.update("".join(piece for piece, _ in segments(document)).encode())
    assert text.hexdigest() == FIRST_DOCUMENTS_SHA256


def test_another_seed_writes_other_text():
    first, second = next(shard_documents(1)), next(shard_documents(2))
    assert list(segments(first)) != list(segments(second))


@pytest.mark.parametrize("skill", SKILLS)
def test_held_out_prompts_are_in_no_training_document(sample: list[Document], skill: str):
    seen = set(_prompts(sample))
    asked = held_out_questions(skill, 300)
    assert len({q.prompt for q in asked}) == 300
    assert not [q.prompt for q in asked if q.prompt in seen]


@pytest.mark.parametrize("skill", ONE_TURN)
def test_held_out_questions_are_asked_nowhere_in_any_context(sample: list[Document], skill: str):
    seen = set(_questions(sample))
    asked = [_last_user_turn(q.prompt) for q in held_out_questions(skill, 300)]
    assert not [text for text in asked if text in seen]


def test_held_out_calls_are_made_nowhere(sample: list[Document]):
    seen = {_values(call) for d in sample for m in d.messages for call in m.tool_calls}
    for asked in held_out_questions("tool calls", 300):
        call = json.loads(asked.answer.split("\n")[1])
        assert _values(call) not in seen


def test_sums_of_two_digit_numbers_are_held_out_in_every_phrasing(sample: list[Document]):
    held_out = {(a, b) for a in range(10, 100) for b in range(10, 100) if is_held_out("+", a, b)}
    assert 500 < len(held_out) < 2000
    asked = set(_questions(sample))
    for a, b in held_out:
        assert f"What is {a} + {b}?" not in asked
        assert f"{a} + {b} =" not in asked


def test_the_split_depends_on_the_slots_alone():
    for seed in range(200):
        rng = random.Random(seed)
        assert not is_held_out(*question(rng, Split.TRAIN, arithmetic).slots)
        assert is_held_out(*question(rng, Split.HELD_OUT, arithmetic).slots)


def _questions(documents: list[Document]):
    """Yield every text that asks for something, in a conversation or on a sheet."""
    for document in documents:
        yield from (message.content for message in document.messages if message.role == "user")
        yield from (asked for asked, _ in document.sheet)


def _prompts(documents: list[Document]):
    """Yield the text before every assistant turn."""
    for document in documents:
        before = ""
        for piece, trained in segments(document):
            if trained and not document.text:
                yield before
            before += piece


def _last_user_turn(prompt: str) -> str:
    return prompt.rsplit("<|im_start|>user\n", 1)[1].split("<|im_end|>")[0]


def _values(call: dict) -> tuple:
    return call["name"], *call["arguments"].values()
