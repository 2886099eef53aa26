"""What a client of the Responses API may rely on in a stream: a validator that puts the events together."""

from __future__ import annotations

import json
from typing import Any

from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from sluice_gateway.dialects.responses.chat_translation import ChatTranslation
from sluice_gateway.dialects.responses.input_items import read_items
from sluice_gateway.dialects.responses.request import CreateRequest, parse
from sluice_gateway.dialects.responses.response_object import Echo, Identity
from sluice_gateway.errors import Problem
from sluice_gateway.sse import Splitter, event_data

IDENTITY = Identity(id="resp_" + "ab" * 24, created_at=1_700_000_000)
_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
_ENDS = ("response.completed", "response.incomplete", "response.failed")
_EMPTY = {"output_text": {"text": ""}, "refusal": {"refusal": ""}, "reasoning_text": {"text": ""}}


def request_of(**fields: Any) -> CreateRequest:
    found = parse(json.dumps({"model": "m", "input": "hi", **fields}).encode())
    assert not isinstance(found, Problem), found.message
    return found


def translation_of(request: CreateRequest | None = None, announced: int = 0) -> ChatTranslation:
    request = request or request_of(stream=True)
    return ChatTranslation(
        b"{}",
        Echo(request, IDENTITY),
        keep_logprobs=request.wants_logprobs,
        announced=announced,
        clock=lambda: 1_700_000_009.0,
    )


def items_of(given: Any) -> list[dict[str, Any]]:
    return read_items(given, IDENTITY.item_id)


def events_of(stream: bytes) -> list[dict[str, Any]]:
    """The stream's events, each checked against its `event:` line and the SDK's own types."""
    splitter = Splitter()
    framed = splitter.feed(stream)
    assert not splitter.flush()
    events = []
    for frame in framed:
        fields = json.loads(event_data(frame) or b"")
        assert frame.startswith(f"event: {fields['type']}\ndata: ".encode())
        _EVENT.validate_json(json.dumps(fields), strict=True)
        events.append(fields)
    return events


def check_sequence(events: list[dict[str, Any]], first: int = 0) -> dict[str, Any]:
    """Fail unless the events are a whole, consistent stream; the final response."""
    assert [e["sequence_number"] for e in events] == [*range(first, first + len(events))]
    if first == 0:
        assert events[0]["type"] == "response.created"
        events = events[1:]
    assert events[0]["type"] == "response.in_progress"
    assert [e["type"] for e in events if e["type"] in _ENDS] == [events[-1]["type"]]
    built = _Built()
    for event in events[1:-1]:
        built.take(event)
    final: dict[str, Any] = events[-1]["response"]
    assert events[-1]["type"] == f"response.{final['status']}"
    Response.model_validate_json(json.dumps(final), strict=True)
    if final["status"] != "failed":
        assert built.done == final["output"]
    return final


class _Built:
    """Output items as the events build them up."""

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []
        self._parts_open: set[int] = set()
        self._done: dict[int, dict[str, Any]] = {}

    @property
    def done(self) -> list[dict[str, Any]]:
        assert not self._parts_open
        assert sorted(self._done) == [*range(len(self.items))], "every item is done"
        return [self._done[index] for index in range(len(self.items))]

    def take(self, event: dict[str, Any]) -> None:
        kind, index = event["type"].removeprefix("response."), event["output_index"]
        assert index not in self._done, "nothing after an item's end"
        if kind == "output_item.added":
            assert index == len(self.items)
            assert event["item"]["status"] == "in_progress"
            self.items.append(event["item"])
            return
        item = self.items[index]
        if kind == "output_item.done":
            assert index not in self._parts_open
            assert {**event["item"], "status": 0} == {**item, "status": 0}
            assert event["item"]["status"] in ("completed", "incomplete")
            self._done[index] = event["item"]
            return
        assert event["item_id"] == item["id"]
        if kind.startswith("function_call_arguments."):
            self._arguments(kind, item, event)
        else:
            self._part(kind, index, item, event)

    def _arguments(self, kind: str, item: dict[str, Any], event: dict[str, Any]) -> None:
        if kind.endswith("delta"):
            assert event["delta"]
            item["arguments"] += event["delta"]
        else:
            assert (event["name"], event["arguments"]) == (item["name"], item["arguments"])

    def _part(self, kind: str, index: int, item: dict[str, Any], event: dict[str, Any]) -> None:
        place = event["content_index"]
        if kind == "content_part.added":
            assert place == len(item["content"])
            assert index not in self._parts_open
            self._parts_open.add(index)
            item["content"].append(event["part"])
            return
        assert place == len(item["content"]) - 1
        assert index in self._parts_open
        part = item["content"][place]
        if kind == "content_part.done":
            assert event["part"] == part
            self._parts_open.remove(index)
            return
        name, _, what = kind.partition(".")
        assert name == part["type"]
        key = "refusal" if name == "refusal" else "text"
        if what == "delta":
            part[key] += event["delta"]
            part.get("logprobs", []).extend(event.get("logprobs", []))
        else:
            assert event[key] == part[key]
            assert event.get("logprobs") == part.get("logprobs")
