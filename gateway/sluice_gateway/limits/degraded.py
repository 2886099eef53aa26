"""Which limits hold, and how, while Redis cannot be asked: what `when_redis_is_down` says, limit by limit."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from sluice_gateway.errors import Problem
from sluice_gateway.identity import Key
from sluice_gateway.limits.counters import LimiterCounters
from sluice_gateway.limits.headers import MODE
from sluice_gateway.limits.memory import MemoryLimiter
from sluice_gateway.limits.refusals import unavailable
from sluice_gateway.limits.settings import Limits, Mode
from sluice_gateway.limits.subjects import Subject
from sluice_gateway.limits.types import Demand, Lease
from sluice_gateway.wire import Header
from sluice_router.types import Usage

_WORDS = {
    "requests_per_min": "requests per minute",
    "tokens_per_min": "tokens per minute",
    "concurrent": "concurrent requests",
    "budget_per_day": "budget",
    "budget_per_month": "budget",
}


def header(mode: Mode) -> Header:
    """Tells the client which mode decided."""
    return (MODE.encode(), mode.encode())


class DegradedMode:
    """Decides in Redis' place."""

    def __init__(self, limits: Limits, clock: Callable[[], int], counters: LimiterCounters) -> None:
        self._share = 1
        self._local = MemoryLimiter(limits, clock, counters=counters)
        self.reload(limits)

    def reload(self, limits: Limits) -> None:
        """From now on these limits hold; what was used counts on."""
        down = limits.when_redis_is_down
        modes: dict[str, Mode] = {
            "requests_per_min": down.requests,
            "tokens_per_min": down.tokens,
            "concurrent": down.concurrent,
            "budget_per_day": down.budget,
            "budget_per_month": down.budget,
        }
        self._closed = [name for name, mode in modes.items() if mode == "closed"]
        self._kept = frozenset(name for name, mode in modes.items() if mode == "local")
        self._local.reload(limits, self._kept)

    def take(
        self, key: Key, demand: Demand, subjects: tuple[Subject, ...], processes: int
    ) -> tuple[Lease, Mode] | Problem:
        """A lease on this process's share, with the mode that gave it, or the refusal."""
        for subject in subjects:
            for name in self._closed:
                if getattr(subject.values, name) is not None:
                    return unavailable(subject, _WORDS[name])
        if processes != self._share:
            self._share = processes
            self._local.resize(processes)
        found = self._local.take(key, demand)
        mode = self._mode(subjects)
        if isinstance(found, Problem):
            return msgspec.structs.replace(found, headers=(*found.headers, header(mode)))
        return found, mode

    def settle(self, lease: Lease, usage: Usage | None) -> None:
        """Give a lease on the share back."""
        self._local.settle(lease, usage)

    def _mode(self, subjects: tuple[Subject, ...]) -> Mode:
        kept = any(getattr(subject.values, name) is not None for subject in subjects for name in self._kept)
        return "local" if kept else "open"
