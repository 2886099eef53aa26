"""Request bodies of the generation and the tokenizer endpoints, as clients send them.

Unknown fields are accepted and ignored; `null` always means the default. Types are checked here by decoding,
values in `validation`. The last group of `GenerationRequest` is not OpenAI's: engine settings that other
servers of open models accept under the same names.
"""

from __future__ import annotations

from typing import Any

import msgspec


class StreamOptions(msgspec.Struct, frozen=True):
    """Options of a streamed answer."""

    include_usage: bool | None = None


class GenerationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What chat and legacy completions share."""

    model: str
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    n: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    ignore_eos: bool | None = None
    min_tokens: int | None = None
    stop_token_ids: list[int] | None = None
    skip_special_tokens: bool | None = None
    cache_salt: str | None = None

    structured_outputs: Any = None
    guided_json: Any = None
    guided_regex: Any = None
    guided_choice: Any = None
    guided_grammar: Any = None


class ContentPart(msgspec.Struct, frozen=True):
    """One part of a message whose content is a list."""

    type: str
    text: str | None = None
    refusal: str | None = None


class ChatMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message of the conversation."""

    role: str
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    function_call: dict[str, Any] | None = None
    reasoning_content: str | None = None


class ResponseFormat(msgspec.Struct, frozen=True):
    """The shape asked of the answer."""

    type: str


class ChatRequest(GenerationRequest, frozen=True, kw_only=True):
    """Body of `POST /v1/chat/completions`."""

    messages: list[ChatMessage]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    response_format: ResponseFormat | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    functions: list[dict[str, Any]] | None = None
    """OpenAI's older name for `tools`: the functions without their wrapping."""
    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool | None = None
    """Whether the prompt ends where an answer begins; by default it does."""
    continue_final_message: bool | None = None
    """The last message is the beginning of the answer, which goes on where it ends. vLLM's name, as above."""


class CompletionRequest(GenerationRequest, frozen=True, kw_only=True):
    """Body of `POST /v1/completions`."""

    prompt: Any = None
    """A string, a list of strings, a list of token ids, or a list of such lists: `validation.prompts`."""
    logprobs: int | None = None
    echo: bool | None = None
    best_of: int | None = None
    suffix: str | None = None


class NativeRequest(CompletionRequest, frozen=True, kw_only=True):
    """Body of `POST /generate`, `/v1/generate` and `/v1/generate_nobatch`.

    A legacy completion request whose model need not be named.
    """

    model: str = ""
    """There is one model; empty is that one."""
    max_new_tokens: int | None = None
    """Another name for `max_tokens`."""


class TokenizeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Body of `POST /tokenize`, in vLLM's shape: either a prompt, or a conversation as chat takes it."""

    model: str | None = None
    prompt: str | None = None
    messages: list[ChatMessage] | None = None
    add_special_tokens: bool | None = None
    """By default those that the endpoint of the same kind adds: some to a prompt, none to a conversation."""
    return_token_strs: bool | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    functions: list[dict[str, Any]] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None


class DetokenizeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Body of `POST /detokenize`, in vLLM's shape."""

    model: str | None = None
    tokens: list[int]
