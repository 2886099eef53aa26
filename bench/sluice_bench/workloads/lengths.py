"""How long prompts and answers are, where only a few percentiles are known.

Between the known percentiles the logarithm of the length is linear in the normal score, so a length is
lognormal piece by piece and every known percentile is met. Below the median the first piece goes on, above
p99 the last one, cut at a cap.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import msgspec

_NORMAL = NormalDist()
_Z90, _Z99 = _NORMAL.inv_cdf(0.90), _NORMAL.inv_cdf(0.99)


class Lengths(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens."""

    p50: int
    p90: int
    p99: int
    cap: int

    @classmethod
    def fixed(cls, tokens: int) -> Lengths:
        """Always the same."""
        return cls(p50=tokens, p90=tokens, p99=tokens, cap=tokens)

    def at(self, share: float) -> int:
        """The quantile, at least 1; `share` in `(0, 1)`."""
        z = _NORMAL.inv_cdf(share)
        if z < _Z90:
            logarithm = math.log(self.p50) + z / _Z90 * math.log(self.p90 / self.p50)
        else:
            logarithm = math.log(self.p90) + (z - _Z90) / (_Z99 - _Z90) * math.log(self.p99 / self.p90)
        return max(1, min(self.cap, round(math.exp(logarithm))))
