"""The figures of one simulation, from what became of its requests. Pure.

Requests that only warm the fleet up are in no figure, except where a figure is of the whole run (endings,
refusals, decisions).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from sluice_bench.simulator.fleet import Fleet
from sluice_bench.simulator.ideal import ideal_share
from sluice_bench.simulator.tally import COMPLETE, OUTPUT_WEIGHT, Tally
from sluice_bench.stats.percentile import percentile_of_sorted
from sluice_router.recorded_router import RecordedRouter
from sluice_router.router import Router
from sluice_router.types import PRIORITIES

SLO_S: Mapping[str, float] = {"interactive": 2.0, "default": 10.0, "bulk": 300.0}
"""Seconds to the first token, by class."""


class ClassFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Of one class; seconds. `None` where nothing was served."""

    requests: int
    goodput: float
    ttft_p50_s: float | None
    ttft_p90_s: float | None
    ttft_p99_s: float | None
    ttft_p999_s: float | None = None
    max_wait_s: float = 0.0
    """Longest stay in a gateway's queue of one that was served."""


class SimFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Of one simulation. Shares are of 1."""

    policy: str
    seed: int
    load: float
    """Offered rate over the fleet's capacity, as asked for."""
    requests: int
    goodput: float
    """Share of all requests whose first token came within their class's time, and that ended well."""
    ideal: float
    """The share that there was capacity for."""
    classes: dict[str, ClassFigures]
    itl_p99_s: float | None
    hit_rate: float
    """Of the prompt tokens of what was served."""
    endings: dict[str, int]
    """Of requests."""
    refusals: dict[str, int]
    """Of tries, by outcome, over the whole run."""
    honesty: float | None
    """Share of first tries after an obeyed `Retry-After` that were admitted; `None` when there were none."""
    obeyed: int
    jain: float
    """Index of the tenants' service over what each could have had."""
    max_gap_tokens: float
    others_ttft_p95_s: float | None
    """Of all tenants but the first."""
    load_cv: float
    wasted_prefill: float
    """Share of the prefilled tokens that did no good: computed again, or for requests that were not good."""
    preemptions: int
    hedges: dict[str, int] = {}
    """Second attempts by what became of them, over the whole run, and those that were not made."""
    hedged_work: float = 0.0
    """Work for attempts that were given up, over all work; a prompt token is one, an output token two."""
    admit_p50_us: float = 0.0
    admit_p99_us: float = 0.0
    decisions_s: float = 0.0
    """Real time in the balancers."""
    engine_s: float = 0.0
    """Real time in everything else of the simulation."""

    @property
    def of_ideal(self) -> float:
        """Goodput over what there was capacity for."""
        return self.goodput / self.ideal if self.ideal else 0.0

    @property
    def hedged(self) -> float:
        """Second attempts, over all requests."""
        begun = sum(self.hedges.get(result, 0) for result in ("won", "lost", "failed", "left"))
        return begun / max(1, sum(self.endings.values()))

    @property
    def requests_per_s(self) -> float:
        """Simulated requests in a second of real time, decisions included."""
        return sum(self.endings.values()) / max(1e-9, self.decisions_s + self.engine_s)


def figures(fleet: Fleet, load: float, real_s: float) -> SimFigures:
    """After the run, which took `real_s` of real time."""
    tally, settings = fleet.tally, fleet.settings
    total = len(tally.arrived)
    first = settings.warm_up_requests
    good = [is_good(tally, number) for number in range(total)]
    served = [number for number in range(first, total) if not math.isnan(tally.ttft[number])]
    prompts = sum(tally.prompt[number] for number in served)
    admits = sorted(fleet.stopwatch.admits_ns)
    decisions_s = fleet.stopwatch.total_ns / 1e9
    window_s = max(tally.arrived) - tally.arrived[first] if total > first else 0.0
    return SimFigures(
        policy=settings.policy,
        seed=settings.seed,
        load=load,
        requests=total - first,
        goodput=sum(good[first:]) / max(1, total - first),
        ideal=ideal_share(tally, first, window_s + SLO_S["interactive"], settings.replicas, settings.shape),
        classes=_classes(tally, first, good),
        itl_p99_s=_percentile([tally.itl[n] for n in served if not math.isnan(tally.itl[n])], 0.99),
        hit_rate=sum(tally.cached[number] for number in served) / prompts if prompts else 0.0,
        endings=_counts(tally.ending),
        refusals=dict(tally.refusals),
        honesty=tally.obeyed_admitted / tally.obeyed if tally.obeyed else None,
        obeyed=tally.obeyed,
        jain=jain(_satisfaction(tally)),
        max_gap_tokens=fleet.observer.max_gap_tokens,
        others_ttft_p95_s=_percentile(
            [tally.ttft[number] for number in served if tally.tenant[number] != "tenant-0"], 0.95
        ),
        load_cv=statistics.fmean(fleet.observer.load_cv) if fleet.observer.load_cv else 0.0,
        wasted_prefill=_wasted(fleet, good),
        preemptions=sum(engine.preemptions for engine in fleet.engines),
        hedges=_hedges(fleet),
        hedged_work=_hedged_work(fleet),
        admit_p50_us=percentile_of_sorted(admits, 0.5) / 1e3,
        admit_p99_us=percentile_of_sorted(admits, 0.99) / 1e3,
        decisions_s=decisions_s,
        engine_s=max(0.0, real_s - decisions_s),
    )


