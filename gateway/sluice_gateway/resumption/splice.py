"""A second engine's events as a continuation of the first one's.

The client must not notice that there are two: its stream has one id, one time and one name for the model, and
the role is told once. The usage is that of the whole: what came before counts as written, not as read.
What cannot follow on text, such as reasoning, shows that the engine did not go on as it was asked to.
"""

from __future__ import annotations

from typing import Any

import msgspec

from sluice_gateway.sse import DONE, event_data
from sluice_router.types import Usage

_OBJECT = msgspec.json.Decoder(dict[str, Any])
_BEFORE_TEXT = ("reasoning_content", "reasoning")


class Unfit(Exception):
    """An event is no continuation."""


class Splice:
    """Rewrites the events of one engine."""

    def __init__(self, envelope: dict[str, Any], tokens: int, prompt_tokens: int, *, begun: bool) -> None:
        """`envelope`: what the events of the stream have in common. `tokens`: those that came before;
        `prompt_tokens`: an estimate of the prompt's, for a stream that tells no usage. `begun`: the client
        has some text."""
        self._envelope = envelope
        self._tokens = tokens
        self._prompt_tokens = prompt_tokens
        self._begun = begun

    def events(self, events: list[bytes]) -> list[bytes]:
        """The events as the client gets them. Raises `Unfit`."""
        rewritten = (self._event(event) for event in events)
        return [event for event in rewritten if event is not None]

    def usage(self, told: Usage | None, written: int) -> Usage:
        """What all engines used together. `told` is what the last one says, `written` what came of it."""
        if told is None:
            return Usage(prompt_tokens=self._prompt_tokens, completion_tokens=self._tokens + written)
        read = max(0, told.prompt_tokens - self._tokens)
        return Usage(
            prompt_tokens=read,
            completion_tokens=self._tokens + told.completion_tokens,
            cached_tokens=min(told.cached_tokens, read),
        )

    def _event(self, event: bytes) -> bytes | None:
        data = event_data(event)
        if data is None or data == DONE:
            return event
        try:
            fields = _OBJECT.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return event
        choices = [c for c in fields.get("choices") or () if isinstance(c, dict)]
        if self._begun and not all(map(_follows_text, choices)):
            raise Unfit
        tells = [_tells_more_than_the_role(choice) for choice in choices]
        usage = fields.get("usage")
        if choices and not any(tells) and not usage:
            return None
        if isinstance(usage, dict):
            self._rewrite(usage)
        return b"data: %b\n\n" % msgspec.json.encode(fields | self._envelope)

    def _rewrite(self, usage: dict[str, Any]) -> None:
        read, written = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
        whole = self.usage(Usage(prompt_tokens=read, completion_tokens=written), 0)
        usage["prompt_tokens"], usage["completion_tokens"] = whole.prompt_tokens, whole.completion_tokens
        usage["total_tokens"] = whole.prompt_tokens + whole.completion_tokens
        details = usage.get("prompt_tokens_details")
        if isinstance(details, dict) and isinstance(details.get("cached_tokens"), int):
            details["cached_tokens"] = min(details["cached_tokens"], whole.prompt_tokens)


def _follows_text(choice: dict[str, Any]) -> bool:
    delta = choice.get("delta")
    reasons = isinstance(delta, dict) and any(delta.get(name) for name in _BEFORE_TEXT)
    return choice.get("index") in (None, 0) and not reasons


def _tells_more_than_the_role(choice: dict[str, Any]) -> bool:
    """False, once the role is taken away, for what only told that; what never did is left alone."""
    delta = choice.get("delta")
    if not isinstance(delta, dict) or delta.pop("role", None) is None:
        return True
    return any(delta.values()) or bool(choice.get("finish_reason"))
