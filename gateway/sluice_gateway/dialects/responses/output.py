"""The output items of one response as they grow, and the events that tell of it.

Invariant: what the events say, put together by a client, is what `items` returns: same ids, same indexes,
same texts. Thoughts and text are open one at a time, in the order in which the engine sends them; function
calls stay open until the end, because an engine may interleave the pieces of several.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from sluice_gateway.dialects.responses.chat_answer import CallPiece, News
from sluice_gateway.dialects.responses.event_stream import EventWriter
from sluice_gateway.dialects.responses.request import Item
from sluice_gateway.dialects.responses.response_object import Identity

_TEXT_KEY = {"output_text": "text", "refusal": "refusal", "reasoning_text": "text"}
"""Part type to the key its text is under. Event names are made of the part type."""


class _Open(Protocol):
    """An item that has begun."""

    closed: bool

    def item(self, status: str) -> Item:
        """As it is now; `status` is for an item that is not closed."""
        ...

    def close(self, status: str, events: EventWriter) -> None:
        """No more will come."""
        ...


class _Part:
    """A part of an item: some text of one type."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.pieces: list[str] = []
        self.logprobs: list[dict[str, Any]] = []

    def value(self) -> dict[str, Any]:
        value: dict[str, Any] = {"type": self.kind, _TEXT_KEY[self.kind]: "".join(self.pieces)}
        if self.kind == "output_text":
            value |= {"annotations": [], "logprobs": list(self.logprobs)}
        return value


class _TextItem:
    """A message, or thoughts."""

    def __init__(self, kind: str, item_id: str, index: int, events: EventWriter) -> None:
        self.kind = kind
        self.closed = False
        self._place = {"item_id": item_id, "output_index": index}
        self._parts: list[_Part] = []
        self._status = ""
        events.add("response.output_item.added", {"output_index": index, "item": self.item("in_progress")})

    def add(self, kind: str, text: str, logprobs: Sequence[dict[str, Any]], events: EventWriter) -> None:
        """More text of a part type."""
        if not self._parts or self._parts[-1].kind != kind:
            self._close_part(events)
            self._parts.append(_Part(kind))
            self._tell("response.content_part.added", {"part": self._parts[-1].value()}, events)
        part = self._parts[-1]
        part.pieces.append(text)
        part.logprobs += logprobs
        fields: dict[str, Any] = {"delta": text}
        if kind == "output_text":
            fields["logprobs"] = list(logprobs)
        self._tell(f"response.{kind}.delta", fields, events)

    def has_text_open(self) -> bool:
        """Whether output text would go on in the open part."""
        return not self.closed and bool(self._parts) and self._parts[-1].kind == "output_text"

    def close(self, status: str, events: EventWriter) -> None:
        """See `_Open`."""
        self._close_part(events)
        self.closed, self._status = True, status
        place = {"output_index": self._place["output_index"]}
        events.add("response.output_item.done", {**place, "item": self.item(status)})

    def item(self, status: str) -> Item:
        """See `_Open`."""
        content = [part.value() for part in self._parts]
        head = {"id": self._place["item_id"], "type": self.kind, "status": self._status or status}
        if self.kind == "reasoning":
            return {**head, "summary": [], "content": content}
        return {**head, "role": "assistant", "content": content}

    def _close_part(self, events: EventWriter) -> None:
        if not self._parts:
            return
        part = self._parts[-1]
        value = part.value()
        text = {key: value[key] for key in (_TEXT_KEY[part.kind], "logprobs") if key in value}
        self._tell(f"response.{part.kind}.done", text, events)
        self._tell("response.content_part.done", {"part": value}, events)

    def _tell(self, event: str, fields: dict[str, Any], events: EventWriter) -> None:
        events.add(event, {**self._place, "content_index": len(self._parts) - 1, **fields})


