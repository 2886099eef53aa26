"""The way of a request, in one place:

    authenticate → read → decode → reserve limits → admit (queue, shed) → place
        → adapt → send → relay → settle

Each stage is a module of its own and returns what it found out or a `Problem`. Whatever happens, what was
taken is given back: the limiter's lease, the router's ticket, the engine's response, each in its own
`finally`. A client that leaves interrupts the task (`interruption.py`), and the same `finally`s run.

Failover: an endpoint that fails before any content has reached the client is left out and the router decides
anew, as long as the failure is the endpoint's (`FailureClass`). After that another endpoint may go on with a
stream of plain text (`resumption/`); otherwise the failure is reported as it is. An endpoint that is late is
hedged (`hedging.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from sluice_gateway import multipart
from sluice_gateway.admission import Admission
from sluice_gateway.arrival import Arrival
from sluice_gateway.attempt import Attempts, Job
from sluice_gateway.auth import Keyring
from sluice_gateway.dialects.opened import TRANSLATED_TO, Dialects
from sluice_gateway.engines import Engine
from sluice_gateway.errors import Failure, Problem, failure_class, from_reject, internal, problem
from sluice_gateway.exchange import Exchange
from sluice_gateway.facts import decode
from sluice_gateway.health import HealthMonitor
from sluice_gateway.hedging import Hedging
from sluice_gateway.identity import Key
from sluice_gateway.interruption import Interruption
from sluice_gateway.keep_alive import KeepAlive
from sluice_gateway.limits.headers import for_anthropic
from sluice_gateway.limits.refusals import with_anthropic_headers
from sluice_gateway.limits.types import FREE, Demand, Lease, Limiter, Price
from sluice_gateway.metrics import Metrics
from sluice_gateway.models import Catalog
from sluice_gateway.replay.delivery import Delivery
from sluice_gateway.replay.replays import Replays
from sluice_gateway.response import WORDS, Responder, decision_headers
from sluice_gateway.responses_api.serving import BackgroundResponses, ResponseRequest
from sluice_gateway.resumption.resumptions import Resumptions
from sluice_gateway.routes import Family
from sluice_gateway.settings import Server, Timeouts
from sluice_gateway.tracing.types import Trace, TraceMaker
from sluice_gateway.wire import Header
from sluice_router.ticket import Ticket
from sluice_router.types import Endpoint, FailureClass, Reject, RequestFacts

_log = logging.getLogger("sluice")

PASSED_ON = frozenset({b"content-type", b"accept", b"traceparent", b"tracestate", b"baggage"})
"""Request headers that engines get to see, besides the request id. Never the client's credentials."""
_PASSED_ON_PREFIX = b"x-echo-"

_WORDS = {
    Failure.CLIENT_GONE: "The client left.",
    Failure.CLIENT_STALLED: "The client stopped reading.",
    Failure.SHUTTING_DOWN: "The gateway is shutting down; try again shortly.",
}
_RECORDED = ("made", "miss")
"""Answers that were made by a request of its own, which is in the records already."""
_UNSEEN = (Failure.CLIENT_GONE, Failure.CLIENT_STALLED)

Recorder = Callable[[Exchange], None]
"""Takes note of a request that has ended. Never waits, never raises."""


@dataclass(frozen=True)
class Stages:
    """What the pipeline is made of."""

    keyring: Keyring
    limiter: Limiter
    admission: Admission
    catalog: Catalog
    engines: Mapping[str, Engine]
    """By endpoint id."""
    dialects: Dialects
    background: BackgroundResponses
    health: HealthMonitor
    metrics: Metrics
    prices: Mapping[str, Price]
    """By model."""
    replays: Replays
    resumptions: Resumptions
    recorders: Sequence[Recorder]
    tracer: TraceMaker | None


