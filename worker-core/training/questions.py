"""Held-out questions per skill: the prompt, and the one answer that counts as right.

Every question comes from the held-out side of the split, so its slot combination is in no training document.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from .chat import segments
from .corpus import Document, Exchange, Split, document, question, tool_question
from .corpus.arithmetic import arithmetic, multiplication
from .corpus.facts import fact_question
from .corpus.json_tasks import extraction
from .corpus.lists import copying, listing, reversing
from .corpus.sluice import sluice_question
from .corpus.smalltalk import memory, unknown
from .corpus.stories import story_request

Maker = Callable[[random.Random], Exchange]
ONE_TURN: dict[str, Maker] = {
    "facts": fact_question,
    "sluice": sluice_question,
    "arithmetic": arithmetic,
    "multiplication": multiplication,
    "json": extraction,
    "copying": copying,
    "reversing": reversing,
    "lists": listing,
    "memory": memory,
    "unknown": unknown,
}
SKILLS = (*ONE_TURN, "tool calls", "tool results", "long prompts")
# Characters of other conversation before the question of a long prompt: about 600 to 900 tokens.
_LONG_PROMPT = 2400


@dataclass(frozen=True)
class Question:
    """A rendered prompt, up to and including the assistant's turn mark, and the expected turn."""

    prompt: str
    answer: str


def _from_document(whole: Document) -> Question:
    """Split a conversation before the body of its last assistant turn."""
    pieces = list(segments(whole))
    last = max(i for i, (_, trained) in enumerate(pieces) if trained)
    return Question("".join(text for text, _ in pieces[:last]), pieces[last][0])


def _exchange(rng: random.Random, skill: str) -> Exchange:
    if skill == "tool results":
        return tool_question(rng, Split.HELD_OUT)
    if skill == "tool calls":
        whole = tool_question(rng, Split.HELD_OUT)
        return replace(whole, turns=whole.turns[:2])
    return question(rng, Split.HELD_OUT, ONE_TURN[skill])


def _long_conversation(rng: random.Random) -> Document:
    """Put enough training exchanges before (or, for a name to remember, inside) a held-out question."""
    asked = question(rng, Split.HELD_OUT, rng.choice((fact_question, arithmetic, memory)))
    fillers: list[Exchange] = []
    while sum(len(turn.content) for filler in fillers for turn in filler.turns) < _LONG_PROMPT:
        made = question(
            rng, Split.TRAIN, rng.choice((fact_question, arithmetic, copying, sluice_question, story_request))
        )
        fillers.append(made)
    start, end = asked.turns[:-2], asked.turns[-2:]
    if start:
        return document(replace(asked, turns=start), *fillers, replace(asked, turns=end))
    return document(*fillers, asked)


def held_out_questions(skill: str, count: int, seed: int = 1) -> list[Question]:
    """Return `count` different held-out questions of a skill."""
    rng = random.Random(f"{skill} {seed}")
    found: dict[str, Question] = {}
    while len(found) < count:
        whole = _long_conversation(rng) if skill == "long prompts" else document(_exchange(rng, skill))
        made = _from_document(whole)
        found[made.prompt] = made
    return list(found.values())
