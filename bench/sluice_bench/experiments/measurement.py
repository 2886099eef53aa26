"""Carries an experiment's plan out: starts what it needs, sends every load to every variant, keeps every run.

Variants take turns within a repeat, in an order that is drawn for it, so that a disturbance of the machine
hits all of them alike. Each run is a file of its own below `results`, from which all figures here can be
derived again.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import msgspec

from sluice_bench.calibration import Calibration
from sluice_bench.environment import Environment, describe
from sluice_bench.experiments.loads import Load
from sluice_bench.experiments.plan import Column, Group, LeftOut, Plan, QualityPlan, Variant, rounds, shuffled
from sluice_bench.experiments.results_folder import keep
from sluice_bench.experiments.stack import MODEL_NAME, Stack, running_stack
from sluice_bench.experiments.variant_quality import measure_variants
from sluice_bench.experiments.worker_counters import counters, worker_figures
from sluice_bench.metrics import Distribution, ttft_user_s
from sluice_bench.processes import ForeignCpu, ServerFailed, ServerProcess, null_server_process
from sluice_bench.quality.quality_record import QualityRecord
from sluice_bench.recording.run_record import RunRecord
from sluice_bench.run_load import RunLoad
from sluice_bench.runs.measured_run import RunSettings, measure
from sluice_bench.scrape import metrics_page
from sluice_bench.target import Target
from sluice_bench.workload import Asking
from sluice_bench.workloads.items import Workload

_WARM_UP_TOKENS = 16

OnStep = Callable[[str], None]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One load on one variant, once."""

    variant: str
    load: str
    repeat: int
    requests: int
    failures: int
    first_failure: str = ""
    misrouted: int = 0
    """Complete ones that the gateway gave to another engine than the variant's."""
    prompt_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None
    seconds: float
    """From the first request's schedule to the last end."""
    tokens_per_s: float | None
    """Output tokens over them."""
    ttft_ms: list[float]
    """Of each complete request, from the time it was due."""
    tpot_p50_ms: float | None
    e2e_p50_ms: float | None
    figures: dict[str, float]
    """By the keys of the plan's columns, and others."""
    foreign_cores: float
    calibration: Calibration
    run_file: str
    """Below the folder of results."""
    workload_sha256: str
    figures_sha256: str


class LoadFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A load as its page tells it."""

    name: str
    requests: int
    concurrency: int | None
    rate_per_s: float | None


class Experiment(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was measured: what the raw file holds and the page shows."""

    name: str
    title: str
    remarks: tuple[str, ...]
    command: str
    measured_at: str
    """UTC, ISO 8601."""
    quick: bool
    repeats: int
    environment: Environment
    model: str
    variants: tuple[str, ...]
    reference: str
    headline: str
    columns: tuple[Column, ...]
    loads: tuple[LoadFacts, ...]
    left_out: tuple[LeftOut, ...]
    commands: dict[str, str]
    """By variant, how its engine was started: without folders and port."""
    rows: list[Row]
    quality_model: str = ""
    quality: tuple[QualityRecord, ...] = ()
    """Of each variant but the reference, beside it."""


def carry_out(plan: Plan, command: str, now: str, results: Path, on_step: OnStep) -> Experiment:
    """Measure. Raises `ServerFailed` when something does not serve; nothing is left running."""
    environment = describe()
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as name:
        folder = Path(name)
        with null_server_process(folder) as null:
            run = _Run(plan, command, results, Target.parse(null.url), on_step)
            rows = [
                row
                for number, round_ in enumerate(rounds(plan))
                for row in run.round(*round_, folder / f"{number}")
            ]
            quality = run.quality(folder / "quality")
    return Experiment(
        name=plan.name,
        title=plan.title,
        remarks=plan.remarks,
        command=command,
        measured_at=now,
        quick=plan.quick,
        repeats=plan.repeats,
        environment=environment,
        model=plan.model,
        variants=tuple(variant.name for variant in plan.variants),
        reference=plan.reference,
        headline=plan.headline,
        columns=plan.columns,
        loads=tuple(
            LoadFacts(
                name=load.name,
                requests=load.requests,
                concurrency=load.concurrency,
                rate_per_s=load.rate_per_s,
            )
            for load in plan.loads
        ),
        left_out=plan.left_out,
        commands=_commands(plan),
        rows=rows,
        quality_model=plan.quality.model if plan.quality else "",
        quality=quality,
    )


def _commands(plan: Plan) -> dict[str, str]:
    commands = {}
    for group in plan.groups:
        engines = {engine.name: engine for engine in group.engines}
        for variant in group.variants:
            commands[variant.name] = shown(engines[variant.engine].command)
    return commands


def shown(command: tuple[str, ...]) -> str:
    """A command for people on other machines: no folders, no port."""
    words = [Path(word).name if word.startswith("/") else word for word in command]
    if "--port" in words:
        at = words.index("--port")
        del words[at : at + 2]
    return " ".join(words)


