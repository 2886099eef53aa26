"""How long answers are: a histogram of token counts that forgets.

32 buckets, two to the doubling, so that a quantile is wrong by less than the width of one bucket (41 %)
whatever the distribution, and a bucket is one number. What was seen `half_life_s` ago counts half. It is not
the old counts that shrink but the new ones that grow (forward decay: Cormode, Shkapenyuk, Srivastava and Xu,
*Forward decay*, 2009), so an observation costs one addition.

Does not know whose answers they are, nor what the time is: it is passed in, in seconds, and must not go back.
"""

from __future__ import annotations

from math import ceil, log2

BUCKETS = 32
_PER_DOUBLING = 2.0
_RENEWED_AT = 40.0
"""Half-lives after which the counts are scaled back: 2**40 times 2**12 observations is exact in a float."""


def bucket_of(tokens: int) -> int:
    """The bucket whose upper edge, `2 ** (bucket / 2)`, is the first that is not below `tokens`."""
    if tokens <= 1:
        return 0
    return min(BUCKETS - 1, ceil(_PER_DOUBLING * log2(tokens)))


class TokenHistogram:
    """Decayed counts of answers by their length."""

    __slots__ = ("_begun_at", "_counts", "_half_life_s", "_total")

    def __init__(self, half_life_s: float, now: float) -> None:
        self._half_life_s = half_life_s
        self._begun_at = now
        self._counts = [0.0] * BUCKETS
        self._total = 0.0

    def observe(self, tokens: int, now: float) -> None:
        """An answer had `tokens` tokens."""
        age = (now - self._begun_at) / self._half_life_s
        if age > _RENEWED_AT:
            self._renew(age, now)
            age = 0.0
        weight: float = 2.0**age
        self._counts[bucket_of(tokens)] += weight
        self._total += weight

    def observations(self, now: float) -> float:
        """How many answers it knows, those of long ago counting less."""
        kept: float = 2.0 ** max(-1000.0, (self._begun_at - now) / self._half_life_s)
        return self._total * kept

    def quantile(self, share: float) -> float:
        """The length, in tokens, that a `share` (0 to 1) of the answers do not pass; 0 with no observation.

        Within a bucket answers count as spread evenly.
        """
        wanted = share * self._total
        if wanted <= 0.0:
            return 0.0
        passed = 0.0
        last = 0
        for bucket, count in enumerate(self._counts):
            if count <= 0.0:
                continue
            if passed + count >= wanted:
                return _between(bucket, (wanted - passed) / count)
            passed += count
            last = bucket
        return _between(last, 1.0)

    def _renew(self, age: float, now: float) -> None:
        kept: float = 2.0 ** max(-1000.0, -age)
        for bucket in range(BUCKETS):
            self._counts[bucket] *= kept
        self._total *= kept
        self._begun_at = now


def _between(bucket: int, share: float) -> float:
    upper: float = 2.0 ** (bucket / _PER_DOUBLING)
    lower: float = 0.0 if bucket == 0 else 2.0 ** ((bucket - 1) / _PER_DOUBLING)
    return lower + min(1.0, share) * (upper - lower)
