"""From the options of `sluice-bench run` to what is asked and when."""

from __future__ import annotations

import msgspec

from sluice_bench.arrivals import NS_PER_S, Schedule
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
    warm_up: int = 0
    """Requests before the measured ones."""


_WARM_UP_SEED = 2**32
"""Added to the seed: other tags, so other prompts than any that are measured, and other arrivals."""


class WarmUp(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked before the measured requests, like them and as often, and in no figure."""

    workload: Workload
    offsets_ns: tuple[int, ...] = ()
    """When each is due; of a closed loop none, there the measured ones follow when users are free."""
    lasts_ns: int = 0
    """From the first one's schedule to the beginning of the measured ones'."""


class RunLoad(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked, and when; a closed loop has no schedule."""

    workload: Workload
    schedule: Schedule | None
    remark: str = ""
    """What a preset asks for beside what is published of its trace."""
    warm_up: WarmUp | None = None

    @property
    def requests(self) -> int:
        """How many are sent, those of the warm-up included."""
        return len(self.workload.items) + (len(self.warm_up.workload.items) if self.warm_up else 0)

    def first(self, count: int) -> RunLoad:
        """What a load of `count` requests would have been: a longer one begins with the shorter one."""
        schedule = self.schedule
        if schedule is not None:
            schedule = Schedule.of(
                schedule.kind,
                schedule.offsets_ns[:count],
                rate_per_s=schedule.rate_per_s,
                cv=schedule.cv,
                seed=schedule.seed,
            )
        workload = Workload.of(self.workload.name, self.workload.items[:count])
        return msgspec.structs.replace(self, workload=workload, schedule=schedule)

    def lines(self) -> list[str]:
        """What to print before a run: digests, and the remark."""
        text = f"{len(self.workload.items)} requests of {self.workload.name}, sha256 {self.workload.sha256}"
        if self.schedule is not None:
            text = f"{text}; {self.schedule.kind} arrivals, sha256 {self.schedule.sha256}"
        if self.warm_up is not None:
            text = f"{text}; before them {len(self.warm_up.workload.items)} others to warm up"
        return [text, self.remark] if self.remark else [text]


def choose_load(options: LoadOptions) -> RunLoad:
    """Raises `ValueError`, `CorpusError` and, without the trace's file, `OSError`.

    The measured requests and the gaps between them are the same with and without a warm-up.
    """
    chosen = _chosen(options)
    if not options.warm_up:
        return chosen
    before = _chosen(
        msgspec.structs.replace(options, requests=options.warm_up, seed=options.seed + _WARM_UP_SEED)
    )
    return msgspec.structs.replace(chosen, warm_up=_warm_up(before))


def _warm_up(before: RunLoad) -> WarmUp:
    if before.schedule is None:
        return WarmUp(workload=before.workload)
    offsets, rate = before.schedule.offsets_ns, before.schedule.rate_per_s
    gap_ns = offsets[-1] // len(offsets) if rate is None else round(NS_PER_S / rate)
    return WarmUp(workload=before.workload, offsets_ns=offsets, lasts_ns=offsets[-1] + gap_ns)


def _chosen(options: LoadOptions) -> RunLoad:
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
