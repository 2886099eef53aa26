"""One look at an engine: does it live, can it serve, which models, how busy.

A probe never raises for what an engine does: what went wrong is a sentence in the reading. It knows nothing
of thresholds or intervals; how many failures make an engine unhealthy is the caller's to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import httpx
import msgspec

from sluice_engines.adapter import EngineAdapter
from sluice_engines.base_url import join_base_url
from sluice_engines.http_headers import bearer
from sluice_engines.transport import Deadlines, Transport, UpstreamError, UpstreamRequest
from sluice_router.types import EngineLoad

Fetch = Callable[[str], Awaitable[tuple[int, bytes]]]
"""Path to (status, body). Raises `ProbeFailed`."""


class ProbeFailed(Exception):
    """No answer. The message says why."""


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What a probe saw."""

    alive: bool
    """The health path answered 2xx."""
    ready: bool
    """The ready path answered 2xx."""
    models: tuple[str, ...] | None = None
    """Served model ids, in the engine's order; `None` when they could not be read."""
    load: EngineLoad | None = None
    """`None` when the engine has no metrics or they could not be read."""
    problem: str | None = None
    """Why it is not ready, or what could not be read."""


async def probe(
    client: httpx.AsyncClient,
    adapter: EngineAdapter,
    base_url: str,
    api_key: str | None = None,
    *,
    timeout_s: float = 2.0,
) -> Reading:
    """Probe one engine: health and readiness, and if it is ready its models and load.

    `timeout_s` holds for each of at most four requests. Cancellation closes what is under way.
    """
    fetch = _fetcher(client, adapter, base_url, api_key, timeout_s)
    try:
        health = await _status(fetch, adapter.health_path)
        ready = (
            await _status(fetch, adapter.ready_path) if adapter.ready_path != adapter.health_path else health
        )
    except ProbeFailed as failure:
        return Reading(alive=False, ready=False, problem=str(failure))
    if not (_ok(health) and _ok(ready)):
        path, status = (adapter.ready_path, ready) if _ok(health) else (adapter.health_path, health)
        return Reading(alive=_ok(health), ready=False, problem=f"{path} answered {status}")
    return await _details(fetch, adapter)


async def _details(fetch: Fetch, adapter: EngineAdapter) -> Reading:
    problems = []
    models: tuple[str, ...] | None = None
    load: EngineLoad | None = None
    try:
        models = await read_models(fetch)
    except ProbeFailed as failure:
        problems.append(str(failure))
    try:
        load = await read_load(fetch, adapter)
    except ProbeFailed as failure:
        problems.append(str(failure))
    return Reading(alive=True, ready=True, models=models, load=load, problem="; ".join(problems) or None)


async def read_models(fetch: Fetch) -> tuple[str, ...]:
    """Ids of `GET /v1/models`. Raises `ProbeFailed`."""
    body = await _page(fetch, "/v1/models")
    try:
        return tuple(model.id for model in msgspec.json.decode(body, type=_ModelList).data)
    except msgspec.DecodeError as error:
        raise ProbeFailed(f"/v1/models is not a model list: {error}") from error


async def read_load(fetch: Fetch, adapter: EngineAdapter) -> EngineLoad | None:
    """The adapter's reading of its metrics page; `None` when it has none. Raises `ProbeFailed`."""
    if adapter.metrics_path is None:
        return None
    page = await _page(fetch, adapter.metrics_path)
    try:
        return adapter.parse_load(page.decode())
    except ValueError as error:
        raise ProbeFailed(f"{adapter.metrics_path} is not a metrics page: {error}") from error


class _Model(msgspec.Struct):
    id: str


class _ModelList(msgspec.Struct):
    data: list[_Model]


def _ok(status: int) -> bool:
    return 200 <= status < 300


async def _status(fetch: Fetch, path: str) -> int:
    status, _ = await fetch(path)
    return status


async def _page(fetch: Fetch, path: str) -> bytes:
    status, body = await fetch(path)
    if not _ok(status):
        raise ProbeFailed(f"{path} answered {status}")
    return body


def _fetcher(
    client: httpx.AsyncClient, adapter: EngineAdapter, base_url: str, api_key: str | None, timeout_s: float
) -> Fetch:
    transport = adapter.transport()
    if transport is not None:
        return _in_process(transport, base_url, timeout_s)
    return _over_http(client, base_url, api_key, timeout_s)


def _over_http(client: httpx.AsyncClient, base_url: str, api_key: str | None, timeout_s: float) -> Fetch:
    async def fetch(path: str) -> tuple[int, bytes]:
        try:
            # httpx limits single reads; this limits the whole exchange, against engines that trickle.
            async with asyncio.timeout(timeout_s):
                response = await _get(client, base_url, path, list(bearer(api_key)))
        except TimeoutError as error:
            raise ProbeFailed(f"{path} did not answer within {timeout_s:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ProbeFailed(f"{path}: {type(error).__name__}: {error}") from error
        return response.status_code, response.content

    return fetch


async def _get(
    client: httpx.AsyncClient, base_url: str, path: str, headers: list[tuple[bytes, bytes]]
) -> httpx.Response:
    origin, full_path = join_base_url(base_url, path)
    if not origin.startswith("http+unix://"):
        return await client.get(origin + full_path, headers=headers, timeout=None)
    # httpx binds a socket file to a client, not to a request. Without TLS settings that costs little.
    uds = httpx.AsyncHTTPTransport(uds=origin.removeprefix("http+unix://"), verify=False)
    async with httpx.AsyncClient(transport=uds, trust_env=False) as own_client:
        return await own_client.get(f"http://localhost{full_path}", headers=headers, timeout=None)


def _in_process(transport: Transport, base_url: str, timeout_s: float) -> Fetch:
    deadlines = Deadlines(first_byte_s=timeout_s, idle_s=timeout_s, total_s=timeout_s)

    async def fetch(path: str) -> tuple[int, bytes]:
        request = UpstreamRequest(base_url=base_url, path=path, method="GET")
        try:
            response = await transport.send(request, deadlines)
            try:
                return response.status, b"".join([chunk async for chunk in response])
            finally:
                await response.aclose()
        except UpstreamError as error:
            raise ProbeFailed(f"{path}: {error}") from error

    return fetch
