"""The request for the rest of an answer: the same, with what is there already behind its prompt.

A completion's text is put behind the prompt. In a chat it becomes the assistant's last message, or the end of
the one that the client had begun, with `continue_final_message`, which vLLM brought up and others took over.
Bounds on the number of tokens become smaller by what has come. Whatever else the body holds stays as it is,
and has to be known to mean for the rest what it meant for the whole: of a field that is not listed here
nobody can say that, and then nothing is resumed.

Sources: the API references of OpenAI, vLLM, SGLang and llama.cpp's server.
"""

from __future__ import annotations

from typing import Any

import msgspec

_ABSENT = msgspec.Raw(b"null")
_NOTHING = (b"null", b"[]", b"{}", b'""', b"false")
_GRAMMARS = (
    *("guided_json", "guided_regex", "guided_choice", "guided_grammar", "structured_outputs"),
    *("json_schema", "grammar", "regex", "ebnf", "structural_tag"),
)
"""What engines call a grammar for the answer, beside `response_format`: vLLM, llama.cpp, SGLang."""
_SEVERAL = ("best_of", "use_beam_search", "n_cmpl")
_LOGPROBS = ("logprobs", "top_logprobs", "prompt_logprobs", "n_probs", "return_token_ids")
_BOUNDS = ("max_completion_tokens", "max_tokens")
_PENALTIES = ("presence_penalty", "frequency_penalty", "dry_multiplier")
_ONE_PROMPT = ("suffix", "echo", "prompt_embeds", "input_ids")
_SHOWS_REASONING = ("include_reasoning", "separate_reasoning", "stream_reasoning")
_REASONS = ("reasoning", "reasoning_effort", "thinking", "thinking_budget_tokens")
_JUDGED = frozenset(
    {
        *("model", "messages", "prompt", "n", "stop", "min_tokens", "response_format"),
        *("tools", "tool_choice", "functions", "function_call"),
        *("add_generation_prompt", "continue_final_message"),
        *_GRAMMARS,
        *_SEVERAL,
        *_LOGPROBS,
        *_BOUNDS,
        *_PENALTIES,
        *_ONE_PROMPT,
        *_SHOWS_REASONING,
        *_REASONS,
    }
)
"""What is looked at, or changed."""
_HARMLESS = frozenset(
    {
        # of the request, not of the answer
        *("stream", "stream_options", "user", "metadata", "store", "service_tier", "safety_identifier"),
        *("prompt_cache_key", "prompt_cache_retention", "cache_salt", "cache_prompt", "id_slot", "priority"),
        # of how each token is chosen by itself
        *("temperature", "top_p", "top_k", "min_p", "typical_p", "top_n_sigma", "seed", "logit_bias"),
        *("xtc_probability", "xtc_threshold", "dynatemp_range", "dynatemp_exponent", "samplers"),
        # of tokens before it, wherever they are
        *("repetition_penalty", "repeat_penalty", "repeat_last_n"),
        # of how it ends, and is written
        *("stop_token_ids", "ignore_eos", "include_stop_str_in_output", "verbosity"),
        *("parallel_tool_calls", "chat_template_kwargs", "add_special_tokens"),
    }
)
"""What means for the rest what it means for the whole."""
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a body says of whether its answer can be continued."""

    unknown: bool
    """There is more than is understood here."""
    thinks: bool
    """Reasoning is asked for, or to be hidden."""
    guided: bool
    several: bool
    logprobs: bool
    penalties: bool
    one_prompt: bool
    max_tokens: int | None
    stops: tuple[str, ...]


class _Format(msgspec.Struct):
    type: str | None = None


class _Message(msgspec.Struct):
    role: str = ""
    content: msgspec.Raw = _ABSENT


def read(kind: str, body: bytes) -> Asked | None:
    """What it asks for; `None` when it cannot be understood."""
    try:
        fields = _FIELDS.decode(body)
        return Asked(
            unknown=not fields.keys() <= (_JUDGED | _HARMLESS),
            thinks=_any(fields, _REASONS, but=(b'"none"',)) or _is_hidden(fields),
            guided=_is_guided(fields) or _any(fields, _GRAMMARS) or _must_call(fields),
            several=_number(fields, "n", 1) != 1 or _any(fields, _SEVERAL, but=(b"1",)),
            logprobs=_any(fields, _LOGPROBS),
            penalties=_any(fields, _PENALTIES, but=(b"0", b"0.0")),
            one_prompt=not _any(fields, _ONE_PROMPT) and _is_open(kind, fields),
            max_tokens=_bound(fields),
            stops=_stops(fields),
        )
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def with_text(kind: str, body: bytes, text: str, tokens: int) -> bytes:
    """The body for the rest. `body` is one that `read` found to be safe; `tokens` is what has come."""
    if not text:
        return body
    fields = _FIELDS.decode(body)
    if kind == "chat":
        messages = msgspec.json.decode(fields["messages"], type=list[msgspec.Raw])
        if _flag(fields, "continue_final_message"):
            last: dict[str, Any] = msgspec.json.decode(messages.pop())
            last["content"] += text
        else:
            last = {"role": "assistant", "content": text}
        fields["messages"] = _raw([*messages, last])
        fields["continue_final_message"], fields["add_generation_prompt"] = _raw(True), _raw(False)
    else:
        prompt = msgspec.json.decode(fields["prompt"], type=str | list[str])
        fields["prompt"] = _raw((prompt if isinstance(prompt, str) else prompt[0]) + text)
    for name in (*_BOUNDS, "min_tokens"):
        number = _number(fields, name)
        if number is not None:
            fields[name] = _raw(max(number - tokens, 0))
    return msgspec.json.encode(fields)


def _is_guided(fields: dict[str, msgspec.Raw]) -> bool:
    raw = fields.get("response_format", _ABSENT)
    return bytes(raw) not in _NOTHING and msgspec.json.decode(raw, type=_Format).type != "text"


def _is_hidden(fields: dict[str, msgspec.Raw]) -> bool:
    """Whether reasoning would not be told apart."""
    return any(bytes(fields.get(name, _ABSENT)) == b"false" for name in _SHOWS_REASONING)


def _must_call(fields: dict[str, msgspec.Raw]) -> bool:
    """Whether the answer has to be a call of a tool."""
    choice = bytes(fields.get("tool_choice", _ABSENT))
    call = bytes(fields.get("function_call", _ABSENT))
    return any(said not in (b"null", b'"auto"', b'"none"') for said in (choice, call))


def _is_open(kind: str, fields: dict[str, msgspec.Raw]) -> bool:
    """Whether a text can be put behind the prompt."""
    if kind != "chat":
        prompt = msgspec.json.decode(fields.get("prompt", _ABSENT))
        return isinstance(prompt, str) or (
            isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str)
        )
    messages = msgspec.json.decode(fields.get("messages", _ABSENT), type=list[_Message])
    ends_open = bool(messages) and messages[-1].role == "assistant"
    if _flag(fields, "continue_final_message"):
        return ends_open and bytes(messages[-1].content)[:1] == b'"'
    # Some engines continue such a message unasked, others begin a new one: where the text belongs is unknown.
    return bool(messages) and not ends_open and bytes(fields.get("add_generation_prompt", b"")) != b"false"


def _bound(fields: dict[str, msgspec.Raw]) -> int | None:
    """The least of the bounds."""
    numbers = [_number(fields, name) for name in _BOUNDS]
    return min((number for number in numbers if number is not None), default=None)


def _stops(fields: dict[str, msgspec.Raw]) -> tuple[str, ...]:
    stops = msgspec.json.decode(fields.get("stop", _ABSENT), type=str | list[str] | None)
    return (stops,) if isinstance(stops, str) else tuple(stops or ())


def _number(fields: dict[str, msgspec.Raw], name: str, otherwise: int | None = None) -> int | None:
    number = msgspec.json.decode(fields.get(name, _ABSENT), type=int | None)
    return otherwise if number is None else number


def _flag(fields: dict[str, msgspec.Raw], name: str) -> bool:
    return bytes(fields.get(name, _ABSENT)) == b"true"


def _any(fields: dict[str, msgspec.Raw], names: tuple[str, ...], but: tuple[bytes, ...] = ()) -> bool:
    """Whether one of the fields is there and asks for something."""
    present = (bytes(fields[name]) for name in names if name in fields)
    return any(value not in _NOTHING and value not in but for value in present)


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
