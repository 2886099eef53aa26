"""Response bodies, field by field as OpenAI's schema has them.

Field order is the order on the wire. `logprobs`, `finish_reason` and `refusal` are sent as `null` when there
is nothing to say; `usage` in a stream exists only when the client asked for it.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType


class PromptTokensDetails(msgspec.Struct, frozen=True):
    """How the prompt's tokens were had."""

    cached_tokens: int


class CompletionTokensDetails(msgspec.Struct, frozen=True):
    """What the output's tokens were."""

    reasoning_tokens: int = 0


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Token counts of a whole answer: the prompt once, the tokens of all choices."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails = CompletionTokensDetails()


class TopLogprob(msgspec.Struct, frozen=True):
    """An alternative at one position."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(msgspec.Struct, frozen=True):
    """One output token of a chat answer."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class ChatLogprobs(msgspec.Struct, frozen=True):
    """Log-probabilities of a chat choice."""

    content: list[TokenLogprob]
    refusal: None = None


class CompletionLogprobs(msgspec.Struct, frozen=True):
    """Log-probabilities of a legacy choice, as parallel lists.

    An echoed prompt's first token has none, because nothing precedes it.
    """

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class AssistantMessage(msgspec.Struct, frozen=True, kw_only=True):
    """The answer."""

    role: str = "assistant"
    content: str
    refusal: None = None


class ChatChoice(msgspec.Struct, frozen=True, kw_only=True):
    """One of `n` answers."""

    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: str
    stop_reason: str | UnsetType = UNSET
    """The stop string that ended it, under the name that vLLM gave this."""


class ChatCompletion(msgspec.Struct, frozen=True, kw_only=True):
    """A whole chat answer."""

    id: str
    object: str = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    service_tier: str = "default"
    system_fingerprint: str


class Delta(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a chunk adds to the message."""

    role: str | UnsetType = UNSET
    content: str | UnsetType = UNSET


class ChatChunkChoice(msgspec.Struct, frozen=True, kw_only=True):
    """What a chunk adds to one choice."""

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None = None
    finish_reason: str | None = None
    stop_reason: str | UnsetType = UNSET
    """See `ChatChoice`."""


class ChatChunk(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a streamed chat answer."""

    id: str
    object: str = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: Usage | UnsetType | None = UNSET
    system_fingerprint: str


class CompletionChoice(msgspec.Struct, frozen=True, kw_only=True):
    """One legacy choice, whole or as far as a chunk adds to it."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: str | None


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """A legacy answer; its chunks have the same shape."""

    id: str
    object: str = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | UnsetType | None = UNSET
    system_fingerprint: str


class FirstToken(msgspec.Struct, frozen=True):
    """The event `ttft` of a native stream, sent with the first token."""

    ttft_s: float
    """Seconds from the request's arrival."""


class TextPart(msgspec.Struct, frozen=True):
    """An event of a native stream with new text."""

    text: str
    token_ids: list[int]
    """Those that came since the part before. A part of a character is held back until the rest is there."""


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """When things were there, in seconds from the request's arrival."""

    ttft_s: float
    total_s: float
    tokens_per_s: float | None
    """Of the tokens after the first, which follow each other; `None` without a second one."""


class NativeEnd(msgspec.Struct, frozen=True, kw_only=True):
    """The event `done` of a native stream."""

    finish_reason: str
    usage: Usage
    timings: Timings


class NativeAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A whole native answer."""

    text: str
    token_ids: list[int]
    finish_reason: str
    usage: Usage
    timings: Timings


class TokenCount(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of `/tokenize`, in vLLM's shape."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None
    """The tokens as the vocabulary writes them, when asked for."""


class DetokenizedText(msgspec.Struct, frozen=True):
    """Answer of `/detokenize`, in vLLM's shape."""

    prompt: str


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of `/v1/models`."""

    id: str
    object: str = "model"
    created: int
    owned_by: str = "sluice"


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    """`/v1/models`."""

    object: str = "list"
    data: list[ModelCard]


class Status(msgspec.Struct, frozen=True):
    """`/health` and `/ready`."""

    status: str
