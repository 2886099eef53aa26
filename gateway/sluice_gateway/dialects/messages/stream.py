"""A chat stream as the Messages API's events.

    message_start (content_block_start content_block_delta* content_block_stop)* message_delta message_stop

The start is sent with the first content, not before: until then another engine may still be asked, and a
message must not begin twice. What is known of the usage by then is in it; the rest, which chat streams tell
last, is in `message_delta`, whose counts are totals.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from sluice_gateway.dialects.messages.blocks import BlockSequence, Event
from sluice_gateway.dialects.messages.call_ids import CallIds
from sluice_gateway.dialects.messages.chat import (
    NO_USAGE,
    ChatUsage,
    Choice,
    Said,
    decode_chat,
    message_id,
    stop_of,
)


class MessageStream:
    """One stream."""

    def __init__(self, model: str, sequences: Sequence[str], shows_thinking: bool) -> None:
        """`model` is what the client asked for; `sequences` are the stop sequences that it gave."""
        self._model = model
        self._sequences = sequences
        self._shows_thinking = shows_thinking
        self._id: str | None = None
        self._blocks: BlockSequence | None = None
        self._usage: ChatUsage | None = None
        self._finish_reason: str | None = None
        self._matched: str | None = None

    def feed(self, data: bytes) -> bytes:
        """The events that one chunk causes. Raises `ValueError` when it is not a chat chunk."""
        chunk = decode_chat(data)
        self._usage = chunk.usage or self._usage
        if self._id is None and chunk.id:
            self._id = message_id(chunk.id, data)
        choice = chunk.first
        if choice is None:
            return b""
        self._note(choice)
        if choice.delta is None or not self._shows(choice.delta):
            return b""
        start = self._start(data)
        return _frames([*start, *self._said(choice.delta)])

    def end(self) -> bytes:
        """The events that close it."""
        events = self._start(b"")
        assert self._blocks is not None
        events += self._blocks.end()
        stop_reason, stop_sequence = stop_of(
            self._finish_reason, self._matched, self._sequences, self._blocks.has_calls
        )
        delta = {"stop_reason": stop_reason, "stop_sequence": stop_sequence}
        usage = (self._usage or NO_USAGE).as_message()
        events.append({"type": "message_delta", "delta": delta, "usage": usage})
        events.append({"type": "message_stop"})
        return _frames(events)

    def _note(self, choice: Choice) -> None:
        self._matched = choice.matched or self._matched
        refused = choice.delta is not None and choice.delta.refusal
        if refused or self._finish_reason is None:
            self._finish_reason = "content_filter" if refused else choice.finish_reason

    def _shows(self, delta: Said) -> bool:
        return bool(delta.text or delta.tool_calls or (self._shows_thinking and delta.thoughts))

    def _said(self, delta: Said) -> list[Event]:
        assert self._blocks is not None
        events: list[Event] = []
        if self._shows_thinking:
            events += self._blocks.say("thinking", delta.thoughts)
        events += self._blocks.say("text", delta.text)
        for position, call in enumerate(delta.tool_calls or ()):
            events += self._blocks.call(position if call.index is None else call.index, call)
        return events

    def _start(self, data: bytes) -> list[Event]:
        """The first event, unless it has been sent."""
        if self._blocks is not None:
            return []
        identity = self._id or message_id(None, data)
        self._blocks = BlockSequence(CallIds(identity))
        message: dict[str, Any] = {
            "id": identity,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": (self._usage or NO_USAGE).as_message(),
        }
        return [{"type": "message_start", "message": message}]


def _frames(events: list[Event]) -> bytes:
    return b"".join(
        b"event: %b\ndata: %b\n\n" % (event["type"].encode(), msgspec.json.encode(event)) for event in events
    )
