"""One attempt at a Responses request on an engine that speaks chat completions.

Implements `Translation`. Nothing is emitted before the engine has said something of substance: until then
another engine can take over without the client noticing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from sluice_gateway.dialects.responses.chat_answer import News, read, used
from sluice_gateway.dialects.responses.event_stream import EventWriter
from sluice_gateway.dialects.responses.output import Output
from sluice_gateway.dialects.responses.response_object import Echo, Outcome, ResponseObject, error_of
from sluice_gateway.errors import Problem
from sluice_router.types import Usage


class ChatTranslation:
    """See `Translation`."""

    path = "/v1/chat/completions"

    def __init__(
        self,
        body: bytes,
        echo: Echo,
        *,
        keep_logprobs: bool,
        announced: int = 0,
        clock: Callable[[], float],
    ) -> None:
        """`announced`: events that the client has got already, `response.created` first. `clock` gives
        seconds since 1970."""
        self.body = body
        self.response: ResponseObject | None = None
        """The finished response; `None` until it is."""
        self._echo = echo
        self._clock = clock
        self._announced = announced
        self._writer = EventWriter(announced)
        self._output = Output(echo.identity, self._writer, keep_logprobs)
        self._started = False
        self._incomplete_reason: str | None = None
        self._usage: dict[str, Any] | None = None
        self._service_tier: str | None = None

    @property
    def started(self) -> bool:
        """Whether the engine has said anything of substance."""
        return self._started

    @property
    def usage(self) -> Usage | None:
        """What the engine reported."""
        return used(self._usage)

    def whole(self, body: bytes) -> bytes:
        """See `Translation`."""
        self._note(read(body))
        self._finish()
        assert self.response is not None
        return msgspec.json.encode(self.response)

    def events(self, data: bytes) -> bytes:
        """See `Translation`."""
        self._note(read(data))
        return self._writer.take()

    def end(self) -> bytes:
        """See `Translation`."""
        self._finish()
        assert self.response is not None
        self._writer.add(f"response.{self.response['status']}", {"response": self.response})
        return self._writer.take()

    def failure(self, found: Problem) -> bytes:
        """See `Translation`: `response.failed`, with what there is of the output."""
        self._start()
        self.response = self._echo.object(self._outcome("failed", error_of(found)))
        self._writer.add("response.failed", {"response": self.response})
        return self._writer.take()

    def broken_off(self, status: str, error: dict[str, Any] | None) -> ResponseObject:
        """The response as it stands, when it ends without the engine's or the stream's last word."""
        return self._echo.object(self._outcome(status, error))

    def _note(self, news: News) -> None:
        if news.says_something:
            self._start()
        self._output.add(news)
        self._incomplete_reason = news.incomplete_reason or self._incomplete_reason
        self._usage = news.usage or self._usage
        self._service_tier = news.service_tier or self._service_tier

    def _start(self) -> None:
        if self._started:
            return
        self._started = True
        response = self._echo.object(Outcome())
        if not self._announced:
            self._writer.add("response.created", {"response": response})
        self._writer.add("response.in_progress", {"response": response})

    def _finish(self) -> None:
        self._start()
        status = "incomplete" if self._incomplete_reason else "completed"
        self._output.close(status)
        self.response = self._echo.object(self._outcome(status, None))

    def _outcome(self, status: str, error: dict[str, Any] | None) -> Outcome:
        return Outcome(
            status=status,
            output=self._output.items(),
            usage=self._usage,
            error=error,
            incomplete_reason=self._incomplete_reason if status == "incomplete" else None,
            service_tier=self._service_tier,
            completed_at=int(self._clock()) if status == "completed" else None,
        )
