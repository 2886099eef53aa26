"""What users say: items of the frozen corpus, as many as are wanted, each with a beginning of its own.

A block of a suite is built when the one before is used up, with another seed, so that tags never repeat
within a process; processes take different seeds. All users of a process draw from one `Prompts`; drawing
never waits, so greenlets cannot come between.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, groupby

from sluice_bench.workloads.corpus import Corpus, SuiteName
from sluice_bench.workloads.items import WorkloadItem
from sluice_bench.workloads.suites import build

_BLOCK = 64
_BLOCKS_OF_A_SEED = 1_000_000


class Prompts:
    """An endless supply."""

    def __init__(self, corpus: Corpus, seed: int) -> None:
        self._corpus = corpus
        self._first_block = seed * _BLOCKS_OF_A_SEED
        self._single: dict[SuiteName, Iterator[WorkloadItem]] = {}
        self._conversations = self._endless_conversations()

    def item(self, suite: SuiteName) -> WorkloadItem:
        """The next of a suite of single questions."""
        return next(self._single.setdefault(suite, self._endless(suite)))

    def conversation(self) -> list[WorkloadItem]:
        """The turns of the next conversation, each with all that was said before it."""
        return next(self._conversations)

    def _endless(self, suite: SuiteName) -> Iterator[WorkloadItem]:
        for block in count(self._first_block):
            yield from build(self._corpus, suite, _BLOCK, block).items

    def _endless_conversations(self) -> Iterator[list[WorkloadItem]]:
        for block in count(self._first_block):
            items = build(self._corpus, "multi-turn", _BLOCK, block).items
            by_conversation = sorted(items, key=_conversation_of)  # stable: turns keep their order
            yield from (list(turns) for _, turns in groupby(by_conversation, key=_conversation_of))


def _conversation_of(item: WorkloadItem) -> str:
    return item.id.partition("/")[0]
