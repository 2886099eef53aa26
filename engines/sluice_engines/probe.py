"""One look at an engine: does it live, can it serve, which models, which version.

A probe never raises for what an engine does: what went wrong is a sentence in the reading. It knows nothing
of thresholds or intervals; how many failures make an engine unhealthy is the caller's to say. How busy the
engine is, is asked more often and apart from this: `load_reader.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from sluice_engines.adapter import EngineAdapter, VersionPage
from sluice_engines.page import Page, get_page
from sluice_engines.transport import DeadlineExceeded, Transport, UpstreamError

Fetch = Callable[[str], Awaitable[Page]]
"""The page at a path. Raises `ProbeFailed`."""


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
    version: str | None = None
    """The engine's own; `None` when it was not asked for, or the engine does not say."""
    problem: str | None = None
    """Why it is not ready, or what could not be read."""


async def probe(
    transport: Transport,
    adapter: EngineAdapter,
    base_url: str,
    api_key: str | None = None,
    *,
    timeout_s: float = 2.0,
    ask_version: bool = False,
) -> Reading:
    """Probe one engine: health and readiness, and if it is ready its models, and its version if asked.

    `timeout_s` holds for each of at most four requests. Cancellation closes what is under way.
    """
    fetch = fetcher(transport, base_url, api_key, timeout_s)
    try:
        health = await fetch(adapter.health_path)
        ready = await fetch(adapter.ready_path) if adapter.ready_path != adapter.health_path else health
    except ProbeFailed as failure:
        return Reading(alive=False, ready=False, problem=str(failure))
    if not (health.is_success and ready.is_success):
        path, page = (adapter.ready_path, ready) if health.is_success else (adapter.health_path, health)
        return Reading(alive=health.is_success, ready=False, problem=f"{path} answered {page.status}")
    version = await read_version(fetch, adapter.version) if ask_version else None
    try:
        models = await read_models(fetch)
    except ProbeFailed as failure:
        return Reading(alive=True, ready=True, version=version, problem=str(failure))
    return Reading(alive=True, ready=True, models=models, version=version)


async def read_models(fetch: Fetch) -> tuple[str, ...]:
    """Ids of `GET /v1/models`. Raises `ProbeFailed`."""
    body = await _page(fetch, "/v1/models")
    try:
        return tuple(model.id for model in msgspec.json.decode(body, type=_ModelList).data)
    except msgspec.DecodeError as error:
        raise ProbeFailed(f"/v1/models is not a model list: {error}") from error


async def read_version(fetch: Fetch, where: VersionPage | None) -> str | None:
    """The engine's version; `None` when it does not say."""
    if where is None:
        return None
    try:
        said = msgspec.json.decode(await _page(fetch, where.path), type=dict[str, object]).get(where.field)
    except (ProbeFailed, msgspec.DecodeError):
        return None
    return said if isinstance(said, str) else None


class _Model(msgspec.Struct):
    id: str


class _ModelList(msgspec.Struct):
    data: list[_Model]


async def _page(fetch: Fetch, path: str) -> bytes:
    page = await fetch(path)
    if not page.is_success:
        raise ProbeFailed(f"{path} answered {page.status}")
    return page.body


def fetcher(transport: Transport, base_url: str, api_key: str | None, timeout_s: float) -> Fetch:
    """Pages of one engine; each takes at most `timeout_s`."""

    async def fetch(path: str) -> Page:
        try:
            return await get_page(transport, base_url, path, api_key, timeout_s=timeout_s)
        except DeadlineExceeded as error:
            raise ProbeFailed(f"{path} did not answer within {timeout_s:g} s") from error
        except (UpstreamError, ValueError) as error:
            raise ProbeFailed(f"{path}: {error}") from error

    return fetch
