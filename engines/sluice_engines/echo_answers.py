"""The echo engine's answers: OpenAI's JSON bodies and server-sent events, byte for byte in OpenAI's shape.

Pure: from a checked request to bytes, without I/O. A `Step` is what a real engine would send after one step:
the same position of every choice.
"""

from __future__ import annotations

import base64
import hashlib
import math
import struct
from collections.abc import Iterator, Sequence

import msgspec

from sluice_engines.echo_requests import (
    ChatBody,
    CompletionBody,
    EmbeddingBody,
    split_tokens,
    texts,
)

DEFAULT_COMPLETION_TOKENS = 16
"""OpenAI's default of `max_tokens` on the legacy endpoint; chat has none."""
DEFAULT_DIMENSIONS = 64
FINGERPRINT = "sluice-echo"
"""`system_fingerprint`: says that no model spoke."""


class Step(msgspec.Struct, frozen=True):
    """One piece of a streamed answer."""

    data: bytes
    tokens: bool
    """Whether it carries tokens, so that the pace applies to it."""


class Choice(msgspec.Struct, frozen=True):
    """One alternative: its tokens, and why it ends."""

    tokens: list[str]
    finish_reason: str
    prefix: str = ""
    """Text before the tokens that counts as prompt (legacy `echo`)."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """All that is said in answer to one request."""

    chat: bool
    id: str
    created: int
    """Unix time, seconds."""
    model: str
    choices: list[Choice]
    prompt_tokens: int
    include_usage: bool

    @property
    def num_steps(self) -> int:
        """Tokens of the longest choice."""
        return max(len(choice.tokens) for choice in self.choices)


def chat_answer(body: ChatBody, request_id: str, created: int) -> Answer:
    """Say the last user message again, `n` times."""
    said = [m.text for m in body.messages if m.role == "user"] or [body.messages[-1].text]
    choice = _choice(said[-1], body.max_completion_tokens or body.max_tokens, body.stops)
    return Answer(
        chat=True,
        id=f"chatcmpl-{request_id}",
        created=created,
        model=body.model,
        choices=[choice] * (body.n or 1),
        prompt_tokens=sum(len(split_tokens(m.text)) for m in body.messages),
        include_usage=body.include_usage,
    )


def completion_answer(body: CompletionBody, request_id: str, created: int) -> Answer:
    """Say each prompt again, `n` times."""
    limit = DEFAULT_COMPLETION_TOKENS if body.max_tokens is None else body.max_tokens
    prompts, choices = texts(body.prompt), []
    for prompt in prompts:
        choice = _choice(prompt, limit, body.stops)
        if body.echo:
            choice = msgspec.structs.replace(choice, prefix=prompt)
        choices += [choice] * (body.n or 1)
    return Answer(
        chat=False,
        id=f"cmpl-{request_id}",
        created=created,
        model=body.model,
        choices=choices,
        prompt_tokens=sum(len(split_tokens(p)) for p in prompts),
        include_usage=body.include_usage,
    )


def _choice(text: str, limit: int | None, stops: Sequence[str]) -> Choice:
    ends = [at for stop in stops if (at := text.find(stop)) >= 0]
    tokens = split_tokens(text[: min(ends)] if ends else text)
    if limit is not None and len(tokens) > limit:
        return Choice(tokens[:limit], "length")
    return Choice(tokens, "stop")


# Whole


def full_body(answer: Answer) -> bytes:
    """The JSON body of an answer that is not streamed."""
    choices = [_full_choice(answer, i, choice) for i, choice in enumerate(answer.choices)]
    kind = "chat.completion" if answer.chat else "text_completion"
    return msgspec.json.encode(_envelope(answer, kind, choices) | {"usage": usage(answer)})


def _full_choice(answer: Answer, index: int, choice: Choice) -> dict[str, object]:
    text = choice.prefix + "".join(choice.tokens)
    content: dict[str, object] = {"text": text}
    if answer.chat:
        content = {"message": {"role": "assistant", "content": text, "refusal": None}}
    return {"index": index, **content, "logprobs": None, "finish_reason": choice.finish_reason}


def usage(answer: Answer) -> dict[str, object]:
    """OpenAI's usage object: the prompt counted once, all choices' tokens."""
    completion = sum(len(choice.tokens) for choice in answer.choices)
    return {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": completion,
        "total_tokens": answer.prompt_tokens + completion,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def _envelope(answer: Answer, kind: str, choices: list[dict[str, object]]) -> dict[str, object]:
    return {
        "id": answer.id,
        "object": kind,
        "created": answer.created,
        "model": answer.model,
        "system_fingerprint": FINGERPRINT,
        "choices": choices,
    }


# Streamed


def stream_steps(answer: Answer) -> Iterator[Step]:
    """The events of a streamed answer, in order, `[DONE]` included."""
    if opening := _opening(answer):
        yield Step(opening, False)
    for position in range(answer.num_steps):
        yield Step(_position(answer, position), True)
    yield Step(_closing(answer), False)


def _opening(answer: Answer) -> bytes:
    """Chat: the role of each choice. Legacy with `echo`: the prompts."""
    parts = []
    for index, choice in enumerate(answer.choices):
        if answer.chat:
            parts.append(_chunk(answer, index, {"role": "assistant", "content": ""}))
        elif choice.prefix:
            parts.append(_chunk(answer, index, choice.prefix))
    return b"".join(parts)


def _position(answer: Answer, position: int) -> bytes:
    parts = []
    for index, choice in enumerate(answer.choices):
        if position < len(choice.tokens):
            token = choice.tokens[position]
            parts.append(_chunk(answer, index, {"content": token} if answer.chat else token))
    return b"".join(parts)


def _closing(answer: Answer) -> bytes:
    """A finish chunk for each choice, usage if asked for, and the end mark."""
    parts = [
        _chunk(answer, index, {} if answer.chat else "", choice.finish_reason)
        for index, choice in enumerate(answer.choices)
    ]
    if answer.include_usage:
        parts.append(_event(_envelope(answer, _chunk_kind(answer), []) | {"usage": usage(answer)}))
    return b"".join(parts) + b"data: [DONE]\n\n"


def _chunk(
    answer: Answer, index: int, content: dict[str, str] | str, finish_reason: str | None = None
) -> bytes:
    choice: dict[str, object] = {
        "index": index,
        "delta" if answer.chat else "text": content,
        "logprobs": None,
        "finish_reason": finish_reason,
    }
    envelope = _envelope(answer, _chunk_kind(answer), [choice])
    return _event(envelope | {"usage": None} if answer.include_usage else envelope)


def _chunk_kind(answer: Answer) -> str:
    return "chat.completion.chunk" if answer.chat else "text_completion"


def _event(value: dict[str, object]) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


# Embeddings, models, errors


def embeddings_body(body: EmbeddingBody) -> bytes:
    """Unit vectors drawn from a hash of each text: equal texts are equal, other meaning they have none."""
    inputs = texts(body.input)
    vectors = [_vector(text, body.dimensions or DEFAULT_DIMENSIONS) for text in inputs]
    base64_wanted = body.encoding_format == "base64"
    tokens = sum(len(split_tokens(text)) for text in inputs)
    return msgspec.json.encode(
        {
            "object": "list",
            "model": body.model,
            "data": [
                {"object": "embedding", "index": i, "embedding": _packed(v) if base64_wanted else v}
                for i, v in enumerate(vectors)
            ],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )


def _vector(text: str, dimensions: int) -> list[float]:
    noise = hashlib.shake_256(text.encode()).digest(2 * dimensions)
    values = [value + 0.5 for value in struct.unpack(f"<{dimensions}h", noise)]
    norm = math.sqrt(sum(value * value for value in values))
    return [value / norm for value in values]


def _packed(vector: list[float]) -> str:
    """Little-endian float32, as OpenAI packs them."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def model_object(model: str) -> dict[str, object]:
    """One entry of the model list."""
    return {"id": model, "object": "model", "created": 0, "owned_by": "sluice-echo"}


def error_body(message: str, status: int, param: str | None = None, code: str | None = None) -> bytes:
    """OpenAI's error JSON, with all four keys."""
    if status == 429:
        kind, code = "requests", code or "rate_limit_exceeded"
    else:
        kind = "server_error" if status >= 500 else "invalid_request_error"
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": param, "code": code}})
