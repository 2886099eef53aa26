"""Are answers kept, and given again to whoever asks the same?

A prompt that was asked before is asked again in turn with fresh ones, as MLPerf's TEST04 does, and may be a
tenth faster. More is no proof: a prefix cache, which spares the reading of a prompt, is an honest thing. It
cannot spare the writing of an answer, and a server that has one mostly says in its usage how much it spared.
So where the whole is faster, the time between the first token and the last one decides. Where it seems to be
and times vary so much that it need not be, nothing is said for or against the server.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from sluice_bench.audit.finding import Finding
from sluice_bench.audit.streams import Stream
from sluice_bench.stats.estimate import Estimate
from sluice_bench.stats.intervals import bootstrap_interval

CHECK = "cached answers"
LEAST_RATIO = 0.9
"""Of the time that a repeated prompt takes to that of a fresh one (MLPerf Inference, TEST04)."""

SURE = 0.99
"""How sure the interval of a ratio is: nobody is accused because a machine was busy now and then."""

Pair = tuple[Stream, Stream]
"""A fresh prompt's answer and a repeated one's, asked one after the other."""


def cached_answers(pairs: Sequence[Pair], source: Random) -> Finding:
    """The verdict. Raises `ValueError` without pairs."""
    total = _ratio(
        [(_per_token(fresh.total_s, fresh), _per_token(again.total_s, again)) for fresh, again in pairs],
        source,
    )
    if total is None:
        return Finding(check=CHECK, verdict="cannot tell", evidence="No answer took any time.")
    seen = f"A repeated prompt took {total.value:.2f} of a fresh one's time per token{_bounds(total)}"
    if total.value >= LEAST_RATIO:
        return Finding(check=CHECK, verdict="pass", evidence=f"{seen}; {LEAST_RATIO} is allowed.")
    if not _surely_faster(total):
        evidence = f"{seen}; {LEAST_RATIO} is allowed, and times vary too much to say that it was less."
        return Finding(check=CHECK, verdict="cannot tell", evidence=f"{evidence} Ask for more --pairs.")
    writing = _ratio(
        [(_per_token(fresh.writing_s, fresh), _per_token(again.writing_s, again)) for fresh, again in pairs],
        source,
    )
    if writing is None:
        return _without_writing(seen, pairs)
    seen += f", and {writing.value:.2f} of the time between the first token and the last{_bounds(writing)}"
    if _surely_faster(writing):
        return Finding(check=CHECK, verdict="fail", evidence=f"{seen}: it was not written anew.")
    if spared := _told_by_usage(pairs):
        evidence = f"{seen}. Usage says why: {spared} tokens of the prompt came from a prefix cache."
        return Finding(check=CHECK, verdict="pass", evidence=evidence)
    evidence = f"{seen}. Reading is faster and writing is not, as with a prefix cache; usage tells of none."
    return Finding(check=CHECK, verdict="cannot tell", evidence=evidence)


def _without_writing(seen: str, pairs: Sequence[Pair]) -> Finding:
    """Answers that come in one piece: only the whole is known."""
    if spared := _told_by_usage(pairs):
        evidence = (
            f"{seen}. Usage tells of {spared} tokens from a prefix cache, but answers come in one piece, so "
            "that reading and writing cannot be told apart."
        )
        return Finding(check=CHECK, verdict="cannot tell", evidence=evidence)
    return Finding(check=CHECK, verdict="fail", evidence=f"{seen}, and usage tells of no prefix cache.")


def _told_by_usage(pairs: Sequence[Pair]) -> int:
    """Tokens that repeated prompts had from a cache beyond what fresh ones had, on average, rounded."""
    fresh = sum(stream.record.cached_tokens or 0 for stream, _ in pairs)
    again = sum(stream.record.cached_tokens or 0 for _, stream in pairs)
    return max(0, round((again - fresh) / len(pairs)))


def _per_token(seconds: float, stream: Stream) -> float:
    """Answers to different prompts differ in length."""
    return seconds / max(1, stream.tokens or stream.text_events)


def _ratio(times: Sequence[tuple[float, float]], source: Random) -> Estimate | None:
    """Repeated over fresh, by bootstrap over pairs; `None` when fresh ones took no time."""
    if min(fresh for fresh, _ in times) <= 0:
        return None
    return bootstrap_interval(
        times,
        lambda drawn: sum(again for _, again in drawn) / sum(fresh for fresh, _ in drawn),
        source,
        confidence=SURE,
    )


def _surely_faster(ratio: Estimate) -> bool:
    return ratio.high is not None and ratio.high < LEAST_RATIO


def _bounds(ratio: Estimate) -> str:
    return "" if ratio.low is None or ratio.high is None else f" ({ratio.low:.2f}–{ratio.high:.2f})"
