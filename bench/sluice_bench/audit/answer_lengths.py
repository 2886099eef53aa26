"""Are answers as long as was asked?

An answer may end by itself, and then says so. One that says it ended at the limit, and did not reach it, was
cut; so was one that does not say why it ended, and so were many of different prompts that all ended by
themselves after exactly the same number of tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

from sluice_bench.audit.finding import Finding
from sluice_bench.audit.streams import Stream

CHECK = "truncated answers"
SUSPICIOUS = 4
"""So many different prompts do not have answers of one length by chance."""


def answer_lengths(streams: Sequence[Stream]) -> Finding:
    """The verdict on answers to different prompts that asked for the same number of tokens."""
    known = [(stream.tokens, stream) for stream in streams if stream.tokens is not None]
    asked = streams[0].record.asked_tokens
    if not known or asked is None:
        evidence = "Neither usage nor log-probabilities tell how many tokens an answer has."
        return Finding(check=CHECK, verdict="cannot tell", evidence=evidence)
    shorter = [(tokens, stream) for tokens, stream in known if tokens < asked]
    if complaint := _complaint(asked, known, shorter):
        return Finding(check=CHECK, verdict="fail", evidence=complaint)
    lengths = sorted(tokens for tokens, _ in shorter)
    ended = f", {len(shorter)} ended by themselves after {lengths[0]} to {lengths[-1]}" if shorter else ""
    evidence = (
        f"{len(known) - len(shorter)} of {len(known)} answers have the {asked} tokens asked for{ended}."
    )
    return Finding(check=CHECK, verdict="pass", evidence=evidence)


def _complaint(asked: int, known: Sequence[tuple[int, Stream]], shorter: Sequence[tuple[int, Stream]]) -> str:
    """What is wrong; empty when nothing is."""
    cut = [tokens for tokens, stream in shorter if stream.record.finish_reason == "length"]
    if cut:
        return (
            f"{len(cut)} of {len(known)} answers end with finish_reason `length` after {min(cut)} to "
            f"{max(cut)} tokens, though {asked} were asked for."
        )
    silent = [tokens for tokens, stream in shorter if stream.record.finish_reason is None]
    if silent:
        return f"{len(silent)} of {len(known)} answers end before {asked} tokens without a finish_reason."
    longer = [tokens for tokens, _ in known if tokens > asked]
    if longer:
        return (
            f"{len(longer)} of {len(known)} answers have up to {max(longer)} tokens; {asked} were asked for."
        )
    lengths = {tokens for tokens, _ in shorter}
    if len(shorter) == len(known) >= SUSPICIOUS and len(lengths) == 1:
        return (
            f"All {len(known)} answers end after exactly {lengths.pop()} tokens of the {asked} asked for, "
            "whatever the prompt."
        )
    return ""
