"""One attempt at one request: adapt it to an engine, send it, relay what comes back.

Nothing is decided here: the router has chosen the endpoint, and whether a failure is repaired elsewhere is
the pipeline's to ask it. What the attempt finds out goes into the exchange; a failure is returned.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from sluice_engines.adapter import ClientRequest
from sluice_engines.http_headers import first_value
from sluice_engines.load_report import HEADER as LOAD_HEADER
from sluice_engines.transport import Deadlines, UpstreamError, UpstreamRequest, UpstreamResponse
from sluice_gateway import multipart, rewrite, upstream_failure
from sluice_gateway.dialects.opened import Opened
from sluice_gateway.dialects.translation import Translation
from sluice_gateway.engines import Engine
from sluice_gateway.errors import Problem
from sluice_gateway.exchange import Exchange
from sluice_gateway.facts import BodyFacts
from sluice_gateway.native_observers import observer_for
from sluice_gateway.relay import BodyRelay, Contend, StreamRelay, is_event_stream, read_refusal
from sluice_gateway.response import Responder
from sluice_gateway.resumption.told import Rest, Told
from sluice_gateway.resumption.transcript import Transcript
from sluice_gateway.routes import DATA_PLANE
from sluice_gateway.settings import Timeouts
from sluice_gateway.tracing.types import Trace
from sluice_gateway.usage import Observer

_COUNTED = frozenset({"chat", "completions"})
"""Kinds whose streams tell their usage when asked to."""


@dataclass(slots=True)
class Job:
    """One request, decoded, with the client's end of it."""

    exchange: Exchange
    client: Responder
    body: bytes
    facts: BodyFacts
    headers: tuple[tuple[bytes, bytes], ...]
    """What the engine gets to see."""
    model: str = ""
    """What the engine is asked for; differs from the client's word when that was an alias."""
    opened: Opened | None = None
    """For dialects other than OpenAI's chat; `None` passes the body on as it is."""
    content_type: bytes = b""
    """Of an upload; empty for JSON."""
    trace: Trace | None = None
    on_content: Callable[[], None] | None = None
    """Called when the first content of a stream has come."""
    contend: Contend | None = None
    """Set when there may be two attempts: asks whether this one answers; see `relay.py`."""
    keeps: bool = False
    """What the client gets of a stream is kept, so that another engine could go on with it."""
    told: Told | None = None
    """A stream that the client has got, or a part of it."""
    rest: Rest | None = None
    """Only this is asked for: the stream was cut."""


@dataclass(slots=True)
class Prepared:
    """What one attempt sends, and what it does with the answer."""

    request: UpstreamRequest
    translation: Translation | None
    observer: Observer
    told: Told | None
    """For streams that can be read, and continued."""


class Attempts:
    """Has engines answer. One for the whole gateway."""

    def __init__(
        self, timeouts: Timeouts, clock: Callable[[], float], hear_load: Callable[[str, bytes], None]
    ) -> None:
        """`hear_load` gets an endpoint and what its answer says of its load; see `told_load.py`."""
        self._hear_load = hear_load
        self._timeouts = timeouts
        self._clock = clock
        self._stream_deadlines = _deadlines(timeouts, timeouts.first_token_s)
        # A plain answer's head comes when it is complete, so only the total bounds it.
        self._plain_deadlines = _deadlines(timeouts, timeouts.total_s)

    async def run(self, engine: Engine, job: Job) -> Problem | None:
        """One exchange with one engine; `None` when the client has its whole answer."""
        prepared = _prepare(engine, job)
        if isinstance(prepared, Problem):
            return prepared
        if job.facts.stream:
            return await self._with_first_token(engine, job, prepared)
        try:
            return await self._exchange(engine, job, prepared, None)
        except UpstreamError as error:
            return upstream_failure.from_exception(error, engine.endpoint.backend)

    async def _with_first_token(self, engine: Engine, job: Job, prepared: Prepared) -> Problem | None:
        limit_s, backend = self._timeouts.first_token_s, engine.endpoint.backend
        try:
            async with asyncio.timeout(limit_s) as first_token:
                return await self._exchange(engine, job, prepared, first_token)
        except UpstreamError as error:
            return upstream_failure.from_exception(error, backend)
        except TimeoutError:
            if not first_token.expired():
                raise
            return upstream_failure.first_token_timeout(backend, limit_s)

    async def _exchange(
        self, engine: Engine, job: Job, prepared: Prepared, first_token: asyncio.Timeout | None
    ) -> Problem | None:
        sent_s = self._clock()
        deadlines = self._plain_deadlines if first_token is None else self._stream_deadlines
        if job.rest is not None:
            deadlines = msgspec.structs.replace(deadlines, total_s=job.rest.left_s)
        try:
            response = await engine.transport.send(prepared.request, deadlines)
        finally:
            job.exchange.upstream_s += self._clock() - sent_s
        if engine.load_report is not None:
            told = first_value(response.headers, LOAD_HEADER)
            if told is not None:
                self._hear_load(engine.endpoint.id, told)
        # Not in a `finally`: what compiled modules may not do is in `compiled/modules.py`.
        found: Problem | BaseException | None
        try:
            found = await self._relay(engine.endpoint.backend, job, prepared, response, first_token)
        except BaseException as error:
            found = error
        await response.aclose()
        if isinstance(found, BaseException):
            raise found
        return found

    async def _relay(
        self,
        backend: str,
        job: Job,
        prepared: Prepared,
        response: UpstreamResponse,
        first_token: asyncio.Timeout | None,
    ) -> Problem | None:
        if not 200 <= response.status < 300:
            return await read_refusal(response, backend)
        finishing = job.opened.conclude if job.opened is not None else None
        if is_event_stream(response) and first_token is not None:
            relay = StreamRelay(
                job.client,
                backend,
                prepared.observer,
                clock=self._clock,
                translation=prepared.translation,
                finishing=finishing,
                on_content=job.on_content,
                contend=job.contend,
                transcript=None if prepared.told is None else prepared.told.transcript,
                splice=None if job.rest is None else job.rest.splice,
            )
            try:
                return await relay.run(response, first_token)
            finally:
                _note_stream(job, relay, prepared.told)
        if job.client.started:
            return upstream_failure.no_stream(backend)
        plain = BodyRelay(job.client, backend, prepared.translation, finishing, job.contend)
        try:
            return await plain.run(response)
        finally:
            if not plain.lost:
                job.exchange.usage, job.exchange.usage_is_exact = plain.usage, plain.usage is not None