def is_good(tally: Tally, number: int) -> bool:
    """Whether a request was served whole, and begun in time. What was never begun compares false."""
    limit_s = SLO_S[PRIORITIES[tally.priority[number]]]
    return tally.ttft[number] <= limit_s and tally.ending[number] == COMPLETE


def _classes(tally: Tally, first: int, good: Sequence[bool]) -> dict[str, ClassFigures]:
    found = {}
    for place, name in enumerate(PRIORITIES):
        numbers = [n for n in range(first, len(tally.arrived)) if tally.priority[n] == place]
        if not numbers:
            continue
        ttft = [tally.ttft[n] for n in numbers if not math.isnan(tally.ttft[n])]
        waits = [tally.waited[n] for n in numbers if tally.ending[n] == COMPLETE]
        found[name] = ClassFigures(
            requests=len(numbers),
            goodput=sum(good[n] for n in numbers) / len(numbers),
            ttft_p50_s=_percentile(ttft, 0.5),
            ttft_p90_s=_percentile(ttft, 0.9),
            ttft_p99_s=_percentile(ttft, 0.99),
            ttft_p999_s=_percentile(ttft, 0.999),
            max_wait_s=max(waits, default=0.0),
        )
    return found


def _percentile(values: Sequence[float], share: float) -> float | None:
    return percentile_of_sorted(sorted(values), share) if values else None


def _counts(endings: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for ending in endings:
        counts[ending] = counts.get(ending, 0) + 1
    return counts


def _wasted(fleet: Fleet, good: Sequence[bool]) -> float:
    tally = fleet.tally
    computed = sum(engine.prefilled_tokens for engine in fleet.engines)
    useful = sum(
        tally.prompt[number] - tally.cached[number] for number, was_good in enumerate(good) if was_good
    )
    return max(0.0, 1 - useful / computed) if computed else 0.0


def _hedges(fleet: Fleet) -> dict[str, int]:
    counts: dict[str, int] = {}
    for gateway in fleet.gateways:
        balancer = gateway.balancer
        if isinstance(balancer, Router | RecordedRouter):
            for result, count in balancer.snapshot().hedges.items():
                counts[result.value] = counts.get(result.value, 0) + count
    return counts


def _hedged_work(fleet: Fleet) -> float:
    work = sum(engine.prefilled_tokens for engine in fleet.engines) + OUTPUT_WEIGHT * sum(fleet.tally.made)
    return fleet.tally.hedged_tokens / work if work else 0.0


def _satisfaction(tally: Tally) -> list[float]:
    """Each tenant's service over its fair share: what it asked for, or an equal part if that is less.

    The equal part is found by filling up: what those who ask for little leave is shared among the others.
    """
    asked: dict[str, int] = {}
    for tenant, prompt, output in zip(tally.tenant, tally.prompt, tally.output, strict=True):
        asked[tenant] = asked.get(tenant, 0) + prompt + 2 * output
    got: dict[str, int] = dict.fromkeys(asked, 0)
    for tenant, ending, prompt, made in zip(
        tally.tenant, tally.ending, tally.prompt, tally.made, strict=True
    ):
        got[tenant] += prompt + 2 * made if ending == COMPLETE else 0
    fair = fair_shares(asked, sum(got.values()))
    return [got[tenant] / fair[tenant] for tenant in asked if fair[tenant]]


def fair_shares(asked: Mapping[str, float], total: float) -> dict[str, float]:
    """`total` by filling up: nobody gets more than asked for, and the others the same."""
    shares: dict[str, float] = {}
    left, remaining = total, sorted(asked, key=lambda name: asked[name])
    while remaining:
        name = remaining.pop(0)
        shares[name] = min(asked[name], left / (len(remaining) + 1))
        left -= shares[name]
    return shares


def jain(values: Sequence[float]) -> float:
    """(sum x)^2 / (n sum x^2): 1 when all are equal, 1/n when one has everything."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0
