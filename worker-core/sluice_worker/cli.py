"""The command line: `sluice-worker serve`, `stage`, `quantize`, `quality` and `bench-kernels`.

Every option can also be set by an environment variable, named in `--help`. Mistakes end with one line on
standard error and status 1 (2 for options that do not exist). Nothing heavy is imported before it is needed.
`serve` never imports torch: the engine process is started first and loads while this one reads the tokenizer.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn, get_args

import msgspec
import typer

from sluice_worker import cli_options as options
from sluice_worker.batching import BatchingMode
from sluice_worker.config import (
    ConversionName,
    DeviceName,
    DTypeName,
    EngineConfig,
    KernelsName,
    KVCacheDTypeName,
    QuantizationName,
)
from sluice_worker.errors import ConfigError, WorkerError
from sluice_worker.kv_allocation import KVMode
from sluice_worker.outputs import ModelInfo
from sluice_worker.user_cache import cache_folder

LISTEN_BACKLOG = 2048
"""Connections that the system may hold until the server takes them."""

_MEMORY = re.compile(r"(?P<number>\d+(\.\d+)?)\s*(?P<unit>[KMGT]i?)?B?", re.IGNORECASE)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}

app = typer.Typer(
    name="sluice-worker",
    help="A from-scratch LLM inference engine with an OpenAI-compatible HTTP server.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command()
def serve(
    model: options.Model = "sluice-tiny",
    host: options.Host = "127.0.0.1",
    port: options.Port = 8006,
    dtype: options.DType = "auto",
    quantization: options.Quantization = "none",
    device: options.Device = "auto",
    kernels: options.Kernels = "auto",
    packed_cache: options.PackedCache = None,
    max_model_len: options.MaxModelLen = None,
    max_num_seqs: options.MaxNumSeqs = 64,
    max_num_batched_tokens: options.MaxNumBatchedTokens = 1024,
    decode_stretch: options.DecodeStretch = 2.0,
    batching: options.Batching = "continuous",
    max_batch: options.MaxBatch = 8,
    batch_wait_ms: options.BatchWaitMs = 50.0,
    schedule_tick_ms: options.ScheduleTickMs = 0.0,
    kv: options.KV = "paged",
    kv_memory: options.KVMemory = None,
    kv_cache_dtype: options.KVCacheDType = "auto",
    prefix_caching: options.PrefixCaching = True,
    threads: options.Threads = None,
    served_model_name: options.ServedModelName = None,
    drain_s: options.DrainSeconds = 3.0,
) -> None:
    """Serve a model over HTTP until SIGTERM or Ctrl-C.

    The API is OpenAI's: /v1/chat/completions, /v1/completions and /v1/models; beside it /generate,
    /v1/generate and /v1/generate_nobatch, and /health, /ready, /metrics and /model. One line on standard
    output says when it is ready.

    A request's own sampling settings win over the model's generation_config.json, and that over OpenAI's
    defaults.
    """
    started_s = time.monotonic()
    with _mistakes_in_one_line():
        config = EngineConfig(
            model=model,
            dtype=_one_of("--dtype", dtype, get_args(DTypeName)),
            quantization=_one_of("--quantization", quantization, get_args(QuantizationName)),
            device=_one_of("--device", device, get_args(DeviceName)),
            kernels=_one_of("--kernels", kernels, get_args(KernelsName)),
            packed_cache=_packed_cache(packed_cache),
            kv_cache_bytes=None if kv_memory is None else parse_memory(kv_memory),
            kv_cache_dtype=_one_of("--kv-cache-dtype", kv_cache_dtype, get_args(KVCacheDTypeName)),
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            decode_stretch=decode_stretch,
            max_model_len=max_model_len,
            batching=_one_of("--batching", batching, get_args(BatchingMode)),
            max_batch=max_batch,
            batch_wait_ms=batch_wait_ms,
            schedule_tick_ms=schedule_tick_ms,
            kv=_one_of("--kv", kv, get_args(KVMode)),
            enable_prefix_caching=prefix_caching,
            threads=threads,
        )
        failure = _run(config, listen(host, port), tuple(served_model_name or ()), drain_s, started_s)
    if failure is not None:
        _fail(failure)


@app.command("bench-kernels")
def bench_kernels(
    isa: options.Isa = None,
    threads: options.Threads = None,
    turns: options.Turns = 21,
) -> None:
    """Measure the C++ kernels on this machine: a table of times, GB/s and GFLOP/s.

    It takes about a minute and 2 GB of memory. Nothing else should run meanwhile.
    """
    if isa is not None:
        os.environ["SLUICE_CPU_ISA"] = isa
    with _mistakes_in_one_line():
        _bench_kernels(isa, threads, turns)


def _bench_kernels(isa: str | None, threads: int | None, turns: int) -> None:
    import torch

    from sluice_worker.device import set_threads
    from sluice_worker.kernels.cpu import speed
    from sluice_worker.kernels.cpu.kernels import CpuKernels
    from sluice_worker.kernels.cpu.library import library
    from sluice_worker.kernels.select import select_kernels

    set_threads(threads)
    select_kernels(torch.device("cpu"), "cpu")
    chosen = library().sluice_isa().decode()
    if isa not in (None, chosen):
        raise ConfigError(f"--isa is {isa!r}, which this CPU cannot run; try avx2 or plain.")
    figures = speed.measure(speed.all_cases(CpuKernels()), turns)
    typer.echo(f"{chosen}, {torch.get_num_threads()} threads, medians of {turns}\n\n{speed.render(figures)}")


@app.command()
def quality(
    model: options.Model = "sluice-tiny",
    variants: options.Variants = "none,int8,int4",
    corpus: options.CorpusFile = None,
    window: options.Window = 1024,
    prompts: options.Prompts = 64,
    max_tokens: options.MaxTokens = 64,
    json_file: options.JsonFile = None,
    dtype: options.DType = "auto",
    device: options.Device = "auto",
    kernels: options.Kernels = "auto",
    threads: options.Threads = None,
) -> None:
    """Measure what quantizing costs: perplexity, KL divergence and greedy agreement of variants of a model.

    The first variant is what the others are compared with. Conversations count with what the assistant says
    last, texts as a whole. The table goes to standard output, progress to standard error.
    """
    from sluice_worker.quality.corpus import load_corpus
    from sluice_worker.quality.measurement import Settings, measure
    from sluice_worker.quality.report import table

    with _mistakes_in_one_line():
        base = EngineConfig(
            model=model,
            dtype=_one_of("--dtype", dtype, get_args(DTypeName)),
            device=_one_of("--device", device, get_args(DeviceName)),
            kernels=_one_of("--kernels", kernels, get_args(KernelsName)),
            threads=threads,
        )
        settings = Settings(window=window, max_prompts=prompts, max_tokens=max_tokens)
        names = [name.strip() for name in variants.split(",")]
        report = measure(base, names, load_corpus(corpus), settings, lambda line: typer.echo(line, err=True))
    typer.echo(table(report))
    if json_file is not None:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")


@app.command()
def quantize(
    model: options.ModelArgument,
    out: options.Out,
    to: options.To,
    force: options.Force = False,
) -> None:
    """Convert a model ahead: into a folder of quantized weights, or into a GGUF file.

    int8 and int4 give the same tokens as `serve --quantization`, without quantizing at each start. A
    GGUF file runs in llama.cpp too.
    """
    from sluice_worker.quantize_command import run_quantize

    with _mistakes_in_one_line():
        wanted = _one_of("--to", to, get_args(ConversionName))
        typer.echo(run_quantize(model, Path(out), wanted, replace=force))


@app.command()
def stage(
    model: options.StageSource,
    out: options.StageOut,
    to: options.StageTo = None,
    revision: options.StageRevision = None,
    include: options.StageInclude = None,
    exclude: options.StageExclude = None,
    rehash: options.StageRehash = False,
    verify_only: options.StageVerifyOnly = False,
) -> None:
    """Put a model on a shared volume, whole or not at all, for engines that wait for it.

    Files are fetched, checked against the source's checksums, converted if --to says so, and appear in OUT
    by a rename at the end, with a manifest (sluice-stage.json). Until then OUT is absent, or what it was
    before. A run that was cut goes on where it stopped; one with nothing to do ends at once; of several at
    the same time one works and the others wait.

    The Hub's token is read from HF_TOKEN, or from the file that HF_TOKEN_PATH names; HF_ENDPOINT is the
    address of another Hub. Status 1 and one line on standard error when the model is not there in the end.
    """
    from sluice_worker.stage_command import run_stage
    from sluice_worker.staging.manifest import Request

    with _mistakes_in_one_line():
        wanted = None if to is None else _one_of("--to", to, get_args(ConversionName))
        request = Request(
            source=model,
            revision=revision,
            to=wanted,
            include=tuple(include or ()),
            exclude=tuple(exclude or ()),
        )
        typer.echo(run_stage(request, out, rehash=rehash, verify_only=verify_only))


def _packed_cache(text: str | None) -> str | None:
    return None if text == "off" else text or str(cache_folder("packed"))


def parse_memory(text: str) -> int:
    """Bytes of a size such as `2GiB`, `1.5 GB` or `1048576`. Raises `ConfigError`."""
    match = _MEMORY.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"--kv-memory is {text!r}; write a size such as 2GiB or 512MiB.")
    unit = match["unit"] or ""
    base = 1024 if unit.lower().endswith("i") else 1000
    return int(float(match["number"]) * base ** _POWERS[unit[:1].upper()])


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises `ConfigError` when the address cannot be had.

    It listens before there is anything to serve: two sockets may be bound to one port, only one may listen,
    and the second worker shall learn that before it loads a model.
    """
    if not 0 <= port < 65536:
        raise ConfigError(f"--port is {port}; choose a number from 0 to 65535.")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError) as error:
        raise ConfigError(f"--host {host} is not an address of this machine: {error}.") from error
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(LISTEN_BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"Cannot listen on {host} port {port}: {error.strerror}. Choose another --port."
        ) from error
    return listener


