"""`GET /admin/v1/engines`: every backend and each of its replicas, as this process sees them now.

Put together from what the router and the health monitor hold; nothing is asked of engines for it, so it can
be called as often as one likes. Readings carry their age: a load is what the engine said then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import msgspec
from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from sluice_gateway.admin.gate import admin_key
from sluice_gateway.engines import Engine
from sluice_gateway.health import EngineStatus, HealthMonitor
from sluice_router.breaker import BreakerState
from sluice_router.routing import Routing
from sluice_router.snapshot import ReplicaSnapshot

State = Literal["ready", "not_ready", "draining", "suspended"]


class CapabilitiesView(BaseModel):
    """What an engine can do."""

    endpoints: list[str] = Field(description="Kinds of request that it answers itself.")
    logprobs: bool
    prompt_logprobs: bool
    tools: bool
    tool_calls: bool
    json_schema: bool
    images: bool
    multiple_choices: bool
    continues_text: bool = Field(description="It may be asked for the rest of a cut text completion.")
    continues_chat: bool = Field(description="And of a cut chat.")
    continues_space: bool = Field(description="And where that begins or ends with white space.")


class LoadView(BaseModel):
    """What the engine said of itself. Null is unknown, never zero; counters begin again with the engine."""

    running: int | None
    waiting: int | None
    waiting_uncached_tokens: int | None
    max_running: int | None
    kv_used_ratio: float | None
    kv_block_tokens: int | None
    kv_capacity_tokens: int | None
    prefix_queried_tokens: int | None
    prefix_hit_tokens: int | None
    prefix_hit_ratio: float | None
    preemptions: int | None
    prompt_tokens: int | None
    generation_tokens: int | None
    ttft_sum_s: float | None
    ttft_count: int | None
    queue_time_sum_s: float | None
    queue_time_count: int | None
    draft_tokens: int | None
    accepted_tokens: int | None
    max_loras: int | None
    loras: list[str] | None
    asleep: bool | None
    quant: str | None


class ReplicaView(BaseModel):
    """One replica."""

    id: str = Field(description="As in metrics and logs.")
    url: str
    state: State = Field(
        description="`ready` gets requests; `suspended` by its breaker, `draining` by somebody's wish."
    )
    problem: str | None = Field(description="Why it is not ready.")
    version: str | None = Field(description="What the engine says of itself.")
    models: list[str] = Field(description="Empty: any.")
    quant: str
    in_flight: int = Field(description="Requests that this process has sent and not seen the end of.")
    max_in_flight: int
    settled: int
    failures: int = Field(description="In a row.")
    mean_service_s: float | None
    load: LoadView | None
    load_age_s: float | None = Field(description="Seconds since the load was read.")
    load_problem: str | None = Field(description="What of the load could not be read, and why.")


class BackendView(BaseModel):
    """One backend."""

    backend: str = Field(description="What `X-Backend` selects.")
    adapter: str
    engine: str = Field(description="What the engine calls itself.")
    capabilities: CapabilitiesView
    replicas: list[ReplicaView]


class EngineList(BaseModel):
    """All backends, in the order in which `/v1/models` lists them."""

    object: Literal["list"] = "list"
    data: list[BackendView]


class Fleet(Protocol):
    """Where the answer comes from; the gateway, whose engines change with a reload."""

    engines: tuple[Engine, ...]
    router: Routing
    health: HealthMonitor


def engines_router(fleet: Fleet, clock: Callable[[], float]) -> APIRouter:
    """The route. `clock` is the router's."""
    router = APIRouter(prefix="/admin/v1", dependencies=[Depends(admin_key)])

    @router.get(
        "/engines",
        tags=["engines"],
        summary="Every backend and replica: state, version, models, load and its age, capabilities.",
        response_model=EngineList,
    )
    async def engines() -> EngineList:
        replicas = fleet.router.snapshot().replicas
        return EngineList(data=_backends(fleet.engines, replicas, fleet.health, clock()))

    return router


def _backends(
    engines: Sequence[Engine], replicas: Sequence[ReplicaSnapshot], health: HealthMonitor, now: float
) -> list[BackendView]:
    known = {replica.endpoint.id: replica for replica in replicas}
    views: dict[str, BackendView] = {}
    for engine in engines:
        name = engine.backend.name
        if name not in views:
            views[name] = BackendView(
                backend=name,
                adapter=engine.adapter.name,
                engine=engine.adapter.title,
                capabilities=_capabilities(engine),
                replicas=[],
            )
        endpoint_id = engine.endpoint.id
        views[name].replicas.append(_replica(known[endpoint_id], health.status(endpoint_id), now))
    return list(views.values())


def _capabilities(engine: Engine) -> CapabilitiesView:
    values = msgspec.structs.asdict(engine.endpoint.capabilities)
    return CapabilitiesView(**{**values, "endpoints": sorted(values["endpoints"])})


def _replica(replica: ReplicaSnapshot, status: EngineStatus, now: float) -> ReplicaView:
    endpoint = replica.endpoint
    load = None if replica.load is None else LoadView(**msgspec.structs.asdict(replica.load))
    return ReplicaView(
        id=endpoint.id,
        url=endpoint.url,
        state=_state(replica),
        problem=status.problem or None,
        version=status.version,
        models=list(endpoint.models),
        quant=endpoint.quant,
        in_flight=replica.in_flight,
        max_in_flight=endpoint.max_in_flight,
        settled=replica.settled,
        failures=replica.failures,
        mean_service_s=replica.mean_service_s,
        load=load,
        load_age_s=None if replica.load_at is None else round(max(0.0, now - replica.load_at), 3),
        load_problem=status.load_problem,
    )


def _state(replica: ReplicaSnapshot) -> State:
    if not replica.healthy:
        return "not_ready"
    if replica.draining:
        return "draining"
    return "suspended" if replica.breaker is BreakerState.OPEN else "ready"
