"""The Messages API of Text Generation Inference, where it is not quite OpenAI's.

Requests: it takes a stop string only as a list, errors at a `top_p` of 1 and at null for an object, knows
`max_completion_tokens` only since 3.x, has its own form of `response_format`, makes any `presence_penalty` p,
0 included, a repetition penalty of 2 + p, and takes every `model` but `tgi` for an adapter (`ChatRequest` in
`router/src/lib.rs` at v3.3.7). What it ignores without a word is refused here.

Answers, mostly of 1.x and 2.x: finish reasons of the native API, the arguments of a call as an object, calls
numbered `0` in every answer, a call's name in every piece, no finish reason `tool_calls`, errors with status
200 (issues 2136, 2461, 2749, 2794, 2954 and PRs 2344, 2668). Bytes in which none of this can be are not
touched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from sluice_engines.tgi_native.answers import FINISH_REASONS
from sluice_engines.tgi_native.completions import grammar_of_format, refuse_lacking
from sluice_engines.tgi_native.refusals import refusal_of

_SEEDS = 1 << 64
_NO_ADAPTER = "tgi"

NEUTRAL: dict[str, tuple[object, ...]] = {
    "n": (1,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "top_k": (-1, 0),
    "min_p": (0,),
    "repetition_penalty": (1,),
    "min_tokens": (0,),
    "ignore_eos": (False,),
    "stop_token_ids": ([],),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "structured_outputs": (),
}
"""Parameters that the engine ignores or misreads, and the values that ask for nothing."""

NewId = Callable[[], str]


def chat_body(body: bytes, loras: tuple[str, ...] = ()) -> bytes:
    """The body for the engine. Raises `Refused`; what is no JSON object is the engine's to refuse."""
    try:
        asked = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return body
    refuse_lacking(asked, NEUTRAL)
    sent = {name: value for name, value in asked.items() if value is not None and name not in NEUTRAL}
    if sent.get("model") not in loras:
        sent["model"] = _NO_ADAPTER
    if "max_completion_tokens" in sent:
        sent["max_tokens"] = sent.pop("max_completion_tokens")
    if isinstance(sent.get("stop"), str):
        sent["stop"] = [sent["stop"]]
    if sent.get("top_p") in (1, 1.0):
        del sent["top_p"]
    if isinstance(sent.get("seed"), int):
        sent["seed"] %= _SEEDS
    if isinstance(sent.get("response_format"), dict):
        grammar = grammar_of_format(sent.pop("response_format"))
        sent |= {} if grammar is None else {"response_format": grammar}
    if isinstance(sent.get("messages"), list):
        sent["messages"] = [_message(message) for message in sent["messages"]]
    return msgspec.json.encode(sent)


def _message(message: Any) -> Any:
    """A message with calls must not have a `content` beside them: the engine would read only that."""
    if isinstance(message, dict) and message.get("tool_calls") and not message.get("content"):
        return {name: value for name, value in message.items() if name != "content"}
    return message


def repaired_answer(body: bytes, new_id: NewId) -> bytes:
    """An answer that is not streamed."""
    try:
        answer = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return body
    for choice in _dicts(answer.get("choices")):
        message = choice.get("message")
        calls = _calls(message.get("tool_calls")) if isinstance(message, dict) else []
        if isinstance(message, dict) and calls:
            message["tool_calls"] = [_whole_call(call, new_id) for call in calls]
            message.setdefault("content", None)
        choice["finish_reason"] = _reason(choice.get("finish_reason"), bool(calls))
    return msgspec.json.encode(answer)


class ChatEvents:
    """Repairs a stream, event by event."""

    _SUSPECT = (b'"error"', b"eos_token", b"stop_sequence", b"tool_calls")

    def __init__(self, new_id: NewId) -> None:
        self._new_id = new_id
        self._rest = b""
        self._called: set[tuple[object, object]] = set()
        """Choice and number of the calls whose first piece was given on."""

    def feed(self, data: bytes) -> bytes:
        """What may go on after the next bytes."""
        whole, found, rest = (self._rest + data).rpartition(b"\n\n")
        self._rest = rest
        if not found:
            return b""
        if not self._called and not any(word in whole for word in self._SUSPECT):
            return whole + found
        return b"".join(self._event(event) + found for event in whole.split(b"\n\n"))

    def flush(self) -> bytes:
        """What was held back, at the end."""
        rest, self._rest = self._rest, b""
        return rest

    def _event(self, event: bytes) -> bytes:
        if not event.startswith(b"data:"):
            return event
        try:
            chunk = msgspec.json.decode(event[5:].strip())
        except (msgspec.DecodeError, RecursionError):
            return event
        refusal = refusal_of(chunk)
        if refusal is not None:
            return refusal.event().rstrip(b"\n")
        if not isinstance(chunk, dict):
            return event
        for choice in _dicts(chunk.get("choices")):
            self._choice(choice)
        return b"data: " + msgspec.json.encode(chunk)

    def _choice(self, choice: dict[str, Any]) -> None:
        delta, index = choice.get("delta"), choice.get("index")
        calls = _calls(delta.get("tool_calls")) if isinstance(delta, dict) else []
        if isinstance(delta, dict) and "tool_calls" in delta:
            delta["tool_calls"] = [self._piece(index, call) for call in calls]
            if not calls:
                del delta["tool_calls"]
        called = any(choice_index == index for choice_index, _ in self._called)
        choice["finish_reason"] = _reason(choice.get("finish_reason"), called)

    def _piece(self, choice_index: object, call: dict[str, Any]) -> dict[str, Any]:
        number = call.get("index", 0)
        if (choice_index, number) in self._called:
            return {"index": number, "function": {"arguments": _arguments(call)}}
        self._called.add((choice_index, number))
        return {"index": number, **_whole_call(call, self._new_id)}


def _whole_call(call: dict[str, Any], new_id: NewId) -> dict[str, Any]:
    function = call.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    told = call.get("id")
    # The engine numbers the calls of each answer from 0, so that two answers would share an id.
    known = isinstance(told, str) and not told.isdigit() and told != ""
    return {
        "id": told if known else f"call_{new_id()}",
        "type": "function",
        "function": {"name": name, "arguments": _arguments(call)},
    }


def _arguments(call: dict[str, Any]) -> str:
    function = call.get("function")
    arguments = function.get("arguments") if isinstance(function, dict) else None
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()


def _calls(calls: Any) -> list[dict[str, Any]]:
    """A list, also where 2.x sends a single object."""
    return [calls] if isinstance(calls, dict) else _dicts(calls)


def _dicts(values: Any) -> list[dict[str, Any]]:
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []


def _reason(reason: Any, called: bool) -> Any:
    plain = FINISH_REASONS.get(reason, reason) if isinstance(reason, str) else reason
    return "tool_calls" if called and plain == "stop" else plain
