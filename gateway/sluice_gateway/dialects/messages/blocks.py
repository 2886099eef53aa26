"""The content blocks of a streamed message: opened, filled and closed one after the other, never interleaved.

A chat stream may change between thinking, text and any of several calls at every chunk. Here one block is
open at a time, and what belongs to another waits. The open block closes when another has something to say and
it has said all: a text or a thought at once (more of it later is a new block), a call once its input is a
complete JSON object. So a call's input streams as it comes, and only calls that really overlap wait.

Invariants: a delta's type is that of its block; the deltas of a call, joined, are its arguments; indices
count from 0 without gaps. Source: the Messages API reference, "Streaming messages".
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from sluice_gateway.dialects.messages.call_ids import CallIds
from sluice_gateway.dialects.messages.chat import ToolCall, signature

Kind = Literal["thinking", "text", "tool_use"]
Event = dict[str, Any]

_DELTAS = {
    "thinking": ("thinking_delta", "thinking"),
    "text": ("text_delta", "text"),
    "tool_use": ("input_json_delta", "partial_json"),
}


class _Block:
    """One block, open or waiting."""

    __slots__ = ("_complete", "call_id", "kind", "name", "pieces", "sent")

    def __init__(self, kind: Kind, name: str = "", call_id: str | None = None) -> None:
        """`name` and `call_id` are a call's."""
        self.kind = kind
        self.name = name
        self.call_id = call_id
        self.pieces: list[str] = []
        self.sent = 0
        """How many of the pieces have gone out."""
        self._complete: bool | None = None

    def add(self, piece: str) -> None:
        self.pieces.append(piece)
        self._complete = None

    @property
    def complete(self) -> bool:
        """Whether it may be closed for the sake of another."""
        if self.kind != "tool_use":
            return True
        if self._complete is None:
            self._complete = _is_object("".join(self.pieces))
        return self._complete

    def head(self, ids: CallIds) -> dict[str, Any]:
        """The block as it is announced."""
        if self.kind == "thinking":
            return {"type": "thinking", "thinking": "", "signature": ""}
        if self.kind == "text":
            return {"type": "text", "text": ""}
        return {"type": "tool_use", "id": ids.of(self.call_id), "name": self.name, "input": {}}

    def delta(self) -> dict[str, Any] | None:
        """What has not gone out yet."""
        text = "".join(self.pieces[self.sent :])
        self.sent = len(self.pieces)
        if not text:
            return None
        kind, field = _DELTAS[self.kind]
        return {"type": kind, field: text}


class BlockSequence:
    """Puts the blocks of one message in order. Events are returned as they become due."""

    __slots__ = ("_calls", "_ids", "_index", "_open", "_waiting")

    def __init__(self, ids: CallIds) -> None:
        self._ids = ids
        self._open: _Block | None = None
        self._waiting: list[_Block] = []
        self._calls: dict[int, _Block] = {}
        self._index = -1

    @property
    def has_calls(self) -> bool:
        """Whether there was any call."""
        return bool(self._calls)

    def say(self, kind: Literal["thinking", "text"], piece: str) -> list[Event]:
        """More thought, or more text."""
        if not piece:
            return []
        block = next((b for b in [self._open, *self._waiting] if b is not None and b.kind == kind), None)
        if block is None:
            block = _Block(kind)
            self._waiting.append(block)
        block.add(piece)
        return self._advance()

    def call(self, index: int, call: ToolCall) -> list[Event]:
        """A new call, or more of one, whose name some engines repeat.

        Raises `ValueError` for a new call without a name, and for more of one that had ended.
        """
        block = self._calls.get(index)
        if block is None:
            if not call.function.name:
                raise ValueError("a tool call begins without its name")
            block = self._calls[index] = _Block("tool_use", call.function.name, call.id)
            self._waiting.append(block)
        piece = call.function.arguments_text
        if piece and block is not self._open and block not in self._waiting:
            if piece.strip():
                raise ValueError("a tool call goes on after its arguments were complete")
            return []
        if piece:
            block.add(piece)
        return self._advance()

    def end(self) -> list[Event]:
        """Everything that is left."""
        events: list[Event] = []
        while self._open is not None or self._waiting:
            events += self._close()
            if self._waiting:
                events += self._open_next()
        return events

    def _advance(self) -> list[Event]:
        events = self._flush()
        while self._waiting and (self._open is None or self._open.complete):
            events += self._close()
            events += self._open_next()
        return events

    def _open_next(self) -> list[Event]:
        self._open = self._waiting.pop(0)
        self._index += 1
        head = self._open.head(self._ids)
        return [
            {"type": "content_block_start", "index": self._index, "content_block": head},
            *self._flush(),
        ]

    def _flush(self) -> list[Event]:
        delta = self._open.delta() if self._open is not None else None
        return [self._delta(delta)] if delta is not None else []

    def _close(self) -> list[Event]:
        if self._open is None:
            return []
        block, self._open = self._open, None
        stop = {"type": "content_block_stop", "index": self._index}
        if block.kind != "thinking":
            return [stop]
        sign = {"type": "signature_delta", "signature": signature("".join(block.pieces))}
        return [self._delta(sign), stop]

    def _delta(self, delta: dict[str, Any]) -> Event:
        return {"type": "content_block_delta", "index": self._index, "delta": delta}


def _is_object(text: str) -> bool:
    try:
        return isinstance(msgspec.json.decode(text), dict)
    except (ValueError, RecursionError):
        return False