class _CallItem:
    """A function call."""

    def __init__(self, item_id: str, index: int, call_id: str, name: str, events: EventWriter) -> None:
        self.closed = False
        self._place = {"item_id": item_id, "output_index": index}
        self._head = {"id": item_id, "type": "function_call", "call_id": call_id, "name": name}
        self._pieces: list[str] = []
        self._status = ""
        events.add("response.output_item.added", {"output_index": index, "item": self.item("in_progress")})

    def add(self, arguments: str, events: EventWriter) -> None:
        """More of the arguments."""
        if arguments:
            self._pieces.append(arguments)
            fields = {**self._place, "delta": arguments}
            events.add("response.function_call_arguments.delta", fields)

    def close(self, status: str, events: EventWriter) -> None:
        """See `_Open`. A call without arguments has an empty object of them: clients parse it."""
        if not self._pieces and status == "completed":
            self.add("{}", events)
        self.closed, self._status = True, status
        item = self.item(status)
        done = {**self._place, "name": item["name"], "arguments": item["arguments"]}
        events.add("response.function_call_arguments.done", done)
        place = {"output_index": self._place["output_index"]}
        events.add("response.output_item.done", {**place, "item": item})

    def item(self, status: str) -> Item:
        """See `_Open`."""
        return {**self._head, "arguments": "".join(self._pieces), "status": self._status or status}


class _Unnamed:
    """A call whose name has not come yet."""

    def __init__(self) -> None:
        self.call_id = ""
        self.arguments = ""


class Output:
    """All items of one response."""

    def __init__(self, identity: Identity, events: EventWriter, keep_logprobs: bool) -> None:
        """`keep_logprobs`: the client asked for them; engines may send them unasked."""
        self._identity = identity
        self._events = events
        self._keep_logprobs = keep_logprobs
        self._items: list[_Open] = []
        self._text: _TextItem | None = None
        self._calls: dict[int, _CallItem] = {}
        self._unnamed: dict[int, _Unnamed] = {}
        self._call_ids: set[str] = set()
        self._early_logprobs: list[dict[str, Any]] = []

    def add(self, news: News) -> None:
        """Take note of news."""
        if news.reasoning:
            self._add_text("reasoning", "reasoning_text", news.reasoning, ())
        self._add_output_text(news)
        if news.refusal:
            self._add_text("message", "refusal", news.refusal, ())
        for piece in news.calls:
            self._add_call(piece)

    def close(self, status: str) -> None:
        """Nothing more will come. What is open gets `status`: `completed` or `incomplete`."""
        for index in tuple(self._unnamed):
            self._open_call(index, "")
        if not self._items:
            self._add_text("message", "output_text", "", ())
        for item in self._items:
            if not item.closed:
                item.close(status, self._events)

    def items(self, status: str = "incomplete") -> list[Item]:
        """The items as they are; those still open have `status`."""
        return [item.item(status) for item in self._items]

    def _add_output_text(self, news: News) -> None:
        logprobs = news.logprobs if self._keep_logprobs else ()
        if news.text:
            self._add_text("message", "output_text", news.text, [*self._early_logprobs, *logprobs])
            self._early_logprobs.clear()
        elif logprobs and not news.reasoning and not news.calls:
            # A token whose text is held back, because the next one may complete a character.
            if self._text is not None and self._text.has_text_open():
                self._text.add("output_text", "", logprobs, self._events)
            else:
                self._early_logprobs += logprobs

    def _add_text(self, kind: str, part: str, text: str, logprobs: Sequence[dict[str, Any]]) -> None:
        if self._text is None or self._text.kind != kind:
            self._close_text()
            index = len(self._items)
            self._text = _TextItem(kind, self._identity.output_id(kind, index), index, self._events)
            self._items.append(self._text)
        self._text.add(part, text, logprobs, self._events)

    def _close_text(self) -> None:
        if self._text is not None:
            self._text.close("completed", self._events)
            self._text = None

    def _add_call(self, piece: CallPiece) -> None:
        call = self._calls.get(piece.index)
        if call is not None:
            call.add(piece.arguments, self._events)
            return
        unnamed = self._unnamed.setdefault(piece.index, _Unnamed())
        unnamed.call_id = unnamed.call_id or piece.call_id
        unnamed.arguments += piece.arguments
        if piece.name:
            self._open_call(piece.index, piece.name)

    def _open_call(self, index: int, name: str) -> None:
        unnamed = self._unnamed.pop(index)
        self._close_text()
        place = len(self._items)
        item_id = self._identity.output_id("function_call", place)
        call_id = self._unique(unnamed.call_id, item_id)
        call = _CallItem(item_id, place, call_id, name, self._events)
        self._calls[index] = call
        self._items.append(call)
        call.add(unnamed.arguments, self._events)

    def _unique(self, given: str, item_id: str) -> str:
        """Some engines number calls anew in each answer, which makes them one in a conversation."""
        if not given or given.isdigit() or given in self._call_ids:
            given = f"call_{item_id.partition('_')[2]}"
        self._call_ids.add(given)
        return given
