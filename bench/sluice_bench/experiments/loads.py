"""What an experiment asks and how: the same requests for every variant, in another tag for every repeat.

Prompts are the corpus' own (`workloads/`), so their digest says that two variants were asked for the same.
The tag at the beginning of each prompt changes with the repeat: an engine that is asked again knows none of
them from before. Nothing else changes, so every repeat is the same amount of work.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from sluice_bench import arrivals
from sluice_bench.arrivals import Schedule
from sluice_bench.run_load import RunLoad
from sluice_bench.workload import geometric_lengths
from sluice_bench.workloads import suites
from sluice_bench.workloads.corpus import SuiteName, load_corpus
from sluice_bench.workloads.items import Workload, WorkloadItem

ENDINGS = (" ", "e", "a", "o")
"""Strings so frequent that an answer ends with one about a token after it may."""

_REPEATS = 1000


class WorkloadOf(Protocol):
    """The requests of one repeat."""

    def __call__(self, count: int, seed: int) -> Workload:
        """`count` items; the seed decides their tags and no more."""
        ...


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """One way to ask. A closed loop has a concurrency, an open one a rate."""

    name: str
    requests: int
    workload_of: WorkloadOf
    concurrency: int | None = None
    rate_per_s: float | None = None
    number: int = 0
    """Of the load in its experiment: loads of one repeat have tags of their own."""

    def seed(self, repeat: int) -> int:
        """Of a repeat; 0 is left for warming up."""
        return 1 + self.number * _REPEATS + repeat

    def build(self, repeat: int) -> RunLoad:
        """What is asked in a repeat, and when."""
        workload = self.workload_of(self.requests, self.seed(repeat))
        return RunLoad(workload=workload, schedule=self._schedule())

    def _schedule(self) -> Schedule | None:
        """Poisson, and the same in every repeat, so that repeats differ by the machine alone."""
        if self.rate_per_s is None:
            return None
        seed = 1 + self.number
        offsets = arrivals.poisson(self.rate_per_s, self.requests, seed)
        return Schedule.of("poisson", offsets, rate_per_s=self.rate_per_s, cv=1.0, seed=seed)


def numbered(loads: Sequence[Load]) -> tuple[Load, ...]:
    """With their places as numbers."""
    return tuple(msgspec.structs.replace(load, number=place) for place, load in enumerate(loads))


def fixed_answers(suite: SuiteName, answer_tokens: int) -> WorkloadOf:
    """A suite's prompts with answers of one length, for engines that know `ignore_eos`."""

    def build(count: int, seed: int) -> Workload:
        return _changed(suite, count, seed, lambda item: item.body, lambda _: (answer_tokens, None))

    return build


class AnswerLengths(msgspec.Struct, frozen=True, kw_only=True):
    """Lengths of answers, in tokens: geometric above the least, cut at the most."""

    mean: int
    least: int
    most: int
    allowed: int
    """`max_tokens` of every request: all that the engine knows beforehand."""


def unforeseen_answers(suite: SuiteName, lengths: AnswerLengths) -> WorkloadOf:
    """A suite's prompts with answers of very different lengths that the engine cannot foresee.

    As in chat: a request may take `allowed` tokens and ends by a stop string long before. Equal lengths would
    hide what a closed batch loses. Needs `min_tokens`, an extension of vLLM's and Sluice's worker.
    """

    def build(count: int, seed: int) -> Workload:
        drawn = geometric_lengths(count, lengths.mean, lengths.least, lengths.most, seed=1)
        return _changed(
            suite,
            count,
            seed,
            lambda item: {**item.body, "stop": list(ENDINGS)},
            lambda place: (lengths.allowed, drawn[place]),
        )

    return build


def token_prompts(ids: Sequence[int], prompt_tokens: int, answer_tokens: int) -> WorkloadOf:
    """Prompts as token ids drawn from `ids`: exactly as long for engines with different tokenizers."""

    def build(count: int, seed: int) -> Workload:
        source = random.Random(seed)
        items = [
            WorkloadItem(
                id=f"tokens-{place:04d}",
                endpoint="completions",
                body={"prompt": source.choices(ids, k=prompt_tokens)},
                max_tokens=answer_tokens,
            )
            for place in range(count)
        ]
        return Workload.of("tokens", items)

    return build


def tiny_prompts(words: int, answer_tokens: int) -> WorkloadOf:
    """Chats of a tag and the first words of `short` prompts: hardly anything to read."""

    def build(count: int, seed: int) -> Workload:
        return _changed("short", count, seed, shortened, lambda _: (answer_tokens, None))

    def shortened(item: WorkloadItem) -> Mapping[str, Any]:
        text = str(item.body["messages"][0]["content"])
        return {"messages": [{"role": "user", "content": " ".join(text.split()[:words])}]}

    return build


def _changed(
    suite: SuiteName,
    count: int,
    seed: int,
    body_of: Callable[[WorkloadItem], Mapping[str, Any]],
    tokens_of: Callable[[int], tuple[int, int | None]],
) -> Workload:
    """A suite with other bodies, and (most, least) tokens of each answer."""
    items = []
    for place, item in enumerate(suites.build(load_corpus(), suite, count, seed).items):
        most, least = tokens_of(place)
        items.append(msgspec.structs.replace(item, body=body_of(item), max_tokens=most, min_tokens=least))
    return Workload.of(suite, items)
