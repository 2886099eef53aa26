"""Reading the streams of engines that speak another dialect than chat completions themselves.

Their bytes go to the client as they are; what is read here is only whether there is content, an error, an
end, and what was used. Sources: the Responses and the Messages API references.
"""

from __future__ import annotations

import msgspec

from sluice_gateway.sse import event_data
from sluice_gateway.usage import Observer, StreamObserver
from sluice_router.types import Usage


def observer_for(kind: str, *, hide_usage: bool) -> Observer:
    """Who reads a stream that answers a request of this kind."""
    if kind in ("chat", "completions"):
        return StreamObserver(hide_usage)
    if kind == "responses":
        return ResponsesObserver()
    if kind == "messages":
        return MessagesObserver()
    return OpaqueObserver()


class _CachedDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _TypedUsage(msgspec.Struct):
    """What both dialects call their tokens."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    input_tokens_details: _CachedDetails | None = None


class _Holder(msgspec.Struct):
    usage: _TypedUsage | None = None


class _TypedEvent(msgspec.Struct):
    type: str = ""
    response: _Holder | None = None
    message: _Holder | None = None
    usage: _TypedUsage | None = None


_EVENT = msgspec.json.Decoder(_TypedEvent)


class OpaqueObserver:
    """A stream of which nothing is known: every event is content, and its end is its end."""

    __slots__ = ("content_events", "data_events", "error", "usage")

    def __init__(self) -> None:
        self.data_events = 0
        self.content_events = 0
        self.usage: Usage | None = None
        self.error: bytes | None = None

    @property
    def ended(self) -> bool:
        """See `Observer`."""
        return self.data_events > 0

    def note_plain(self, event: bytes) -> bool:
        """See `Observer`. Their events are not worth a shortcut."""
        return False

    def keep(self, event: bytes) -> bool:
        """See `Observer`."""
        if event_data(event) is not None:
            self.data_events += 1
            self.content_events += 1
        return True

    def settle(self, prompt_tokens_estimate: int) -> Usage:
        """See `Observer`."""
        return self.usage or Usage(
            prompt_tokens=prompt_tokens_estimate, completion_tokens=self.content_events
        )


class _TypedObserver(OpaqueObserver):
    """A stream whose events name their type."""

    __slots__ = ("_done",)
    last_types: frozenset[str] = frozenset()

    def __init__(self) -> None:
        super().__init__()
        self._done = False

    @property
    def ended(self) -> bool:
        return self._done

    def keep(self, event: bytes) -> bool:
        data = event_data(event)
        if data is None:
            return True
        self.data_events += 1
        try:
            found = _EVENT.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return True
        self._note(found, data)
        return True

    def _note(self, found: _TypedEvent, data: bytes) -> None:
        if found.type == "error":
            self.error = self.error or data
        if found.type.endswith("delta"):
            self.content_events += 1
        if found.type in self.last_types:
            self._done = True


class ResponsesObserver(_TypedObserver):
    """The Responses API's events."""

    __slots__ = ()
    last_types = frozenset({"response.completed", "response.incomplete", "response.failed"})

    def _note(self, found: _TypedEvent, data: bytes) -> None:
        super()._note(found, data)
        if found.response is not None and found.response.usage is not None:
            usage = found.response.usage
            details = usage.input_tokens_details
            self.usage = Usage(
                prompt_tokens=usage.input_tokens or 0,
                completion_tokens=usage.output_tokens or 0,
                cached_tokens=(details.cached_tokens or 0) if details is not None else 0,
            )


class MessagesObserver(_TypedObserver):
    """The Messages API's events. Its input tokens do not include those read from a cache."""

    __slots__ = ("_cached", "_input", "_output")
    last_types = frozenset({"message_stop"})

    def __init__(self) -> None:
        super().__init__()
        self._input = self._cached = self._output = 0

    def _note(self, found: _TypedEvent, data: bytes) -> None:
        super()._note(found, data)
        usage = found.usage or (found.message.usage if found.message is not None else None)
        if usage is None:
            return
        created = usage.cache_creation_input_tokens or 0
        if usage.input_tokens is not None:
            self._input = usage.input_tokens + created
        self._cached = usage.cache_read_input_tokens or self._cached
        self._output = usage.output_tokens or self._output
        self.usage = Usage(
            prompt_tokens=self._input + self._cached,
            completion_tokens=self._output,
            cached_tokens=self._cached,
        )
