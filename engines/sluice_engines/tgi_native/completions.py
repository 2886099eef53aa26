"""A completion, as OpenAI's clients ask for it, as a call of Text Generation Inference's `/generate`.

What the engine lacks is refused with a sentence, never ignored. Its bounds differ from OpenAI's at the edges:
a temperature of 0 is greedy decoding here and an error there, and so is a `top_p` of 1, which means nothing.
Samples are drawn unless the temperature is 0, as OpenAI's default of 1 has it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from sluice_engines.tgi_native.refusals import Refusal, Refused, unsupported

DEFAULT_TOKENS = 16
"""OpenAI's default of `max_tokens` on this endpoint; the engine's own differs from version to version."""
_SEEDS = 1 << 64


class StreamOptions(msgspec.Struct):
    """OpenAI's `stream_options`."""

    include_usage: bool | None = None


class CompletionBody(msgspec.Struct, kw_only=True):
    """`POST /v1/completions`, as far as the engine has a word for it."""

    model: str
    prompt: str | Annotated[list[str | int | list[int]], Meta(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Meta(ge=0)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1)] | None = None
    typical_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[float, Meta(gt=0)] | None = None
    best_of: Annotated[int, Meta(ge=1)] | None = None
    seed: int | None = None
    stop: str | Annotated[list[str], Meta(max_length=4)] | None = None
    logprobs: Annotated[int, Meta(ge=0, le=5)] | bool | None = None
    echo: bool | None = None
    truncate_prompt_tokens: Annotated[int, Meta(ge=1)] | None = None
    watermark: bool | None = None
    response_format: dict[str, Any] | None = None
    grammar: dict[str, Any] | None = None
    """The engine's own form, `{"type": "json" | "regex", "value": ...}`."""
    structured_outputs: dict[str, Any] | None = None
    guided_json: dict[str, Any] | str | None = None
    guided_regex: str | None = None


NEUTRAL: dict[str, tuple[object, ...]] = {
    "n": (1,),
    "suffix": ("",),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "min_p": (0,),
    "min_tokens": (0,),
    "ignore_eos": (False,),
    "stop_token_ids": ([],),
    "bad_words": ([],),
    "guided_choice": (),
    "guided_grammar": (),
    "prompt_logprobs": (),
    "use_beam_search": (False,),
}
"""Parameters that the engine's completions lack, and the values that ask for nothing."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done, and how the answer is to look."""

    model: str
    prompts: tuple[str, ...]
    parameters: dict[str, Any]
    """Arguments of `text_generation`."""
    stream: bool
    include_usage: bool
    stops: tuple[str, ...]
    logprobs: int | None
    """Alternatives to tell beside each token; `None` when no log-probabilities are wanted."""
    echo: bool
    no_output: bool
    """Only the prompt's own log-probabilities are wanted: what is generated is dropped."""


def read_completion(body: bytes, loras: tuple[str, ...] = ()) -> Asked:
    """Raises `Refused`. A model whose name is in `loras` is asked for as an adapter."""
    asked = _decode(body)
    if asked.stream_options is not None and not asked.stream:
        raise _wrong("stream_options", "'stream_options' needs 'stream': true.")
    logprobs = int(asked.logprobs) if asked.logprobs is not None and asked.logprobs is not False else None
    no_output = asked.max_tokens == 0
    if no_output and not asked.echo:
        raise _wrong("max_tokens", "'max_tokens' has to be at least 1 unless 'echo' is true.")
    if asked.stream and asked.echo and logprobs is not None:
        raise unsupported("logprobs", "This engine tells a prompt's log-probabilities only without 'stream'.")
    if asked.stream and (asked.best_of or 1) > 1:
        raise unsupported("best_of", "This engine chooses the best of several only without 'stream'.")
    stops = (asked.stop,) if isinstance(asked.stop, str) else tuple(asked.stop or ())
    return Asked(
        model=asked.model,
        prompts=_prompts(asked.prompt),
        parameters=_parameters(asked, logprobs, loras),
        stream=bool(asked.stream),
        include_usage=asked.stream_options is not None and bool(asked.stream_options.include_usage),
        stops=tuple(stop for stop in stops if stop),
        logprobs=logprobs,
        echo=bool(asked.echo),
        no_output=no_output,
    )


def _decode(body: bytes) -> CompletionBody:
    try:
        whole = msgspec.json.decode(body, type=dict[str, Any])
        asked = msgspec.convert(whole, CompletionBody)
    except msgspec.ValidationError as error:
        raise _wrong(_param(str(error)), f"{error}.") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise _wrong(None, f"The body is not valid JSON: {error}.") from error
    refuse_lacking(whole, NEUTRAL)
    return asked


