"""Does a seed fix what is drawn, and does another one draw something else?

Each prompt is answered three times at temperature 1: twice with one seed, once with another. The first two
must be the same and the third must differ for some prompt. Where arithmetic depends on who else is served, a
few answers with one seed may part late; most of them must not.
"""

from __future__ import annotations

from collections.abc import Sequence

from sluice_bench.audit.finding import Finding
from sluice_bench.audit.streams import Stream

CHECK = "seed"

Trial = tuple[Stream, Stream, Stream]
"""The same prompt with a seed, with the same seed, and with another one."""


def seeds(trials: Sequence[Trial]) -> Finding:
    """The verdict. Raises `ZeroDivisionError` without trials."""
    n = len(trials)
    kept = sum(_same(first, again) for first, again, _ in trials)
    changed = sum(not _same(first, other) for first, _, other in trials)
    seen = f"With one seed {kept} of {n} prompts got the same answer twice; with another, {changed} of {n}"
    seen += " got another one"
    if not changed:
        evidence = f"{seen}: at temperature 1 nothing was drawn."
        return Finding(check=CHECK, verdict="fail", evidence=evidence)
    if kept == n:
        return Finding(check=CHECK, verdict="pass", evidence=f"{seen}.")
    if kept / n <= 0.5:
        return Finding(check=CHECK, verdict="fail", evidence=f"{seen}: the seed is ignored.")
    evidence = f"{seen}: answers mostly repeat, as where arithmetic depends on who else is served."
    return Finding(check=CHECK, verdict="cannot tell", evidence=evidence)


def _same(one: Stream, other: Stream) -> bool:
    """To the last letter, reasoning and calls included."""
    return one.record.text_sha256 == other.record.text_sha256
