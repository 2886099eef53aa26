"""What an engine's chat answer says, streamed or whole, in one form: `News`.

A whole answer is read as one big piece of news, so the two ways to an answer cannot differ. Engines' known
oddities end here: thoughts under two names, a function's name repeated in every delta, arguments as an
object, finish reasons of their own. Only choice 0 counts: this API has no `n`.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from sluice_router.types import Usage

_MORE = {"length": "max_output_tokens", "content_filter": "content_filter", "max_tokens": "max_output_tokens"}


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: Any = None


class _Call(msgspec.Struct):
    index: int | None = None
    id: str | int | None = None
    function: _Function | None = None


class _Logprobs(msgspec.Struct):
    content: list[dict[str, Any]] | None = None


class _Said(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Said | None = None
    message: _Said | None = None
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class _Answer(msgspec.Struct):
    choices: list[_Choice]
    usage: _Usage | None = None
    service_tier: str | None = None


class CallPiece(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a function call."""

    index: int
    """Which of the answer's calls."""
    call_id: str = ""
    name: str = ""
    arguments: str = ""


class News(msgspec.Struct, frozen=True, kw_only=True):
    """What one chunk, or a whole answer, adds."""

    reasoning: str = ""
    text: str = ""
    refusal: str = ""
    calls: tuple[CallPiece, ...] = ()
    logprobs: tuple[dict[str, Any], ...] = ()
    """Of the text's tokens, with all keys that this API has."""
    finished: bool = False
    incomplete_reason: str | None = None
    """Why the answer is not all of it."""
    usage: dict[str, Any] | None = None
    """In this API's words."""
    service_tier: str | None = None

    @property
    def says_something(self) -> bool:
        """Whether it is more than a role, or a count of tokens."""
        return bool(self.reasoning or self.text or self.refusal or self.calls or self.finished)


_DECODER = msgspec.json.Decoder(_Answer)


def read(data: bytes) -> News:
    """The news in a chunk or a whole answer. Raises `ValueError` when it is neither."""
    try:
        answer = _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError("not a chat answer") from error
    choice = next((choice for choice in answer.choices if choice.index == 0), _Choice())
    said = choice.delta or choice.message or _Said()
    logprobs = choice.logprobs.content if choice.logprobs is not None else None
    return News(
        reasoning=said.reasoning_content or said.reasoning or "",
        text=said.content or "",
        refusal=said.refusal or "",
        calls=tuple(_call(call, place) for place, call in enumerate(said.tool_calls or ())),
        logprobs=tuple(_logprob(entry) for entry in logprobs or ()),
        finished=choice.finish_reason is not None,
        incomplete_reason=_MORE.get(choice.finish_reason or ""),
        usage=_usage(answer.usage) if answer.usage is not None else None,
        service_tier=answer.service_tier,
    )


def used(usage: dict[str, Any] | None) -> Usage | None:
    """A response's `usage` as the router counts it; `None` when it has none."""
    if usage is None:
        return None
    details = usage.get("input_tokens_details") or {}
    return Usage(
        prompt_tokens=usage.get("input_tokens") or 0,
        completion_tokens=usage.get("output_tokens") or 0,
        cached_tokens=details.get("cached_tokens") or 0,
    )


def _call(call: _Call, place: int) -> CallPiece:
    function = call.function or _Function()
    arguments = function.arguments
    if arguments is None:
        arguments = ""
    elif not isinstance(arguments, str):
        arguments = json.dumps(arguments)
    return CallPiece(
        index=place if call.index is None else call.index,
        call_id=str(call.id or ""),
        name=function.name or "",
        arguments=arguments,
    )


def _logprob(entry: dict[str, Any]) -> dict[str, Any]:
    """`bytes` may be null in chat completions, and may not here."""
    candidates = [_token(candidate) for candidate in entry.get("top_logprobs") or ()]
    return {**_token(entry), "top_logprobs": candidates}


def _token(entry: dict[str, Any]) -> dict[str, Any]:
    token = str(entry.get("token", ""))
    encoded = entry.get("bytes")
    as_bytes = encoded if isinstance(encoded, list) else list(token.encode())
    return {"token": token, "bytes": as_bytes, "logprob": entry.get("logprob", 0.0)}


def _usage(usage: _Usage) -> dict[str, Any]:
    prompt, completion = usage.prompt_tokens or 0, usage.completion_tokens or 0
    cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else 0
    thought = usage.completion_tokens_details.reasoning_tokens if usage.completion_tokens_details else 0
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": cached or 0, "cache_write_tokens": 0},
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": thought or 0},
        "total_tokens": usage.total_tokens or prompt + completion,
    }
