"""BLEU: how many of a text's word sequences are in a reference text (Papineni et al. 2002).

Corpus BLEU with one reference each: the geometric mean of the clipped precisions of 1 to 4 words, times a
penalty for being shorter in all. Words are runs of letters and digits, every other sign is one by itself, and
case counts. Nothing is smoothed: without a single match of some length the value is 0. Figures of other
tokenizations are other figures.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from random import Random

import msgspec

from sluice_bench.stats.elementary import exp, ln
from sluice_bench.stats.estimate import Estimate
from sluice_bench.stats.intervals import bootstrap_interval

LONGEST = 4
_WORD = re.compile(r"\w+|[^\w\s]")


class Overlap(msgspec.Struct, frozen=True):
    """What one text has in common with its reference; all that BLEU needs of the two."""

    matched: tuple[int, ...]
    """Sequences of 1 to 4 words that are in the reference, each as often as there."""
    offered: tuple[int, ...]
    """Sequences of 1 to 4 words in the text."""
    words: int
    reference_words: int


def overlap(text: str, reference: str) -> Overlap:
    """Count them."""
    words, expected = _WORD.findall(text), _WORD.findall(reference)
    lengths = range(1, LONGEST + 1)
    return Overlap(
        matched=tuple((_sequences(words, n) & _sequences(expected, n)).total() for n in lengths),
        offered=tuple(max(0, len(words) - n + 1) for n in lengths),
        words=len(words),
        reference_words=len(expected),
    )


def bleu(overlaps: Sequence[Overlap]) -> float:
    """From 0 to 1, of all texts together."""
    logs = []
    for n in range(LONGEST):
        matched = sum(found.matched[n] for found in overlaps)
        if not matched:
            return 0.0
        logs.append(ln(matched / sum(found.offered[n] for found in overlaps)))
    length = sum(found.words for found in overlaps)
    penalty = min(0.0, 1 - sum(found.reference_words for found in overlaps) / length)
    return exp(sum(logs) / LONGEST + penalty)


def bleu_interval(pairs: Sequence[tuple[str, str]], source: Random) -> Estimate:
    """Of `(text, reference)` pairs, the interval by bootstrap over pairs (Koehn 2004).

    Raises `ValueError` without pairs.
    """
    return bootstrap_interval([overlap(text, reference) for text, reference in pairs], bleu, source)


def _sequences(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[start : start + n]) for start in range(len(words) - n + 1))
