"""What each rung of the batching ladder buys: the same requests against every mode of the same worker.

A rung is a batching mode and a way to give KV memory; `sluice-worker serve` is started anew for each, with
the same little KV memory. All rungs get byte for byte the same requests in the same order, drawn from a fixed
seed: prompts of one length, answers of very different lengths that the server cannot foresee. Rungs take
turns within each repeat, in an order that is drawn for it.

Two closed loops (users who wait for their answer) and one open loop (users who do not).
"""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal
from urllib.request import urlopen

import msgspec
import psutil

from sluice_bench import arrivals
from sluice_bench.answers import read_answers
from sluice_bench.baseline import BUNDLED_MODEL, make_checkpoint
from sluice_bench.calibration import CalibratedRun, Calibration, run_calibrated
from sluice_bench.environment import Environment, describe
from sluice_bench.load_run import run_blocking
from sluice_bench.loops import ClosedLoop, LoadPlan, OpenLoop
from sluice_bench.metrics import Objective, summarise, ttft_user_s
from sluice_bench.processes import (
    ForeignCpu,
    ServerFailed,
    ServerProcess,
    free_port,
    null_server_process,
    script,
)
from sluice_bench.target import Target
from sluice_bench.worker_throughput import told_tokens
from sluice_bench.workload import Asking, early_ending_requests, geometric_lengths, random_token_prompts

Batching = Literal["none", "static", "dynamic", "continuous"]
KV = Literal["dense", "paged"]

_LOW_ID, _HIGH_ID = 300, 2000
"""Prompt ids are drawn from here: past bytes and special tokens, inside small vocabularies."""


class Rung(msgspec.Struct, frozen=True):
    """One way to run the worker."""

    batching: Batching
    kv: KV

    @property
    def name(self) -> str:
        """As `--only` takes it."""
        return f"{self.batching}-{self.kv}"


RUNGS = tuple(
    Rung(batching, kv)
    for batching in ("none", "static", "dynamic", "continuous")
    for kv in ("dense", "paged")
)


class LadderModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model to climb with."""

    name: str
    shape: str | None
    """In `checkpoint.SHAPES`; `None` is the bundled model."""
    dtype: Literal["float32", "bfloat16"]
    rate: float
    """Requests per second of the open loop: more than one at a time can answer, less than many can."""


MODELS = (
    LadderModel(name="random tinyllama-1.1b", shape="tinyllama-1.1b", dtype="bfloat16", rate=1.0),
    LadderModel(name="sluice-tiny", shape=None, dtype="float32", rate=60.0),
)
QUICK_MODELS = (LadderModel(name="random toy", shape="toy", dtype="float32", rate=60.0),)


def choose_rungs(names: Sequence[str] | None) -> tuple[Rung, ...]:
    """The rungs that are named, by mode or whole; all without names. Raises `ValueError`."""
    known = dict.fromkeys(rung.batching for rung in RUNGS) | dict.fromkeys(rung.name for rung in RUNGS)
    _check_known(names, tuple(known), "--only")
    return tuple(rung for rung in RUNGS if not names or {rung.name, rung.batching} & set(names))


def choose_models(known: Sequence[LadderModel], names: Sequence[str] | None) -> tuple[LadderModel, ...]:
    """The models that are named, by the last word of theirs; all without names. Raises `ValueError`."""
    short = {model.name.rpartition(" ")[2]: model for model in known}
    _check_known(names, tuple(short), "--model")
    return tuple(model for name, model in short.items() if not names or name in names)


def _check_known(names: Sequence[str] | None, known: Sequence[str], option: str) -> None:
    for name in names or ():
        if name not in known:
            raise ValueError(f"{option} does not know {name}; choose from {', '.join(known)}.")


class LadderLoad(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked, and of what kind of worker."""

    prompt_tokens: int = 128
    mean_output_tokens: int = 64
    least_output_tokens: int = 16
    most_output_tokens: int = 192
    max_tokens: int = 256
    """What every request may take, and a dense cache reserves."""
    concurrencies: tuple[int, ...] = (4, 16)
    waves: tuple[int, ...] = (5, 2)
    """Requests per place of each closed loop."""
    open_requests: int = 20
    repeats: int = 3
    dense_requests: int = 8
    """KV memory of the worker, in requests that it holds with all that they may take."""
    max_batch: int = 8
    batch_wait_ms: float = 50.0
    seed: int = 1
    threads: int = msgspec.field(default_factory=lambda: psutil.cpu_count() or 1)

    @property
    def kv_tokens(self) -> int:
        """KV memory of the worker, in tokens."""
        return self.dense_requests * (self.prompt_tokens + self.max_tokens)

    @property
    def load_names(self) -> tuple[str, ...]:
        """Of the loads, in the order in which they are sent."""
        return (*(f"{n} concurrent" for n in self.concurrencies), "Poisson")