class Pipeline:
    """Serves requests. One for the whole gateway."""

    def __init__(
        self, stages: Stages, server: Server, timeouts: Timeouts, clock: Callable[[], float]
    ) -> None:
        self._stages = stages
        self._server = server
        self._timeouts = timeouts
        self._clock = clock
        attempts = Attempts(timeouts, clock, stages.health.hear_load)
        self._hedging = Hedging(stages.admission, stages.engines, attempts, self._note_failure)
        self._draining = False
        self._running: set[Interruption] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def in_flight(self) -> int:
        """Requests on their way."""
        return len(self._running)

    def drain(self) -> None:
        """Refuse new requests from here on."""
        self._draining = True

    def interrupt_all(self) -> None:
        """End every request on its way with an error."""
        for interruption in tuple(self._running):
            interruption.interrupt(Failure.SHUTTING_DOWN)

    async def wait_until_idle(self, limit_s: float) -> None:
        """Return when no request is on its way, or after `limit_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._idle.wait()

    async def serve(self, arrival: Arrival) -> Exchange:
        """Answer one request, and say how it went. Never raises for what client or engine do."""
        interruption = Interruption(_current_task())
        envelope = arrival.envelope
        exchange = Exchange(envelope.request_id, arrival.route.kind, arrival.route.path, envelope.started_s)
        client = Responder(arrival.wire, envelope, interruption, WORDS[arrival.route.family])
        self._running.add(interruption)
        self._idle.clear()
        tracer = self._stages.tracer
        trace = tracer.begin(arrival.headers.get(b"traceparent"), exchange) if tracer is not None else None
        try:
            found = await self._supervise(exchange, arrival, interruption, client, trace)
            arrival.source.unwatch()
            await self._conclude(exchange, client, found)
        finally:
            if trace is not None:
                trace.end()
            arrival.source.unwatch()
            self._running.discard(interruption)
            if not self._running:
                self._idle.set()
        return exchange

    async def _supervise(
        self,
        exchange: Exchange,
        arrival: Arrival,
        interruption: Interruption,
        client: Responder,
        trace: Trace | None,
    ) -> Problem | None:
        """Run the stages, and make a `Problem` of what interrupts them."""
        try:
            return await self._answer(exchange, arrival, interruption, client, trace)
        except asyncio.CancelledError:
            if interruption.cause is None:
                raise
            _current_task().uncancel()
            return problem(interruption.cause, _WORDS[interruption.cause])
        except Exception:
            _log.exception("request %s failed inside the gateway", exchange.request_id)
            return internal(exchange.request_id)

    async def _answer(
        self,
        exchange: Exchange,
        arrival: Arrival,
        interruption: Interruption,
        client: Responder,
        trace: Trace | None,
    ) -> Problem | None:
        """Authenticate, read, decode; the rest of the way follows in the methods below."""
        headers = arrival.headers
        key = arrival.key or self._stages.keyring.authenticate(headers, arrival.server)
        if isinstance(key, Problem):
            return key
        exchange.key_id, exchange.tenant = key.id, key.tenant
        if self._draining:
            return problem(Failure.SHUTTING_DOWN, _WORDS[Failure.SHUTTING_DOWN])
        body = await arrival.source.read(self._server.max_body_bytes, self._server.body_timeout_s)
        if isinstance(body, Problem):
            return body
        replays = arrival.may_replay and self._stages.replays.applies(headers)
        if not replays:
            arrival.source.watch(interruption)
        job = await self._decode(exchange, client, arrival, body, key)
        if isinstance(job, Problem):
            return job
        exchange.model, exchange.stream = job.facts.model, job.facts.stream
        facts = self._stages.catalog.facts(
            exchange.request_id, exchange.kind, job.facts, headers, key, len(body)
        )
        if isinstance(facts, Problem):
            return facts
        if arrival.priority is not None:
            facts = msgspec.structs.replace(facts, priority=arrival.priority)
        if replays:
            return await self._replay(exchange, arrival, interruption, client, key, body)
        if isinstance(job.opened, ResponseRequest) and job.opened.detached:
            return await self._stages.background.begin(job.opened.ask, arrival, key, client)
        job.trace = trace
        found = await self._with_lease(job, facts, key, arrival.route.family)
        if found is not None and job.opened is not None:
            await job.opened.conclude(found)
        return found

    async def _replay(
        self,
        exchange: Exchange,
        arrival: Arrival,
        interruption: Interruption,
        client: Responder,
        key: Key,
        body: bytes,
    ) -> Problem | None:
        """Give an answer that is there or being made; or have it made, by a request of its own."""
        delivery = Delivery(arrival.wire, interruption)
        try:
            how = await self._stages.replays.serve(arrival, key, body, delivery, self._produce)
        finally:
            client.adopt(delivery.status, delivery.finished, delivery.is_event_stream)
        if isinstance(how, Problem):
            return how
        exchange.cache = how
        return None

    async def _produce(self, arrival: Arrival) -> Exchange:
        arrival.may_replay = False
        return await self.serve(arrival)

    async def _decode(
        self, exchange: Exchange, client: Responder, arrival: Arrival, body: bytes, key: Key
    ) -> Job | Problem:
        """The routing facts, by the way of the request's kind."""
        kind, headers = exchange.kind, arrival.headers
        passed_on = _passed_on(headers, exchange.request_id)
        if kind in TRANSLATED_TO:
            opened = arrival.opened or await self._stages.dialects.open(kind, body, key)
            if isinstance(opened, Problem):
                return opened
            return Job(exchange, client, body, opened.facts, passed_on, opened=opened)
        content_type = headers.get(b"content-type", b"") if arrival.route.multipart else b""
        multi = arrival.route.multipart
        decoded = multipart.decode(kind, content_type, body) if multi else decode(kind, body)
        if isinstance(decoded, Problem):
            return decoded
        return Job(exchange, client, body, decoded, passed_on, content_type=content_type)

    async def _with_lease(self, job: Job, facts: RequestFacts, key: Key, family: Family) -> Problem | None:
        exchange = job.exchange
        exchange.price = self._price(facts)
        demand = Demand(
            model=facts.model,
            prompt_tokens=facts.prompt_tokens_estimate,
            max_tokens=facts.max_tokens,
            price=exchange.price,
        )
        limiter = self._stages.limiter
        lease = await limiter.reserve(key, demand)
        if isinstance(lease, Problem):
            return with_anthropic_headers(lease) if family == "anthropic" else lease
        try:
            job.client.extra = lambda: self._extra_headers(exchange, lease, family)
            return await self._with_ticket(job, facts)
        finally:
            limiter.settle(lease, exchange.usage)

    def _price(self, facts: RequestFacts) -> Price:
        """An alias without a price of its own costs what its first target does."""
        prices = self._stages.prices
        found = prices.get(facts.model)
        if found is None and facts.choices:
            found = prices.get(facts.choices[0].model)
        return found or FREE

    def _extra_headers(self, exchange: Exchange, lease: Lease, family: Family) -> list[Header]:
        elapsed_s = self._clock() - exchange.started_s
        limits = lease.headers
        if family == "anthropic":
            limits = for_anthropic(limits, lease.state)
        return [*limits, *decision_headers(exchange, elapsed_s)]

    async def _with_ticket(self, job: Job, facts: RequestFacts) -> Problem | None:
        """Admit, and try endpoints until one has answered or none is left."""
        admission, exchange = self._stages.admission, job.exchange
        keep_alive = self._keep_alive(job) if facts.stream else None
        job.keeps = self._stages.resumptions.enabled
        last: Problem | None = None
        ticket: Ticket | None = None
        ended: FailureClass | None = FailureClass.CLIENT_GONE  # what an interruption means to the endpoint
        try:
            ticket = await admission.admit(facts)
            while isinstance(ticket.decision, Endpoint):
                exchange.attempts, exchange.queued_s = ticket.attempts, ticket.waited_s
                last = await self._attempt(job, ticket, ticket.decision)
                if last is None or not await self._again(job, ticket, last):
                    ended = None if last is None else failure_class(last)
                    return None if last is None else self._stages.resumptions.outcome(job, last)
            self._stages.resumptions.exhaust(job)
            return last or self._refusal(ticket)
        finally:
            if ticket is not None:
                admission.release(ticket, exchange.usage, ended)
            if keep_alive is not None:
                keep_alive.stop()

    async def _again(self, job: Job, ticket: Ticket, found: Problem) -> bool:
        """Have the router decide anew after a failure; False when the client gets to know of it."""
        if not job.client.content_started:
            await self._stages.admission.retry(ticket, failure_class(found))
            return True
        facts = self._stages.resumptions.begin(job, ticket, found)
        if facts is not None:
            await self._stages.admission.resume(ticket, failure_class(found), facts)
        return facts is not None

    def _keep_alive(self, job: Job) -> KeepAlive:
        timeouts = self._timeouts
        return KeepAlive(
            job.client, asyncio.get_running_loop(), timeouts.hold_status_s, timeouts.keep_alive_s
        )

    def _refusal(self, ticket: Ticket) -> Problem:
        """The router's refusal of a request that was never placed: the client's mistake, or our lack of
        room."""
        assert isinstance(ticket.decision, Reject)
        return self._stages.catalog.explain(ticket.facts) or from_reject(ticket.decision)

    async def _attempt(self, job: Job, ticket: Ticket, endpoint: Endpoint) -> Problem | None:
        """Have one endpoint answer."""
        engine, exchange = self._stages.engines[endpoint.id], job.exchange
        exchange.backend, exchange.endpoint, exchange.quant = endpoint.backend, endpoint.id, endpoint.quant
        job.model, exchange.route = ticket.model, ticket.route
        if job.facts.stream:
            job.on_content = partial(self._stages.admission.first_token, ticket)
        if job.model != job.facts.model:
            exchange.price = self._stages.prices.get(job.model, exchange.price)
        found = await self._hedging.run(engine, job, ticket)
        if job.trace is not None:
            job.trace.end_attempt(None if found is None else found.failure.value)
        if found is None:
            self._stages.resumptions.complete(job)
        else:
            self._note_failure(ticket.endpoint or endpoint, found)
        return found

    def _note_failure(self, endpoint: Endpoint, found: Problem) -> None:
        """Count an attempt that failed, and have the engine looked at if it may be gone."""
        self._stages.metrics.count_upstream_failure(endpoint.backend, found.failure.value)
        if found.failure is Failure.UPSTREAM_CONNECT:
            self._stages.health.report_unreachable(endpoint.id, "cannot be reached")
        elif found.failure is Failure.UPSTREAM_LOST:
            self._stages.health.report_suspect(endpoint.id)

    async def _conclude(self, exchange: Exchange, client: Responder, found: Problem | None) -> None:
        """Tell the client how it ended, and record it."""
        if found is not None:
            exchange.failure = found.failure
            if found.failure not in _UNSEEN:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._server.write_timeout_s):
                        await client.problem(found)
        exchange.status = client.status or (found.status if found is not None else 0)
        exchange.duration_s = self._clock() - exchange.started_s
        if exchange.cache in _RECORDED:
            return
        if exchange.usage is not None:
            exchange.cost = exchange.price.cost(exchange.usage)
        for record in self._stages.recorders:
            record(exchange)


def _passed_on(headers: dict[bytes, bytes], request_id: str) -> tuple[tuple[bytes, bytes], ...]:
    kept = [(b"x-request-id", request_id.encode())]
    for header in headers.items():
        name = header[0]
        if name in PASSED_ON or name[:7] == _PASSED_ON_PREFIX:
            kept.append(header)
    return tuple(kept)


def _current_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task
