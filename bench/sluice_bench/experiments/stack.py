"""The engines of an experiment and a gateway before them: started, waited for, ended.

Everything listens on loopback, on free ports, and keeps its state in a temporary folder; nobody's own
configuration is read. The gateway is as `sluice serve` runs it, without keys and with bounds that no load
here reaches, so that an engine and not the gateway decides what waits.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from sluice_bench.experiments.requirement import need_stack
from sluice_bench.processes import ServerFailed, ServerProcess, free_port, script

MODEL_NAME = "bench"
"""What every engine of a stack calls its model."""

_PLENTY = 4096
_PATIENCE_S = 3600.0


class Engine(msgspec.Struct, frozen=True, kw_only=True):
    """How one engine is started, and what the gateway is told of it."""

    name: str
    """Of the backend: what `X-Backend` selects."""
    command: tuple[str, ...]
    """`{port}` stands for its port."""
    adapter: Literal["worker", "openai_compatible"] = "worker"
    quant: str = "none"
    """What `X-Quant` selects."""
    ready_path: str = "/ready"
    ready_within_s: float = 600.0
    environment: Mapping[str, str] = {}


class Stack(msgspec.Struct, frozen=True):
    """What is running."""

    gateway: ServerProcess
    engines: Mapping[str, ServerProcess]


def engine_threads() -> int:
    """Threads of an engine that is measured: all cores but one, which is left to client and gateway.

    Else the client's own error, waiting for a core, would be larger than what is measured of a small model.
    """
    return max(1, (os.cpu_count() or 1) - 1)


def worker_engine(name: str, model: Path, options: Sequence[str] = (), quant: str = "none") -> Engine:
    """Our own worker on a model folder."""
    command = [script("sluice-worker"), "serve", "--model", str(model), "--served-model-name", MODEL_NAME]
    command += ["--host", "127.0.0.1", "--port", "{port}", *options]
    return Engine(name=name, command=tuple(command), quant=quant)


ConfigOf = Callable[[Sequence[Engine], Mapping[str, str], Path], bytes]
"""From engines, their addresses and the folder for all state to a `sluice.yaml`."""


@contextmanager
def running_stack(
    engines: Sequence[Engine], folder: Path, config_of: ConfigOf | None = None
) -> Iterator[Stack]:
    """Start everything below `folder`, an empty one; end everything. Raises `ServerFailed`.

    The gateway is configured by `gateway_config` unless told otherwise.
    """
    with ExitStack() as running:
        servers = {engine.name: _started(running, engine_process(engine, folder)) for engine in engines}
        urls = {name: server.url for name, server in servers.items()}
        gateway = gateway_process((config_of or gateway_config)(engines, urls, folder), folder)
        yield Stack(_started(running, gateway), servers)


@contextmanager
def bundled_gateway() -> Iterator[str]:
    """The address of a gateway before the bundled worker. Raises `RequirementMissing`, `ServerFailed`."""
    need_stack()
    with (
        tempfile.TemporaryDirectory(prefix="sluice-bench-") as name,
        running_stack([worker_engine("worker", Path("sluice-tiny"))], Path(name)) as stack,
    ):
        yield stack.gateway.url


def engine_process(engine: Engine, folder: Path) -> ServerProcess:
    """An engine on a free port, not yet started."""
    port = free_port()
    return ServerProcess(
        [word.replace("{port}", str(port)) for word in engine.command],
        port,
        folder / f"{engine.name}-{port}.log",
        engine.ready_path,
        engine.ready_within_s,
        engine.environment,
    )


def gateway_process(config: bytes, folder: Path) -> ServerProcess:
    """A gateway with this `sluice.yaml` on a free port, its state below `folder`; not yet started."""
    port, path = free_port(), folder / "sluice.yaml"
    path.write_bytes(config)
    command = [script("sluice"), "serve", "--config", str(path), "--host", "127.0.0.1", "--port", str(port)]
    environment = {"SLUICE_STORE_URL": f"sqlite:///{folder / 'sluice.db'}"}
    return ServerProcess(command, port, folder / "gateway.log", "/ready", environment=environment)


def gateway_config(engines: Sequence[Engine], urls: Mapping[str, str], folder: Path) -> bytes:
    """A `sluice.yaml` (JSON is YAML) with every engine as a backend and all state below `folder`."""
    return msgspec.json.encode(
        {
            "backends": [
                {
                    "name": engine.name,
                    "adapter": engine.adapter,
                    "url": urls[engine.name],
                    "models": [MODEL_NAME],
                    "quant": engine.quant,
                    "max_in_flight": _PLENTY,
                }
                for engine in engines
            ],
            "limits": {"max_concurrent": _PLENTY},
            "store": {"url": f"sqlite:///{folder / 'sluice.db'}"},
            "ledger": {"journal_folder": str(folder / "ledger")},
            "files": {"dir": str(folder / "files")},
            "failover": {"max_attempts": 1, "breaker_failures": 1000},
            "timeouts": {"first_token_s": _PATIENCE_S, "idle_s": _PATIENCE_S, "total_s": _PATIENCE_S},
        }
    )


def _started(running: ExitStack, server: ServerProcess) -> ServerProcess:
    """One that is not installed is a failure like any other."""
    try:
        return running.enter_context(server)
    except OSError as error:
        raise ServerFailed(f"{server.command[0]} cannot be started: {error}") from error
