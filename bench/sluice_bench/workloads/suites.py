"""The suites: which prompts of the corpus are asked, in which order, and what is put in front of each.

`build` is a function of corpus, suite, count and seed. It takes the prompts in the order of the file, however
many times around, so that every seed asks for the same amount of work. What the seed decides is a tag at the
beginning of each prompt, which is unlike all others of this and of any other seed: no prefix cache helps by
accident, neither between requests nor between runs. Three suites share on purpose: `shared-prefix` a tagged
system prompt within the run, `multi-turn` what was said before within a conversation, `json` its schema,
which is no part of a prompt. The tools of `tools` are tagged too, because chat templates put them first.

A longer workload begins with the shorter one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from sluice_bench.workloads.corpus import Corpus, CorpusError, Prompt, Shared, SuiteName
from sluice_bench.workloads.items import Capability, Workload, WorkloadItem

NEEDS: Mapping[SuiteName, frozenset[Capability]] = {
    "short": frozenset(),
    "long": frozenset(),
    "stress": frozenset(),
    "shared-prefix": frozenset(),
    "multi-turn": frozenset(),
    "tools": frozenset({"tools"}),
    "json": frozenset({"json_schema"}),
    "rag-edit": frozenset(),
}
"""What a server must be able to do for each suite."""

CONVERSATIONS = 8
"""So many of `multi-turn` are going on at once: a turn comes so many items after the one before."""

_MS = 1_000_000


def build(corpus: Corpus, name: SuiteName, count: int, seed: int) -> Workload:
    """`count` items of a suite. Raises `CorpusError` when the corpus has none."""
    if not corpus.suite(name):
        raise CorpusError(f"the corpus has no prompts of {name}; write it anew with: sluice-bench prompts")
    items = _conversations(corpus, seed) if name == "multi-turn" else _single_items(corpus, name, seed)
    return Workload.of(name, islice(items, count))


def _single_items(corpus: Corpus, name: SuiteName, seed: int) -> Iterator[WorkloadItem]:
    for number, (item_id, prompt) in enumerate(_around(corpus.suite(name))):
        shared = corpus.shared.get(prompt.shared)
        yield WorkloadItem(
            id=item_id,
            endpoint="chat",
            body=_body(prompt.turns[0], shared, _tag(seed, name, number), _tag(seed, prompt.shared, 0)),
            max_tokens=prompt.max_tokens,
            needs=NEEDS[name],
        )


def _body(asked: str, shared: Shared | None, tag: str, shared_tag: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"{tag} {asked}"}]
    if shared is None:
        return {"messages": messages}
    if shared.system:
        messages.insert(0, {"role": "system", "content": f"{shared_tag} {shared.system}"})
        return {"messages": messages}
    if shared.tools:
        return {"messages": messages, "tools": _tagged_tools(shared, tag)}
    form = {"name": shared.id, "schema": shared.schema, "strict": True}
    return {"messages": messages, "response_format": {"type": "json_schema", "json_schema": form}}


def _tagged_tools(shared: Shared, tag: str) -> list[dict[str, Any]]:
    """With the tag at the beginning of the first description."""
    first, *others = shared.tools
    function = {**first["function"], "description": f"{tag} {first['function']['description']}"}
    return [{**first, "function": function}, *others]


def _conversations(corpus: Corpus, seed: int) -> Iterator[WorkloadItem]:
    """One turn of each running conversation in turn; where one ends, the next one begins."""
    waiting = enumerate(_around(corpus.suite("multi-turn")))
    running: list[Iterator[WorkloadItem]] = [iter(()) for _ in range(CONVERSATIONS)]
    while True:
        for lane, conversation in enumerate(running):
            item = next(conversation, None)
            if item is None:
                number, (item_id, prompt) = next(waiting)
                running[lane] = _turns(item_id, prompt, _tag(seed, "multi-turn", number))
                item = next(running[lane])
            yield item


def _turns(item_id: str, prompt: Prompt, tag: str) -> Iterator[WorkloadItem]:
    """Each user turn with all that was said before it."""
    roles = ("user", "assistant")
    said = [f"{tag} {prompt.turns[0]}", *prompt.turns[1:]]
    messages = [{"role": roles[place % 2], "content": text} for place, text in enumerate(said)]
    for turn in range(len(said) // 2 + 1):
        yield WorkloadItem(
            id=f"{item_id}/{turn}",
            endpoint="chat",
            body={"messages": messages[: 2 * turn + 1]},
            max_tokens=prompt.max_tokens,
            after=f"{item_id}/{turn - 1}" if turn else None,
            think_ns=prompt.think_ms[turn - 1] * _MS if turn else 0,
        )


def _around(prompts: tuple[Prompt, ...]) -> Iterator[tuple[str, Prompt]]:
    """Ids and prompts without end; from the second time around, ids say which time it is."""
    yield from ((prompt.id, prompt) for prompt in prompts)
    lap = 1
    while prompts:
        lap += 1
        yield from ((f"{prompt.id}+{lap}", prompt) for prompt in prompts)


def _tag(seed: int, name: str, number: int) -> str:
    """Differs from others within 14 characters. Its number keeps those of one seed apart for certain."""
    drawn = hashlib.sha256(f"{seed}:{name}:{number}".encode()).hexdigest()
    return f"{drawn[:6]}-{number}:"
