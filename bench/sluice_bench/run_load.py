"""From the options of `sluice-bench run` to what is asked and when."""

from __future__ import annotations

import msgspec

from sluice_bench.arrivals import Schedule
from sluice_bench.schedule_options import ScheduleOptions, make_schedule
from sluice_bench.workloads import preset_plan, suites
from sluice_bench.workloads.corpus import SuiteName, load_corpus
from sluice_bench.workloads.items import Workload
from sluice_bench.workloads.preset_plan import Planned
from sluice_bench.workloads.presets import PRESETS, PresetName


class LoadOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What was typed."""

    requests: int
    seed: int
    concurrency: int | None
    arrivals: ScheduleOptions
    suite: SuiteName
    preset: PresetName | None
    """In place of the suite, and of the arrivals when there are none."""
    fit: int | None
    """Positions of the server's model, for a preset."""


class RunLoad(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked, and when; a closed loop has no schedule."""

    workload: Workload
    schedule: Schedule | None
    remark: str = ""
    """What a preset asks for beside what is published of its trace."""

    def lines(self) -> list[str]:
        """What to print before a run: digests, and the remark."""
        text = f"{len(self.workload.items)} requests of {self.workload.name}, sha256 {self.workload.sha256}"
        if self.schedule is not None:
            text = f"{text}; {self.schedule.kind} arrivals, sha256 {self.schedule.sha256}"
        return [text, self.remark] if self.remark else [text]


def choose_load(options: LoadOptions) -> RunLoad:
    """Raises `ValueError`, `CorpusError` and, without the trace's file, `OSError`."""
    given = (options.concurrency is not None) + options.arrivals.open_loops
    if given > 1 or (given == 0 and options.preset is None):
        raise ValueError(
            "give either --concurrency N (closed loop), or --rate N, --ramp or --trace (open loop)"
        )
    if options.fit is not None and options.preset is None:
        raise ValueError("--fit scales the lengths of a --preset; suites have lengths of their own")
    schedule = make_schedule(options.arrivals, options.requests, options.seed)
    if options.preset is None:
        workload = suites.build(load_corpus(), options.suite, options.requests, options.seed)
        return RunLoad(workload=workload, schedule=schedule)
    return _preset_load(options, options.preset, schedule, own_arrivals=given == 0)


def _preset_load(
    options: LoadOptions, name: PresetName, schedule: Schedule | None, own_arrivals: bool
) -> RunLoad:
    planned = preset_plan.plan(name, options.requests, options.seed, options.fit)
    if own_arrivals:
        schedule = preset_plan.schedule(name, options.requests, options.seed)
        if schedule is None:
            raise ValueError(f"sessions set the pace of {name}; give it a --concurrency")
    return RunLoad(
        workload=preset_plan.workload(load_corpus(), name, planned, options.seed),
        schedule=schedule,
        remark=_remark(name, planned, schedule, preset_plan.scale(name, options.fit)),
    )


def _remark(name: PresetName, planned: list[Planned], schedule: Schedule | None, scale: float) -> str:
    preset = PRESETS[name]
    found = preset_plan.achieved(planned, schedule)
    figures = ", ".join(
        f"{what} {found[what]:.4g} ({published:.4g})"
        for what, published in preset.published.items()
        if what in found
    )
    scaled = "" if scale == 1 else f" Lengths are scaled by {scale:.3g}."
    return f"Shaped after {preset.after}, not the trace itself. Asked for (published): {figures}.{scaled}"
