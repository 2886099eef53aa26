"""Writes the corpus: a pure function without arguments, so that running it twice changes nothing.

Each suite draws from a seed of its own: one that changes leaves the lines of the others alone. Lengths are in
words; a word is about 1.3 tokens of a common tokenizer, the exact number is in a server's usage.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sluice_bench.workloads.corpus import Prompt, Shared, SuiteName
from sluice_bench.workloads.extraction_tasks import NOTES, schemas
from sluice_bench.workloads.phrases import (
    COMMON,
    FOLLOW_UPS,
    NARRATION,
    QUESTIONS,
    RULES,
    TOPICS,
    Draw,
    Topic,
    fill,
    prose,
)
from sluice_bench.workloads.tool_tasks import TOOL_SETS

SHORT_WORDS, SHORT_TOKENS = 84, 64
LONG_WORDS, LONG_TOKENS = 408, 128
SYSTEM_WORDS = 320
STRESS_TOKENS = (8, 16, 32, 64, 128, 256, 512)
EDITED_TOKENS = 320


def corpus_lines() -> Iterator[Shared | Prompt]:
    """Every line of the corpus, in order."""
    yield from _short(112)
    yield from _long(48)
    yield from _stress(72)
    yield from _shared_prefix(96)
    yield from _multi_turn(24)
    yield from _tools(64)
    yield from _json(64)
    yield from _rag_edit(64)


def _short(count: int) -> Iterator[Prompt]:
    draw = Draw("short")
    for index in range(count):
        yield _prompt("short", index, (_passage_and_question(SHORT_WORDS, draw),), SHORT_TOKENS)


def _long(count: int) -> Iterator[Prompt]:
    draw = Draw("long")
    for index in range(count):
        yield _prompt("long", index, (_passage_and_question(LONG_WORDS, draw),), LONG_TOKENS)


def _stress(count: int) -> Iterator[Prompt]:
    """Prompts of 10 to 1,279 words, each octave as often; answers of a length that does not depend on it."""
    draw = Draw("stress")
    for index in range(count):
        octave = 10 << draw.below(7)
        words = octave + draw.below(octave)
        yield _prompt("stress", index, (_passage_and_question(words, draw),), draw.pick(STRESS_TOKENS))


def _shared_prefix(count: int) -> Iterator[Prompt | Shared]:
    draw = Draw("shared-prefix")
    systems = [
        Shared(id=f"assistant-{number}", system=_system_prompt(topic, draw))
        for number, topic in enumerate(TOPICS[:4])
    ]
    yield from systems
    for index in range(count):
        which = draw.below(len(systems))
        question = _question(QUESTIONS, TOPICS[which], draw)
        yield _prompt("shared-prefix", index, (question,), SHORT_TOKENS, shared=systems[which].id)


def _multi_turn(count: int) -> Iterator[Prompt]:
    """Two to five user turns; thinking takes 0.5 to 4 s."""
    draw = Draw("multi-turn")
    for index in range(count):
        topic = draw.pick(TOPICS)
        turns = [_question(QUESTIONS, topic, draw)]
        think_ms = []
        for _ in range(draw.between(1, 4)):
            turns += [prose(draw.between(30, 70), topic, draw), fill(draw.pick(FOLLOW_UPS), topic, draw)]
            think_ms.append(500 << draw.below(4))
        yield _prompt("multi-turn", index, tuple(turns), 96, think_ms=tuple(think_ms))


def _tools(count: int) -> Iterator[Prompt | Shared]:
    draw = Draw("tools")
    yield from (Shared(id=f"tools-{kit.name}", tools=kit.tools) for kit in TOOL_SETS)
    for index in range(count):
        kit = TOOL_SETS[index % len(TOOL_SETS)]
        topic = draw.pick(TOPICS)
        asked = f"{fill(draw.pick(NARRATION), topic, draw)} {fill(draw.pick(kit.requests), topic, draw)}"
        yield _prompt("tools", index, (asked,), 128, shared=f"tools-{kit.name}")


def _json(count: int) -> Iterator[Prompt | Shared]:
    draw = Draw("json")
    yield from (Shared(id=f"schema-{name}", schema=schema) for name, schema in schemas().items())
    for index in range(count):
        name, patterns = NOTES[index % len(NOTES)]
        topic = draw.pick(TOPICS)
        facts = " ".join(fill(pattern, topic, draw) for pattern in draw.sample(patterns, len(patterns)))
        asked = f"{prose(20, topic, draw)} {facts}\n\nFill in the {name} form from this note."
        yield _prompt("json", index, (asked,), 160, shared=f"schema-{name}")


def _rag_edit(count: int) -> Iterator[Prompt]:
    """In turn: answer from passages, and give a text back with one thing changed (most of it is copied)."""
    draw = Draw("rag-edit")
    for index in range(count):
        topic = draw.pick(TOPICS)
        if index % 2 == 0:
            yield _prompt("rag-edit", index, (_passages(topic, draw),), 96)
        else:
            yield _prompt("rag-edit", index, (_edit(topic, draw),), EDITED_TOKENS)


def _passage_and_question(words: int, draw: Draw) -> str:
    topic = draw.pick(TOPICS)
    question = fill(draw.pick(QUESTIONS), topic, draw)
    text = prose(max(0, words - len(question.split())), topic, draw)
    return f"{text}\n\n{question}".strip()


def _question(patterns: Sequence[str], topic: Topic, draw: Draw) -> str:
    return f"{prose(16, topic, draw)}\n\n{fill(draw.pick(patterns), topic, draw)}"


def _system_prompt(topic: Topic, draw: Draw) -> str:
    background = prose(SYSTEM_WORDS // 2, topic, draw)
    rules = prose(SYSTEM_WORDS // 2, topic, draw, RULES)
    return f"You answer questions for {topic.name}.\n\n{background}\n\n{rules}"


def _passages(topic: Topic, draw: Draw) -> str:
    passages = [f"[{number}] {prose(60, topic, draw)}" for number in (1, 2, 3)]
    question = fill(draw.pick(QUESTIONS), topic, draw)
    return "\n\n".join([*passages, f"Answer from the passages above and name the ones you used. {question}"])


def _edit(topic: Topic, draw: Draw) -> str:
    """Ask for a change of a name that does occur in the text."""
    text = prose(170, topic, draw)
    present = [name for name in COMMON["person"] if name in text]
    old = draw.pick(present)
    new = draw.pick([name for name in COMMON["person"] if name not in text])
    return f"Give this text back unchanged, but with {new} in every place of {old}.\n\n{text}"


def _prompt(
    suite: SuiteName,
    index: int,
    turns: tuple[str, ...],
    max_tokens: int,
    shared: str = "",
    think_ms: tuple[int, ...] = (),
) -> Prompt:
    return Prompt(
        id=f"{suite}-{index:04d}",
        suite=suite,
        turns=turns,
        max_tokens=max_tokens,
        shared=shared,
        think_ms=think_ms,
    )
