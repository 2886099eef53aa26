"""The configured engines, ready to be spoken to: endpoint, dialect, transport and credential of each replica.

Built once from the settings. The order is the one in which `/v1/models` lists: our own worker before the
others, and the echo engine last, whatever the file's order, so that the first model listed is always one
that thinks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from sluice_engines.adapter import EngineAdapter
from sluice_engines.load_report import LoadReport, load_report
from sluice_engines.registry import AdapterError, create_adapter, load_adapters
from sluice_engines.transport import Transport
from sluice_gateway.config import ConfigError
from sluice_gateway.managed_ports import ManagedPorts
from sluice_gateway.settings import Backend
from sluice_gateway.upstream import HttpTransport
from sluice_router.types import Endpoint

_LISTED = {"worker": 0, "echo": 2}
_OWN = frozenset({"worker", "vllm", "sglang", "trt", "tgi", "llamacpp"})
"""Engines that one runs oneself, and that stop computing when a client leaves: a second attempt there costs
some of their time and no money."""
_IN_PROCESS = "http://in-process"


@dataclass(frozen=True)
class Engine:
    """One replica of one backend."""

    endpoint: Endpoint
    """As configured; the router's copy also has what was discovered later: models, quantization."""
    backend: Backend
    adapter: EngineAdapter
    transport: Transport
    in_process: bool
    """It lives inside the gateway: nothing to probe."""
    api_key: str | None
    """The engine's own credential. Never logged."""
    load_report: LoadReport | None = None
    """What it tells of its load with its answers."""


class Transports:
    """The upstream clients, shared by all engines and made when first needed."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, str | None], Transport] = {}

    def get(self, backend: Backend) -> Transport:
        """The client that a backend's settings ask for."""
        wanted = (backend.upstream, backend.proxy)
        if wanted not in self._made:
            self._made[wanted] = _over_httpx(backend.proxy) if wanted[0] == "httpx" else HttpTransport()
        return self._made[wanted]

    async def aclose(self) -> None:
        """Close every connection."""
        for transport in self._made.values():
            await transport.aclose()


def _over_httpx(proxy: str | None) -> Transport:
    # httpx weighs several megabytes, and only those who ask for it carry them.
    from sluice_gateway.upstream.httpx_transport import HttpxTransport

    return HttpxTransport(proxy=proxy)


def build_engines(
    backends: Sequence[Backend],
    environment: Mapping[str, str],
    transports: Transports,
    ports: ManagedPorts,
) -> tuple[Engine, ...]:
    """All replicas of all backends. `ports` has one for each managed engine without a URL.

    Raises `ConfigError` when an adapter does not like its options.
    """
    ordered = sorted(backends, key=lambda backend: _LISTED.get(backend.adapter, 1))
    return tuple(
        engine for backend in ordered for engine in _replicas(backend, environment, transports, ports)
    )


def _replicas(
    backend: Backend, environment: Mapping[str, str], transports: Transports, ports: ManagedPorts
) -> list[Engine]:
    try:
        adapter = create_adapter(load_adapters([backend.adapter])[backend.adapter], _options(backend))
    except AdapterError as error:
        raise ConfigError(f"Backend '{backend.name}': {error}") from error
    local = adapter.transport()
    if local is not None:
        urls: tuple[str, ...] = (_IN_PROCESS,)
    else:
        urls = backend.urls or (f"http://127.0.0.1:{ports.choose(adapter.default_port)}",)
    return [
        Engine(
            endpoint=_endpoint(backend, adapter, url, index if len(urls) > 1 else None),
            backend=backend,
            adapter=adapter,
            transport=local or adapter.over(transports.get(backend)),
            in_process=local is not None,
            api_key=environment.get(backend.api_key_env) if backend.api_key_env else None,
            load_report=load_report(adapter),
        )
        for index, url in enumerate(urls)
    ]


def _options(backend: Backend) -> dict[str, object]:
    """The echo engine answers to the names that the backend is configured with."""
    if backend.adapter == "echo" and backend.models:
        return {"models": backend.models, **backend.options}
    return backend.options


def _endpoint(backend: Backend, adapter: EngineAdapter, url: str, index: int | None) -> Endpoint:
    capabilities = adapter.capabilities
    if backend.endpoints:
        capabilities = msgspec.structs.replace(capabilities, endpoints=frozenset(backend.endpoints))
    if not backend.resuming:
        capabilities = msgspec.structs.replace(capabilities, continues_text=False, continues_chat=False)
    return Endpoint(
        id=backend.name if index is None else f"{backend.name}-{index}",
        backend=backend.name,
        url=url.rstrip("/"),
        models=backend.models,
        quant=backend.quant or "none",
        capabilities=capabilities,
        max_in_flight=backend.max_in_flight,
        hedging=backend.adapter in _OWN if backend.hedging is None else backend.hedging,
    )