def refuse_lacking(body: dict[str, Any], neutral: dict[str, tuple[object, ...]]) -> None:
    """Raises `Refused` for the first parameter in `neutral` that asks for something."""
    for name, harmless in neutral.items():
        value = body.get(name)
        if value is not None and value not in harmless:
            raise unsupported(name, f"This engine has no '{name}'; leave it out, or ask another engine.")


def _parameters(asked: CompletionBody, logprobs: int | None, loras: tuple[str, ...]) -> dict[str, Any]:
    chosen: dict[str, Any] = {
        "details": True,
        "do_sample": asked.temperature != 0,
        "max_new_tokens": max(1, DEFAULT_TOKENS if asked.max_tokens is None else asked.max_tokens),
        "temperature": asked.temperature or None,
        "top_p": _below_one(asked.top_p),
        "typical_p": _below_one(asked.typical_p),
        "top_k": asked.top_k if asked.top_k is not None and asked.top_k > 0 else None,
        "frequency_penalty": asked.frequency_penalty or None,
        "repetition_penalty": asked.repetition_penalty,
        "best_of": asked.best_of if (asked.best_of or 1) > 1 else None,
        "seed": None if asked.seed is None else asked.seed % _SEEDS,
        "stop": [asked.stop] if isinstance(asked.stop, str) and asked.stop else asked.stop or None,
        "top_n_tokens": logprobs or None,
        "decoder_input_details": True if asked.echo and logprobs is not None else None,
        "truncate": asked.truncate_prompt_tokens,
        "watermark": asked.watermark or None,
        "grammar": _grammar(asked),
        "adapter_id": asked.model if asked.model in loras else None,
    }
    return {name: value for name, value in chosen.items() if value is not None}


def _below_one(share: float | None) -> float | None:
    return share if share is not None and share < 1 else None


def _prompts(prompt: str | list[Any]) -> tuple[str, ...]:
    prompts = (prompt,) if isinstance(prompt, str) else tuple(prompt)
    if not all(isinstance(one, str) for one in prompts):
        raise unsupported("prompt", "This engine takes prompts as text, not as token ids.")
    return prompts


def _grammar(asked: CompletionBody) -> dict[str, Any] | None:
    """The one grammar that is asked for, in whichever form."""
    found = [
        (name, make(value)) for name, make in _FORMS.items() if (value := getattr(asked, name)) is not None
    ]
    wanted = [(name, grammar) for name, grammar in found if grammar is not None]
    if len(wanted) > 1:
        raise _wrong(wanted[1][0], f"'{wanted[0][0]}' and '{wanted[1][0]}' cannot both be obeyed; send one.")
    return wanted[0][1] if wanted else None


def grammar_of_format(response_format: dict[str, Any]) -> dict[str, Any] | None:
    """OpenAI's `response_format` as a grammar; `None` for plain text. Raises `Refused`."""
    kind = response_format.get("type")
    if kind in (None, "text"):
        return None
    if kind == "json_schema":
        named = response_format.get("json_schema", response_format.get("value"))
        schema = named.get("schema") if isinstance(named, dict) else None
        if not isinstance(schema, dict):
            raise _wrong("response_format", "'response_format.json_schema.schema' has to be an object.")
        return {"type": "json", "value": schema}
    if kind in ("json", "json_object", "regex") and "value" in response_format:
        return _own({"type": "json" if kind == "json_object" else kind, "value": response_format["value"]})
    raise unsupported(
        "response_format", f"This engine needs a schema: send 'json_schema' in place of '{kind}'."
    )


def _own(grammar: dict[str, Any]) -> dict[str, Any]:
    if grammar.get("type") not in ("json", "regex") or "value" not in grammar:
        raise _wrong("grammar", "'grammar' has to be {'type': 'json' or 'regex', 'value': ...}.")
    return {"type": grammar["type"], "value": grammar["value"]}


def _structured(outputs: dict[str, Any]) -> dict[str, Any] | None:
    refuse_lacking(outputs, {"choice": (), "grammar": (), "json_object": (False,), "structural_tag": ()})
    if outputs.get("json") is not None:
        return {"type": "json", "value": outputs["json"]}
    return {"type": "regex", "value": outputs["regex"]} if outputs.get("regex") is not None else None


_FORMS: dict[str, Callable[[Any], dict[str, Any] | None]] = {
    "response_format": grammar_of_format,
    "structured_outputs": _structured,
    "guided_json": lambda schema: {"type": "json", "value": schema},
    "guided_regex": lambda pattern: {"type": "regex", "value": pattern},
    "grammar": _own,
}


def _wrong(param: str | None, message: str) -> Refused:
    return Refused(Refusal(status=400, message=message, param=param))


def _param(message: str) -> str | None:
    """The top-level parameter in msgspec's `... - at `$.stop[0]`` or `... required field `model``."""
    for before in ("at `$.", "required field `"):
        _, found, rest = message.partition(before)
        if found:
            return rest.rstrip("`").partition(".")[0].partition("[")[0]
    return None
