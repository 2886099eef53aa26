"""What the baseline server is asked, checked as OpenAI would check it.

What it lacks (log-probabilities, tools, structured output) is refused, never ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from msgspec import Meta

from sluice_engines.baseline.runtime import Sampling
from sluice_engines.openai_bodies import BadRequest, StreamedBody, decoded_body

T = TypeVar("T")
DEFAULT_COMPLETION_TOKENS = 16
"""OpenAI's default of `max_tokens` on the legacy endpoint."""


class GenerationBody(StreamedBody, kw_only=True):
    """What both endpoints have in common."""

    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1)] | None = None
    repetition_penalty: Annotated[float, Meta(gt=0)] | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    response_format: dict[str, Any] | None = None

    @property
    def sampling(self) -> Sampling:
        """How tokens are chosen. OpenAI's default temperature is 1."""
        return Sampling(
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=max(0, self.top_k or 0),
            repetition_penalty=1.0 if self.repetition_penalty is None else self.repetition_penalty,
            seed=self.seed,
        )


class ChatBody(GenerationBody, kw_only=True):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[dict[str, Any]], Meta(min_length=1)]
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None
    tools: list[Any] | None = None


class CompletionBody(GenerationBody, kw_only=True):
    """`POST /v1/completions`."""

    prompt: str | Annotated[list[str | int | list[int]], Meta(min_length=1)]
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = None

    @property
    def prompts(self) -> list[str | list[int]]:
        """Text or token ids, one a prompt."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        ids = [item for item in self.prompt if isinstance(item, int)]
        if len(ids) == len(self.prompt):
            return [ids]
        if ids:
            raise BadRequest("'prompt' mixes token ids and text.", param="prompt")
        return [item for item in self.prompt if not isinstance(item, int)]


_LACKING = (
    "logprobs",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "tools",
    "echo",
    "suffix",
)


def parse_body(body: bytes, into: type[T]) -> T:
    """Decode and check a body. Raises `BadRequest` that names the parameter."""
    parsed = decoded_body(body, into)
    for name in _LACKING:
        if getattr(parsed, name, None):
            raise _lacks(name)
    if (getattr(parsed, "best_of", None) or 1) > 1:
        raise _lacks("best_of")
    wanted = getattr(parsed, "response_format", None)
    if wanted is not None and wanted.get("type") != "text":
        raise _lacks("response_format")
    return parsed


def _lacks(param: str) -> BadRequest:
    message = f"This server has no '{param}'; leave it out, or ask another engine."
    return BadRequest(message, param=param, code="unsupported_parameter")
