"""Writes the text on which `sluice-worker quality` compares variants of a model, one JSON object a line.

    python -m training.held_out sluice_worker/quality/corpus.jsonl

Conversations of every skill from the held-out side of the split, under seeds that no examination uses, and
stories from an unused seed. The file that ships is frozen: figures are comparable only over the same text.
"""

import json
import random
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from .corpus import Document, Exchange, Split, document, question, tool_question
from .corpus.exchange import Json
from .corpus.stories import story
from .questions import ONE_TURN

SEED = "quality"
PER_SKILL = 8
TOOL_SESSIONS = 16
LONG_CONVERSATIONS = 8
STORIES = 16
LONG_TURNS = 5


def documents() -> Iterator[Document]:
    """Yield all documents in order: one question each, tool sessions, longer conversations, stories."""
    rng = random.Random(SEED)
    for make in ONE_TURN.values():
        for _ in range(PER_SKILL):
            yield document(question(rng, Split.HELD_OUT, make))
    for index in range(TOOL_SESSIONS):
        session = tool_question(rng, Split.HELD_OUT)
        yield document(session if index % 2 else replace(session, turns=session.turns[:2]))
    for _ in range(LONG_CONVERSATIONS):
        yield _long_conversation(rng)
    for _ in range(STORIES):
        yield Document(text=story(rng))


def _long_conversation(rng: random.Random) -> Document:
    exchanges: list[Exchange] = []
    while len(exchanges) < LONG_TURNS:
        made = question(rng, Split.HELD_OUT, rng.choice(tuple(ONE_TURN.values())))
        if made.system is None:
            exchanges.append(made)
    return document(*exchanges)


def as_json(made: Document) -> Json:
    """Return a document as a line of the file: `text`, or `messages` with `tools` if it has any."""
    if made.text:
        return {"text": made.text}
    found: Json = {"messages": [message.as_openai() for message in made.messages]}
    return {**found, "tools": list(made.tools)} if made.tools else found


def main() -> None:
    """Write the file named on the command line."""
    lines = (json.dumps(as_json(made), ensure_ascii=False) for made in documents())
    Path(sys.argv[1]).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
