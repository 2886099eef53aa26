"""Responses through the pipeline: an ask as the pipeline opens it, background runs, and counting tokens."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable

import msgspec

from sluice_gateway import upstream_failure
from sluice_gateway.arrival import Arrival, GivenBody
from sluice_gateway.batches.runner_types import Runner
from sluice_gateway.dialects.translation import Translation
from sluice_gateway.errors import Problem
from sluice_gateway.exchange import Exchange
from sluice_gateway.facts import BodyFacts
from sluice_gateway.identity import Key
from sluice_gateway.request_ids import RequestIds
from sluice_gateway.response import Envelope, Responder
from sluice_gateway.responses_api.ask import ResponseAsk
from sluice_gateway.responses_api.service import ResponsesService
from sluice_gateway.wire import Wire

Serve = Callable[[Arrival], Awaitable[Exchange]]


class _Count(msgspec.Struct, frozen=True):
    count: int


_COUNT = msgspec.json.Decoder(_Count)
_ASKED = ("model", "messages", "tools", "chat_template_kwargs")
"""Of a chat request, what its prompt is made of."""


class ResponseRequest:
    """An ask as `Opened`."""

    def __init__(self, ask: ResponseAsk, *, in_background: bool = False) -> None:
        """`in_background`: this is the run, not the request that began it."""
        self.ask = ask
        self._in_background = in_background

    @property
    def facts(self) -> BodyFacts:
        """See `Opened`."""
        return self.ask.facts

    @property
    def detached(self) -> bool:
        """See `Opened`."""
        return self.ask.background and not self._in_background

    def attempt(self, native: bool) -> Translation | Problem | None:
        """See `Opened`."""
        return self.ask.native_translation() if native else self.ask.translation()

    async def conclude(self, found: Problem | None) -> None:
        """See `Opened`."""
        if not self.detached:
            await self.ask.conclude(found)


class Opener:
    """See `ResponseOpener`."""

    def __init__(self, service: ResponsesService) -> None:
        self._service = service

    async def open(self, body: bytes, key: Key) -> ResponseRequest | Problem:
        """See `ResponseOpener`."""
        ask = await self._service.open(body, key)
        return ask if isinstance(ask, Problem) else ResponseRequest(ask)


class BackgroundResponses:
    """Begins responses that nobody waits for."""

    def __init__(self, service: ResponsesService, serve: Serve, clock: Callable[[], float]) -> None:
        """`serve` is the pipeline's, `clock` its clock."""
        self._service = service
        self._serve = serve
        self._clock = clock
        self._ids = RequestIds(os.urandom)

    async def begin(self, ask: ResponseAsk, arrival: Arrival, key: Key, client: Responder) -> Problem | None:
        """Start the run, and answer its client: with the queued response, or with the events as they come."""

        async def generate(ask: ResponseAsk, wire: Wire) -> None:
            await self._serve(
                Arrival(
                    arrival.route,
                    dict(arrival.headers),
                    arrival.server,
                    GivenBody(ask.turn.body),
                    wire,
                    Envelope(self._ids.new(), self._clock, []),
                    key=key,
                    priority=arrival.priority,
                    may_replay=False,
                    opened=ResponseRequest(ask, in_background=True),
                )
            )

        run = await self._service.begin(ask, generate)
        if isinstance(run, Problem):
            return run
        if not ask.stream:
            await _done(client.whole(200, run.queued))
            return None
        await _done(client.start_events())
        async for events in run.log.follow(-1):
            await _done(client.write(events))
        await _done(client.finish())
        return None


class TokenCounter:
    """Counts a chat request's prompt by asking the engine that would serve it."""

    def __init__(self, run: Runner) -> None:
        self._run = run
        self._ids = RequestIds(os.urandom)

    async def __call__(self, chat_body: bytes, key: Key) -> int | Problem:
        """Tokens, or why they cannot be counted."""
        fields = msgspec.json.decode(chat_body)
        asked = {name: fields[name] for name in _ASKED if name in fields}
        body = msgspec.json.encode({**asked, "add_generation_prompt": True})
        answer = await self._run(
            "tokenize", "/tokenize", body, key, request_id=self._ids.new(), priority="default"
        )
        if answer.status != 200:
            return upstream_failure.from_response(answer.status, (), answer.body, "tokenize")
        try:
            return _COUNT.decode(answer.body).count
        except (msgspec.DecodeError, ValueError) as error:
            return upstream_failure.not_understood("tokenize", ValueError(str(error)))


async def _done(waiting: Awaitable[None] | None) -> None:
    if waiting is not None:
        await waiting
