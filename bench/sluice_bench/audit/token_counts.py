"""Do the ways to count an answer's tokens agree: chunks, usage, log-probabilities, `/tokenize`?

Log-probabilities list an answer's tokens, `/tokenize` counts a text's. What was written is cut otherwise when
the text is tokenized again, mostly into fewer tokens, so all answers together are held with a wide tolerance;
the prompt's count is exact. Fewer chunks than tokens are common, as with several tokens a chunk; more of them
help only who counts chunks.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sluice_bench.audit.finding import Finding, Verdict
from sluice_bench.audit.streams import Stream
from sluice_bench.metrics import known_total

CHUNKS = "chunks and tokens"
USAGE = "usage and /tokenize"

ENDS = 1
"""A token that ends the answer is counted by some and listed by none."""
RETOKENIZED_SHARE = 0.25
"""How far texts that are tokenized again may be from what was written, all together."""


class Recount(msgspec.Struct, frozen=True, kw_only=True):
    """One answer, and what `/tokenize` makes of its prompt and its text."""

    stream: Stream
    prompt: int
    text: int | None
    """`None` when the answer has more than plain text, which is written in tokens of its own."""


def chunks_and_tokens(streams: Sequence[Stream]) -> Finding:
    """The verdict on what a client that counts chunks, or believes usage, would report."""
    chunks = sum(stream.text_events for stream in streams)
    usage = known_total(stream.usage_tokens for stream in streams)
    listed = known_total(stream.listed_tokens for stream in streams)
    names = {"usage": usage, "log-probabilities": listed}
    told = [f"{name} {count}" for name, count in names.items() if count is not None]
    seen = f"{len(streams)} answers: text events {chunks}, {', '.join(told) or 'no other count'}"
    slack = ENDS * len(streams)
    if usage is not None and listed is not None and abs(usage - listed) > slack:
        evidence = f"{seen}. Usage has {usage / max(1, listed):.2f} times the tokens that are listed."
        return Finding(check=CHUNKS, verdict="fail", evidence=evidence)
    truth = usage if listed is None else listed
    if truth is None:
        evidence = f"{seen}. Neither usage nor log-probabilities say how many tokens there are."
        return Finding(check=CHUNKS, verdict="cannot tell", evidence=evidence)
    if chunks > truth + slack:
        evidence = (
            f"{seen}. Text comes in more pieces than it has tokens: a client that counts chunks reports "
            f"{chunks / max(1, truth):.2f} times the speed."
        )
        return Finding(check=CHUNKS, verdict="fail", evidence=evidence)
    if listed is None:
        evidence = f"{seen}. Usage could be checked only against log-probabilities, which are not offered."
        verdict: Verdict = "pass" if abs(chunks - truth) <= slack else "cannot tell"
        return Finding(check=CHUNKS, verdict=verdict, evidence=evidence)
    return Finding(check=CHUNKS, verdict="pass", evidence=f"{seen}.")


def usage_and_tokenize(recounts: Sequence[Recount] | None) -> Finding:
    """The verdict on usage; `None` stands for a server without `/tokenize`."""
    if recounts is None:
        return Finding(check=USAGE, verdict="cannot tell", evidence="The server offers no /tokenize.")
    told = [found for found in recounts if found.stream.usage_tokens is not None]
    if not told:
        return Finding(check=USAGE, verdict="cannot tell", evidence="No answer came with usage.")
    prompts = [(found.stream.record.prompt_tokens or 0, found.prompt) for found in told]
    texts = [(found.stream.usage_tokens or 0, found.text) for found in told if found.text is not None]
    seen = (
        f"{len(told)} answers: usage has {sum(said for said, _ in prompts)} prompt and "
        f"{sum(said for said, _ in texts)} output tokens, /tokenize {sum(n for _, n in prompts)} and "
        f"{sum(n for _, n in texts)}"
    )
    wrong = sum(abs(said - counted) > ENDS for said, counted in prompts)
    if wrong:
        return Finding(
            check=USAGE, verdict="fail", evidence=f"{seen}; {wrong} prompts are counted otherwise."
        )
    said, counted = sum(said for said, _ in texts), sum(n for _, n in texts)
    if abs(said - counted) > RETOKENIZED_SHARE * counted + ENDS * len(texts):
        return Finding(check=USAGE, verdict="fail", evidence=f"{seen}: no text has so many or so few tokens.")
    return Finding(check=USAGE, verdict="pass", evidence=f"{seen}.")
