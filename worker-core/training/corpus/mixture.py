"""How the skills are mixed into documents: single questions, conversations, tool sessions and plain stories.

The corpus is the start of the streams of all shards: `shard_documents(0)`, `shard_documents(1)` and so on.
The order of the shards is a curriculum, see `PRACTICE`.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from .arithmetic import arithmetic, bare_sum, multiplication
from .exchange import Document, Exchange, Message
from .facts import fact_question
from .json_tasks import extraction
from .lists import copying, listing, reversing
from .sluice import sluice_question
from .smalltalk import GREETINGS, introduction, memory, smalltalk, unknown
from .split import Split, draw
from .stories import story, story_request
from .tools import Tool, both, tool_use, toolbox

SEED = 20261121

Maker = Callable[[random.Random], Exchange]

# Shares of one-question documents and of the turns of a conversation; the hard skills get most.
WEIGHTS: dict[Maker, float] = {
    arithmetic: 0.24,
    multiplication: 0.05,
    fact_question: 0.13,
    sluice_question: 0.10,
    extraction: 0.16,
    copying: 0.06,
    reversing: 0.07,
    listing: 0.04,
    story_request: 0.03,
    smalltalk: 0.06,
    unknown: 0.01,
    introduction: 0.01,
    memory: 0.04,
}
TOOL_SHARE = 0.24
LONG_SHARE = 0.02
STORY_SHARE = 0.05


@dataclass(frozen=True)
class Practice:
    """One stage of the curriculum: its first shard, the share and kinds of sheets of dense practice, and the
    shares of tool sessions and of long conversations.
    """

    first_shard: int
    share: float
    kinds: tuple[tuple[Maker, ...], ...]
    tool_share: float = TOOL_SHARE
    long_share: float = LONG_SHARE


_SUMS_AND_FACTS: tuple[tuple[Maker, ...], ...] = (
    (bare_sum,),
    (bare_sum,),
    (arithmetic,),
    (arithmetic, multiplication),
    (fact_question,),
    (fact_question,),
    (sluice_question, fact_question),
)
_EXACT_ORDER: tuple[tuple[Maker, ...], ...] = (
    (reversing,),
    (reversing,),
    (copying, reversing),
    (extraction,),
)
_WEAKEST: tuple[tuple[Maker, ...], ...] = (
    (arithmetic,),
    (arithmetic,),
    (arithmetic,),
    (bare_sum,),
    (fact_question,),
    (sluice_question,),
    (reversing,),
    (reversing,),
    (listing,),
)
# Copying is learnt first, without sheets; then come sums and facts, what needs exact order, and the weakest.
PRACTICE = (
    Practice(0, 0.0, ()),
    Practice(30, 0.28, _SUMS_AND_FACTS),
    Practice(45, 0.36, (*_SUMS_AND_FACTS, *_EXACT_ORDER)),
    Practice(82, 0.33, _WEAKEST, tool_share=0.4, long_share=0.08),
)
_MAKERS, _SHARES = tuple(WEIGHTS), tuple(WEIGHTS.values())
_GREETABLE = {"arithmetic", "multiplication", "facts", "sluice", "tools"}

SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are a helpful assistant.",
    "You are sluice-tiny, a helpful assistant.",
    "You are a friendly assistant. Answer briefly.",
    "Be brief.",
    "Answer in one short sentence.",
    "You are a kind teacher for young children.",
    "You are the assistant of Sluice, a gateway for language models.",
    "You are a careful assistant. Do not guess.",
    "Answer the question of the user.",
    "You are a useful AI assistant that answers questions and calls tools.",
    "You help people at a small company. Be polite and clear.",
)


def _greeted(rng: random.Random, exchange: Exchange) -> Exchange:
    """Put a greeting before the question, and the same greeting before the answer."""
    greeting = rng.choice(tuple(GREETINGS))
    if not greeting.endswith(("!", ",", ".")):
        greeting += rng.choice((",", "!"))
    first, *rest = exchange.turns
    turns = [replace(first, content=f"{greeting} {first.content}"), *rest]
    if not turns[1].tool_calls:
        reply = GREETINGS.get(greeting) or GREETINGS[greeting[:-1]]
        turns[1] = replace(turns[1], content=f"{reply} {turns[1].content}")
    return replace(exchange, turns=tuple(turns))


def dress(rng: random.Random, exchange: Exchange) -> Exchange:
    """Greet before one question in six, where a greeting fits."""
    return _greeted(rng, exchange) if exchange.skill in _GREETABLE and rng.random() < 1 / 6 else exchange


def question(rng: random.Random, split: Split, make: Maker) -> Exchange:
    """Return one exchange of a skill from `split`, sometimes with a greeting or a system prompt."""
    exchange = dress(rng, draw(split, lambda: make(rng)))
    if exchange.system is None and rng.random() < 0.35:
        exchange = replace(exchange, system=rng.choice(SYSTEM_PROMPTS))
    return exchange


def tool_question(rng: random.Random, split: Split) -> Exchange:
    """Return one tool session with a single question from `split`."""
    tools = toolbox(rng)
    return question(rng, split, lambda inner: tool_use(inner, tools))


def document(*exchanges: Exchange) -> Document:
    """Join exchanges into one conversation under the first one's system prompt and tools."""
    first = exchanges[0]
    system = (Message("system", first.system),) if first.system else ()
    turns = tuple(turn for exchange in exchanges for turn in exchange.turns)
    return Document(messages=(*system, *turns), tools=first.tools)


