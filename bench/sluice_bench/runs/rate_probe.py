"""Probes of a rate search as real runs: Poisson arrivals, every probe with requests of its own.

Settling is to wait until one short request alone gets its first token about as fast as one did before the
search. A step that asks for recovery is one run: some requests at the rate that failed, twice as many at the
lower one straight after, and the last half of these, which has had time to find the queue gone, counts.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable

import msgspec

from sluice_bench import arrivals
from sluice_bench.answers import read_answer
from sluice_bench.arrivals import Schedule
from sluice_bench.calibration import LIMIT_SHARE, Calibration
from sluice_bench.load_run import run_blocking
from sluice_bench.loops import ClosedLoop, LoadPlan
from sluice_bench.metrics import ttft_service_s
from sluice_bench.recording.run_record import RunRecord
from sluice_bench.records import RequestRecord
from sluice_bench.run_load import RunLoad
from sluice_bench.runs.measured_run import RunSettings
from sluice_bench.runs.rate_search import ProbePoint, point_of
from sluice_bench.stats.saturation import Step
from sluice_bench.stats.slo_profiles import SloProfile
from sluice_bench.target import Target
from sluice_bench.workload import Asking, Shape, chat_requests
from sluice_bench.workloads import suites
from sluice_bench.workloads.corpus import Corpus, SuiteName
from sluice_bench.workloads.items import Workload

PATIENCE_S = 30.0
"""For a server to become idle."""
_PAUSE_S = 0.25
_ALONE = Shape(prompt_words=14, output_tokens=4)
_TRIALS = 3
_LEEWAY_S = 0.02
"""Beyond twice the first token of an idle server: a machine has hiccups of such a length."""
_LIMIT_S = 60.0


class NoAnswer(Exception):
    """The server does not answer one request alone; the message says why."""


class ProbeLoad(msgspec.Struct, frozen=True, kw_only=True):
    """What every probe has in common."""

    target: Target
    asking: Asking
    suite: SuiteName
    profile: SloProfile
    requests: int | None
    """Of one probe; or as many as its rate has in `duration_s`."""
    duration_s: float
    seed: int
    request_timeout_s: float
    command: str
    """As it was typed, without secrets."""

    def requests_at(self, rate: float) -> int:
        """How many a probe of this rate has."""
        return self.requests or max(1, math.ceil(rate * self.duration_s))


class RateProber:
    """Carries out the steps of one search."""

    def __init__(self, load: ProbeLoad, corpus: Corpus, run: Callable[[RunSettings], RunRecord]) -> None:
        """Raises `NoAnswer` and `OSError`: it asks the idle server first."""
        self._load, self._corpus, self._run = load, corpus, run
        self._asked = self._alone = 0
        self._alone_s = statistics.median(self._first_token_alone_s() for _ in range(_TRIALS))

    def probe(self, step: Step) -> ProbePoint:
        """Raises `NoAnswer` and `OSError`."""
        settled = self._settle() if step.settle else True
        count = self._load.requests_at(step.rate)
        schedule, leading = probe_schedule(step, count, self._load.seed + self._asked)
        run = self._run(self._settings(schedule))
        return point_of(
            step,
            run.requests[leading:],
            self._load.profile,
            void=probe_void(run.meta.calibration, self._load.profile),
            settled=settled,
        )

    def _settings(self, schedule: Schedule) -> RunSettings:
        load, count = self._load, len(schedule.offsets_ns)
        first, self._asked = self._asked, self._asked + count
        items = suites.build(self._corpus, load.suite, first + count, load.seed).items[first:]
        return RunSettings(
            target=load.target,
            asking=load.asking,
            load=RunLoad(workload=Workload.of(load.suite, items), schedule=schedule),
            seed=load.seed,
            request_timeout_s=load.request_timeout_s,
            command=load.command,
        )

    def _settle(self) -> bool:
        """Wait until the server is idle; `False` when it was not within `PATIENCE_S`."""
        give_up = time.monotonic() + PATIENCE_S
        while time.monotonic() < give_up:
            if self._first_token_alone_s() <= 2 * self._alone_s + _LEEWAY_S:
                return True
            time.sleep(_PAUSE_S)
        return False

    def _first_token_alone_s(self) -> float:
        self._alone += 1
        return first_token_alone_s(self._load, self._alone)


def probe_void(calibration: Calibration, profile: SloProfile) -> bool:
    """Whether the client's error is over `LIMIT_SHARE` of the cap on TTFT, or of what it measured if that is
    more: a smaller one cannot decide whether the cap was kept. That nothing completed is not its fault."""
    if calibration.reference_p99_ms is None:
        return False
    return calibration.error_ms > LIMIT_SHARE * max(calibration.reference_p99_ms, profile.ttft_ms or 0.0)


def probe_schedule(step: Step, count: int, seed: int) -> tuple[Schedule, int]:
    """When the requests of a step are due, and how many of the first do not count."""
    if step.overload_rate is None:
        offsets = arrivals.poisson(step.rate, count, seed)
        return Schedule.of("poisson", offsets, rate_per_s=step.rate, cv=1.0, seed=seed), 0
    overload = arrivals.poisson(step.overload_rate, count, seed)
    after = arrivals.poisson(step.rate, 2 * count, seed + 1)
    offsets = (*overload, *(overload[-1] + offset for offset in after))
    return Schedule.of("stages", offsets, seed=seed), 2 * count


def first_token_alone_s(load: ProbeLoad, seed: int) -> float:
    """TTFT of one short request. Raises `NoAnswer` and `OSError`."""
    plan = LoadPlan(
        target=load.target,
        requests=chat_requests(load.target, _ALONE, load.asking, 1, seed),
        loop=ClosedLoop(1),
        warm_connections=1,
        request_timeout_s=_LIMIT_S,
    )
    record: RequestRecord = read_answer(run_blocking(plan)[0])
    first = ttft_service_s(record)
    if record.failure is not None or first is None:
        why = record.message or record.failure or "no text in the answer"
        raise NoAnswer(f"{load.target.authority} does not answer one request alone: {why}")
    return first
