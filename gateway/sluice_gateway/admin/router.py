"""`GET /admin/v1/router`: what waits and for how long, what each endpoint holds, what is predicted from, and
what was decided last, in this process.

The router's snapshot and its details as JSON; its times as ages. What an engine says of itself is in
`/admin/v1/engines`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import msgspec
from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from sluice_gateway.admin.gate import admin_key
from sluice_router.breaker import BreakerState
from sluice_router.inspection import PlacedSnapshot, RouterDetails, WaitingSnapshot
from sluice_router.routing import Routing
from sluice_router.snapshot import ReplicaSnapshot, RouterSnapshot


class WaitingView(BaseModel):
    """What one tenant has waiting in one class."""

    priority: str
    tenant: str
    requests: int
    tokens: int
    work: int
    oldest_s: float = Field(description="Seconds since the oldest of them came.")


class QueueView(BaseModel):
    """What waits."""

    requests: int
    tokens: int = Field(description="Prompt tokens, as estimated.")
    work: int = Field(description="Expected cost: a prompt token is 1, an output token 2.")
    body_bytes: int
    waiting: list[WaitingView] = Field(description="The same by class and tenant, the most urgent first.")


class SpeedView(BaseModel):
    """What times are predicted with. Null until enough is measured."""

    ttft_base_s: float | None = Field(description="To the first token of an empty prompt,")
    own_token_s: float | None = Field(description="for each uncached token of the prompt,")
    queued_token_s: float | None = Field(description="for each token of those queued before,")
    beside_token_s: float | None = Field(description="and for each of both, times the requests there.")
    itl_base_s: float | None = Field(description="Between two tokens,")
    itl_request_s: float | None = Field(description="and for each request of the batch.")
    itl_measured: int = Field(description="Answers that the last two rest on.")


class EndpointView(BaseModel):
    """One endpoint. Null is not known or not measured yet, never zero."""

    id: str
    backend: str
    healthy: bool
    draining: bool
    breaker: BreakerState
    breaker_forced: bool
    probe_in_s: float | None = Field(description="Until an open breaker lets a request pass, to try.")
    failures: int = Field(description="In a row, as the breaker counted.")
    in_flight: int
    in_flight_limit: int = Field(description="Fewer than configured where an engine's answers slowed down.")
    leases: int = Field(description="Requests that hold something of it; the same as `in_flight`.")
    oldest_lease_s: float | None = Field(description="Seconds since the oldest of them was placed.")
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
    speed: SpeedView


class ReturnsView(BaseModel):
    """Who was told when to come back, and has not come yet."""

    expected: int = Field(description="Requests.")
    service_s: float = Field(description="Seconds of the engines' time that they will need.")
    last_in_s: float | None = Field(description="Until the last time that was told.")
    kept_share: float = Field(description="Of those who were told one, how many came at it lately.")


class ScoreView(BaseModel):
    """What a candidate was found to be. The lowest score wins, unless it has just failed."""

    endpoint: str
    why: str
    hit_tokens: int
    queued_tokens: int
    running: int
    kv_used_ratio: float | None
    warmth: float
    score: float


class PlacedView(BaseModel):
    """One placement."""

    request_id: str
    tenant: str
    priority: str
    age_s: float
    route: str = Field(description="As in `x-sluice-route`.")
    prompt_tokens: int
    hit_tokens: int = Field(description="Expected in the engine's cache.")
    output_tokens: int = Field(description="Expected.")
    waited_s: float
    scores: list[ScoreView] = Field(description="Of the candidates, where the prompt or a session decided.")


class RouterView(BaseModel):
    """All of it."""

    object: Literal["router"] = "router"
    queue: QueueView
    admitted: int
    retries: int
    retries_left: float = Field(description="What their budget allows now.")
    hedges: dict[str, int] = Field(description="Second attempts by what became of them, or why none.")
    outcomes: dict[str, int] = Field(description="Requests that have ended, by how.")
    prefix_blocks: int = Field(description="Blocks of prompts believed to be in the engines' caches.")
    prefix_bytes: int = Field(description="Memory of that index.")
    returns: ReturnsView
    endpoints: list[EndpointView]
    placed: list[PlacedView] = Field(description="The last placements, the newest first.")


class Fleet(Protocol):
    """Where the answer comes from; the gateway, whose router changes with a reload."""

    router: Routing


def router_router(fleet: Fleet, clock: Callable[[], float]) -> APIRouter:
    """The route. `clock` is the router's."""
    router = APIRouter(prefix="/admin/v1", dependencies=[Depends(admin_key)])

    @router.get(
        "/router",
        tags=["engines"],
        summary="The router's queue, and of every endpoint its load, speed and breaker.",
        response_model=RouterView,
    )
    async def state() -> RouterView:
        now = clock()
        return _view(fleet.router.snapshot(), fleet.router.details(now), now)

    return router


def _view(snapshot: RouterSnapshot, details: RouterDetails, now: float) -> RouterView:
    returns = details.returns
    return RouterView(
        queue=QueueView(
            requests=snapshot.waiting,
            tokens=snapshot.waiting_tokens,
            work=snapshot.waiting_work,
            body_bytes=details.waiting_bytes,
            waiting=[_waiting(one, now) for one in details.waiting],
        ),
        admitted=snapshot.admitted,
        retries=snapshot.retries,
        retries_left=details.retries_left,
        hedges={result.value: count for result, count in snapshot.hedges.items()},
        outcomes={outcome.value: count for outcome, count in snapshot.outcomes.items()},
        prefix_blocks=snapshot.prefix_blocks,
        prefix_bytes=snapshot.prefix_bytes,
        returns=ReturnsView(
            expected=returns.expected,
            service_s=returns.service_s,
            last_in_s=_until(returns.last_at, now),
            kept_share=returns.kept_share,
        ),
        endpoints=[_endpoint(replica, now) for replica in snapshot.replicas],
        placed=[_placed(one, now) for one in details.placed],
    )


def _waiting(one: WaitingSnapshot, now: float) -> WaitingView:
    return WaitingView(
        priority=one.priority,
        tenant=one.tenant,
        requests=one.requests,
        tokens=one.tokens,
        work=one.work,
        oldest_s=now - one.oldest_arrived_at,
    )


def _endpoint(replica: ReplicaSnapshot, now: float) -> EndpointView:
    work = msgspec.structs.asdict(replica.work)
    oldest_at: float | None = work.pop("oldest_lease_at")
    return EndpointView(
        id=replica.endpoint.id,
        backend=replica.endpoint.backend,
        healthy=replica.healthy,
        draining=replica.draining,
        breaker=replica.breaker,
        breaker_forced=replica.breaker_forced,
        probe_in_s=_until(replica.probe_at, now),
        failures=replica.failures,
        in_flight=replica.in_flight,
        oldest_lease_s=None if oldest_at is None else now - oldest_at,
        expected_tokens=replica.expected_tokens,
        cached_tokens=replica.cached_tokens,
        speed=SpeedView(**msgspec.structs.asdict(replica.speed)),
        **work,
    )


def _placed(one: PlacedSnapshot, now: float) -> PlacedView:
    return PlacedView(
        request_id=one.request_id,
        tenant=one.tenant,
        priority=one.priority,
        age_s=now - one.placed_at,
        route=one.route,
        prompt_tokens=one.prompt_tokens,
        hit_tokens=one.hit_tokens,
        output_tokens=one.output_tokens,
        waited_s=one.waited_s,
        scores=[ScoreView(**score._asdict()) for score in one.scores],
    )


def _until(at: float | None, now: float) -> float | None:
    return None if at is None else max(0.0, at - now)
