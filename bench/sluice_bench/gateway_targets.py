"""What gateways are measured, and how each is started in front of the null server.

Sluice runs compiled, as it is installed, and governed: a key is checked, limits of key, tenant and model are
reserved and settled, metrics are counted, and each request writes its log line and its row in the ledger.
Every peer runs as cheaply as it can be set up (no key, no limits, no log line per request, the simplest
balancing): where that makes a difference, it is in the peer's favour.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from sluice_bench.peer_packages import LITELLM, SGLANG_ROUTER, VLLM_ROUTER, PeerPackage, Programs
from sluice_bench.processes import ServerFailed, ServerProcess, free_port, null_server_process, script

DIRECT = "direct"
SLUICE = "sluice"
SLUICE_SOURCES = "sluice-sources"
BARE_RELAY = "bare-relay"
FASTAPI_HTTPX = "fastapi-httpx"
LITELLM_PROXY = "litellm"
SGLANG = "sglang-router"
VLLM = "vllm-router"

LABELS: Mapping[str, str] = {
    DIRECT: "null server, asked directly",
    BARE_RELAY: "asyncio relay that reads nothing: the ceiling",
    SLUICE: "**Sluice**, governed",
    SLUICE_SOURCES: "the same, served from its Python sources",
    FASTAPI_HTTPX: "FastAPI + httpx proxy",
    LITELLM_PROXY: f"LiteLLM proxy {LITELLM.version}, 1 worker",
    SGLANG: f"sglang-router {SGLANG_ROUTER.version}",
    VLLM: f"vllm-router {VLLM_ROUTER.version}",
}
"""For people, in the order of a report's tables."""

ALL_TARGETS = tuple(LABELS)
PEERS: Mapping[str, PeerPackage] = {LITELLM_PROXY: LITELLM, SGLANG: SGLANG_ROUTER, VLLM: VLLM_ROUTER}

_ROUTER_ARGUMENTS: Mapping[str, Sequence[str]] = {
    SGLANG: ("launch", "--log-level", "warn"),
    VLLM: ("--log-level", "warning"),
}
_SECRET = "sk-bench-0123456789abcdef0123456789abcdef"
_COMPILED = "serves from compiled modules"
"""What the gateway's log says."""
_PLENTY = 1_000_000
"""A limit that is checked and never reached."""


class GatewayTarget(msgspec.Struct, frozen=True):
    """A running server under measurement."""

    name: str
    server: ServerProcess
    api_key: str | None = None


class Missing(msgspec.Struct, frozen=True):
    """A target that could not be measured."""

    target: str
    reason: str


class FleetPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What to start."""

    targets: tuple[str, ...]
    chunks: int = 100
    pace_ms: float = 2.0
    stamps: bool = False
    server_core: int | None = None
    """The only core that each gateway may use; `None`: all."""
    null_core: int | None = None


class Fleet(msgspec.Struct):
    """What is running, the null server behind all of it included as `direct` when asked for."""

    null: ServerProcess
    targets: list[GatewayTarget]
    missing: list[Missing]

    def drop(self, target: GatewayTarget, reason: str) -> None:
        """Measure it no more."""
        self.targets.remove(target)
        self.missing.append(Missing(target.name, reason))


class _Launch(msgspec.Struct, frozen=True, kw_only=True):
    """How a gateway is started."""

    command: Sequence[str]
    ready_path: str
    environment: Mapping[str, str] = {}
    api_key: str | None = None


def gateway_config(upstream: str, port: int, folder: Path) -> bytes:
    """A `sluice.yaml` (JSON is YAML) with one OpenAI-compatible backend, one key, and everything governed:
    requests, tokens and concurrency of key, tenant and model, a price, and a row in the ledger.

    `folder` takes database, journal and files.
    """
    backend = {
        "name": "null",
        "adapter": "openai_compatible",
        "url": upstream,
        "models": ["null"],
        "max_in_flight": 10_000,
    }
    rates = {"requests_per_min": _PLENTY * 1000, "tokens_per_min": _PLENTY * 1_000_000}
    key = {"id": "bench", "sha256": hashlib.sha256(_SECRET.encode()).hexdigest()}
    return msgspec.json.encode(
        {
            "server": {"host": "127.0.0.1", "port": port},
            "backends": [backend],
            "keys": [key],
            "limits": {
                "max_concurrent": _PLENTY,
                "per_key": {**rates, "concurrent": _PLENTY},
                "per_tenant": rates,
                "models": {"null": rates},
            },
            "prices": {"models": {"null": {"input": 1.0, "output": 2.0}}},
            "store": {"url": f"sqlite:///{folder}/sluice-{port}.db"},
            "ledger": {"journal_folder": f"{folder}/journal-{port}"},
            "files": {"dir": f"{folder}/files-{port}"},
        }
    )


@contextmanager
def running_fleet(
    plan: FleetPlan, folder: Path, programs: Programs, on_step: Callable[[str], None]
) -> Iterator[Fleet]:
    """Start the null server and the plan's targets; stop them all at the end.

    `folder` takes configurations and logs. A peer that is not installed, or does not start, is in `missing`.
    Raises `ServerFailed` when Sluice or the null server does not start.
    """
    with ExitStack() as stack:
        null = stack.enter_context(
            null_server_process(folder, plan.chunks, plan.pace_ms, plan.stamps, plan.null_core)
        )
        fleet = Fleet(null, [], [])
        for name in plan.targets:
            if name == DIRECT:
                fleet.targets.append(GatewayTarget(DIRECT, null))
                continue
            on_step(f"starting {name}")
            try:
                fleet.targets.append(_start(name, null.url, plan, folder, programs, stack))
            except ServerFailed as error:
                if name == SLUICE:
                    raise
                fleet.missing.append(Missing(name, one_line(str(error))))
        yield fleet


def _start(
    name: str, null_url: str, plan: FleetPlan, folder: Path, programs: Programs, stack: ExitStack
) -> GatewayTarget:
    port = free_port()
    launch = _launch(name, null_url, port, folder, programs)
    server = ServerProcess(
        launch.command,
        port,
        folder / f"{name}-{port}.log",
        launch.ready_path,
        environment=launch.environment,
        core=plan.server_core,
    )
    target = GatewayTarget(name, stack.enter_context(server), launch.api_key)
    if name == SLUICE and not server.has_said(_COMPILED):
        raise ServerFailed(
            "Sluice serves from its Python sources here; run `make compile`, and measure again."
        )
    return target


def _launch(name: str, null_url: str, port: int, folder: Path, programs: Programs) -> _Launch:
    if name in (SLUICE, SLUICE_SOURCES):
        return _sluice(null_url, port, folder, compiled=name == SLUICE)
    if name == BARE_RELAY:
        command = [sys.executable, "-m", "sluice_bench.peers.bare_relay", null_url, str(port)]
        return _Launch(command=command, ready_path="/health")
    if name == FASTAPI_HTTPX:
        command = [sys.executable, "-m", "sluice_bench.peers.fastapi_proxy", null_url, str(port)]
        return _Launch(command=command, ready_path="/health")
    program = programs.get(name, "not installed")
    if isinstance(program, str):
        raise ServerFailed(program)
    if name == LITELLM_PROXY:
        return _litellm(program, null_url, port, folder)
    return _router(program, _ROUTER_ARGUMENTS[name], null_url, port)


def one_line(text: str) -> str:
    """A reason that fits into a table."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " … ".join([lines[0], *lines[-1:]] if len(lines) > 1 else lines)[:400]


def _sluice(null_url: str, port: int, folder: Path, *, compiled: bool) -> _Launch:
    config = folder / f"sluice-{port}.yaml"
    config.write_bytes(gateway_config(null_url, port, folder))
    command = [script("sluice"), "serve", "--config", str(config), "--port", str(port)]
    environment = {"SLUICE_COMPILED": str(int(compiled))}
    return _Launch(command=command, ready_path="/ready", environment=environment, api_key=_SECRET)


def _litellm(program: Path, null_url: str, port: int, folder: Path) -> _Launch:
    """One worker, one model, no database, no key; its price list is not fetched from the network."""
    config = folder / f"litellm-{port}.yaml"
    upstream = {"model": "openai/null", "api_base": f"{null_url}/v1", "api_key": "none"}
    models = [{"model_name": "null", "litellm_params": upstream}]
    config.write_bytes(msgspec.json.encode({"model_list": models}))
    command = [str(program), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    return _Launch(
        command=[*command, "--num_workers", "1", "--telemetry", "False"],
        ready_path="/health/liveliness",
        environment={
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOG": "ERROR",
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        },
    )


def _router(program: Path, arguments: Sequence[str], null_url: str, port: int) -> _Launch:
    """One worker to send to, round robin, only warnings in the log."""
    command = [str(program), *arguments, "--worker-urls", null_url, "--host", "127.0.0.1"]
    command += ["--port", str(port), "--policy", "round_robin", "--prometheus-port", str(free_port())]
    return _Launch(command=command, ready_path="/v1/models")