class _Run:
    """What all runs of an experiment share."""

    def __init__(self, plan: Plan, command: str, results: Path, null: Target, on_step: OnStep) -> None:
        self._plan = plan
        self._command = command
        self._results = results
        self._null = null
        self._quality: tuple[QualityRecord, ...] = ()
        self._on_step = on_step

    def round(self, group: Group, repeats: range, folder: Path) -> Iterator[Row]:
        """Start a group, warm it up, measure, end it."""
        folder.mkdir()
        self._on_step(f"starting {', '.join(engine.name for engine in group.engines)}")
        with running_stack(group.engines, folder) as stack:
            for variant in group.variants:
                self._warm_up(stack, variant)
            for repeat in repeats:
                for load in self._plan.loads:
                    for variant in shuffled(group.variants, repeat):
                        self._on_step(f"{variant.name}, repeat {repeat + 1}: {load.name}")
                        yield self._row(stack, variant, load, repeat)
            if self._plan.quality is not None and self._plan.quality.group == group:
                self._quality = self._qualities(stack, self._plan.quality)

    def quality(self, folder: Path) -> tuple[QualityRecord, ...]:
        """Of the variants of the plan's quality; on engines started for it if no group was the same."""
        plan = self._plan.quality
        if plan is None or self._quality:
            return self._quality
        folder.mkdir()
        self._on_step(f"starting {', '.join(engine.name for engine in plan.group.engines)}")
        with running_stack(plan.group.engines, folder) as stack:
            return self._qualities(stack, plan)

    def _qualities(self, stack: Stack, plan: QualityPlan) -> tuple[QualityRecord, ...]:
        return tuple(measure_variants(stack, plan, self._command, self._on_step))

    def _warm_up(self, stack: Stack, variant: Variant) -> None:
        """As many requests at a time as will come, with short answers."""
        load = max(self._plan.loads, key=lambda load: load.concurrency or 0)
        count = load.concurrency or 1
        items = (
            msgspec.structs.replace(item, max_tokens=min(item.max_tokens, _WARM_UP_TOKENS), min_tokens=None)
            for item in load.workload_of(count, 0).items
        )
        warm_load = RunLoad(workload=Workload.of("warm-up", items), schedule=None)
        run = self._measured(stack, variant, self._settings(stack, variant, warm_load, count, seed=0))
        if failed := [record for record in run.requests if record.failure is not None]:
            server = stack.engines[variant.engine]
            raise ServerFailed(
                f"{variant.name}: {len(failed)} warm-up requests failed, the first with {failed[0].failure}: "
                f"{failed[0].message}\n{server.tail()}"
            )

    def _settings(
        self, stack: Stack, variant: Variant, load: RunLoad, concurrency: int | None, seed: int
    ) -> RunSettings:
        server = stack.engines[variant.engine] if variant.direct else stack.gateway
        return RunSettings(
            target=Target.parse(server.url),
            asking=Asking(model=MODEL_NAME, ignore_eos=True, headers=variant.headers),
            load=load,
            concurrency=concurrency,
            seed=seed,
            request_timeout_s=900,
            hard_stop_s=1800,
            variant=variant.name,
            command=self._command,
        )

    def _measured(self, stack: Stack, variant: Variant, settings: RunSettings) -> RunRecord:
        try:
            return measure(settings, self._null)
        except OSError as error:
            raise ServerFailed(
                f"{variant.name} cannot be reached: {error}\n{stack.gateway.tail()}"
            ) from error

    def _row(self, stack: Stack, variant: Variant, load: Load, repeat: int) -> Row:
        server, kv_bytes_per_token = stack.engines[variant.engine], self._plan.kv_bytes_per_token
        settings = self._settings(stack, variant, load.build(repeat), load.concurrency, load.seed(repeat))
        before, foreign = counters(metrics_page(server.url)), ForeignCpu(os.getpid())
        run = self._measured(stack, variant, settings)
        foreign_cores = foreign.cores()
        figures = worker_figures(before, counters(metrics_page(server.url)), kv_bytes_per_token)
        path = keep(run, self._results)
        return row_of(
            run,
            engine=variant.engine,
            load=load.name,
            repeat=repeat,
            figures={**figures, **_memory(server)},
            foreign_cores=foreign_cores,
            run_file=str(path.relative_to(self._results)),
        )


def _memory(server: ServerProcess) -> dict[str, float]:
    """`resident_mb`: of the engine's largest process, which holds the weights; `weights_mb` if it tells."""
    figures = {"resident_mb": server.largest_resident_bytes() / 1e6}
    with suppress(URLError, OSError, msgspec.DecodeError), urlopen(f"{server.url}/model", timeout=5) as page:
        figures["weights_mb"] = msgspec.json.decode(page.read(), type=_ModelPage).weight_bytes / 1e6
    return figures


class _ModelPage(msgspec.Struct):
    weight_bytes: int


def row_of(
    run: RunRecord,
    *,
    engine: str,
    load: str,
    repeat: int,
    figures: dict[str, float],
    foreign_cores: float,
    run_file: str,
) -> Row:
    """A run as a row; `engine` is the one that should have served it."""
    summary = run.summary
    failed = [record for record in run.requests if record.failure is not None]
    waits = [ttft_user_s(record) for record in run.requests if record.failure is None]
    return Row(
        variant=run.meta.variant,
        load=load,
        repeat=repeat,
        requests=summary.scheduled,
        failures=len(failed),
        first_failure=f"{failed[0].failure}: {failed[0].message}" if failed else "",
        misrouted=sum(record.backend not in ("", engine) for record in run.requests),
        prompt_tokens=summary.prompt_tokens,
        output_tokens=summary.output_tokens,
        cached_tokens=summary.cached_tokens,
        seconds=summary.whole.seconds if summary.whole else 0.0,
        tokens_per_s=summary.whole.tokens_per_s if summary.whole else None,
        ttft_ms=[round(wait_s * 1000, 3) for wait_s in waits if wait_s is not None],
        tpot_p50_ms=_p50(summary.tpot_ms),
        e2e_p50_ms=_p50(summary.e2e_ms),
        figures=figures,
        foreign_cores=foreign_cores,
        calibration=run.meta.calibration,
        run_file=run_file,
        workload_sha256=run.meta.workload_sha256,
        figures_sha256=run.meta.figures_sha256,
    )


def _p50(found: Distribution | None) -> float | None:
    return None if found is None else found.p50
