"""The prompts of a request as token ids.

Long texts are rendered and encoded in a thread: a megabyte takes a large part of a second, and every other
stream would stand still meanwhile.
"""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from sluice_worker.server.errors import ApiError, invalid
from sluice_worker.server.requests import ChatMessage, ChatRequest, CompletionRequest, TokenizeRequest
from sluice_worker.server.served_model import ServedModel
from sluice_worker.server.tokenizer import Tokenizer

IN_THREAD_ABOVE_BYTES = 16_384
"""Request bodies above this are prepared outside the event loop."""
MAX_SEQUENCES = 1024
"""Prompts of one request, times `n`."""

ResultT = TypeVar("ResultT")


class Prompt(NamedTuple):
    """One prompt."""

    token_ids: list[int]
    text: str
    """What `echo` repeats."""


async def prepare(size_bytes: int, work: Callable[[], ResultT]) -> ResultT:
    """Run `work` here if the request is small, otherwise in a thread."""
    if size_bytes <= IN_THREAD_ABOVE_BYTES:
        return work()
    return await asyncio.to_thread(work)


def chat_prompt(request: ChatRequest, model: ServedModel) -> Prompt:
    """Render and encode the conversation. Raises `ApiError` 400."""
    text = rendered(request, request.messages, model)
    return _checked(model.tokenizer.encode_rendered(text), text, "messages")


def rendered(request: ChatRequest | TokenizeRequest, messages: list[ChatMessage], model: ServedModel) -> str:
    """The conversation as text. Raises `ApiError` 400."""
    if model.chat_template is None:
        raise invalid("This model has no chat template. Use /v1/completions.", "messages")
    return model.chat_template.render(
        messages,
        _tools(request),
        request.chat_template_kwargs,
        add_generation_prompt=request.add_generation_prompt is not False,
        continue_final_message=bool(request.continue_final_message),
    )


def completion_prompts(request: CompletionRequest, model: ServedModel, vocab_size: int) -> list[Prompt]:
    """The one or many prompts of a legacy request, in order. Raises `ApiError` 400."""
    given = "" if request.prompt is None else request.prompt
    if isinstance(given, str) or _is_token_list(given):
        given = [given]
    if not isinstance(given, list) or not given:
        raise _bad_prompt()
    if len(given) * (request.n or 1) > MAX_SEQUENCES:
        raise invalid(f"{len(given)} prompts times 'n' are more than {MAX_SEQUENCES}. Send fewer.", "prompt")
    return [_completion_prompt(item, model, vocab_size) for item in given]


def prompt_offsets(prompt: Prompt, tokenizer: Tokenizer) -> list[int]:
    """Where each token begins in the prompt's text, in characters.

    A token that adds none, such as one put before every prompt, stands where the next one does; so does a
    token within a character.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    starts, decoded = [], ""
    for token_id in prompt.token_ids:
        starts.append(len(decoded))
        decoded += decoder.decode(tokenizer.token_bytes(token_id))
    decoded += decoder.decode(b"", final=True)
    before = max(0, decoded.rfind(prompt.text))
    return [min(max(0, start - before), len(prompt.text)) for start in starts]


def _completion_prompt(item: Any, model: ServedModel, vocab_size: int) -> Prompt:
    tokenizer = model.tokenizer
    if isinstance(item, str):
        token_ids = tokenizer.encode_prompt(item)
        if not token_ids and tokenizer.bos_id is not None:
            token_ids = [tokenizer.bos_id]
        return _checked(token_ids, item, "prompt")
    if not _is_token_list(item):
        raise _bad_prompt()
    if item and not 0 <= min(item) <= max(item) < vocab_size:
        raise invalid(f"'prompt' has a token that is not in the vocabulary of {vocab_size}.", "prompt")
    data = b"".join(tokenizer.token_bytes(token_id) for token_id in item)
    return _checked(item, data.decode(errors="replace"), "prompt")


def _checked(token_ids: list[int], text: str, param: str) -> Prompt:
    if not token_ids:
        raise invalid(f"'{param}' has no tokens; send some text.", param)
    return Prompt(token_ids, text)


def _is_token_list(item: Any) -> bool:
    return isinstance(item, list) and all(type(token) is int for token in item) and bool(item)


def _bad_prompt() -> ApiError:
    return invalid(
        "Invalid type for 'prompt': expected a string, a list of strings, a list of token ids, or a list of "
        "lists of token ids.",
        "prompt",
        "invalid_type",
    )


def _tools(request: ChatRequest | TokenizeRequest) -> list[dict[str, Any]] | None:
    if request.tool_choice == "none":
        return None
    if request.tools is None and request.functions is not None:
        return [{"type": "function", "function": function} for function in request.functions]
    return request.tools
