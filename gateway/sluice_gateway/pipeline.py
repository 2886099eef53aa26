"""The way of a request, in one place:

    authenticate → read → decode → reserve limits → admit (queue, shed) → place
        → adapt → send → relay → settle

Each stage is a module of its own and returns what it found out or a `Problem`. Whatever happens, what was
taken is given back: the limiter's lease, the router's ticket, the engine's response, each in its own
`finally`. A client that leaves cancels the task from `disconnect.py`, and the same `finally`s run.

Failover: an endpoint that fails before a byte has reached the client is left out and the router decides
anew, as long as the failure is the endpoint's (`errors.may_fail_over`). After that the failure is reported
as it is; two engines' answers are never spliced together.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sluice_engines.adapter import ClientRequest
from sluice_engines.transport import Deadlines, UpstreamError, UpstreamRequest, UpstreamResponse
from sluice_gateway import rewrite, upstream_failure
from sluice_gateway.admission import Admission
from sluice_gateway.auth import Keyring
from sluice_gateway.body import read_body
from sluice_gateway.disconnect import Watch
from sluice_gateway.engines import Engine
from sluice_gateway.errors import Failure, Problem, from_reject, internal, may_fail_over, problem
from sluice_gateway.exchange import Exchange
from sluice_gateway.facts import BodyFacts, decode
from sluice_gateway.health import HealthMonitor
from sluice_gateway.identity import Key
from sluice_gateway.limits.types import Demand, Limiter
from sluice_gateway.logs import RequestLog
from sluice_gateway.metrics import Metrics
from sluice_gateway.models import Catalog
from sluice_gateway.relay import BodyRelay, StreamRelay, is_event_stream, read_refusal
from sluice_gateway.response import Envelope, Responder
from sluice_gateway.routes import Kind
from sluice_gateway.settings import Server, Timeouts
from sluice_gateway.wire import Receive, Send
from sluice_router.ticket import Ticket
from sluice_router.types import Endpoint, Reject, RequestFacts

_log = logging.getLogger("sluice")

PASSED_ON = frozenset({b"content-type", b"accept", b"traceparent", b"tracestate", b"baggage"})
"""Request headers that engines get to see, besides the request id. Never the client's credentials."""
_PASSED_ON_PREFIX = b"x-echo-"

_WORDS = {
    Failure.CLIENT_GONE: "The client left.",
    Failure.CLIENT_STALLED: "The client stopped reading.",
    Failure.SHUTTING_DOWN: "The gateway is shutting down; try again shortly.",
}


@dataclass(frozen=True)
class Stages:
    """What the pipeline is made of."""

    keyring: Keyring
    limiter: Limiter
    admission: Admission
    catalog: Catalog
    engines: Mapping[str, Engine]
    """By endpoint id."""
    health: HealthMonitor
    metrics: Metrics
    log: RequestLog | None
    """`None` writes no request lines."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request as the front door hands it over."""

    path: str
    headers: dict[bytes, bytes]
    """Lower-case names."""
    server: tuple[str, int | None] | None
    """The address that it came in on."""
    receive: Receive
    send: Send
    envelope: Envelope


@dataclass(frozen=True, slots=True)
class _Job:
    """One request, decoded, with the client's end of it."""

    exchange: Exchange
    client: Responder
    path: str
    body: bytes
    facts: BodyFacts
    headers: tuple[tuple[bytes, bytes], ...]
    """What the engine gets to see."""


