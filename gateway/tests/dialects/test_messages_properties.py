"""However an engine cuts and mixes its chunks, the events obey the rules and tell the same message.

Judged three times: by the rules as the reference states them, by the whole answer's translation, and by
Anthropic's own SDK reading from a socket.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import anthropic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .messages_chat import LAST, ROLE, answer, call, chunk, more, streamed, whole
from .messages_events import message_of

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
arguments = st.one_of(
    st.just(""),
    st.dictionaries(texts, json_values, max_size=3).map(json.dumps),
    st.dictionaries(texts, json_values, max_size=3).map(lambda value: json.dumps(value, indent=1) + "\n"),
)


@st.composite
def cut(draw: st.DrawFn, text: str) -> list[str]:
    """The text in pieces, some of which may be empty."""
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=4)))
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


@st.composite
def answers(draw: st.DrawFn, mixed: bool) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A message, and deltas that say it: in the usual order, or `mixed`. Calls overlap in both."""
    thoughts, text = draw(texts), draw(texts)
    given_calls = draw(st.lists(arguments, max_size=3))
    said = [
        [{draw(st.sampled_from(["reasoning", "reasoning_content"])): piece} for piece in draw(cut(thoughts))],
        [{"content": piece} for piece in draw(cut(text))],
    ]
    calls = [
        [
            {"tool_calls": [call(f"id{index}", f"f{index}", "", index)]},
            *({"tool_calls": [more(index, piece)]} for piece in draw(cut(given))),
        ]
        for index, given in enumerate(given_calls)
    ]
    deltas = draw(merged([*said, *calls])) if mixed else [*said[0], *said[1], *draw(merged(calls))]
    order = list(dict.fromkeys(d["tool_calls"][0]["index"] for d in deltas if "tool_calls" in d))
    message = {
        "reasoning": thoughts,
        "content": text,
        "tool_calls": [call(f"id{index}", f"f{index}", given_calls[index]) for index in order],
    }
    return message, draw(joined(deltas))


@st.composite
def merged(draw: st.DrawFn, lanes: list[list[Any]]) -> list[Any]:
    """All items, each lane's in its order."""
    left = [list(lane) for lane in lanes if lane]
    items = []
    while left:
        lane = draw(st.sampled_from(left))
        items.append(lane.pop(0))
        left = [lane for lane in left if lane]
    return items


@st.composite
def joined(draw: st.DrawFn, deltas: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The deltas, some of them as one: what a busy engine says at once."""
    chunks: list[dict[str, Any]] = []
    for delta in deltas:
        if chunks and _may_follow(chunks[-1], delta) and draw(st.booleans()):
            chunks[-1] = {**chunks[-1], **delta}
        else:
            chunks.append(delta)
    return chunks


def _may_follow(before: dict[str, Any], delta: dict[str, Any]) -> bool:
    """Within a chunk, thoughts come before text, and text before calls."""
    if "tool_calls" in delta:
        return "tool_calls" not in before
    return "content" in delta and not {"content", "tool_calls"} & set(before)


def chunks_of(deltas: list[dict[str, Any]], finish_reason: str) -> list[bytes]:
    return [ROLE, *(chunk(**delta) for delta in deltas), chunk(finish_reason), LAST]


@given(answers(mixed=False), st.sampled_from(["stop", "length", "tool_calls"]))
@settings(max_examples=300, deadline=None)
def test_a_stream_in_the_usual_order_tells_the_whole_answer(
    found: tuple[dict[str, Any], list[dict[str, Any]]], finish_reason: str
) -> None:
    message, deltas = found

    assert message_of(streamed(chunks_of(deltas, finish_reason))) == whole(answer(finish_reason, **message))


@given(answers(mixed=True))
@settings(max_examples=300, deadline=None)
def test_a_stream_in_any_order_tells_all_of_it(
    found: tuple[dict[str, Any], list[dict[str, Any]]],
) -> None:
    message, deltas = found

    told = message_of(streamed(chunks_of(deltas, "stop")))

    expected = whole(answer("stop", **message))
    assert {**told, "content": _unmixed(told)} == {**expected, "content": _unmixed(expected)}


def _unmixed(message: dict[str, Any]) -> dict[str, Any]:
    blocks = message["content"]
    return {
        "thinking": "".join(block["thinking"] for block in blocks if block["type"] == "thinking"),
        "text": "".join(block["text"] for block in blocks if block["type"] == "text"),
        "calls": [block for block in blocks if block["type"] == "tool_use"],
    }


class Replies:
    """A server on a real socket, and Anthropic's SDK to ask it."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.stream = self.plain = b""
        self.status = 200
        self.client = anthropic.Anthropic(
            base_url=f"http://127.0.0.1:{server.server_port}", api_key="k", max_retries=0
        )

    def ask(self) -> dict[str, Any]:
        return {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(scope="module")
def replies() -> Iterator[Replies]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one segment

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            streams = bool(body.get("stream")) and found.status == 200
            data = found.stream if streams else found.plain
            self.send_response(found.status)
            self.send_header("content-type", "text/event-stream" if streams else "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Replies(server)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        found.client.close()
        server.shutdown()
        thread.join()


@given(found=answers(mixed=False))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_sdk_puts_the_same_message_together(
    replies: Replies, found: tuple[dict[str, Any], list[dict[str, Any]]]
) -> None:
    message, deltas = found
    replies.stream = streamed(chunks_of(deltas, "stop"))
    replies.plain = json.dumps(whole(answer("stop", **message))).encode()

    plain = replies.client.messages.create(**replies.ask())
    with replies.client.messages.stream(**replies.ask()) as stream:
        text = "".join(stream.text_stream)
        told = stream.get_final_message()

    assert text == message["content"]
    ours: dict[str, Any] = told.to_dict()
    for block in ours["content"]:
        block.pop("parsed_output", None)
    for name, value in plain.to_dict().items():
        assert ours[name] == value, name
