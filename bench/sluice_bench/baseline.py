"""The foundation's first figures, in one go: gateway CPU cost, worker throughput, and the page about them.

Everything is measured on the machine it runs on, by child processes that it starts and ends itself.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from sluice_bench import gateway_overhead, worker_throughput
from sluice_bench.environment import Environment, describe
from sluice_bench.gateway_overhead import OverheadLoad, OverheadRow, measure_overhead
from sluice_bench.processes import ServerFailed
from sluice_bench.worker_throughput import ModelFigures, ThroughputLoad, measure_model

BUNDLED_MODEL = Path("worker-core/models/sluice-tiny")
"""Where the bundled model lies, seen from the root of the repository."""


class BaselineSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure, and how long."""

    quick: bool = False
    """Tiny counts and a toy model: shows that it all works, its figures mean nothing."""
    gateway: bool = True
    worker: bool = True
    bundled_model: Path = BUNDLED_MODEL
    repeats: int | None = None
    """Overrides both loads' repeats."""
    threads: int | None = None
    """Of every engine; `None`: all cores."""

    @property
    def overhead_load(self) -> OverheadLoad:
        """Of the gateway part."""
        load = gateway_overhead.QUICK_LOAD if self.quick else OverheadLoad()
        return msgspec.structs.replace(load, repeats=self.repeats) if self.repeats else load

    @property
    def throughput_load(self) -> ThroughputLoad:
        """Of the worker part."""
        load = worker_throughput.QUICK_THROUGHPUT if self.quick else ThroughputLoad()
        return msgspec.structs.replace(
            load, repeats=self.repeats or load.repeats, threads=self.threads or load.threads
        )

    @property
    def random_shape(self) -> str:
        """Name in `checkpoint.SHAPES` of the random model."""
        return "toy" if self.quick else "tinyllama-1.1b"


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was measured: what the raw file holds and the report shows."""

    command: str
    measured_at: str
    """UTC, ISO 8601."""
    quick: bool
    environment: Environment
    overhead_load: OverheadLoad
    throughput_load: ThroughputLoad
    gateway: list[OverheadRow]
    worker: list[ModelFigures]


def number_of_steps(settings: BaselineSettings) -> int:
    """How often `on_step` is called."""
    steps = gateway_overhead.number_of_steps(settings.overhead_load) if settings.gateway else 0
    per_model = worker_throughput.number_of_steps(settings.throughput_load)
    return steps + (1 + 2 * per_model if settings.worker else 0)


def measure_baseline(
    settings: BaselineSettings, command: str, measured_at: str, on_step: Callable[[str], None]
) -> Baseline:
    """Measure. Raises `ServerFailed` with the reason when a part cannot run; nothing is left running."""
    environment = describe()
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as name:
        folder = Path(name)
        gateway = measure_overhead(settings.overhead_load, folder, on_step) if settings.gateway else []
        worker = _measure_worker(settings, folder, on_step) if settings.worker else []
    return Baseline(
        command=command,
        measured_at=measured_at,
        quick=settings.quick,
        environment=environment,
        overhead_load=settings.overhead_load,
        throughput_load=settings.throughput_load,
        gateway=gateway,
        worker=worker,
    )


def _measure_worker(
    settings: BaselineSettings, folder: Path, on_step: Callable[[str], None]
) -> list[ModelFigures]:
    bundled = settings.bundled_model
    if not (bundled / "config.json").is_file():
        raise ServerFailed(
            f"There is no model in {bundled}; run this from the root of the repository, "
            "or give the folder with --bundled-model."
        )
    on_step(f"making a random checkpoint in the shape of {settings.random_shape}")
    checkpoint = folder / settings.random_shape
    make_checkpoint(settings.random_shape, bundled, checkpoint)
    load = settings.throughput_load
    return [
        measure_model(bundled.resolve().name, bundled, load, folder, on_step),
        measure_model(f"random {settings.random_shape}", checkpoint, load, folder, on_step),
    ]


def make_checkpoint(shape: str, tokenizer: Path, target: Path) -> None:
    """Write a random checkpoint (`checkpoint.SHAPES`) from a child process. Raises `ServerFailed`."""
    command = [sys.executable, "-m", "sluice_bench.checkpoint", shape, str(tokenizer), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ServerFailed(f"the random checkpoint could not be made:\n{done.stderr[-500:]}")
