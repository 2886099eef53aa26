"""From bytes to a request whose every value is in range, or a 400 that names the parameter.

Decoding errors and ranges are reported in OpenAI's words. What depends on the model (context, vocabulary) is
checked in `sampling_options` and `prompts`.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple, TypeVar

import msgspec

from sluice_worker.server.errors import ApiError, invalid, unsupported
from sluice_worker.server.requests import (
    ChatMessage,
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    GenerationRequest,
    NativeRequest,
    TokenizeRequest,
)

MAX_CHOICES = 128
MAX_STOPS = 4
MAX_TOP_LOGPROBS = 20
MAX_LEGACY_LOGPROBS = 20
ROLES = ("system", "developer", "user", "assistant", "tool", "function")
TEXT_PARTS = ("text", "refusal")
TOOL_CHOICES = ("none", "auto", "required")
GUIDED = ("structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar")
"""Fields that ask for constrained output. Ignoring one would hand out unconstrained text as if it were."""

_AT_PATH = re.compile(r"^(?P<reason>.*?)(?: - at `(?P<at>key in )?\$\.?(?P<path>[^`]*)`)?$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(?P<field>[^`]+)`$")
_MAX_NUMBER_DIGITS = 40

RequestT = TypeVar("RequestT", bound=msgspec.Struct)


class Range(NamedTuple):
    """Allowed values of a number; `lowest_excluded` leaves out the lower end itself."""

    lowest: float
    highest: float
    lowest_excluded: bool = False

    def __str__(self) -> str:
        if self.highest == float("inf"):
            return f"greater than {self.lowest:g}" if self.lowest_excluded else f"at least {self.lowest:g}"
        start = f"above {self.lowest:g}" if self.lowest_excluded else f"from {self.lowest:g}"
        return f"{start} to {self.highest:g}"

    def holds(self, value: float) -> bool:
        """Whether `value` lies inside."""
        return self.lowest <= value <= self.highest and not (self.lowest_excluded and value == self.lowest)


_INFINITY = float("inf")
RANGES: dict[str, Range] = {
    "max_tokens": Range(1, _INFINITY),
    "max_completion_tokens": Range(1, _INFINITY),
    "temperature": Range(0, 2),
    "top_p": Range(0, 1, lowest_excluded=True),
    "n": Range(1, MAX_CHOICES),
    "presence_penalty": Range(-2, 2),
    "frequency_penalty": Range(-2, 2),
    "top_k": Range(-1, _INFINITY),
    "min_p": Range(0, 1),
    "repetition_penalty": Range(0, 100, lowest_excluded=True),
    "min_tokens": Range(0, _INFINITY),
    "top_logprobs": Range(0, MAX_TOP_LOGPROBS),
}


def decode_chat(body: bytes) -> ChatRequest:
    """Decode and check a chat request. Raises `ApiError` 400."""
    request = _decode(body, ChatRequest)
    _check_common(request)
    if request.top_logprobs is not None and not request.logprobs:
        raise invalid("'top_logprobs' needs 'logprobs' to be true.", "top_logprobs")
    if request.response_format is not None and request.response_format.type != "text":
        kind = request.response_format.type[:50]
        raise unsupported(
            f"'response_format' of type '{kind}' is not supported. Leave it out, or use type 'text'.",
            "response_format",
        )
    _check_conversation(request, request.messages)
    return request


def decode_tokenize(body: bytes) -> TokenizeRequest:
    """Decode and check what is to be turned into tokens. Raises `ApiError` 400."""
    request = _decode(body, TokenizeRequest)
    if (request.prompt is None) == (request.messages is None):
        raise invalid("Send either 'prompt' or 'messages'.", "prompt")
    if request.messages is not None:
        _check_conversation(request, request.messages)
    return request


def decode_detokenize(body: bytes, vocab_size: int) -> DetokenizeRequest:
    """Decode and check tokens that are to be turned into text. Raises `ApiError` 400."""
    request = _decode(body, DetokenizeRequest)
    if request.tokens and not 0 <= min(request.tokens) <= max(request.tokens) < vocab_size:
        raise invalid(f"'tokens' has one that is not in the vocabulary of {vocab_size}.", "tokens")
    return request


def decode_completion(body: bytes) -> CompletionRequest:
    """Decode and check a legacy completion request, all but its prompt. Raises `ApiError` 400."""
    request = _decode(body, CompletionRequest)
    echoes_only = bool(request.echo) and request.max_tokens == 0
    _check_common(request, except_for="max_tokens" if echoes_only else "")
    if request.suffix:
        raise unsupported("This server cannot insert text before a 'suffix'. Leave it out.", "suffix")
    if request.best_of is not None and request.best_of != (request.n or 1):
        raise unsupported("'best_of' is not supported. Leave it out, or set it to 'n'.", "best_of")
    if request.logprobs is not None:
        _check_range("logprobs", request.logprobs, Range(0, MAX_LEGACY_LOGPROBS))
    return request


def completion_body(body: bytes, served_name: str) -> bytes:
    """A native request, put as a legacy completion request. Raises `ApiError` 400.

    Checks only what the two do not share; `decode_completion` does the rest.
    """
    request = _decode(body, NativeRequest)
    max_tokens = request.max_tokens
    if request.max_new_tokens is not None:
        if max_tokens not in (None, request.max_new_tokens):
            raise invalid("'max_new_tokens' and 'max_tokens' differ. Send one of them.", "max_new_tokens")
        max_tokens = request.max_new_tokens
        _check_range("max_new_tokens", max_tokens, RANGES["max_tokens"])
    name = request.model or served_name
    return msgspec.json.encode(msgspec.structs.replace(request, model=name, max_tokens=max_tokens))


def stop_strings(request: GenerationRequest) -> tuple[str, ...]:
    """The stop strings as a tuple. Raises `ApiError` 400 for too many or an empty one."""
    stop = request.stop
    strings = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if len(strings) > MAX_STOPS:
        raise invalid(f"'stop' has {len(strings)} strings; {MAX_STOPS} are the most.", "stop")
    if not all(strings):
        raise invalid("'stop' has an empty string. Leave it out.", "stop")
    return strings


def _decode(body: bytes, kind: type[RequestT]) -> RequestT:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise _type_error(str(error)) from None
    except RecursionError:
        raise invalid("The request body is nested too deeply.", None, "invalid_json") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        message = f"We could not parse the JSON body of your request: {error}."
        raise invalid(message, None, "invalid_json") from None


def _type_error(message: str) -> ApiError:
    """A msgspec message such as "Expected `int`, got `str` - at `$.messages[0].role`", as OpenAI says it."""
    match = _AT_PATH.match(message)
    reason, path = (match["reason"], match["path"]) if match else (message, None)
    missing = _MISSING.match(reason)
    if missing:
        param = f"{path}.{missing['field']}" if path else missing["field"]
        return invalid(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")
    if not path:
        return invalid(f"The request body must be a JSON object: {reason}.", None, "invalid_type")
    param = path.replace("[...]", "")
    return invalid(f"Invalid type for '{param}': {reason.replace('`', '')}.", param, "invalid_type")


def _check_common(request: GenerationRequest, except_for: str = "") -> None:
    for name, allowed in RANGES.items():
        value = getattr(request, name, None)
        if value is not None and name != except_for:
            _check_range(name, value, allowed)
    if request.stream_options is not None and not request.stream:
        raise invalid("'stream_options' is only allowed when 'stream' is true.", "stream_options")
    for name in GUIDED:
        if getattr(request, name) is not None:
            raise unsupported(f"'{name}': this server cannot constrain its output yet. Leave it out.", name)
    stop_strings(request)


def _check_range(name: str, value: float, allowed: Range) -> None:
    if not allowed.holds(value):
        shown = str(value)[:_MAX_NUMBER_DIGITS]
        raise invalid(f"Invalid value for '{name}': expected a number {allowed}, got {shown}.", name)


def _check_conversation(request: ChatRequest | TokenizeRequest, messages: list[ChatMessage]) -> None:
    _check_tool_choice(request)
    if not messages:
        raise invalid("'messages' is empty; send at least one message.", "messages")
    for index, message in enumerate(messages):
        _check_message(message, f"messages[{index}]")
    if not request.continue_final_message:
        return
    if request.add_generation_prompt:
        raise invalid(
            "'continue_final_message' and 'add_generation_prompt' exclude each other.",
            "continue_final_message",
        )
    last = messages[-1]
    if last.role != "assistant" or last.tool_calls or not last.content:
        raise invalid(
            "'continue_final_message' needs a last message of role 'assistant' with text in it.",
            "continue_final_message",
        )


def _check_tool_choice(request: ChatRequest | TokenizeRequest) -> None:
    choice = request.tool_choice
    if isinstance(choice, str) and choice not in TOOL_CHOICES:
        raise invalid(f"'tool_choice' must be one of {', '.join(TOOL_CHOICES)}, or a tool.", "tool_choice")
    if isinstance(choice, dict) and choice.get("type") == "function":
        name = _function_name(choice)
        if name is None or name not in map(_function_name, request.tools or []):
            raise invalid("'tool_choice' names a function that is not in 'tools'.", "tool_choice")


def _function_name(tool: dict[str, Any]) -> str | None:
    function = tool.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else None


def _check_message(message: ChatMessage, path: str) -> None:
    if message.role not in ROLES:
        raise invalid(
            f"Invalid value: '{message.role[:50]}'. Supported values are: {', '.join(map(repr, ROLES))}.",
            f"{path}.role",
        )
    if message.content is None and message.role not in ("assistant", "tool", "function"):
        raise invalid(f"A message of role '{message.role}' needs 'content'.", f"{path}.content")
    if isinstance(message.content, list):
        for index, part in enumerate(message.content):
            if part.type not in TEXT_PARTS:
                raise invalid(
                    f"This model takes text only, not content of type '{part.type[:50]}'.",
                    f"{path}.content[{index}].type",
                )
            if getattr(part, part.type) is None:
                raise invalid(
                    f"A part of type '{part.type}' needs '{part.type}'.",
                    f"{path}.content[{index}].{part.type}",
                )
