"""May the rest of a cut stream be asked of another engine, and of which?

An engine that dies amid a stream takes its state with it, but what it had said is in the gateway: another
engine gets the same prompt with that text behind it, and goes on. That is right where the text is all that
the rest of the answer depends on. Where something else matters (a grammar's state, half a tool call, counts
of what was generated, hidden reasoning), where the text may not be all that the engine had said, or where a
bound that the client set could not be kept, the answer is no, and the stream ends with the failure.

With a temperature or a seed the rest is another sample of the same distribution, not what the first engine
would have said. The text is tokenized anew, possibly in other tokens than it was generated in. Tokens are
counted by events: of an engine that sends several in one without letting it show in their size, the bound on
the answer is kept by as much less.

Pure, and asked only about streams that were cut. Source: the guards of Dynamo's request migration (guided
decoding, several choices), and what each API says of the fields named here.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import msgspec

from sluice_router.types import Endpoint, RequestFacts


class Unsafe(StrEnum):
    """Why a stream is not resumed. Low cardinality: safe as a metric label."""

    UNREAD = "unread"
    """The stream was in a dialect that is passed on without being read, or in no JSON."""
    TOO_LONG = "too_long"
    """More had been said than is kept."""
    COMPLETE = "complete"
    """The answer's end had been told; only what follows it is missing."""
    TOOL_CALL = "tool_call"
    """A call of a tool has begun."""
    REASONING = "reasoning"
    """There was reasoning, told apart from the answer or kept hidden, and templates differ in what they make
    of it."""
    MARKUP = "markup"
    """The text has what a template or a tokenizer may take for a mark of its own."""
    UNKNOWN = "unknown"
    """The request has a field of which it is not known here what the answer keeps of it."""
    GUIDED = "guided"
    """A grammar holds the answer, or it has to be a call of a tool, and the state of that is lost."""
    SEVERAL = "several"
    """Several choices, or the best of several."""
    LOGPROBS = "logprobs"
    """Log-probabilities are wanted; those of the text that is repeated would be a prompt's."""
    PENALTIES = "penalties"
    """A penalty counts the tokens of the answer, and an engine does not count those of the prompt."""
    PROMPT = "prompt"
    """The prompt is not one text, or not one that the answer could be put behind."""
    BOUND = "bound"
    """What bounds the answer's length is not known, or how much of it has come, so that it could not be
    kept."""
    SPENT = "spent"
    """As many tokens as are allowed have come."""
    STOP_STRING = "stop_string"
    """The text ends with what may be the beginning of a stop string."""
    LATE = "late"
    """The time for the whole answer is over."""


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """A stream that was cut: what was asked for, and what had come."""

    kind: str
    """What its engine was asked for: `chat` or `completions`."""
    read: bool = True
    """Everything that went to the client is known."""
    kept: bool = True
    """And is still there."""
    text: str
    """What the client has of the answer."""
    tokens: int
    """The same in tokens."""
    counted: bool = True
    """Which is no mere estimate."""
    finished: bool = False
    """A finish reason has come."""
    calls: bool = False
    """Of tools; a piece of one was seen."""
    reasoning: bool = False
    """A piece of it was seen."""
    thinks: bool = False
    """There may be some that is not shown."""
    unknown: bool = False
    """Not all that was asked for is understood."""
    guided: bool = False
    several: bool = False
    logprobs: bool = False
    penalties: bool = False
    one_prompt: bool = True
    """The text can be put behind the prompt."""
    max_tokens: int | None = None
    """The client's bound on the answer; `None`: the engine's own."""
    stops: tuple[str, ...] = ()
    left_s: float
    """Seconds that the whole answer may still take."""


MARKS: tuple[str, ...] = (
    *("<|", "<｜", "<s>", "</s>", "[INST]", "[/INST]", "<start_of_turn>", "<end_of_turn>"),
    *("<think", "</think", "[THINK]", "[/THINK]", "<tool_call", "</tool_call", "[TOOL_CALLS]"),
)
"""What chat templates and their tokenizers mark turns, reasoning and calls with. Source: the templates of
Llama, Qwen, Mistral, Gemma, DeepSeek and gpt-oss."""

Condition = Callable[[Cut], bool]
Rules = tuple[tuple[Unsafe, Condition], ...]

ALWAYS: Rules = (
    (Unsafe.UNREAD, lambda cut: not cut.read),
    (Unsafe.TOO_LONG, lambda cut: not cut.kept),
    (Unsafe.COMPLETE, lambda cut: cut.finished),
    (Unsafe.TOOL_CALL, lambda cut: cut.calls),
    (Unsafe.REASONING, lambda cut: cut.reasoning or (cut.thinks and cut.text != "")),
    (Unsafe.SEVERAL, lambda cut: cut.several),
    (Unsafe.LATE, lambda cut: cut.left_s <= 0.0),
)
WITH_TEXT: Rules = (
    (Unsafe.MARKUP, lambda cut: any(mark in cut.text for mark in MARKS)),
    (Unsafe.GUIDED, lambda cut: cut.guided),
    (Unsafe.LOGPROBS, lambda cut: cut.logprobs),
    (Unsafe.PENALTIES, lambda cut: cut.penalties),
    (Unsafe.PROMPT, lambda cut: not cut.one_prompt),
    (Unsafe.UNKNOWN, lambda cut: cut.unknown),
    # Engines bound a chat by their context, a completion by a default of their own: 16 tokens, or 128.
    (Unsafe.BOUND, lambda cut: cut.kind != "chat" if cut.max_tokens is None else not cut.counted),
    (Unsafe.SPENT, lambda cut: cut.max_tokens is not None and cut.tokens >= cut.max_tokens),
    (Unsafe.STOP_STRING, lambda cut: straddles(cut.text, cut.stops)),
)
"""For streams whose client has some text: another one, such as of the role alone, simply begins anew.

In order: the first that holds is the reason."""


def unsafe(cut: Cut) -> Unsafe | None:
    """Why the stream must not be resumed; `None` when it may."""
    for reason, holds in ALWAYS + WITH_TEXT if cut.text else ALWAYS:
        if holds(cut):
            return reason
    return None


def straddles(text: str, stops: tuple[str, ...]) -> bool:
    """Whether the text ends within a stop string. An engine holds such an end back until it knows; one that
    has let it go would have stopped where the next one, which looks at new text only, goes on."""
    return any(text.endswith(stop[:length]) for stop in stops for length in range(1, len(stop)))


def facts_of_rest(facts: RequestFacts, cut: Cut, model: str, failed: Endpoint) -> RequestFacts:
    """Where the rest may be asked: at an endpoint that serves the same model, as `failed` did, and can go on
    with a text. An alias or a wish is settled: it is what the first endpoint was."""
    needs = set(facts.needs)
    if cut.text and cut.kind == "chat":
        needs.add("continues_chat")
        if cut.text != cut.text.strip():
            needs.add("continues_space")
    elif cut.text:
        needs.add("continues_text")
    return msgspec.structs.replace(
        facts,
        kind=cut.kind,
        via=None,
        model=model,
        choices=(),
        backend=None if facts.prefer else facts.backend,
        quant=failed.quant,
        prefer=False,
        needs=frozenset(needs),
        prompt_tokens_estimate=facts.prompt_tokens_estimate + cut.tokens,
        max_tokens=None if cut.max_tokens is None else cut.max_tokens - cut.tokens,
    )
