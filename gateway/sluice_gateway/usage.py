"""What a request used, read from a copy of the bytes that go by.

The observer looks at each event of a stream once, after which the event is forgotten: memory stays constant
however long the stream. An engine's own `usage` is exact. A stream that is cut before it came is settled
with the number of events that carried content, which for an engine that sends a token an event is the number
of tokens.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Protocol

import msgspec

from sluice_gateway.sse import DONE, event_data
from sluice_router.types import Usage

_TAIL_BYTES = 65_536


_ABSENT = msgspec.Raw(b"null")


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: msgspec.Raw = _ABSENT
    function_call: msgspec.Raw = _ABSENT


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    """Of chat and completions; rerankers tell the total only, speech and images what went in and came out."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None


class _Chunk(msgspec.Struct):
    choices: Sequence[_Choice] = ()
    usage: _Usage | None = None
    error: msgspec.Raw = _ABSENT


class _Body(msgspec.Struct):
    usage: _Usage | None = None
    error: msgspec.Raw = _ABSENT


_CHUNK = msgspec.json.Decoder(_Chunk)
_BODY = msgspec.json.Decoder(_Body)


class Observer(Protocol):
    """Reads the events of one stream, in whatever dialect the engine speaks."""

    data_events: int
    """Events other than comments."""
    content_events: int
    """Pieces that a client can show."""
    usage: Usage | None
    error: bytes | None
    """Data of the first error event."""

    @property
    def ended(self) -> bool:
        """The stream said that it is complete."""
        ...

    def keep(self, event: bytes) -> bool:
        """Take note of an event. False when the client is not to see it."""
        ...

    def note_plain(self, event: bytes) -> bool:
        """Take note of an event if it is one choice's piece of text and nothing else; False if it may not be.

        A shortcut for most events of a stream: what it refuses, `keep` looks at.
        """
        ...

    def settle(self, prompt_tokens_estimate: int) -> Usage:
        """The usage to settle with: the engine's own, or what was seen."""
        ...


class StreamObserver:
    """Reads the events of one stream of chat or text completions."""

    __slots__ = ("_hide_usage", "content_events", "data_events", "done", "error", "finished", "usage")

    def __init__(self, hide_usage: bool) -> None:
        """`hide_usage`: the client did not ask for the event that carries only the usage."""
        self._hide_usage = hide_usage
        self.data_events = 0
        """Events other than comments."""
        self.content_events = 0
        """Choices that got something to show."""
        self.usage: Usage | None = None
        self.error: bytes | None = None
        """Data of the first error event."""
        self.finished = False
        """A finish reason was there."""
        self.done = False
        """`[DONE]` was there."""

    @property
    def ended(self) -> bool:
        """See `Observer`."""
        return self.done or self.finished

    def note_plain(self, event: bytes) -> bool:
        """See `Observer`."""
        if not _is_plain_content(event):
            return False
        self.data_events += 1
        self.content_events += 1
        return True

    def keep(self, event: bytes) -> bool:
        """See `Observer`."""
        if self.note_plain(event):
            return True
        data = event_data(event)
        if data is None:
            return True
        self.data_events += 1
        if data == DONE:
            self.done = True
            return True
        try:
            chunk = _CHUNK.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.content_events += 1
            return True
        if _is_there(chunk.error):
            self.error = self.error or data
        if chunk.usage is not None:
            self.usage = _to_usage(chunk.usage)
        self._note_choices(chunk.choices)
        return not (self._hide_usage and chunk.usage is not None and not chunk.choices)

    def settle(self, prompt_tokens_estimate: int) -> Usage:
        """The usage to settle with: the engine's own, or what was seen."""
        return self.usage or Usage(
            prompt_tokens=prompt_tokens_estimate, completion_tokens=self.content_events
        )

    def _note_choices(self, choices: Sequence[_Choice]) -> None:
        for choice in choices:
            if choice.finish_reason:
                self.finished = True
            if choice.text or (choice.delta is not None and _shows(choice.delta)):
                self.content_events += 1


def _is_plain_content(event: bytes) -> bool:
    """Whether an event is one choice's piece of text and nothing else, which most events of a stream are.

    Looked for as bytes, which is cheaper than decoding. Inside a JSON string every quote is escaped, so
    none of these can be part of a text. May say no too often: then the event is decoded.
    """
    return (
        event.startswith(b"data: {")
        and event.count(b'"delta":') == 1
        and event.count(b'"finish_reason":') == 1
        and b'"finish_reason":null' in event
        and b'"content":"' in event
        and b'"content":""' not in event
        and b'"usage":{' not in event
        and b'"usage": {' not in event
        and b'"error"' not in event
        and event.find(b"\n") == len(event) - 2
    )


class BodyReading(msgspec.Struct, frozen=True, kw_only=True):
    """What a plain answer said about itself."""

    usage: Usage | None
    is_error: bool
    """A success status with an `error` object in it."""


def read_body(body: bytes) -> BodyReading:
    """Usage and error of a complete plain answer."""
    try:
        fields = _BODY.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return BodyReading(usage=None, is_error=False)
    usage = _to_usage(fields.usage) if fields.usage is not None else None
    return BodyReading(usage=usage, is_error=_is_there(fields.error))


class Tail:
    """The last bytes of an answer too large to be kept, where the usage usually is."""

    def __init__(self) -> None:
        self._bytes = b""

    def feed(self, chunk: bytes) -> None:
        """Take note of a piece of the body."""
        self._bytes = (self._bytes + chunk)[-_TAIL_BYTES:]

    def usage(self) -> Usage | None:
        """The last usage object in it."""
        found = self._bytes.rfind(b'"usage"')
        if found < 0:
            return None
        text = self._bytes[found + len(b'"usage"') :].decode("utf-8", "replace").lstrip(" \t\r\n:")
        try:
            value, _ = json.JSONDecoder().raw_decode(text)
            return _to_usage(msgspec.convert(value, _Usage))
        except (ValueError, msgspec.ValidationError, RecursionError):
            return None


def _shows(delta: _Delta) -> bool:
    return bool(
        delta.content
        or delta.reasoning_content
        or delta.reasoning
        or delta.refusal
        or _is_there(delta.tool_calls)
        or _is_there(delta.function_call)
    )


def _is_there(raw: msgspec.Raw) -> bool:
    """Whether a key was in the object, with a value that says something."""
    return raw is not _ABSENT and bytes(raw) not in (b"null", b"[]")


def _to_usage(usage: _Usage) -> Usage:
    details = usage.prompt_tokens_details
    written = usage.completion_tokens or usage.output_tokens or 0
    read = usage.prompt_tokens if usage.prompt_tokens is not None else usage.input_tokens
    if read is None:
        read = max(0, (usage.total_tokens or 0) - written)
    return Usage(
        prompt_tokens=read,
        completion_tokens=written,
        cached_tokens=(details.cached_tokens or 0) if details is not None else 0,
    )
