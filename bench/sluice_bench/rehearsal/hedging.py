"""Scene: a worker stands still now and then. A request that waits there for its first token is answered by
the other worker before the first one goes on; the same with a gateway that makes no second attempts.

Both gateways begin without knowing the workers, and get the same requests: first as many for each worker as
tell a late first token from a usual one, then, between the pauses, as many as pay for a second attempt out of
2 %. Into each pause go two requests at once, one for each worker.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from math import inf
from statistics import median

import msgspec

from sluice_bench.loops import ClosedLoop, OpenLoop
from sluice_bench.rehearsal.asking import Outcome, in_a_loop, load, outcomes
from sluice_bench.rehearsal.finding import Check, Finding, all_served
from sluice_bench.rehearsal.stage import QUICK, SLOW, TENANTS, Stage
from sluice_bench.scrape import metrics_page
from sluice_bench.stats.percentile import percentile_of
from sluice_bench.workload import Shape, chat_requests

VICTIM = QUICK
PAUSES = 2
PAUSE_S = 1.5
"""Long beside a second attempt, whatever else the machine does."""
SHARE = 0.02
"""Second attempts, of all requests, at most."""

_MEASURED = 20
"""Requests of each tenant for each worker: 50 first tokens tell which are rare."""
_BETWEEN = 20
"""Requests of each tenant before a pause: a second attempt is earned with 50 of all."""
_USERS = 2
_SHAPE = Shape(prompt_words=20, output_tokens=4)
_HEDGES = re.compile(r'^sluice_gateway_hedges_total\{result="(\w+)"\} (\S+)$', re.MULTILINE)
_BEGUN = ("won", "lost", "failed", "left")


class Pause(msgspec.Struct, frozen=True):
    """One time that the worker stood still."""

    over_ns: int
    """When it was about to go on, by the clients' clock."""
    met: Sequence[Outcome]
    """Those who came meanwhile."""


class Trial(msgspec.Struct, frozen=True):
    """What clients met with one gateway."""

    first: Sequence[Outcome]
    """By which the gateway has come to know the workers."""
    calm: Sequence[Outcome]
    """After these, while both workers ran."""
    pauses: Sequence[Pause]
    hedges: Mapping[str, int]
    """What the gateway counted, by result."""

    def requests(self) -> list[Outcome]:
        """All of them."""
        return [*self.first, *self.timed()]

    def timed(self) -> list[Outcome]:
        """All but the first."""
        return [*self.calm, *(outcome for pause in self.pauses for outcome in pause.met)]

    def caught(self) -> list[tuple[Pause, Outcome]]:
        """Those of a pause that went to the worker standing still first."""
        return [
            (pause, outcome)
            for pause in self.pauses
            for outcome in pause.met
            if outcome.hedged or outcome.record.backend == VICTIM
        ]

    def in_time(self) -> int:
        """How many of these had a first token before the worker went on."""
        return sum((o.record.first_token_ns or p.over_ns) < p.over_ns for p, o in self.caught())

    def ttfts_ms(self) -> list[float]:
        """Of the requests that are timed."""
        return [
            (outcome.record.first_token_ns - outcome.record.scheduled_ns) / 1e6
            for outcome in self.timed()
            if outcome.record.first_token_ns is not None
        ]

    def begun(self) -> int:
        """Second attempts."""
        return sum(self.hedges.get(result, 0) for result in _BEGUN)


def hedging(stage: Stage) -> Finding:
    """The same with both gateways."""
    with stage.with_a_new_gateway("without-hedges", hedge_share=0.0) as without:
        single = _trial(without)
    with stage.with_a_new_gateway("with-hedges") as usual:
        return hedging_finding(single, _trial(usual))


