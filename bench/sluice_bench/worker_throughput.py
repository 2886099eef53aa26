"""What an engine gives: tokens per second at one and at many streams, beside what the machine could.

The worker runs as a child process and is asked over HTTP, prompts as token ids of fixed length, outputs of
fixed length; every repeat has fresh prompts, so no prefix is ever cached. The headline is output tokens over
the whole window, prefill, ramp and drain included. Two yardsticks are measured in the same run: the roof
(read bandwidth over weight bytes, for one stream) and transformers' `generate` on the same checkpoint.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.request import urlopen

import msgspec
import psutil

from sluice_bench.answers import read_answers
from sluice_bench.bandwidth import Bandwidth
from sluice_bench.calibration import Calibration, run_calibrated
from sluice_bench.checkpoint import weight_bytes_per_token
from sluice_bench.load_run import run_blocking
from sluice_bench.loops import ClosedLoop, LoadPlan
from sluice_bench.metrics import Objective, Summary, summarise
from sluice_bench.peers.hf_generate import Result, Task
from sluice_bench.processes import (
    ForeignCpu,
    ServerFailed,
    ServerProcess,
    free_port,
    null_server_process,
    script,
)
from sluice_bench.target import Target
from sluice_bench.workload import Asking, random_token_prompts, token_requests

_LOW_ID, _HIGH_ID = 300, 2000
"""Prompt ids are drawn from here: past bytes and special tokens, inside small vocabularies."""


_INFO = (
    "architecture",
    "device",
    "dtype",
    "kernels",
    "quantization",
    "num_parameters",
    "block_size",
    "num_kv_blocks",
    "max_num_seqs",
    "max_num_batched_tokens",
)


class ThroughputLoad(msgspec.Struct, frozen=True, kw_only=True):
    """How much is asked of each model."""

    prompt_tokens: int = 128
    output_tokens: int = 64
    streams: tuple[int, ...] = (1, 16)
    waves: int = 2
    """Requests per stream in one repeat."""
    repeats: int = 3
    bandwidth_rounds: int = 5
    threads: int = msgspec.field(default_factory=lambda: psutil.cpu_count() or 1)
    """Of every engine and of the bandwidth probe."""


QUICK_THROUGHPUT = ThroughputLoad(
    prompt_tokens=16, output_tokens=8, streams=(1, 4), waves=1, repeats=1, bandwidth_rounds=1
)
"""For trying the machinery; its figures mean nothing."""


class ThroughputRow(msgspec.Struct, frozen=True, kw_only=True):
    """One repeat of one number of streams on one model by one engine."""

    model: str
    engine: str
    streams: int
    repeat: int
    failures: int
    output_tokens: int
    seconds: float
    tokens_per_s: float
    tpot_p50_ms: float | None = None
    ttft_p50_ms: float | None = None
    cached_tokens: int = 0
    engine_cpu_s: float | None = None
    foreign_cores: float
    calibration: Calibration | None = None
    first_failure: str = ""


class ModelFigures(msgspec.Struct, frozen=True, kw_only=True):
    """All that was measured on one checkpoint."""

    model: str
    weight_bytes: int
    """Read per decode step of one stream."""
    bandwidth: Bandwidth
    worker_info: dict[str, object]
    """What `GET /model` of the worker says of itself."""
    rows: list[ThroughputRow]

    @property
    def roof_tokens_per_s(self) -> float:
        """No engine decodes one stream faster on this machine."""
        return self.bandwidth.best_gb_s * 1e9 / self.weight_bytes


def number_of_steps(load: ThroughputLoad) -> int:
    """How often `on_step` is called for one model."""
    return 3 + load.repeats * len(load.streams) * 2


def measure_model(
    name: str, checkpoint: Path, load: ThroughputLoad, folder: Path, on_step: Callable[[str], None]
) -> ModelFigures:
    """Measure the worker and the peer on one checkpoint. `folder` takes logs.

    Raises `ServerFailed` when a process does not start or a warm-up request fails.
    """
    on_step(f"{name}: memory bandwidth")
    weight_bytes = weight_bytes_per_token(checkpoint)
    threads = {"OMP_NUM_THREADS": str(load.threads)}
    bandwidth = probe_bandwidth(weight_bytes, load.bandwidth_rounds, threads)
    rows: list[ThroughputRow] = []
    with ExitStack() as stack:
        on_step(f"{name}: starting transformers")
        peer = stack.enter_context(transformers_peer(checkpoint, folder, threads))
        on_step(f"{name}: starting sluice-worker")
        null = stack.enter_context(null_server_process(folder))
        worker = stack.enter_context(_worker(checkpoint, folder, threads))
        peer.wait_until_loaded()  # it has been loading meanwhile
        engine = _Engine(name, worker, null, peer, load)
        engine.warm_up()
        info = engine.worker_info()
        for repeat in range(load.repeats):
            for streams in load.streams:
                on_step(f"{name}: sluice-worker, {streams} streams, repeat {repeat + 1}")
                rows.append(engine.measure_worker(streams, repeat))
                on_step(f"{name}: transformers, {streams} streams, repeat {repeat + 1}")
                rows.append(engine.measure_peer(streams, repeat))
    return ModelFigures(
        model=name, weight_bytes=weight_bytes, bandwidth=bandwidth, worker_info=info, rows=rows
    )


def probe_bandwidth(buffer_bytes: int, rounds: int, environment: Mapping[str, str]) -> Bandwidth:
    """Measure read bandwidth in a child process. Raises `ServerFailed`."""
    command = [sys.executable, "-m", "sluice_bench.bandwidth", str(buffer_bytes), str(rounds)]
    done = subprocess.run(command, capture_output=True, env={**os.environ, **environment}, check=False)
    if done.returncode != 0:
        raise ServerFailed(f"the bandwidth probe failed:\n{done.stderr.decode(errors='replace')[-500:]}")
    return msgspec.json.decode(done.stdout, type=Bandwidth)


def _worker(checkpoint: Path, folder: Path, environment: Mapping[str, str]) -> ServerProcess:
    port = free_port()
    command = [script("sluice-worker"), "serve", "--model", str(checkpoint), "--port", str(port)]
    return ServerProcess(
        command,
        port,
        folder / "worker.log",
        ready_path="/ready",
        ready_within_s=300,
        environment=environment,
    )


class Peer:
    """The transformers child: one task at a time over its standard input and output."""

    def __init__(self, process: subprocess.Popen[bytes], log_path: Path) -> None:
        self._process = process
        self._log_path = log_path

    def wait_until_loaded(self) -> None:
        """Raises `ServerFailed`."""
        self._read_line()

    def run(self, task: Task) -> Result:
        """Raises `ServerFailed` when the child has died."""
        if self._process.stdin is None:
            raise ServerFailed("transformers is not listening")
        self._process.stdin.write(msgspec.json.encode(task) + b"\n")
        self._process.stdin.flush()
        return msgspec.json.decode(self._read_line(), type=Result)

    def _read_line(self) -> bytes:
        line = self._process.stdout.readline() if self._process.stdout else b""
        if not line:
            log = self._log_path.read_text(errors="replace")
            raise ServerFailed(f"transformers ended:\n{log[-1000:]}")
        return line.strip()


@contextmanager
def transformers_peer(checkpoint: Path, folder: Path, environment: Mapping[str, str]) -> Iterator[Peer]:
    """The child, which begins to load, logging into `folder`: see `Peer.wait_until_loaded`."""
    log_path = folder / "transformers.log"
    command = [sys.executable, "-m", "sluice_bench.peers.hf_generate", str(checkpoint)]
    environment = {**os.environ, **environment, "HF_HUB_OFFLINE": "1"}
    with (
        log_path.open("wb") as log,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment
        ) as process,
    ):
        try:
            yield Peer(process, log_path)
        finally:
            process.kill()


class _Engine:
    """Worker and peer on one checkpoint, both loaded."""

    def __init__(
        self, model: str, worker: ServerProcess, null: ServerProcess, peer: Peer, load: ThroughputLoad
    ) -> None:
        self._model = model
        self._worker = worker
        self._null = null
        self._peer = peer
        self._load = load

    def warm_up(self) -> None:
        """One batch of each size that is thrown away. Raises `ServerFailed` when a request fails."""
        for streams in self._load.streams:
            records = read_answers(run_blocking(self._plan(streams, repeat=-1, waves=1)))
            failed = [record for record in records if record.failure is not None]
            if failed:
                raise ServerFailed(
                    f"sluice-worker on {self._model}: {len(failed)} warm-up requests failed, "
                    f"the first with {failed[0].failure}: {failed[0].message}\n{self._worker.tail()}"
                )
        self._peer.run(self._task(1, repeat=-1))

    def worker_info(self) -> dict[str, object]:
        """`GET /model`, without names and paths."""
        return {name: value for name, value in self._model_page().items() if name in _INFO}

    def _model_page(self) -> dict[str, object]:
        with urlopen(self._worker.url + "/model", timeout=10) as response:
            return msgspec.json.decode(response.read(), type=dict[str, object])

    def measure_worker(self, streams: int, repeat: int) -> ThroughputRow:
        """One repeat over HTTP, with the client checked against the null server meanwhile."""
        plan = self._plan(streams, repeat, self._load.waves)
        foreign, cpu_before = ForeignCpu(os.getpid()), self._worker.cpu_s()
        run = run_calibrated(plan, Target.parse(self._null.url))
        cpu_s, foreign_cores = self._worker.cpu_s() - cpu_before, foreign.cores()
        summary = summarise(run.records, Objective(), streams)
        output_tokens, cached_tokens = told_tokens(summary)
        failed = [record for record in run.records if record.failure is not None]
        return ThroughputRow(
            model=self._model,
            engine="sluice-worker",
            streams=streams,
            repeat=repeat,
            failures=len(failed),
            first_failure=f"{failed[0].failure}: {failed[0].message}" if failed else "",
            cached_tokens=cached_tokens,
            engine_cpu_s=cpu_s,
            foreign_cores=foreign_cores,
            calibration=run.calibration,
            output_tokens=output_tokens,
            seconds=summary.whole.seconds if summary.whole else 0.0,
            tokens_per_s=(summary.whole.tokens_per_s or 0.0) if summary.whole else 0.0,
            tpot_p50_ms=summary.tpot_ms.p50 if summary.tpot_ms else None,
            ttft_p50_ms=summary.ttft_service_ms.p50 if summary.ttft_service_ms else None,
        )

    def measure_peer(self, streams: int, repeat: int) -> ThroughputRow:
        """One static batch."""
        foreign = ForeignCpu(os.getpid())
        result = self._peer.run(self._task(streams, repeat))
        first_s = result.first_token_s or 0.0
        return ThroughputRow(
            model=self._model,
            engine="transformers",
            streams=streams,
            repeat=repeat,
            failures=0,
            output_tokens=result.output_tokens,
            seconds=result.seconds,
            tokens_per_s=result.output_tokens / result.seconds,
            ttft_p50_ms=first_s * 1000,
            tpot_p50_ms=(result.seconds - first_s) * 1000 / max(1, self._load.output_tokens - 1),
            foreign_cores=foreign.cores(),
        )

    def _plan(self, streams: int, repeat: int, waves: int) -> LoadPlan:
        load, target = self._load, Target.parse(self._worker.url)
        count = streams * waves
        seed = (repeat + 1) * 1000 + streams
        prompts = random_token_prompts(count, load.prompt_tokens, _LOW_ID, _HIGH_ID, seed)
        asking = Asking(model=self._served_name(), ignore_eos=True)
        return LoadPlan(
            target=target,
            requests=token_requests(target, prompts, load.output_tokens, asking),
            loop=ClosedLoop(streams),
            warm_connections=streams,
            hard_stop_s=900,
            request_timeout_s=600,
        )

    def _served_name(self) -> str:
        return str(self._model_page()["model"])

    def _task(self, streams: int, repeat: int) -> Task:
        prompts = random_token_prompts(streams, self._load.prompt_tokens, _LOW_ID, _HIGH_ID, repeat + 1)
        return Task(
            prompts=[list(prompt) for prompt in prompts],
            output_tokens=self._load.output_tokens,
            time_first=True,
        )


def told_tokens(summary: Summary) -> tuple[int, int]:
    """(output, cached) tokens of a run of Sluice's worker, which tells both. Raises `ServerFailed`."""
    if summary.output_tokens is None or summary.cached_tokens is None:
        raise ServerFailed(
            f"{summary.requests_without_cached_tokens} of {summary.complete} answers of the worker came "
            "without usage, so what it did is unknown; measure a worker that sends it."
        )
    return summary.output_tokens, summary.cached_tokens
