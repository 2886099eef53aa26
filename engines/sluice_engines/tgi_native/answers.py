"""What Text Generation Inference's native API answered, as OpenAI's completions.

The engine leaves the stop string in its text, and stops only when it ends a token's text; here the text ends
before the first stop string, wherever that is. A stream holds back what may become one. Special tokens (the
end of the sequence) are counted as the engine counts them, and are no text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from sluice_engines.stop_strings import first_stop, held_back
from sluice_engines.tgi_native.completions import Asked

FINISH_REASONS: Mapping[str, str] = {"length": "length", "eos_token": "stop", "stop_sequence": "stop"}
DONE = b"data: [DONE]\n\n"


class Token(Protocol):
    """A token of an answer."""

    id: int
    logprob: float
    special: bool
    text: str


class Scored(msgspec.Struct, frozen=True):
    """A token with what is known of its probability, as OpenAI tells it."""

    text: str
    logprob: float | None
    top: dict[str, float] | None


class Usage(msgspec.Struct, frozen=True):
    """Tokens; `prompt` is `None` when the engine did not say."""

    prompt: int | None
    generated: int


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One whole alternative."""

    text: str
    finish_reason: str
    prompt_tokens: tuple[Scored, ...] = ()
    """With `echo` and `logprobs`."""
    tokens: tuple[Scored, ...] = ()
    usage: Usage


def scored(token: Token, top: Sequence[Token | dict[str, Any]] | None) -> Scored:
    """A generated token. `top` are the engine's alternatives, which may lack the token itself.

    huggingface-hub leaves those of a whole answer as they came, as dicts.
    """
    if not top:
        return Scored(token.text, token.logprob, None)
    pairs = ((t["text"], t["logprob"]) if isinstance(t, dict) else (t.text, t.logprob) for t in top)
    return Scored(token.text, token.logprob, dict(pairs))


def whole_choice(asked: Asked, output: Any, prompt: str, prompt_tokens: int | None) -> Choice:
    """The answer of `/generate`. `prompt_tokens` as its headers tell them."""
    details = output.details
    text, reason = str(output.generated_text), FINISH_REASONS.get(details.finish_reason, "stop")
    cut = first_stop(text, asked.stops)
    if cut is not None:
        text, reason = text[:cut], "stop"
    tops = details.top_tokens or [None] * len(details.tokens)
    tokens = [
        scored(token, top) for token, top in zip(details.tokens, tops, strict=True) if not token.special
    ]
    if prompt_tokens is None and details.prefill:
        prompt_tokens = len(details.prefill)
    usage = Usage(prompt_tokens, int(details.generated_tokens))
    if asked.no_output:
        text, tokens, reason = "", [], "length"
    return Choice(
        text=(prompt if asked.echo else "") + text,
        finish_reason=reason,
        prompt_tokens=tuple(Scored(token.text, token.logprob, None) for token in details.prefill or ())
        if asked.echo
        else (),
        tokens=tuple(_within(tokens, len(text))),
        usage=usage,
    )


def _within(tokens: Iterable[Scored], length: int) -> list[Scored]:
    """Those that begin before `length` characters are over."""
    kept, at = [], 0
    for token in tokens:
        if at >= length and token.text:
            break
        kept.append(token)
        at += len(token.text)
    return kept


