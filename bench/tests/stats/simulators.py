"""Servers of which the truth is known, in virtual time."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from random import Random

from sluice_bench.stats.paired import Block, slot_order
from sluice_bench.stats.percentile import percentile_of


class DriftingServer:
    """TTFT, ms, of a server on a shared machine: skewed, each like the one before, with waves and a trend.

    `slowdown` is what b costs more than a: 1.05 is 5 %.
    """

    def __init__(self, source: Random, slowdown: float = 1.0) -> None:
        self._source, self._slowdown = source, slowdown
        self._mood = source.gauss(0, 0.06)
        self._trend = source.gauss(0, 2e-5)
        self._asked = 0

    def ttft_ms(self, who: str) -> float:
        self._asked += 1
        self._mood = 0.98 * self._mood + self._source.gauss(0, 0.012)
        wave = 0.05 * math.sin(self._asked / 700)
        own = self._source.gauss(0, 0.2)
        usual = 80 * math.exp(self._mood + wave + self._trend * self._asked + own)
        return usual * self._slowdown if who == "b" else usual

    def slot(self, who: str, requests: int) -> float:
        return percentile_of([self.ttft_ms(who) for _ in range(requests)], 0.5)

    def blocks(self, count: int, requests: int = 40) -> list[Block]:
        blocks = []
        for order in slot_order(count, self._source):
            slots = [(who, self.slot(who, requests)) for who in order]
            first, second = ([figure for name, figure in slots if name == who] for who in "ab")
            blocks.append(Block((first[0], first[1]), (second[0], second[1])))
        return blocks


class ManyServers:
    """M/M/c: Poisson arrivals, `servers` of one request a second each, first come first served."""

    def __init__(self, servers: int, source: Random) -> None:
        self.servers, self._source = servers, source

    def waits(self, rate: float, requests: int) -> list[float]:
        """Seconds in the queue, in the order of arrival; the system is empty at first."""
        draw, log = self._source.random, math.log
        free_at = [0.0] * self.servers
        now, waits = 0.0, []
        for _ in range(requests):
            now -= log(1 - draw()) / rate
            start = max(now, free_at[0])
            heapq.heapreplace(free_at, start - log(1 - draw()))
            waits.append(start - now)
        return waits

    def queueing_chance(self, rate: float) -> float:
        """Erlang C."""
        load, blocked = rate, 1.0
        for servers in range(1, self.servers + 1):
            blocked = load * blocked / (servers + load * blocked)
        use = load / self.servers
        return blocked / (1 - use + use * blocked)

    def wait_percentile(self, rate: float, share: float) -> float:
        """The true one; infinite beyond capacity."""
        if rate >= self.servers:
            return math.inf
        waiting = self.queueing_chance(rate)
        return max(0.0, math.log(waiting / (1 - share)) / (self.servers - rate))

    def highest_rate(self, share: float, cap_s: float) -> float:
        """The true answer of a saturation search."""
        low, high = 0.0, float(self.servers)
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if self.wait_percentile(middle, share) <= cap_s else (low, middle)
        return low


def lognormal(source: Random, count: int, spread: float = 0.6) -> list[float]:
    """Latencies with a tail."""
    return [math.exp(source.gauss(0, spread)) for _ in range(count)]


def standard_normal_quantile(share: float) -> float:
    """By halving; for the true percentile of `lognormal`."""
    low, high = -10.0, 10.0
    for _ in range(80):
        middle = (low + high) / 2
        below = (1 + math.erf(middle / math.sqrt(2))) / 2 < share
        low, high = (middle, high) if below else (low, middle)
    return low


def covered(low: float | None, truth: float, high: float | None) -> bool:
    """Whether an interval, open where a bound is `None`, holds the truth."""
    return (low is None or low <= truth) and (high is None or truth <= high)


def mean_square_error(values: Sequence[float], truth: float) -> float:
    return sum((value - truth) ** 2 for value in values) / len(values)
