"""Looking at engines once, without a gateway: what the command `sluice engines` shows.

The same adapters, probes and HTTP client as in the gateway, put together for a moment. Decides nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec

from sluice_engines.adapter import EngineAdapter
from sluice_engines.identify import Identity, identify
from sluice_engines.load_reader import LoadReader
from sluice_engines.load_signals import Signal, SignalTable
from sluice_engines.page import get_page
from sluice_engines.probe import probe
from sluice_engines.registry import AdapterError, adapter_names, create_adapter, load_adapters
from sluice_engines.transport import Transport, UpstreamError
from sluice_gateway.engines import Engine, Transports, build_engines
from sluice_gateway.managed_ports import ManagedPorts
from sluice_gateway.settings import Backend
from sluice_gateway.upstream import HttpTransport
from sluice_router.types import Capabilities, EngineLoad

_AGAIN_S = 0.5


class Installed(msgspec.Struct, frozen=True, kw_only=True):
    """An adapter."""

    name: str
    title: str
    port: int
    endpoints: list[str]
    """Kinds of request that the engine answers itself."""
    can: list[str]
    """Names of what else it can do."""
    load_from: str
    """Pages that its load is read from."""


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """One replica, seen once."""

    id: str
    backend: str
    adapter: str
    url: str
    managed: bool
    state: Literal["ready", "not ready"]
    problem: str | None = None
    """Why it is not ready, or what could not be read."""
    version: str | None = None
    models: tuple[str, ...] = ()
    load: EngineLoad | None = None
    load_problem: str | None = None


class CloseLook(msgspec.Struct, frozen=True, kw_only=True):
    """What a URL is, with the metrics that it really has."""

    identity: Identity
    load_page: str | None
    """The Prometheus page that was read."""
    metrics: dict[str, str]
    """Fields of a load, and the metric that each was read from."""


def installed() -> list[Installed]:
    """All adapters; one that cannot be loaded says so in its title."""
    return [_described(name) for name in adapter_names()]


def known_adapter(name: str | None) -> Installed | None:
    """One of them, if it is installed."""
    return _described(name) if name in adapter_names() and name is not None else None


async def look_at(
    backends: Sequence[Backend], environment: Mapping[str, str], timeout_s: float
) -> list[Look]:
    """Every replica of every backend, all at once. Raises `ConfigError` as the gateway would."""
    transports = Transports()
    try:
        return list(
            await asyncio.gather(*(_look(e, timeout_s) for e in _engines(backends, environment, transports)))
        )
    finally:
        await transports.aclose()


async def wait_for(
    backends: Sequence[Backend],
    environment: Mapping[str, str],
    timeout_s: float,
    wait_s: float,
    *,
    say: Callable[[str], None],
    clock: Callable[[], float],
) -> list[Look]:
    """Look again and again until all are ready; those that are not after `wait_s`. `say` hears of each that
    becomes ready."""
    transports = Transports()
    until_s = clock() + wait_s
    missing = _engines(backends, environment, transports)
    try:
        while True:
            looks = await asyncio.gather(*(_look(engine, timeout_s) for engine in missing))
            for look in looks:
                if look.state == "ready":
                    say(f"{look.id} at {look.url}: ready{f', {look.version}' if look.version else ''}")
            left = [(e, x) for e, x in zip(missing, looks, strict=True) if x.state != "ready"]
            missing = [engine for engine, _ in left]
            if not missing or clock() >= until_s:
                return [look for _, look in left]
            await asyncio.sleep(min(_AGAIN_S, max(0.0, until_s - clock())))
    finally:
        await transports.aclose()


async def look_closely(url: str, api_key: str | None, timeout_s: float) -> CloseLook:
    """What a URL is. The load page is read only when the engine is known: some pages are not for looking."""
    transport = HttpTransport()
    try:
        found = await identify(transport, url, api_key, timeout_s=timeout_s)
        adapter = _adapter(found.adapter) if found.adapter in adapter_names() else None
        path = adapter.metrics_path if adapter is not None else None
        metrics = {}
        if adapter is not None and path is not None:
            metrics = await _metrics(transport, adapter, url, path, api_key, timeout_s)
        return CloseLook(identity=found, load_page=path if metrics else None, metrics=metrics)
    finally:
        await transport.aclose()


async def _metrics(
    transport: Transport, adapter: EngineAdapter, url: str, path: str, api_key: str | None, timeout_s: float
) -> dict[str, str]:
    """Which metric gives which field; nothing when the page cannot be had."""
    signals: tuple[Signal, ...] = getattr(adapter, "signals", ())
    try:
        page = await get_page(transport, url, path, api_key, timeout_s=timeout_s)
        return SignalTable(signals).sources(page.body) if page.is_success and signals else {}
    except (UpstreamError, ValueError):
        return {}


def _engines(
    backends: Sequence[Backend], environment: Mapping[str, str], transports: Transports
) -> list[Engine]:
    ports = _PreferredPorts()
    return list(build_engines(backends, environment, transports, ports))


class _PreferredPorts(ManagedPorts):
    """Where a managed engine without a URL would be: nothing is claimed."""

    def choose(self, preferred: int) -> int:
        """The port that a gateway would try first."""
        return preferred


async def _look(engine: Engine, timeout_s: float) -> Look:
    endpoint, adapter = engine.endpoint, engine.adapter
    seen = await probe(
        engine.transport, adapter, endpoint.url, engine.api_key, timeout_s=timeout_s, ask_version=True
    )
    reader = LoadReader(
        engine.transport,
        adapter,
        endpoint.url,
        engine.api_key,
        timeout_s=timeout_s,
        clock=asyncio.get_running_loop().time,
    )
    loads = await reader.read() if seen.ready else None
    return Look(
        id=endpoint.id,
        backend=endpoint.backend,
        adapter=adapter.name,
        url="inside the gateway" if engine.in_process else endpoint.url,
        managed=engine.backend.managed is not None,
        state="ready" if seen.ready else "not ready",
        problem=seen.problem,
        version=seen.version,
        models=engine.backend.models or seen.models or (),
        load=loads.load if loads is not None else None,
        load_problem=loads.problem if loads is not None else None,
    )


def _described(name: str) -> Installed:
    try:
        adapter = _adapter(name)
    except AdapterError as error:
        return Installed(name=name, title=str(error), port=0, endpoints=[], can=[], load_from="")
    capabilities = adapter.capabilities
    return Installed(
        name=name,
        title=adapter.title,
        port=adapter.default_port,
        endpoints=sorted(capabilities.endpoints),
        can=_abilities(capabilities),
        load_from=", ".join(page.path for page in adapter.load_pages),
    )


def _adapter(name: str | None) -> EngineAdapter:
    return create_adapter(load_adapters([name or ""])[name or ""])


def _abilities(capabilities: Capabilities) -> list[str]:
    return [field for field in msgspec.structs.asdict(capabilities) if getattr(capabilities, field) is True]