class Answer:
    """The frame that all parts of one answer have in common."""

    def __init__(self, asked: Asked, request_id: str, created: int) -> None:
        """`created` is Unix time, seconds."""
        self._asked = asked
        self._frame = {
            "id": f"cmpl-{request_id}",
            "object": "text_completion",
            "created": created,
            "model": asked.model,
        }

    def whole(self, choices: Sequence[Choice]) -> bytes:
        """The body of an answer that is not streamed."""
        told = [self._whole_choice(index, choice) for index, choice in enumerate(choices)]
        usage = usage_object(choice.usage for choice in choices)
        return msgspec.json.encode(self._frame | {"choices": told} | ({"usage": usage} if usage else {}))

    def chunk(
        self, index: int, text: str, tokens: Sequence[Scored], offset: int, finish_reason: str | None = None
    ) -> bytes:
        """An event; `offset` is where `text` begins."""
        logprobs = logprobs_object(tokens, offset) if self._asked.logprobs is not None and tokens else None
        return self._event([_choice_object(index, text, logprobs, finish_reason)], None)

    def end(self, usages: Sequence[Usage]) -> bytes:
        """What comes after the last choice's last event."""
        if not self._asked.include_usage:
            return DONE
        usage = usage_object(usages)
        return (self._event([], usage) if usage is not None else b"") + DONE

    def _event(self, choices: list[dict[str, object]], usage: dict[str, int] | None) -> bytes:
        told = self._frame | {"choices": choices}
        if self._asked.include_usage:
            told |= {"usage": usage}
        return b"data: " + msgspec.json.encode(told) + b"\n\n"

    def _whole_choice(self, index: int, choice: Choice) -> dict[str, object]:
        tokens = (*choice.prompt_tokens, *choice.tokens)
        logprobs = None if self._asked.logprobs is None else logprobs_object(tokens, 0)
        return _choice_object(index, choice.text, logprobs, choice.finish_reason)


def _choice_object(
    index: int, text: str, logprobs: dict[str, object] | None, finish_reason: str | None
) -> dict[str, object]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}


def logprobs_object(tokens: Sequence[Scored], offset: int) -> dict[str, object]:
    """OpenAI's form for this endpoint; `offset` is where the first token's text begins."""
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.text)
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [token.top for token in tokens] if any(token.top for token in tokens) else None,
        "text_offset": offsets,
    }


def usage_object(usages: Iterable[Usage]) -> dict[str, int] | None:
    """The sum; `None` when some prompt's length is not known."""
    prompt = generated = 0
    for usage in usages:
        if usage.prompt is None:
            return None
        prompt += usage.prompt
        generated += usage.generated
    return {"prompt_tokens": prompt, "completion_tokens": generated, "total_tokens": prompt + generated}


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """What one message of the engine's stream adds to the answer."""

    text: str = ""
    tokens: tuple[Scored, ...] = ()
    finish_reason: str | None = None
    usage: Usage | None = None
    """With the end."""


class ChoiceStream:
    """Turns the messages of `/generate_stream` into pieces of one choice, stop strings held back and cut."""

    def __init__(self, asked: Asked) -> None:
        self._stops = asked.stops
        self._scored = asked.logprobs is not None
        self._text = ""
        """All that the engine said."""
        self._sent = 0
        """Characters of it that were given on."""
        self._tokens: list[tuple[int, Scored]] = []
        """Those not given on yet, with where they begin."""
        self._generated = 0
        self.ended = False

    def feed(self, message: Any) -> Piece:
        """The next message. Nothing may follow the piece with a finish reason."""
        self._generated += 1
        if not message.token.special:
            if self._scored:
                self._tokens.append((len(self._text), scored(message.token, message.top_tokens)))
            self._text += message.token.text
        details = message.details
        if details is not None and message.generated_text is not None:
            # Bytes that did not make a character yet are only in the whole text.
            if message.generated_text.startswith(self._text):
                self._text = message.generated_text
            usage = Usage(details.input_length, details.generated_tokens)
            return self._end(FINISH_REASONS.get(details.finish_reason, "stop"), usage)
        cut = first_stop(self._text[self._sent :], self._stops)
        if cut is not None:
            return self._end("stop", Usage(None, self._generated))
        return self._piece(len(self._text) - held_back(self._text[self._sent :], self._stops))

    def _end(self, reason: str, usage: Usage) -> Piece:
        self.ended = True
        cut = first_stop(self._text[self._sent :], self._stops)
        end = len(self._text) if cut is None else self._sent + cut
        piece = self._piece(end)
        return Piece(
            text=piece.text,
            tokens=piece.tokens,
            finish_reason=reason if cut is None else "stop",
            usage=usage,
        )

    def _piece(self, end: int) -> Piece:
        text, self._sent = self._text[self._sent : end], end
        tokens = tuple(token for at, token in self._tokens if at < end)
        self._tokens = [(at, token) for at, token in self._tokens if at >= end]
        return Piece(text=text, tokens=tokens)