QUICK_LOAD = LadderLoad(
    prompt_tokens=16,
    mean_output_tokens=8,
    least_output_tokens=2,
    most_output_tokens=24,
    max_tokens=32,
    waves=(1, 1),
    open_requests=4,
    repeats=1,
)
"""For trying the machinery; its figures mean nothing."""


class LadderSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure."""

    load: LadderLoad
    models: tuple[LadderModel, ...] = MODELS
    rungs: tuple[Rung, ...] = RUNGS
    bundled_model: Path = BUNDLED_MODEL


class LadderRow(msgspec.Struct, frozen=True, kw_only=True):
    """One load on one rung, once."""

    model: str
    rung: Rung
    load: str
    repeat: int
    requests: int
    failures: int
    first_failure: str = ""
    output_tokens: int
    cached_tokens: int
    seconds: float
    tokens_per_s: float
    """Output tokens over the whole window."""
    ttft_ms: list[float]
    """Of each complete request, from the time it was due."""
    tpot_p50_ms: float | None
    mean_batch: float
    """Sequences in a step."""
    kv_utilisation: float
    """Tokens in the cache over tokens reserved, mean over steps."""
    preemptions: int
    foreign_cores: float
    calibration: Calibration


class Ladder(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was measured: what the raw file holds and the report shows."""

    command: str
    measured_at: str
    """UTC, ISO 8601."""
    quick: bool
    environment: Environment
    load: LadderLoad
    models: tuple[LadderModel, ...]
    rungs: tuple[Rung, ...]
    rows: list[LadderRow]


def number_of_steps(settings: LadderSettings) -> int:
    """How often `on_step` is called."""
    per_rung = 1 + len(settings.load.load_names)
    return len(settings.models) * (1 + settings.load.repeats * len(settings.rungs) * per_rung)


def measure_ladder(
    settings: LadderSettings, command: str, measured_at: str, quick: bool, on_step: Callable[[str], None]
) -> Ladder:
    """Measure. Raises `ServerFailed` with the reason when a worker does not serve; none is left running."""
    environment = describe()
    rows: list[LadderRow] = []
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as name:
        folder = Path(name)
        with null_server_process(folder) as null:
            for model in settings.models:
                on_step(f"{model.name}: checkpoint")
                checkpoint = _checkpoint(model, settings.bundled_model, folder)
                for repeat in range(settings.load.repeats):
                    for rung in _shuffled(settings.rungs, repeat):
                        climb = _Climb(settings.load, model, rung, checkpoint, null, folder)
                        rows += climb.measure(repeat, on_step)
    return Ladder(
        command=command,
        measured_at=measured_at,
        quick=quick,
        environment=environment,
        load=settings.load,
        models=settings.models,
        rungs=settings.rungs,
        rows=rows,
    )


def _checkpoint(model: LadderModel, bundled: Path, folder: Path) -> Path:
    if not (bundled / "config.json").is_file():
        raise ServerFailed(
            f"There is no model in {bundled}; run this from the root of the repository, "
            "or give the folder with --bundled-model."
        )
    if model.shape is None:
        return bundled
    target = folder / model.shape
    make_checkpoint(model.shape, bundled, target)
    return target


def _shuffled(rungs: Sequence[Rung], repeat: int) -> list[Rung]:
    return random.Random(repeat).sample(rungs, len(rungs))


