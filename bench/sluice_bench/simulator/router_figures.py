"""The router's figures against their bars: the first table of its report. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from sluice_bench.figure import Figure
from sluice_bench.simulator.fleet import SLUICE
from sluice_bench.simulator.sim_figures import SLO_S, SimFigures
from sluice_bench.simulator.sim_plan import LOAD_PRESETS
from sluice_bench.simulator.sim_report import Result, SimReport

ValueOf = Callable[[SimFigures], float | None]


def figures(report: SimReport) -> list[Figure]:
    """In the order of the page; a figure whose section was not simulated has no value."""
    results = report.results
    return [
        *_decisions(report),
        *(_overload(results, preset) for preset in LOAD_PRESETS),
        _gateways(results, "16", "16 gateways: goodput over that of 1", 95),
        _gateways(results, "16, none shares", "the same with nothing shared", 75),
        *(
            _figure(
                f"Retry-After honesty, {word}",
                "%",
                90,
                _seeds(results, "clients", value, _honesty),
                higher=True,
            )
            for word, value in (("bursts", "bursts, all obey"), ("lasting overload", "a fifth obeys"))
        ),
        _fairness(results),
        _starvation(results),
        _slow(results),
        *_pauses(results),
        *_speed(report),
    ]


def _figure(
    name: str, unit: str, bar: float, values: Sequence[float], *, higher: bool = False, note: str = ""
) -> Figure:
    return Figure(
        name=name,
        unit=unit,
        bar=bar,
        aim=None,
        value=round(statistics.median(values), 3) if values else None,
        spread=(min(values), max(values)) if len(values) > 1 else None,
        higher_is_better=higher,
        note=note,
    )


def _seeds(
    results: Sequence[Result], question: str, value: str, value_of: ValueOf, policy: str = SLUICE
) -> list[float]:
    """A value of every seed, in the order of the seeds."""
    found = sorted(
        (result.figures.seed, number)
        for result in results
        if (result.question, result.value, result.figures.policy) == (question, value, policy)
        and (number := value_of(result.figures)) is not None
    )
    return [number for _, number in found]


def _over(numbers: Sequence[float], others: Sequence[float], scale: float = 1.0) -> list[float]:
    """Seed by seed."""
    return [scale * one / other for one, other in zip(numbers, others, strict=False) if other]


def _goodput(found: SimFigures) -> float:
    return found.goodput


def _honesty(found: SimFigures) -> float | None:
    return None if found.honesty is None else 100 * found.honesty


def _ttft_p99(found: SimFigures) -> float | None:
    return next(iter(found.classes.values())).ttft_p99_s


def _decisions(report: SimReport) -> list[Figure]:
    speed = report.speed
    where = f"one admission, {report.speed_replicas or 1000:,} replicas"
    return [
        _figure(f"{where}, p50", "µs", 150, [] if speed is None else [speed.admit_p50_us]),
        _figure(f"{where}, p99", "µs", 500, [] if speed is None else [speed.admit_p99_us]),
    ]


def _overload(results: Sequence[Result], preset: str) -> Figure:
    question = f"load-{preset}"
    mine = _seeds(results, question, "2", lambda found: 100 * found.of_ideal)
    others = {
        result.figures.policy
        for result in results
        if result.question == question and result.figures.policy != SLUICE
    }
    best = max(
        (
            (statistics.median(values), policy)
            for policy in others
            if (values := _seeds(results, question, "2", lambda found: 100 * found.of_ideal, policy))
        ),
        default=None,
    )
    note = "" if best is None else f"best baseline: {best[1]} with {best[0]:.0f} %"
    return _figure(
        f"goodput at twice the capacity, of the ideal, {preset}", "%", 85, mine, higher=True, note=note
    )


def _gateways(results: Sequence[Result], value: str, name: str, bar: float) -> Figure:
    one = _seeds(results, "gateways", "1", _goodput)
    many = _seeds(results, "gateways", value, _goodput)
    return _figure(name, "%", bar, _over(many, one, 100), higher=True)


def _fairness(results: Sequence[Result]) -> Figure:
    alone, abused = (
        _seeds(results, "tenants", value, lambda found: found.others_ttft_p95_s)
        for value in ("without it", "one at 50×")
    )
    longer = [ratio - 100 for ratio in _over(abused, alone, 100)]
    return _figure("one tenant at 50×: others' p95 TTFT, longer by", "%", 10, longer)


def _starvation(results: Sequence[Result]) -> Figure:
    def worst(found: SimFigures) -> float:
        return max(found_class.max_wait_s / SLO_S[name] for name, found_class in found.classes.items())

    values = _seeds(results, "classes", "0.9", worst)
    return _figure("longest wait over the class's budget, load 0.9", "", 1.1, values)


def _slow(results: Sequence[Result]) -> Figure:
    mine = _seeds(results, "slow", "one slow", _ttft_p99)
    others = _seeds(results, "slow", "one slow", _ttft_p99, "round-robin")
    return _figure("one of three slow: p99 TTFT over round-robin's", "", 0.5, _over(mine, others))


def _pauses(results: Sequence[Result]) -> list[Figure]:
    def latest(found: SimFigures) -> float | None:
        return next(iter(found.classes.values())).ttft_p999_s

    hedged = _seeds(results, "pauses", "are hedged", latest)
    alone = _seeds(results, "pauses", "wait", latest)
    work = _seeds(results, "pauses", "are hedged", lambda found: 100 * found.hedged_work)
    return [
        _figure("engines that pause: p99.9 TTFT over that without hedges", "", 0.6, _over(hedged, alone)),
        _figure("the same: work for attempts that were given up", "%", 2, work),
    ]


def _speed(report: SimReport) -> list[Figure]:
    speed = report.speed
    total = 0 if speed is None else sum(speed.endings.values())
    real_s = 0.0 if speed is None else speed.decisions_s + speed.engine_s
    return [
        _figure(
            "simulated requests/s, decisions included",
            "",
            20_000,
            [] if speed is None else [round(speed.requests_per_s)],
            higher=True,
        ),
        _figure(
            "a million simulated requests", "s", 60, [] if speed is None else [real_s * 1e6 / max(1, total)]
        ),
    ]