def _turns(rng: random.Random, count: int) -> list[Exchange]:
    """Return up to `count` exchanges that bring no system prompt of their own."""
    made = [
        dress(rng, draw(Split.TRAIN, lambda: rng.choices(_MAKERS, _SHARES)[0](rng))) for _ in range(count)
    ]
    return [exchange for exchange in made if exchange.system is None]


def _chat(rng: random.Random, long_share: float) -> Document:
    """Return one to four independent exchanges, rarely many; a schema in the system turn stays alone."""
    first = question(rng, Split.TRAIN, rng.choices(_MAKERS, _SHARES)[0])
    if first.skill == "json" and first.system and "schema" in first.system:
        return document(first)
    many = rng.random() < long_share
    rest = _turns(rng, rng.randint(8, 16) if many else rng.choice((0, 0, 1, 1, 2, 3)))
    if first.skill == "memory" and rng.random() < 0.5:
        told, asked = replace(first, turns=first.turns[:2]), replace(first, turns=first.turns[2:])
        others = [exchange for exchange in rest if exchange.skill not in ("memory", "introduction")]
        return document(told, *others, asked)
    return document(first, *rest)


def _tool_session(rng: random.Random) -> Document:
    """Return a session of one to four questions to the same tools, some of them answered without a call."""
    tools = toolbox(rng)
    without_call: list[Maker] = [fact_question, sluice_question, smalltalk, story_request, copying]
    if not any(tool.kind.names[0] == "calculator" for tool in tools):
        without_call += [arithmetic, arithmetic]
    exchanges = [question(rng, Split.TRAIN, lambda inner: tool_use(inner, tools))]
    for _ in range(rng.choice((0, 1, 2, 3))):
        exchanges.append(_session_turn(rng, tools, without_call))
    if rng.random() < 0.5:
        exchanges = _shuffled_keeping_context(rng, exchanges)
    return document(*exchanges)


def _session_turn(rng: random.Random, tools: tuple[Tool, ...], without_call: list[Maker]) -> Exchange:
    if rng.random() < 0.25:
        return draw(Split.TRAIN, lambda: rng.choice(without_call)(rng))
    used = draw(Split.TRAIN, lambda: tool_use(rng, tools))
    if rng.random() < 0.12:
        return both(used, draw(Split.TRAIN, lambda: tool_use(rng, tools)))
    return dress(rng, used)


def _shuffled_keeping_context(rng: random.Random, exchanges: list[Exchange]) -> list[Exchange]:
    """Shuffle the questions of a session; the new first one inherits the system prompt and the tools."""
    system, tools = exchanges[0].system, exchanges[0].tools
    shuffled = rng.sample(exchanges, len(exchanges))
    shuffled[0] = replace(shuffled[0], system=system, tools=tools)
    return shuffled


def _sheet(rng: random.Random, kinds: tuple[tuple[Maker, ...], ...]) -> Document:
    """Return eight to sixteen questions of one kind of sheet, each with its answer on the same line."""
    makers = rng.choice(kinds)
    drawn = [draw(Split.TRAIN, lambda: rng.choice(makers)(rng)) for _ in range(rng.randint(8, 16))]
    return Document(
        sheet=tuple(
            (exchange.prompt, exchange.turns[-1].content) for exchange in drawn if not exchange.system
        )
    )


def training_document(rng: random.Random, practice: Practice) -> Document:
    """Return one training document."""
    if practice.share and rng.random() < practice.share:
        return _sheet(rng, practice.kinds)
    share = rng.random()
    if share < STORY_SHARE:
        return Document(text=story(rng))
    if share < STORY_SHARE + practice.tool_share:
        return _tool_session(rng)
    return _chat(rng, practice.long_share)


def shard_documents(index: int, seed: int = SEED) -> Iterator[Document]:
    """Yield the endless documents of one shard, bit for bit the same for the same seed.

    Shard 0 trains the tokenizer, the others the models.
    """
    rng = random.Random(seed * 1_000_003 + index if index else seed)
    practice = [stage for stage in PRACTICE if stage.first_shard <= index][-1]
    while True:
        yield training_document(rng, practice)
