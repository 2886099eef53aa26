"""The translation between OpenAI's API and Text Generation Inference's, table by table."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sluice_engines.adapter import ClientRequest
from sluice_engines.registry import create_adapter, load_adapters
from sluice_engines.stop_strings import first_stop, held_back
from sluice_engines.tgi import TgiAdapter
from sluice_engines.tgi_native.answers import ChoiceStream
from sluice_engines.tgi_native.chat import ChatEvents, chat_body, repaired_answer
from sluice_engines.tgi_native.client import LineSaver
from sluice_engines.tgi_native.completions import read_completion
from sluice_engines.tgi_native.refusals import Refused, refusal_of
from sluice_engines.tgi_native.transport import TgiTransport
from sluice_router.types import EngineLoad

from .recorded import load_pages

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
JSON_GRAMMAR = {"type": "json", "value": SCHEMA}
REGEX_GRAMMAR = {"type": "regex", "value": "[0-9]+"}
OPENAI_SCHEMA = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA, "strict": True}}

PARAMETERS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"max_tokens": 5}, {"max_new_tokens": 5}),
    ({"temperature": 0}, {"do_sample": False}),
    ({"temperature": 0.7}, {"temperature": 0.7}),
    ({"top_p": 1, "typical_p": 1.0}, {}),
    ({"top_p": 0.9, "typical_p": 0.8, "top_k": 40}, {"top_p": 0.9, "typical_p": 0.8, "top_k": 40}),
    ({"top_k": -1}, {}),
    ({"top_k": 0}, {}),
    ({"frequency_penalty": 0, "presence_penalty": 0}, {}),
    (
        {"frequency_penalty": -0.5, "repetition_penalty": 1.1},
        {"frequency_penalty": -0.5, "repetition_penalty": 1.1},
    ),
    ({"seed": 42}, {"seed": 42}),
    ({"seed": -1}, {"seed": 2**64 - 1}),
    ({"stop": "end"}, {"stop": ["end"]}),
    ({"stop": ["a", "b"]}, {"stop": ["a", "b"]}),
    ({"stop": []}, {}),
    ({"logprobs": 0}, {}),
    ({"logprobs": 5}, {"top_n_tokens": 5}),
    ({"logprobs": 2, "echo": True}, {"top_n_tokens": 2, "decoder_input_details": True}),
    ({"best_of": 3}, {"best_of": 3}),
    ({"best_of": 1, "n": 1}, {}),
    ({"truncate_prompt_tokens": 9}, {"truncate": 9}),
    ({"watermark": True}, {"watermark": True}),
    ({"response_format": {"type": "text"}}, {}),
    ({"response_format": OPENAI_SCHEMA}, {"grammar": JSON_GRAMMAR}),
    ({"response_format": {"type": "json_object", "value": SCHEMA}}, {"grammar": JSON_GRAMMAR}),
    ({"response_format": REGEX_GRAMMAR}, {"grammar": REGEX_GRAMMAR}),
    ({"guided_json": SCHEMA}, {"grammar": JSON_GRAMMAR}),
    ({"guided_regex": "[0-9]+"}, {"grammar": REGEX_GRAMMAR}),
    ({"structured_outputs": {"json": SCHEMA}}, {"grammar": JSON_GRAMMAR}),
    ({"structured_outputs": {"regex": "[0-9]+"}}, {"grammar": REGEX_GRAMMAR}),
    ({"grammar": REGEX_GRAMMAR}, {"grammar": REGEX_GRAMMAR}),
    ({"logit_bias": {}, "suffix": "", "min_p": 0, "user": "me", "x": 1, "stream": False}, {}),
    ({"temperature": None, "stop": None, "seed": None, "top_p": None}, {}),
]
DEFAULTS = {"details": True, "do_sample": True, "max_new_tokens": 16}


def completion(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "prompt": "Say", **fields}).encode()


@pytest.mark.parametrize(("asked", "native"), PARAMETERS)
def test_parameters_of_a_completion(asked: dict[str, Any], native: dict[str, Any]) -> None:
    assert read_completion(completion(**asked)).parameters == DEFAULTS | native


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"n": 2}, "n"),
        ({"suffix": "x"}, "suffix"),
        ({"presence_penalty": -1}, "presence_penalty"),
        ({"logit_bias": {"1": 5}}, "logit_bias"),
        ({"min_tokens": 3}, "min_tokens"),
        ({"ignore_eos": True}, "ignore_eos"),
        ({"stop_token_ids": [2]}, "stop_token_ids"),
        ({"guided_choice": ["a"]}, "guided_choice"),
        ({"structured_outputs": {"choice": ["a"]}}, "choice"),
        ({"prompt": [[1, 2]]}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"temperature": 2.5}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"logprobs": 6}, "logprobs"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"echo": True, "logprobs": 1, "stream": True}, "logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"grammar": {"type": "ebnf", "value": "x"}}, "grammar"),
        ({"guided_json": SCHEMA, "guided_regex": "x"}, "guided_regex"),
        ({"model": None}, "model"),
    ],
)
def test_what_a_completion_cannot_ask(asked: dict[str, Any], param: str) -> None:
    with pytest.raises(Refused) as refused:
        read_completion(completion(**asked))

    assert (refused.value.refusal.status, refused.value.refusal.param) == (400, param)


def test_a_body_that_is_no_json_is_refused() -> None:
    with pytest.raises(Refused, match="not valid JSON"):
        read_completion(b"{")


CHAT: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"stop": "x"}, {"stop": ["x"]}),
    ({"stop": None, "stream_options": None}, {}),
    ({"max_completion_tokens": 7}, {"max_tokens": 7}),
    ({"max_completion_tokens": 7, "max_tokens": 9}, {"max_tokens": 7}),
    ({"top_p": 1}, {}),
    ({"top_p": 0.5, "temperature": 0}, {"top_p": 0.5, "temperature": 0}),
    ({"presence_penalty": 0, "logit_bias": {}, "n": 1, "top_k": -1}, {}),
    ({"seed": -1}, {"seed": 2**64 - 1}),
    ({"response_format": OPENAI_SCHEMA}, {"response_format": JSON_GRAMMAR}),
    ({"response_format": {"type": "text"}}, {}),
    ({"logprobs": True, "top_logprobs": 3}, {"logprobs": True, "top_logprobs": 3}),
    ({"tools": [], "stream": True}, {"tools": [], "stream": True}),
    ({"model": "french"}, {"model": "french"}),
]
MESSAGES = [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(("asked", "sent"), CHAT)
def test_a_chats_body(asked: dict[str, Any], sent: dict[str, Any]) -> None:
    body = json.dumps({"model": "m", "messages": MESSAGES, **asked}).encode()

    assert json.loads(chat_body(body, loras=("french",))) == {"model": "tgi", "messages": MESSAGES, **sent}


@pytest.mark.parametrize("field", [{"n": 2}, {"presence_penalty": 1}, {"logit_bias": {"1": 1}}, {"top_k": 5}])
def test_what_a_chat_cannot_ask(field: dict[str, Any]) -> None:
    with pytest.raises(Refused) as refused:
        chat_body(json.dumps({"model": "m", "messages": MESSAGES, **field}).encode())

    assert refused.value.refusal.param == next(iter(field))


def test_a_message_with_calls_is_read_for_its_calls() -> None:
    calls = [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    said = {"role": "assistant", "content": None, "tool_calls": calls}
    body = json.dumps({"model": "m", "messages": [said, {"role": "user", "content": ""}]}).encode()

    messages = json.loads(chat_body(body))["messages"]
    assert messages == [{"role": "assistant", "tool_calls": calls}, {"role": "user", "content": ""}]


OLD_CALL = {"id": 0, "type": "function", "function": {"name": "f", "arguments": {"city": "Rome"}}}
NEW_CALL = {"id": "call_new", "type": "function", "function": {"name": "f", "arguments": '{"city":"Rome"}'}}


@pytest.mark.parametrize(
    ("message", "reason", "repaired", "told"),
    [
        ({"content": "Hi"}, "eos_token", {"content": "Hi"}, "stop"),
        ({"content": "Hi"}, "stop_sequence", {"content": "Hi"}, "stop"),
        ({"content": "Hi"}, "length", {"content": "Hi"}, "length"),
        ({"tool_calls": [OLD_CALL]}, "eos_token", {"tool_calls": [NEW_CALL], "content": None}, "tool_calls"),
        ({"tool_calls": OLD_CALL}, "stop", {"tool_calls": [NEW_CALL], "content": None}, "tool_calls"),
        (
            {"content": "", "tool_calls": [{**NEW_CALL, "id": "call_9"}]},
            "tool_calls",
            {"content": "", "tool_calls": [{**NEW_CALL, "id": "call_9"}]},
            "tool_calls",
        ),
    ],
)
def test_a_chats_whole_answer(
    message: dict[str, Any], reason: str, repaired: dict[str, Any], told: str
) -> None:
    answer = {"id": "", "choices": [{"index": 0, "message": message, "finish_reason": reason}], "usage": {}}
    found = json.loads(repaired_answer(json.dumps(answer).encode(), lambda: "new"))

    assert found["choices"] == [{"index": 0, "message": repaired, "finish_reason": told}]


def chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return b"data: " + json.dumps({"id": "", "choices": [choice]}).encode() + b"\n\n"


def repaired_stream(*pieces: bytes) -> list[Any]:
    events = ChatEvents(lambda: "new")
    text = b"".join(events.feed(piece) for piece in pieces) + events.flush()
    return [json.loads(e.removeprefix(b"data: ")) for e in text.split(b"\n\n") if e and b"[DONE]" not in e]


def test_a_streamed_call_is_named_once_and_ends_as_a_call() -> None:
    def piece(arguments: str) -> bytes:
        call = {"index": 0, "id": "0", "type": "function", "function": {"name": "f", "arguments": arguments}}
        return chunk({"role": "assistant", "tool_calls": call})

    told = repaired_stream(
        piece('{"a"'), piece(":1}"), chunk({"content": ""}, "eos_token"), b"data: [DONE]\n\n"
    )

    calls = [event["choices"][0]["delta"].get("tool_calls") for event in told]
    assert calls == [
        [{"index": 0, "id": "call_new", "type": "function", "function": {"name": "f", "arguments": '{"a"'}}],
        [{"index": 0, "function": {"arguments": ":1}"}}],
        None,
    ]
    assert [event["choices"][0]["finish_reason"] for event in told] == [None, None, "tool_calls"]


def test_a_stream_in_which_nothing_is_wrong_passes_byte_for_byte() -> None:
    stream = b'data:{"choices":[{"delta":{"content":"a"}}]}\n\n: comment\n\ndata: [DONE]\n\n'
    for size in (1, 7, 1000):
        events = ChatEvents(lambda: "new")
        pieces = [events.feed(stream[i : i + size]) for i in range(0, len(stream), size)]
        assert b"".join(pieces) + events.flush() == stream


def test_an_error_inside_a_chats_stream_gets_a_status() -> None:
    (told,) = repaired_stream(b'data: {"error":"No room","error_type":"overloaded"}\n\n')

    assert (told["error"]["message"], told["error"]["code"]) == ("No room", 429)


@pytest.mark.parametrize(
    ("error_type", "status", "expected"),
    [
        ("validation", 422, 400),
        ("validation", None, 400),
        ("tool_error", 422, 400),
        ("template_error", 422, 400),
        ("generation", 424, 500),
        ("generation", None, 500),
        ("incomplete_generation", 500, 500),
        ("overloaded", 429, 429),
        ("overloaded", None, 429),
        ("healthcheck", 503, 500),
        ("something new", None, 500),
        ("suffix not supported", 422, 400),
        (None, 422, 400),
        (None, 503, 503),
        (None, 404, 404),
    ],
)
def test_statuses(error_type: str | None, status: int | None, expected: int) -> None:
    document = {"error": "x", **({"error_type": error_type} if error_type else {})}
    refusal = refusal_of(document, status)

    assert refusal is not None
    assert refusal.status == expected


class Message:
    """A message of a native stream."""

    def __init__(self, text: str, *, special: bool = False, end: str | None = None, whole: str = "") -> None:
        self.token = Part(text=text, logprob=-1.0, special=special, id=1)
        self.top_tokens = None
        self.generated_text = whole if end else None
        self.details = Part(finish_reason=end, generated_tokens=9, input_length=4) if end else None


class Part:
    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)


@pytest.mark.parametrize("stops", [(), ("lo wo",), ("l",), ("o", "wor"), ("world!",), ("zzz", "d")])
def test_however_a_text_is_cut_into_tokens_the_stream_ends_before_the_first_stop(
    stops: tuple[str, ...],
) -> None:
    text = "hello world"
    expected = text if (at := first_stop(text, stops)) is None else text[:at]
    for first in range(1, len(text) - 1):
        for second in range(first + 1, len(text)):
            tokens = [text[:first], text[first:second], text[second:]]
            stream = ChoiceStream(read_completion(completion(stop=list(stops), logprobs=1)))
            pieces = []
            for number, token in enumerate(tokens):
                last = number == 2
                pieces.append(stream.feed(Message(token, end="eos_token" if last else None, whole=text)))
                if stream.ended:
                    break
            assert "".join(piece.text for piece in pieces) == expected
            assert pieces[-1].finish_reason == "stop"
            told = [token.text for piece in pieces for token in piece.tokens]
            assert told == [t for n, t in enumerate(tokens) if len("".join(tokens[:n])) < len(expected)]


def test_bytes_that_became_no_character_come_with_the_end() -> None:
    stream = ChoiceStream(read_completion(completion()))
    pieces = [stream.feed(Message("a")), stream.feed(Message("", end="length", whole="a\ufffd"))]

    assert [(piece.text, piece.finish_reason) for piece in pieces] == [("a", None), ("\ufffd", "length")]


@pytest.mark.parametrize(
    ("text", "stops", "expected"),
    [("ab", ("bc",), 1), ("ab", ("abc", "b!"), 2), ("ab", ("x",), 0), ("", ("x",), 0), ("aa", ("aab",), 2)],
)
def test_what_may_become_a_stop_string_is_held_back(text: str, stops: tuple[str, ...], expected: int) -> None:
    assert held_back(text, stops) == expected


def test_line_ends_are_escaped_wherever_the_bytes_are_cut() -> None:
    document = {"text": "a\u2028b\u2029c\u0085d\u00e9\u20ac"}
    line = b"data:" + json.dumps(document, ensure_ascii=False).encode() + b"\n\n"
    for cut in range(1, len(line)):
        saver = LineSaver()
        text = (saver.feed(line[:cut]) + saver.feed(line[cut:])).decode()
        assert [json.loads(one.removeprefix("data:")) for one in text.splitlines() if one] == [document]


# The adapter


@pytest.mark.parametrize(
    ("base_url", "path"),
    [
        ("http://h:8003", "/generate"),
        ("http://h:8003/v1", "/generate"),
        ("https://h/tgi", "/tgi/generate"),
    ],
)
def test_completions_go_to_the_native_path_and_chat_to_its_own(base_url: str, path: str) -> None:
    adapter = TgiAdapter()
    asked = ClientRequest(kind="completions", path="/v1/completions", body=b"{}")
    chat = ClientRequest(kind="chat", path="/v1/chat/completions", body=b"{}")

    assert adapter.prepare(asked, base_url, None).path == path
    assert adapter.prepare(chat, base_url, None).path.endswith("/v1/chat/completions")


def test_it_is_a_translation_over_the_gateways_client() -> None:
    http: Any = object()

    assert isinstance(create_adapter(load_adapters(["tgi"])["tgi"]).over(http), TgiTransport)


def test_its_kv_budget_is_configured_where_it_does_not_tell() -> None:
    adapter = TgiAdapter({"max_batch_total_tokens": 64_000})

    load = adapter.parse_load(load_pages("tgi-3", "/metrics", "/info"))
    assert (load.kv_capacity_tokens, load.kv_used_ratio is not None) == (64_000, True)
    assert adapter.parse_load({"/metrics": b"tgi_queue_size 3\n"}) == EngineLoad(
        waiting=3, kv_capacity_tokens=64_000
    )


def test_without_its_client_the_adapter_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sluice_engines.tgi.find_spec", lambda _name: None)

    with pytest.raises(ValueError, match=r"pip install 'sluice-engines\[tgi\]'"):
        TgiAdapter()
