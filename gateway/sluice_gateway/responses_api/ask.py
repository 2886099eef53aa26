"""One request of the Responses API, opened: the conversation it continues, and what its attempts come to.

The pipeline takes a fresh translation for every attempt, and calls `conclude` once: when the answer is
complete and before its last bytes leave, so that a client which continues at once finds what it continues;
or when it gave up, with the reason.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from sluice_gateway.dialects.responses.chat_translation import ChatTranslation
from sluice_gateway.dialects.responses.native_translation import NativeTranslation
from sluice_gateway.dialects.responses.request import CreateRequest, Item
from sluice_gateway.dialects.responses.response_object import Echo, Outcome, ResponseObject, error_of
from sluice_gateway.errors import Failure, Problem
from sluice_gateway.facts import BodyFacts

ANNOUNCED = ("response.created", "response.queued")
"""Events of a background stream that come before any engine has begun."""

_LEFT = (Failure.CLIENT_GONE, Failure.CLIENT_STALLED)


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """What was found out about a request before any engine is asked."""

    tenant: str
    body: bytes
    """The client's bytes."""
    request: CreateRequest
    facts: BodyFacts
    """Of the whole conversation."""
    own_items: Sequence[Item]
    """The request's own input, complete, references resolved."""
    history: Sequence[Item] = ()
    """What came before it, oldest first."""
    ancestors: tuple[str, ...] = ()
    """Ids of the responses that the history is from."""
    chat_body: bytes
    """The conversation for an engine that speaks chat completions."""
    refers: bool = False
    """The body refers to what only the gateway has."""


class ResponseAsk:
    """See above."""

    def __init__(
        self,
        turn: Turn,
        echo: Echo,
        keep: Callable[[ResponseAsk, ResponseObject], Awaitable[None]],
        clock: Callable[[], float],
    ) -> None:
        """`keep` stores a finished response and never raises; `clock` gives seconds since 1970."""
        self.turn = turn
        self.facts = turn.facts
        """The routing fields, the stored history counted in."""
        self.echo = echo
        self._keep = keep
        self._clock = clock
        self._current: ChatTranslation | NativeTranslation | None = None
        self._is_concluded = False

    @property
    def id(self) -> str:
        """The response's id."""
        return self.echo.identity.id

    @property
    def stream(self) -> bool:
        """Whether the client wants events."""
        return self.turn.request.stream

    @property
    def background(self) -> bool:
        """Whether the client wants to come back for the answer: see `ResponsesService.begin`."""
        return self.turn.request.background

    @property
    def attempted(self) -> bool:
        """Whether an engine has been asked."""
        return self._current is not None

    def translation(self) -> ChatTranslation:
        """A fresh attempt on an engine that speaks chat completions."""
        translation = ChatTranslation(
            self.turn.chat_body,
            self.echo,
            keep_logprobs=self.turn.request.wants_logprobs,
            announced=self._announced,
            clock=self._clock,
        )
        self._current = translation
        return translation

    def native_body(self) -> bytes:
        """What an engine that speaks the Responses API is asked: the client's bytes where it can be."""
        if not (self.turn.refers or self.background):
            return self.turn.body
        fields = msgspec.json.decode(self.turn.body)
        for name in ("previous_response_id", "background"):
            fields.pop(name, None)
        items = [*self.turn.history, *self.turn.own_items]
        return msgspec.json.encode({**fields, "input": items, "store": False})

    def native_translation(self) -> NativeTranslation:
        """A fresh attempt on an engine that speaks the Responses API."""
        translation = NativeTranslation(self.native_body(), self.echo, announced=self._announced)
        self._current = translation
        return translation

    async def conclude(self, found: Problem | None = None) -> None:
        """Keep what has come of it; `found` is why it ended early. Only the first call counts.

        A plain request that failed leaves nothing behind: its client got an error, and no response.
        """
        response = self._current.response if self._current is not None else None
        if response is None and found is not None:
            response = self._broken_off(found)
        if response is not None and not self._is_concluded:
            self._is_concluded = True
            await self._keep(self, response)

    def ended(self, status: str, error: dict[str, Any] | None = None) -> ResponseObject:
        """The response, ended from outside, with what there is of its output."""
        if self._current is not None:
            return self._current.broken_off(status, error)
        return self.echo.object(Outcome(status=status, error=error))

    @property
    def _announced(self) -> int:
        return len(ANNOUNCED) if self.background else 0

    def _broken_off(self, found: Problem) -> ResponseObject | None:
        told = self._current is not None and self._current.started and self.stream
        if not (told or self.background):
            return None
        if found.failure in _LEFT:
            return self.ended("cancelled")
        return self.ended("failed", error_of(found))
