"""What is read of a chat completions answer, whole or in chunks.

Lenient where engines differ: thoughts have two names, a matched stop string two more, arguments may come as
an object instead of JSON text. Choices after the first do not exist in the Messages API.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

_ABSENT = msgspec.Raw(b"null")


class Function(msgspec.Struct, frozen=True):
    """What is called, or the next piece of it."""

    name: str | None = None
    arguments: msgspec.Raw = _ABSENT

    @property
    def arguments_text(self) -> str:
        """The arguments, or a piece of them, as JSON text."""
        raw = bytes(self.arguments)
        if raw[:1] == b'"':
            return msgspec.json.decode(raw, type=str)
        return "" if raw == b"null" else raw.decode()


class ToolCall(msgspec.Struct, frozen=True):
    """A call, or the next piece of one."""

    index: int | None = None
    id: str | None = None
    function: Function = Function()


class Said(msgspec.Struct, frozen=True):
    """The assistant's message, or what a chunk adds to it."""

    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCall] | None = None

    @property
    def thoughts(self) -> str:
        """Reasoning, under whichever name; engines that send both send the same."""
        return self.reasoning_content or self.reasoning or ""

    @property
    def text(self) -> str:
        """What is meant for the reader, be it a refusal."""
        return (self.content or "") + (self.refusal or "")


class Choice(msgspec.Struct, frozen=True):
    """One answer, or what a chunk adds to it."""

    index: int = 0
    message: Said | None = None
    delta: Said | None = None
    finish_reason: str | None = None
    stop_reason: Any = None
    matched_stop: Any = None

    @property
    def matched(self) -> str | None:
        """The stop string that ended it, as far as the engine tells."""
        return next((m for m in (self.stop_reason, self.matched_stop) if isinstance(m, str)), None)


class _PromptDetails(msgspec.Struct, frozen=True):
    cached_tokens: int | None = None


class _CompletionDetails(msgspec.Struct, frozen=True):
    reasoning_tokens: int | None = None


class ChatUsage(msgspec.Struct, frozen=True):
    """Tokens used."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None

    def as_message(self) -> dict[str, Any]:
        """The same in the Messages API's words, where input tokens are those that no cache had."""
        prompt, cached = self.prompt_tokens or 0, 0
        if self.prompt_tokens_details is not None:
            cached = min(self.prompt_tokens_details.cached_tokens or 0, prompt)
        usage: dict[str, Any] = {
            "input_tokens": prompt - cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": cached,
            "output_tokens": self.completion_tokens or 0,
        }
        details = self.completion_tokens_details
        if details is not None and details.reasoning_tokens:
            usage["output_tokens_details"] = {"thinking_tokens": details.reasoning_tokens}
        return usage


NO_USAGE = ChatUsage()


class ChatAnswer(msgspec.Struct, frozen=True):
    """A whole answer, or a chunk of one."""

    choices: Sequence[Choice]
    id: str | None = None
    usage: ChatUsage | None = None

    @property
    def first(self) -> Choice | None:
        """The choice that counts."""
        return next((choice for choice in self.choices if choice.index == 0), None)


_DECODER = msgspec.json.Decoder(ChatAnswer)


def decode_chat(data: bytes) -> ChatAnswer:
    """Raises `ValueError` for what is no chat answer."""
    try:
        return _DECODER.decode(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def message_id(chat_id: str | None, data: bytes) -> str:
    """The message's id, made from the engine's; from the answer itself if it has none."""
    return "msg_" + ((chat_id or "").removeprefix("chatcmpl-") or hashlib.sha256(data).hexdigest()[:32])


def stop_of(
    finish_reason: str | None, matched: str | None, sequences: Sequence[str], has_calls: bool
) -> tuple[str, str | None]:
    """The `stop_reason` and `stop_sequence` of a message."""
    if finish_reason == "length":
        return "max_tokens", None
    if finish_reason == "content_filter":
        return "refusal", None
    if matched is not None and matched in sequences:
        return "stop_sequence", matched
    # OpenAI's finish reason of a call that was asked for by name is `stop`.
    return ("tool_use" if has_calls else "end_turn"), None


def signature(thoughts: str) -> str:
    """For a `thinking` block, which must have one. It names the text and vouches for nothing: thoughts that
    come back are taken as they are."""
    return hashlib.sha256(thoughts.encode("utf-8", "surrogatepass")).hexdigest()