def _run(
    config: EngineConfig, listener: socket.socket, names: tuple[str, ...], drain_s: float, started_s: float
) -> str | None:
    """Start the engine, then the server; returns why the engine died, if it did."""
    import asyncio

    from sluice_worker.async_engine import spawn_engine
    from sluice_worker.loading.model_folder import resolve_model

    folder = resolve_model(config.model)
    spawned = spawn_engine(msgspec.structs.replace(config, model=str(folder.path)))
    try:
        import uvloop

        from sluice_worker.server.lifecycle import ServerSettings, run_server
        from sluice_worker.server.served_model import load_served_model

        logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
        model = load_served_model(folder, names, created=int(time.time()), now=datetime.now)
        ready = _ready_line(model.names[0], listener, started_s)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(run_server(spawned, listener, model, ServerSettings(drain_s=drain_s), ready))
    finally:
        # The engine ends when our end of its socket closes; a failed start must not leave it loading.
        spawned.sock.close()
        spawned.process.wait()


def _ready_line(name: str, listener: socket.socket, started_s: float) -> Callable[[ModelInfo], None]:
    host, port = listener.getsockname()[:2]
    shown_host = f"[{host}]" if ":" in host else host

    def announce(info: ModelInfo) -> None:
        weights = "" if info.quantization == "none" else f", {info.quantization} weights"
        facts = (
            f"{info.device}, {info.dtype}{weights}, {info.kernels} kernels, context {info.max_model_len}, "
            f"{info.num_kv_blocks} KV blocks of {info.block_size} tokens"
        )
        took_s = time.monotonic() - started_s
        url = f"http://{shown_host}:{port}/v1"
        typer.echo(f"sluice-worker is ready: {name} at {url} ({facts}) in {took_s:.1f} s")

    return announce


@contextmanager
def _mistakes_in_one_line() -> Iterator[None]:
    """A `WorkerError` ends the command with its sentence and status 1, Ctrl-C with status 130."""
    try:
        yield
    except WorkerError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


def _one_of(option: str, value: str, allowed: tuple[str, ...]) -> Any:
    """`value`, which is of the `Literal` type whose values are `allowed`. Raises `ConfigError` otherwise."""
    if value not in allowed:
        raise ConfigError(f"{option} is {value!r}; choose {', '.join(allowed[:-1])} or {allowed[-1]}.")
    return value


def _fail(message: str) -> NoReturn:
    typer.echo(f"sluice-worker: {' '.join(message.split())}", err=True)
    sys.exit(1)


def main() -> None:
    """The `sluice-worker` command."""
    app()


if __name__ == "__main__":
    main()
