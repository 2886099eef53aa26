"""The slots of an A/B as real runs: what is asked in which, of whom, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from sluice_bench.calibration import Calibration
from sluice_bench.metrics import Objective
from sluice_bench.recording.run_record import RunRecord
from sluice_bench.run_load import RunLoad
from sluice_bench.runs.ab_run import PlannedSlot, SlotResult
from sluice_bench.runs.latency_figure import LatencyFigure
from sluice_bench.runs.measured_run import RunSettings, measure
from sluice_bench.schedule_options import ScheduleOptions, make_schedule
from sluice_bench.stats.paired import Slot
from sluice_bench.target import Target
from sluice_bench.workload import Asking
from sluice_bench.workloads import suites
from sluice_bench.workloads.corpus import Corpus, SuiteName
from sluice_bench.workloads.items import Workload

_SLOT_PROBES = 5
"""Of the null server in a slot, at least: short slots must not wait for a certified p99 of them."""
DILUTION = 0.1
_LATENCIES = ("ttft-p50", "ttft-mean", "tpot-p50", "e2e-p50")


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two."""

    target: Target
    asking: Asking


class SlotLoad(msgspec.Struct, frozen=True, kw_only=True):
    """What every slot has in common."""

    suite: SuiteName
    requests: int
    """Of one slot."""
    concurrency: int | None
    """Or a `rate`, of a Poisson process."""
    rate: float | None
    objective: Objective
    seed: int
    request_timeout_s: float
    command: str
    """As it was typed, without secrets."""


class Slots:
    """Measures slots of `a` and `b`. With a `folder`, the run of each is kept there."""

    def __init__(
        self, a: Variant, b: Variant, load: SlotLoad, corpus: Corpus, null: Target, folder: Path | None
    ) -> None:
        self._variants: dict[Slot, Variant] = {"a": a, "b": b}
        self._load, self._corpus, self._null, self._folder = load, corpus, null, folder

    def warm_up(self, variant: Slot) -> SlotResult:
        """A slot that no block has: connections, caches of programs and the like are not compared."""
        run = self._run(variant, 0)
        return _result(PlannedSlot(-1, 0, variant), run, self._load.objective, "")

    def measure(self, slot: PlannedSlot) -> SlotResult:
        """One slot. Raises `OSError` when the server is not there."""
        run = self._run(slot.variant, slot.half + 1)
        file = ""
        if self._folder is not None:
            from sluice_bench.recording.run_file import write_run

            path = self._folder / f"block-{slot.block + 1:03d}-{slot.position + 1}-{slot.variant}.parquet"
            write_run(run, path)
            file = path.name
        return _result(slot, run, self._load.objective, file)

    def _run(self, variant: Slot, stretch: int) -> RunRecord:
        who, load = self._variants[variant], self._load
        settings = RunSettings(
            target=who.target,
            asking=who.asking,
            load=slot_load(load, self._corpus, stretch),
            concurrency=load.concurrency,
            objective=load.objective,
            seed=load.seed,
            request_timeout_s=load.request_timeout_s,
            variant=variant,
            command=load.command,
            min_probes=_SLOT_PROBES,
        )
        return measure(settings, self._null)


def slot_load(load: SlotLoad, corpus: Corpus, stretch: int) -> RunLoad:
    """The requests number `stretch` of as many as a slot has, and when they are due: no two stretches share a
    prompt, so that no cache has seen those of another block."""
    count = load.requests
    items = suites.build(corpus, load.suite, (stretch + 1) * count, load.seed).items[stretch * count :]
    schedule = make_schedule(ScheduleOptions(rate=load.rate), count, load.seed + stretch)
    return RunLoad(workload=Workload.of(load.suite, items), schedule=schedule)


def slot_void(calibration: Calibration, figures: Mapping[str, float | None]) -> bool:
    """Whether the client's own median delay is over `DILUTION` of the median that the slot reports.

    A run's rule asks for more, because it vouches for a p99. Here medians and means are compared. What the
    client adds to A and B alike makes their difference look smaller, by `DILUTION` at most; the tail of its
    error is noise, and the blocks know how large that is.
    """
    if calibration.null_p50_ms is None:
        return True
    reference = figures["ttft-p50"] or figures["e2e-p50"]
    return reference is not None and calibration.null_p50_ms > DILUTION * reference


def _result(slot: PlannedSlot, run: RunRecord, objective: Objective, file: str) -> SlotResult:
    summary, figures = run.summary, slot_figures(run, objective)
    return SlotResult(
        block=slot.block,
        position=slot.position,
        variant=slot.variant,
        started_utc=run.meta.started_utc,
        scheduled=summary.scheduled,
        failures=summary.failures,
        void=slot_void(run.meta.calibration, figures),
        figures=figures,
        workload_sha256=run.meta.workload_sha256,
        schedule_sha256=run.meta.load.schedule_sha256,
        requests_sha256=run.meta.requests_sha256,
        records_sha256=run.meta.records_sha256,
        figures_sha256=run.meta.figures_sha256,
        file=file,
    )


def slot_figures(run: RunRecord, objective: Objective) -> dict[str, float | None]:
    """What is compared; goodput only where there is an objective to meet."""
    summary = run.summary
    seconds = {name: LatencyFigure.parse(name).over(run.requests) for name in _LATENCIES}
    figures = {name: None if value is None else value * 1000 for name, value in seconds.items()}
    figures["tokens-per-s"] = summary.whole.tokens_per_s if summary.whole else None
    if objective != Objective():
        figures["goodput"] = summary.goodput_share
    return figures