class Pipeline:
    """Serves requests. One for the whole gateway."""

    def __init__(
        self, stages: Stages, server: Server, timeouts: Timeouts, clock: Callable[[], float]
    ) -> None:
        self._stages = stages
        self._server = server
        self._timeouts = timeouts
        self._clock = clock
        self._draining = False
        self._watches: set[Watch] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def in_flight(self) -> int:
        """Requests on their way."""
        return len(self._watches)

    def drain(self) -> None:
        """Refuse new requests from here on."""
        self._draining = True

    def interrupt_all(self) -> None:
        """End every request on its way with an error."""
        for watch in tuple(self._watches):
            watch.interrupt(Failure.SHUTTING_DOWN)

    async def wait_until_idle(self, limit_s: float) -> None:
        """Return when no request is on its way, or after `limit_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._idle.wait()

    async def serve(self, kind: Kind, arrival: Arrival) -> None:
        """Answer one request. Never raises for what client or engine do."""
        watch = Watch(arrival.receive, _current_task(), self._server.write_timeout_s)
        envelope = arrival.envelope
        exchange = Exchange(envelope.request_id, kind, arrival.path, envelope.started_s)
        client = Responder(watch.guard(arrival.send), envelope)
        self._watches.add(watch)
        self._idle.clear()
        self._stages.metrics.in_flight.inc()
        try:
            found = await self._supervise(exchange, arrival, watch, client)
            watch.stop()
            await self._conclude(exchange, client, found)
        finally:
            watch.stop()
            self._watches.discard(watch)
            if not self._watches:
                self._idle.set()
            self._stages.metrics.in_flight.dec()

    async def _supervise(
        self, exchange: Exchange, arrival: Arrival, watch: Watch, client: Responder
    ) -> Problem | None:
        """Run the stages, and make a `Problem` of what interrupts them."""
        try:
            return await self._answer(exchange, arrival, watch, client)
        except asyncio.CancelledError:
            if watch.cause is None:
                raise
            _current_task().uncancel()
            return problem(watch.cause, _WORDS[watch.cause])
        except Exception:
            _log.exception("request %s failed inside the gateway", exchange.request_id)
            return internal(exchange.request_id)

    async def _answer(
        self, exchange: Exchange, arrival: Arrival, watch: Watch, client: Responder
    ) -> Problem | None:
        """Authenticate, read, decode; the rest of the way follows in the methods below."""
        headers = arrival.headers
        key = self._stages.keyring.authenticate(headers, arrival.server)
        if isinstance(key, Problem):
            return key
        exchange.key_id, exchange.tenant = key.id, key.tenant
        if self._draining:
            return problem(Failure.SHUTTING_DOWN, _WORDS[Failure.SHUTTING_DOWN])
        server = self._server
        body = await read_body(arrival.receive, headers, server.max_body_bytes, server.body_timeout_s)
        if isinstance(body, Problem):
            return body
        watch.start()
        decoded = decode(exchange.kind, body)
        if isinstance(decoded, Problem):
            return decoded
        exchange.model, exchange.stream = decoded.model, decoded.stream
        facts = self._stages.catalog.facts(exchange.request_id, exchange.kind, decoded, headers, key)
        if isinstance(facts, Problem):
            return facts
        passed_on = _passed_on(headers, exchange.request_id)
        job = _Job(exchange, client, arrival.path, body, decoded, passed_on)
        return await self._with_lease(job, facts, key)

    async def _with_lease(self, job: _Job, facts: RequestFacts, key: Key) -> Problem | None:
        demand = Demand(
            model=facts.model, prompt_tokens=facts.prompt_tokens_estimate, max_tokens=facts.max_tokens
        )
        lease = await self._stages.limiter.reserve(key, demand)
        if isinstance(lease, Problem):
            return lease
        try:
            return await self._with_ticket(job, facts)
        finally:
            self._stages.limiter.settle(lease, job.exchange.usage)

    async def _with_ticket(self, job: _Job, facts: RequestFacts) -> Problem | None:
        """Admit, and try endpoints until one has answered or none is left."""
        admission, exchange = self._stages.admission, job.exchange
        ticket = await admission.admit(facts)
        try:
            last: Problem | None = None
            while isinstance(ticket.decision, Endpoint):
                exchange.attempts, exchange.queued_s = ticket.attempts, ticket.waited_s
                last = await self._attempt(job, ticket.decision)
                if last is None or job.client.started or not may_fail_over(last.failure):
                    return last
                await admission.retry(ticket)
            return last or self._refusal(ticket)
        finally:
            admission.release(ticket, exchange.usage)

    def _refusal(self, ticket: Ticket) -> Problem:
        """The router's refusal of a request that was never placed: the client's mistake, or our lack of
        room."""
        assert isinstance(ticket.decision, Reject)
        return self._stages.catalog.explain(ticket.facts) or from_reject(ticket.decision)

    async def _attempt(self, job: _Job, endpoint: Endpoint) -> Problem | None:
        """Have one endpoint answer."""
        engine, exchange = self._stages.engines[endpoint.id], job.exchange
        exchange.backend, exchange.endpoint = endpoint.backend, endpoint.id
        job.client.served_by = endpoint.backend
        found = await self._exchange_with(engine, job)
        if found is not None:
            self._note_failure(endpoint, found)
        return found

    async def _exchange_with(self, engine: Engine, job: _Job) -> Problem | None:
        request, hide_usage = _prepare(engine, job)
        backend, streams = engine.endpoint.backend, job.facts.stream
        limit_s = self._timeouts.first_token_s if streams else None
        try:
            async with asyncio.timeout(limit_s) as first_token:
                response = await engine.transport.send(request, self._deadlines(streams))
                try:
                    return await self._relay(job, backend, response, hide_usage, first_token)
                finally:
                    await response.aclose()
        except UpstreamError as error:
            return upstream_failure.from_exception(error, backend)
        except TimeoutError:
            if not first_token.expired():
                raise
            return upstream_failure.first_token_timeout(backend, self._timeouts.first_token_s)

    async def _relay(
        self,
        job: _Job,
        backend: str,
        response: UpstreamResponse,
        hide_usage: bool,
        first_token: asyncio.Timeout,
    ) -> Problem | None:
        if not 200 <= response.status < 300:
            return await read_refusal(response, backend)
        if is_event_stream(response):
            return await self._relay_stream(job, backend, response, hide_usage, first_token)
        plain = BodyRelay(job.client, backend)
        try:
            return await plain.run(response)
        finally:
            job.exchange.usage, job.exchange.usage_is_exact = plain.usage, plain.usage is not None

    async def _relay_stream(
        self,
        job: _Job,
        backend: str,
        response: UpstreamResponse,
        hide_usage: bool,
        first_token: asyncio.Timeout,
    ) -> Problem | None:
        hold_until_s = self._clock() + self._timeouts.hold_status_s
        relay = StreamRelay(
            job.client, backend, hide_usage=hide_usage, hold_until_s=hold_until_s, clock=self._clock
        )
        exchange = job.exchange
        try:
            return await relay.run(response, first_token)
        finally:
            if job.client.started:
                exchange.usage = relay.observer.settle(job.facts.prompt_tokens_estimate)
                exchange.usage_is_exact = relay.observer.usage is not None
            if relay.first_token_at_s is not None:
                exchange.first_token_s = relay.first_token_at_s - exchange.started_s

    def _deadlines(self, streams: bool) -> Deadlines:
        """A plain answer's head comes when it is complete, so only the total bounds it."""
        timeouts = self._timeouts
        return Deadlines(
            connect_s=timeouts.connect_s,
            first_byte_s=timeouts.first_token_s if streams else timeouts.total_s,
            idle_s=timeouts.idle_s,
            total_s=timeouts.total_s,
        )

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
            if found.failure not in (Failure.CLIENT_GONE, Failure.CLIENT_STALLED):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._server.write_timeout_s):
                        await client.problem(found)
        exchange.status = client.status or (found.status if found is not None else 0)
        exchange.duration_s = self._clock() - exchange.started_s
        self._stages.metrics.record(exchange)
        if self._stages.log is not None:
            self._stages.log.write(exchange)


def _prepare(engine: Engine, job: _Job) -> tuple[UpstreamRequest, bool]:
    """The bytes for the engine, and whether the usage event has to be kept from the client."""
    facts, body = job.facts, job.body
    inject = (
        facts.stream
        and not facts.include_usage
        and engine.backend.inject_usage
        and job.exchange.kind != "embeddings"
    )
    if inject:
        body = rewrite.include_usage(body, facts.has_stream_options)
    request = ClientRequest(kind=job.exchange.kind, path=job.path, body=body, headers=job.headers)
    return engine.adapter.prepare(request, engine.endpoint.url, engine.api_key), inject


def _passed_on(headers: dict[bytes, bytes], request_id: str) -> tuple[tuple[bytes, bytes], ...]:
    kept = [h for h in headers.items() if h[0] in PASSED_ON or h[0].startswith(_PASSED_ON_PREFIX)]
    return (*kept, (b"x-request-id", request_id.encode()))


def _current_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task
