"""The batching ladder: when a waiting request may join the batch.

    none         one request at a time
    static       batches of a fixed size, gathered once the engine is free: full, or nothing more came in time
    dynamic      batches gathered while the one before runs: full, or the first in line has waited long enough
    continuous   no batches: whoever waits joins as soon as there is room

A policy decides on admission alone. Everything else (chunks, budget, blocks, kernels) is the same engine's,
so that a measurement between two modes compares the policies and nothing besides. In every mode the queue is
first come, first served: a batch is always the head of the queue.

A request that asks to run *alone* is a batch of its own in every mode: see `scheduler`.

This module knows no clock: whoever asks says what time it is, in seconds on any monotonic clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice, takewhile
from typing import Literal, Protocol

from sluice_worker.request import Request

BatchingMode = Literal["none", "static", "dynamic", "continuous"]


class BatchingPolicy(Protocol):
    """Who may join."""

    def due_s(self, waiting: Sequence[Request], now_s: float) -> float:
        """When the head of the queue may join at the earliest; not after `now_s` when it may now.

        Called whenever the engine has to know how long to sleep.
        """
        ...

    def gather(self, waiting: Sequence[Request], now_s: float) -> None:
        """An admission begins: settle who is in the next batch, if that is due."""
        ...

    def admits(self, request: Request) -> bool:
        """Whether the head of the queue may join, as `gather` has settled."""
        ...

    def leave(self, request: Request) -> None:
        """A request has finished or was aborted, waiting or running."""
        ...


class ContinuousBatching:
    """Whoever waits may join."""

    def due_s(self, waiting: Sequence[Request], now_s: float) -> float:
        """See `BatchingPolicy`."""
        return now_s

    def gather(self, waiting: Sequence[Request], now_s: float) -> None:
        """See `BatchingPolicy`."""

    def admits(self, request: Request) -> bool:
        """See `BatchingPolicy`."""
        return True

    def leave(self, request: Request) -> None:
        """See `BatchingPolicy`."""


class ClosedBatches:
    """Batches that nobody joins once they are closed, each until its last member has finished.

    A batch closes when it has `size` members, when the next in line wants to run alone, or at the end of a
    window of `wait_s`. The window opens with the arrival of its first request or, with `waits_when_free`, not
    before the batch ahead of it has finished.

    Members are a set of their own because some may still wait: for blocks, for budget, or after preemption.
    """

    def __init__(self, size: int, wait_s: float, *, waits_when_free: bool) -> None:
        self._size = size
        self._wait_s = wait_s
        self._waits_when_free = waits_when_free
        self._members: set[Request] = set()
        self._free_since_s: float | None = None

    def due_s(self, waiting: Sequence[Request], now_s: float) -> float:
        """See `BatchingPolicy`."""
        if self._members:
            return now_s
        if self._free_since_s is None:
            self._free_since_s = now_s
        if not waiting or self._is_full(waiting):
            return now_s
        opens_s = waiting[0].arrived_s
        if self._waits_when_free:
            opens_s = max(opens_s, self._free_since_s)
        return opens_s + self._wait_s

    def gather(self, waiting: Sequence[Request], now_s: float) -> None:
        """See `BatchingPolicy`."""
        due_s = self.due_s(waiting, now_s)
        if waiting and not self._members and due_s <= now_s:
            self._members = set(self._candidates(waiting))
            self._free_since_s = None

    def admits(self, request: Request) -> bool:
        """See `BatchingPolicy`."""
        return request in self._members

    def leave(self, request: Request) -> None:
        """See `BatchingPolicy`."""
        self._members.discard(request)

    def _candidates(self, waiting: Sequence[Request]) -> list[Request]:
        if waiting[0].alone:
            return [waiting[0]]
        return list(takewhile(lambda request: not request.alone, islice(waiting, self._size)))

    def _is_full(self, waiting: Sequence[Request]) -> bool:
        """Whether waiting longer could not add anybody."""
        candidates = self._candidates(waiting)
        return len(candidates) == self._size or candidates[0].alone or len(candidates) < len(waiting)


def make_batching(mode: BatchingMode, *, max_batch: int, wait_s: float) -> BatchingPolicy:
    """The policy of a mode. `max_batch` and `wait_s` matter to `static` and `dynamic`."""
    match mode:
        case "none":
            return ClosedBatches(1, 0.0, waits_when_free=False)
        case "static":
            return ClosedBatches(max_batch, wait_s, waits_when_free=True)
        case "dynamic":
            return ClosedBatches(max_batch, wait_s, waits_when_free=False)
        case "continuous":
            return ContinuousBatching()
