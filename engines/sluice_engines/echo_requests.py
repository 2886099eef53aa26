"""What the echo engine was asked, checked as OpenAI would check it.

Only what decides the echo is read; sampling settings and the like are accepted and mean nothing to an echo.
What an echo cannot give (log-probabilities) is refused, never ignored.
"""

from __future__ import annotations

import re
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from sluice_engines.openai_bodies import BadRequest, StreamedBody, decoded_body

T = TypeVar("T")

Count = Annotated[int, Meta(ge=1)]
TextOrTokens = str | Annotated[list[str | int | list[int]], Meta(min_length=1)]
"""A string, strings, token ids, or lists of token ids."""


class ContentPart(msgspec.Struct):
    """One part of a message's content."""

    type: str
    text: str = ""


class Message(msgspec.Struct):
    """One chat message."""

    role: str
    content: str | list[ContentPart] | None = None

    @property
    def text(self) -> str:
        """All text of the content."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content if part.type == "text")
        return self.content or ""


class GenerationBody(StreamedBody, kw_only=True):
    """What chat and legacy completions have in common."""

    max_tokens: Annotated[int, Meta(ge=0)] | None = None
    x_echo: dict[str, object] = msgspec.field(default_factory=dict)
    """Overrides of the echo engine's settings."""


class ChatBody(GenerationBody, kw_only=True):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Meta(min_length=1)]
    max_completion_tokens: Count | None = None


class CompletionBody(GenerationBody, kw_only=True):
    """`POST /v1/completions`."""

    prompt: TextOrTokens
    echo: bool | None = None
    suffix: str | None = None


class EmbeddingBody(msgspec.Struct, kw_only=True):
    """`POST /v1/embeddings`."""

    model: str
    input: TextOrTokens
    encoding_format: str = "float"
    dimensions: Annotated[int, Meta(ge=1, le=8192)] | None = None


def parse_body(body: bytes, into: type[T]) -> T:
    """Decode and check a body. Raises `BadRequest` that names the parameter."""
    parsed = decoded_body(body, into)
    if isinstance(parsed, GenerationBody):
        _check_generation(parsed)
    return parsed


def _check_generation(body: GenerationBody) -> None:
    if body.logprobs is not None and body.logprobs is not False:
        raise BadRequest(
            "The echo engine has no log-probabilities; leave 'logprobs' out.",
            param="logprobs",
            code="unsupported_parameter",
        )
    if isinstance(body, CompletionBody) and body.suffix:
        raise BadRequest(
            "The echo engine does not insert text; leave 'suffix' out.",
            param="suffix",
            code="unsupported_parameter",
        )


def texts(value: TextOrTokens) -> list[str]:
    """The prompts of a completion or embedding. Token ids are spelled out: an echo has no vocabulary."""
    if isinstance(value, str):
        return [value]
    if all(isinstance(item, int) for item in value):
        return [" ".join(map(str, value))]
    return [" ".join(map(str, item)) if isinstance(item, list) else str(item) for item in value]


def split_tokens(text: str) -> list[str]:
    """The echo engine's "tokens": words with the white space before them. Joined they are `text` again."""
    return re.findall(r"\s*\S+|\s+$", text)