def kv_bytes(config: Path, dtype: str, tokens: int) -> int:
    """Bytes of keys and values of `tokens` tokens, from a checkpoint's `config.json`."""
    shape = msgspec.json.decode(config.read_bytes(), type=dict[str, object])
    heads, kv_heads = int(str(shape["num_attention_heads"])), int(str(shape["num_key_value_heads"]))
    head_dim = int(str(shape.get("head_dim") or int(str(shape["hidden_size"])) // heads))
    element_bytes = {"float32": 4, "bfloat16": 2}[dtype]
    return 2 * int(str(shape["num_hidden_layers"])) * kv_heads * head_dim * element_bytes * tokens


class _Climb:
    """One worker on one rung, for the loads of one repeat."""

    def __init__(
        self,
        load: LadderLoad,
        model: LadderModel,
        rung: Rung,
        checkpoint: Path,
        null: ServerProcess,
        folder: Path,
    ) -> None:
        self._load = load
        self._model = model
        self._rung = rung
        self._null = Target.parse(null.url)
        self._worker = self._server(checkpoint, folder)
        self._target = Target.parse(self._worker.url)

    def measure(self, repeat: int, on_step: Callable[[str], None]) -> list[LadderRow]:
        """All loads, after one of each that is thrown away. Raises `ServerFailed`."""
        what = f"{self._model.name}, {self._rung.name}, repeat {repeat + 1}"
        on_step(f"{what}: starting")
        with self._worker:
            self._warm_up()
            rows = []
            for name in self._load.load_names:
                on_step(f"{what}: {name}")
                rows.append(self._measure_load(name, repeat))
        return rows

    def _server(self, checkpoint: Path, folder: Path) -> ServerProcess:
        load, port = self._load, free_port()
        options = {
            "--model": checkpoint,
            "--served-model-name": "model",
            "--dtype": self._model.dtype,
            "--batching": self._rung.batching,
            "--kv": self._rung.kv,
            "--max-batch": load.max_batch,
            "--batch-wait-ms": load.batch_wait_ms,
            "--kv-memory": kv_bytes(checkpoint / "config.json", self._model.dtype, load.kv_tokens),
            "--port": port,
        }
        command = [script("sluice-worker"), "serve"]
        command += [str(word) for option in options.items() for word in option]
        return ServerProcess(
            command,
            port,
            folder / "worker.log",
            ready_path="/ready",
            ready_within_s=300,
            environment={"OMP_NUM_THREADS": str(load.threads)},
        )

    def _warm_up(self) -> None:
        """As many requests at a time as will come, with answers of the shortest length."""
        count = max(self._load.concurrencies)
        records = read_answers(run_blocking(self._plan(count, ClosedLoop(count), seed=0, shortest=True)))
        failed = [record for record in records if record.failure is not None]
        if failed:
            raise ServerFailed(
                f"sluice-worker, {self._rung.name}, on {self._model.name}: {len(failed)} warm-up requests "
                f"failed, the first with {failed[0].failure}: {failed[0].message}\n{self._worker.tail()}"
            )

    def _measure_load(self, name: str, repeat: int) -> LadderRow:
        plan = self._plan_of(name)
        before, foreign = self._counters(), ForeignCpu(os.getpid())
        run = run_calibrated(plan, self._null)
        foreign_cores = foreign.cores()
        after = self._counters()
        return self._row(name, repeat, run, {key: after[key] - before[key] for key in after}, foreign_cores)

    def _counters(self) -> dict[str, float]:
        with urlopen(self._worker.url + "/metrics", timeout=10) as response:
            return counters(response.read().decode())

    def _plan_of(self, name: str) -> LoadPlan:
        load, index = self._load, self._load.load_names.index(name)
        seed = load.seed * 1000 + index
        if index < len(load.concurrencies):
            places = load.concurrencies[index]
            return self._plan(places * load.waves[index], ClosedLoop(places), seed)
        offsets = arrivals.poisson(self._model.rate, load.open_requests, seed)
        return self._plan(load.open_requests, OpenLoop(offsets), seed)

    def _plan(
        self, count: int, loop: ClosedLoop | OpenLoop, seed: int, *, shortest: bool = False
    ) -> LoadPlan:
        load = self._load
        least, most = load.least_output_tokens, load.most_output_tokens
        lengths = geometric_lengths(count, load.mean_output_tokens, least, least if shortest else most, seed)
        return LoadPlan(
            target=self._target,
            requests=early_ending_requests(
                self._target,
                random_token_prompts(count, load.prompt_tokens, _LOW_ID, _HIGH_ID, seed),
                lengths,
                load.max_tokens,
                Asking(model="model", ignore_eos=True),
            ),
            loop=loop,
            warm_connections=max(load.concurrencies),
            hard_stop_s=900,
            request_timeout_s=600,
        )

    def _row(
        self, name: str, repeat: int, run: CalibratedRun, counted: dict[str, float], foreign_cores: float
    ) -> LadderRow:
        places = dict(zip(self._load.load_names, self._load.concurrencies, strict=False)).get(name, 1)
        summary = summarise(run.records, Objective(), places)
        output_tokens, cached_tokens = told_tokens(summary)
        failed = [record for record in run.records if record.failure is not None]
        waits = [ttft_user_s(record) for record in run.records if record.failure is None]
        return LadderRow(
            model=self._model.name,
            rung=self._rung,
            load=name,
            repeat=repeat,
            requests=summary.scheduled,
            failures=len(failed),
            first_failure=f"{failed[0].failure}: {failed[0].message}" if failed else "",
            output_tokens=output_tokens,
            cached_tokens=cached_tokens,
            seconds=summary.whole.seconds if summary.whole else 0.0,
            tokens_per_s=output_tokens / summary.whole.seconds if summary.whole else 0.0,
            ttft_ms=[round(wait_s * 1000, 2) for wait_s in waits if wait_s is not None],
            tpot_p50_ms=summary.tpot_ms.p50 if summary.tpot_ms else None,
            mean_batch=_ratio(counted["sequence_steps"], counted["steps"]),
            kv_utilisation=_ratio(counted["kv_held_steps"], counted["kv_reserved_steps"]),
            preemptions=round(counted["preemptions"]),
            foreign_cores=foreign_cores,
            calibration=run.calibration,
        )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def counters(page: str) -> dict[str, float]:
    """Counters without labels on a worker's metrics page, by name without prefix and `_total`."""
    pairs = (line.split(" ") for line in page.splitlines() if line.startswith("sluice_worker_"))
    return {
        name.removeprefix("sluice_worker_").removesuffix("_total"): float(value)
        for name, value in pairs
        if name.endswith("_total")
    }