def _deadlines(timeouts: Timeouts, first_byte_s: float) -> Deadlines:
    return Deadlines(
        connect_s=timeouts.connect_s,
        first_byte_s=first_byte_s,
        idle_s=timeouts.idle_s,
        total_s=timeouts.total_s,
    )


def _note_stream(job: Job, relay: StreamRelay, told: Told | None) -> None:
    """What was used, cut streams included: content that reached the client was made and is paid for."""
    exchange, observer, rest = job.exchange, relay.observer, job.rest
    if relay.lost or relay.contends:
        return
    if job.client.content_started:
        job.told = told
        if rest is None:
            exchange.usage = observer.settle(job.facts.prompt_tokens_estimate)
        else:
            exchange.usage = rest.splice.usage(observer.usage, observer.content_events)
        exchange.usage_is_exact = observer.usage is not None and rest is None
        if told is not None:
            told.usage = exchange.usage if observer.usage is not None else None
    if relay.first_token_at_s is not None and exchange.first_token_s is None:
        exchange.first_token_s = relay.first_token_at_s - exchange.started_s


def _prepare(engine: Engine, job: Job) -> Prepared | Problem:
    """The bytes for the engine, how its answer is translated, and who reads its stream."""
    facts = job.facts
    found = _question(engine, job)
    if isinstance(found, Problem):
        return found
    kind, path, body, translation = found
    told = None
    if facts.stream and kind in _COUNTED:
        transcript = Transcript(job.keeps) if job.rest is None else job.rest.told.transcript
        original = body if job.rest is None else job.rest.told.original
        told = Told(kind, path, original, translation, transcript)
    inject = engine.backend.inject_usage and told is not None and translation is None
    inject = inject and not facts.include_usage
    job.client.failure_event = None if translation is None else translation.failure
    if job.model != facts.model:
        body = _with_model(job, body)
    if inject:
        body = rewrite.include_usage(body, facts.has_stream_options)
    headers = job.headers
    if job.trace is not None:
        own = (b"traceparent", job.trace.begin_attempt(job.model))
        headers = (*(h for h in headers if h[0] != b"traceparent"), own)
    request = ClientRequest(kind=kind, path=path, body=body, headers=headers)
    sent = engine.adapter.prepare(request, engine.endpoint.url, engine.api_key)
    return Prepared(sent, translation, observer_for(kind, hide_usage=inject), told)


def _question(engine: Engine, job: Job) -> tuple[str, str, bytes, Translation | None] | Problem:
    """Kind, path and body for the engine, and what translates its answer."""
    rest, kind = job.rest, job.exchange.kind
    if rest is not None:
        return rest.told.kind, rest.told.path, rest.body, rest.told.translation
    if job.opened is None:
        return kind, job.exchange.path, job.body, None
    translation = job.opened.attempt(kind in engine.endpoint.capabilities.endpoints)
    if isinstance(translation, Problem):
        return translation
    if translation is None:
        return kind, job.exchange.path, job.body, None
    return DATA_PLANE[translation.path].kind, translation.path, translation.body, translation


def _with_model(job: Job, body: bytes) -> bytes:
    if job.content_type:
        return multipart.with_model(job.content_type, body, job.model)
    return rewrite.replace_model(body, job.model)
