"""What the Messages API's reference says of an event stream, as a check that puts the message together.

Independent of the code under test: it knows the rules, not how they are kept.
"""

from __future__ import annotations

import json
from typing import Any

DELTA_OF = {"text": "text_delta", "tool_use": "input_json_delta", "thinking": "thinking_delta"}
FIELD_OF = {"text_delta": "text", "input_json_delta": "partial_json", "thinking_delta": "thinking"}
STOP_REASONS = ("end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal")
USAGE = {"input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"}


def frames(stream: bytes) -> list[dict[str, Any]]:
    """The events' data; each is framed as `event: T`, `data: {"type": T, ...}`, blank line."""
    *found, rest = stream.decode().split("\n\n")
    assert rest == ""
    events = []
    for frame in found:
        head, data = frame.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert head == f"event: {event['type']}"
        events.append(event)
    return events


def message_of(stream: bytes) -> dict[str, Any]:
    """The message that the stream tells. Fails when it breaks a rule."""
    start, *events, delta, stop = frames(stream)
    assert start["type"] == "message_start"
    message: dict[str, Any] = start["message"]
    assert message["content"] == []
    assert message["type"] == "message" and message["role"] == "assistant"
    assert message["stop_reason"] is None and message["stop_sequence"] is None
    assert set(message["usage"]) >= USAGE
    _blocks(events, message["content"])
    assert delta["type"] == "message_delta"
    assert delta["delta"]["stop_reason"] in STOP_REASONS
    assert (delta["delta"]["stop_sequence"] is not None) == (delta["delta"]["stop_reason"] == "stop_sequence")
    message |= delta["delta"]
    message["usage"] |= delta["usage"]
    assert stop == {"type": "message_stop"}
    return message


def _blocks(events: list[dict[str, Any]], content: list[dict[str, Any]]) -> None:
    """One block after the other, numbered from 0."""
    while events:
        start = events.pop(0)
        assert start["type"] == "content_block_start"
        assert start["index"] == len(content)
        content.append(_block(start["content_block"], start["index"], events))


def _block(block: dict[str, Any], index: int, events: list[dict[str, Any]]) -> dict[str, Any]:
    empty: dict[str, dict[str, Any]] = {
        "text": {"text": ""},
        "thinking": {"thinking": "", "signature": ""},
        "tool_use": {"input": {}},
    }
    assert {name: block[name] for name in empty[block["type"]]} == empty[block["type"]]
    pieces = []
    while (event := events.pop(0))["type"] == "content_block_delta":
        assert event["index"] == index
        delta = event["delta"]
        if delta["type"] == "signature_delta":
            assert block["type"] == "thinking" and not block["signature"]
            block["signature"] = delta["signature"]
            continue
        assert delta["type"] == DELTA_OF[block["type"]]
        assert not block.get("signature"), "nothing follows the signature"
        pieces.append(delta[FIELD_OF[delta["type"]]])
        assert pieces[-1]
    assert event == {"type": "content_block_stop", "index": index}
    text = "".join(pieces)
    if block["type"] == "tool_use":
        assert block["id"] and block["name"]
        block["input"] = json.loads(text or "{}")
    else:
        assert text
        block[block["type"]] = text
    assert block["type"] != "thinking" or block["signature"]
    return block
