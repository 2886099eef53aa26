"""`GET /admin/v1/router`: what waits, what each endpoint holds, and what is predicted from, in this process.

The router's snapshot as JSON. What an engine says of itself is in `/admin/v1/engines`.
"""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec
from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from sluice_gateway.admin.gate import admin_key
from sluice_router.breaker import BreakerState
from sluice_router.routing import Routing
from sluice_router.snapshot import ReplicaSnapshot


class QueueView(BaseModel):
    """What waits."""

    requests: int
    tokens: int = Field(description="Prompt tokens, as estimated.")
    work: int = Field(description="Expected cost: a prompt token is 1, an output token 2.")


class EndpointView(BaseModel):
    """One endpoint. Null is not known or not measured yet, never zero."""

    id: str
    backend: str
    healthy: bool
    draining: bool
    breaker: BreakerState
    breaker_forced: bool
    failures: int = Field(description="In a row, as the breaker counted.")
    in_flight: int
    in_flight_limit: int = Field(description="Fewer than configured where an engine's answers slowed down.")
    leases: int = Field(description="Requests that hold something of it; the same as `in_flight`.")
    work: int = Field(description="Theirs, in the queue's unit.")
    new_tokens_queued: int = Field(description="Prompt tokens that it has still to compute.")
    kv_tokens: int = Field(description="Tokens in its KV cache, or expected to be.")
    kv_used_ratio: float | None
    prefill_tokens_per_s: float | None = Field(description="Learned from first tokens.")
    itl_s: float | None = Field(description="Seconds between tokens of a request alone; learned.")
    drain_work_per_s: float = Field(description="Work that leaves it in a second; 0 while unknown.")
    ttft_measured: int = Field(description="First tokens that predictions rest on.")
    expected_tokens: int = Field(description="Prompt tokens that placement expected in its cache,")
    cached_tokens: int = Field(description="and those that it found there.")


class RouterView(BaseModel):
    """All of it."""

    object: Literal["router"] = "router"
    queue: QueueView
    admitted: int
    retries: int
    outcomes: dict[str, int] = Field(description="Requests that have ended, by how.")
    prefix_blocks: int = Field(description="Blocks of prompts believed to be in the engines' caches.")
    prefix_bytes: int = Field(description="Memory of that index.")
    endpoints: list[EndpointView]


class Fleet(Protocol):
    """Where the answer comes from; the gateway, whose router changes with a reload."""

    router: Routing


def router_router(fleet: Fleet) -> APIRouter:
    """The route."""
    router = APIRouter(prefix="/admin/v1", dependencies=[Depends(admin_key)])

    @router.get(
        "/router",
        tags=["engines"],
        summary="The router's queue, and of every endpoint its load, speed and breaker.",
        response_model=RouterView,
    )
    async def state() -> RouterView:
        snapshot = fleet.router.snapshot()
        return RouterView(
            queue=QueueView(
                requests=snapshot.waiting, tokens=snapshot.waiting_tokens, work=snapshot.waiting_work
            ),
            admitted=snapshot.admitted,
            retries=snapshot.retries,
            outcomes={outcome.value: count for outcome, count in snapshot.outcomes.items()},
            prefix_blocks=snapshot.prefix_blocks,
            prefix_bytes=snapshot.prefix_bytes,
            endpoints=[_endpoint(replica) for replica in snapshot.replicas],
        )

    return router


def _endpoint(replica: ReplicaSnapshot) -> EndpointView:
    return EndpointView(
        id=replica.endpoint.id,
        backend=replica.endpoint.backend,
        healthy=replica.healthy,
        draining=replica.draining,
        breaker=replica.breaker,
        breaker_forced=replica.breaker_forced,
        failures=replica.failures,
        in_flight=replica.in_flight,
        expected_tokens=replica.expected_tokens,
        cached_tokens=replica.cached_tokens,
        **msgspec.structs.asdict(replica.work),
    )