def _trial(stage: Stage) -> Trial:
    first = [
        outcome
        for number, worker in enumerate((QUICK, SLOW))
        for outcome in _calm(stage, _MEASURED, 500 + 10 * number, ("X-Backend", worker))
    ]
    calm, pauses = [], []
    for number in range(PAUSES):
        calm += _calm(stage, _BETWEEN, 600 + 10 * number)
        pauses.append(_pause(stage, number))
    page = metrics_page(stage.stack.gateway.url)
    hedges = {result: int(float(count)) for result, count in _HEDGES.findall(page)}
    return Trial(first, calm, pauses, hedges)


def _calm(stage: Stage, each: int, seed: int, *headers: tuple[str, str]) -> list[Outcome]:
    requests = stage.requests_by_turns(_SHAPE, each, seed, *headers)

    async def scene() -> list[Outcome]:
        return await outcomes(load(stage.target, requests, ClosedLoop(_USERS)))

    return in_a_loop(scene)


def _pause(stage: Stage, number: int) -> Pause:
    requests = [
        request
        for place, tenant in enumerate(TENANTS[:2])
        for request in chat_requests(stage.target, _SHAPE, stage.asking(tenant), 1, 700 + 10 * number + place)
    ]
    running = load(stage.target, requests, OpenLoop((0,) * len(requests)))

    async def stand_still() -> int:
        with stage.standing_still(VICTIM):
            await asyncio.sleep(PAUSE_S)
            return running.clock_ns()

    async def scene() -> Pause:
        over = asyncio.create_task(stand_still())
        await asyncio.sleep(0)  # it stands still before anything is sent
        met = await outcomes(running)
        return Pause(await over, met)

    return in_a_loop(scene)


def hedging_finding(without: Trial, usual: Trial) -> Finding:
    """From what clients met without and with second attempts."""
    caught, in_time = len(usual.caught()), usual.in_time()
    told, won = sum(outcome.hedged for outcome in usual.requests()), usual.hedges.get("won", 0)
    asked = len(usual.requests())
    tail = _p99_ms(usual) / _p99_ms(without)
    return Finding(
        title=f"A worker stands still, {len(usual.pauses)} times for {PAUSE_S:g} s",
        promise="A request whose first token is late is sent to another worker as well, and the first token "
        f"of the two decides; no more than {SHARE:.0%} of the requests are.",
        header=(
            "second attempts",
            "requests",
            "of them timed",
            "caught in a pause",
            "of them answered during it",
            "TTFT p50",
            "p99",
            "longest",
        ),
        rows=(_row("off", without), _row(f"{usual.begun()}, of them {won} answered", usual)),
        checks=(
            all_served([*without.requests(), *usual.requests()], "requests"),
            Check(
                f"without second attempts {without.in_time()} of {len(without.caught())} that were caught "
                "had a first token before the worker went on",
                bool(without.caught()) and not without.in_time(),
            ),
            Check(
                f"with them {in_time} of {caught} had; at least half must",
                caught > 0 and 2 * in_time >= caught,
            ),
            Check(
                f"the gateway counts {won} second attempts that answered, and the clients {told}; the other "
                f"gateway made {without.begun()}",
                won == told and not without.begun(),
            ),
            Check(
                f"{usual.begun()} second attempts for {asked} requests are {usual.begun() / asked:.1%}",
                usual.begun() <= SHARE * asked,
            ),
            Check(
                f"the 99th percentile of TTFT is {tail:.0%} of what it is without; it must be less than half",
                tail < 0.5,
                needs_quiet=True,
            ),
        ),
    )


def _row(name: str, trial: Trial) -> tuple[str, ...]:
    ttfts_ms = trial.ttfts_ms()
    shown = (median(ttfts_ms), _p99_ms(trial), max(ttfts_ms)) if ttfts_ms else ()
    numbers = (len(trial.requests()), len(trial.timed()), len(trial.caught()), trial.in_time())
    return (name, *map(str, numbers), *(f"{ms:.0f} ms" for ms in shown))


def _p99_ms(trial: Trial) -> float:
    ttfts_ms = trial.ttfts_ms()
    return percentile_of(ttfts_ms, 0.99) if ttfts_ms else inf
