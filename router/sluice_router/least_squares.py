"""A line through what was measured, the newest counting most: recursive least squares with forgetting.

Kept are the sums of the normal equations, each scaled by `forgetting` before a measurement is added: the same
as a fit to all measurements with weights `forgetting ** age`, without keeping any. A small ridge holds a
coefficient at 0 that the measurements say nothing of, for instance when every prompt has one size; with the
usual form, which keeps the inverse instead, such a direction grows without bound. Source: Haykin, *Adaptive
Filter Theory*, chapter 10; Nocedal and Wright on active sets, for the signs.

Coefficients are not below 0: nothing that is measured here gets faster by having more of it. Does not know
what the numbers mean.

Solved for every answer of every endpoint, so the two sizes that are needed are written out, number by number;
the loops for any size are their twin in the tests, and give the same bits. The first feature is always 1.
"""

from __future__ import annotations

RIDGE = 1e-6
"""Times the sum of weights. With features around 1 it moves a coefficient in the sixth digit."""


class Line:
    """Fits `y = a + b * x`."""

    __slots__ = ("_forgetting", "_found", "_solved", "_x", "_xx", "_xy", "_y", "weight")

    def __init__(self, forgetting: float) -> None:
        self._forgetting = forgetting
        self._x = self._xx = self._y = self._xy = 0.0
        self._found = (0.0, 0.0)
        self._solved = True
        self.weight = 0.0
        """Measurements that count, old ones less: at most `1 / (1 - forgetting)`."""

    def learn(self, x: float, y: float) -> None:
        """Add a measurement."""
        keep = self._forgetting
        self._x = keep * self._x + x
        self._xx = keep * self._xx + x * x
        self._y = keep * self._y + y
        self._xy = keep * self._xy + x * y
        self.weight = keep * self.weight + 1.0
        self._solved = False

    def predict(self, x: float) -> float:
        """`y` there; 0 when nothing was measured."""
        a, b = self.coefficients()
        return a + b * x

    def coefficients(self) -> tuple[float, float]:
        """None below 0."""
        if not self._solved:
            self._found = self._fit()
            self._solved = True
        return self._found

    def _fit(self) -> tuple[float, float]:
        """Leave out what is negative, the most negative one if both are, and then the other if it is."""
        ridge = RIDGE * max(self.weight, 1e-9)
        ones, squares = self.weight + ridge, self._xx + ridge
        factor = self._x / ones
        b = (self._xy - factor * self._y) / (squares - factor * self._x)
        a = (self._y - self._x * b) / ones
        if a >= 0.0 and b >= 0.0:
            return a, b
        if a <= b:
            return 0.0, max(0.0, self._xy / squares)
        return max(0.0, self._y / ones), 0.0


class Plane:
    """Fits `y = a + b * u + c * v + d * w`."""

    __slots__ = (
        "_forgetting", "_found", "_solved", "_u", "_uu", "_uv", "_uw", "_uy", "_v", "_vv", "_vw", "_vy", "_w",
        "_ww", "_wy", "_y", "weight",
    )  # fmt: skip

    def __init__(self, forgetting: float) -> None:
        self._forgetting = forgetting
        self._u = self._v = self._w = 0.0
        self._uu = self._uv = self._uw = self._vv = self._vw = self._ww = 0.0
        self._y = self._uy = self._vy = self._wy = 0.0
        self._found = (0.0, 0.0, 0.0, 0.0)
        self._solved = True
        self.weight = 0.0
        """Measurements that count, old ones less: at most `1 / (1 - forgetting)`."""

    def learn(self, u: float, v: float, w: float, y: float) -> None:
        """Add a measurement."""
        keep = self._forgetting
        self._u = keep * self._u + u
        self._v = keep * self._v + v
        self._w = keep * self._w + w
        self._uu = keep * self._uu + u * u
        self._uv = keep * self._uv + u * v
        self._uw = keep * self._uw + u * w
        self._vv = keep * self._vv + v * v
        self._vw = keep * self._vw + v * w
        self._ww = keep * self._ww + w * w
        self._y = keep * self._y + y
        self._uy = keep * self._uy + u * y
        self._vy = keep * self._vy + v * y
        self._wy = keep * self._wy + w * y
        self.weight = keep * self.weight + 1.0
        self._solved = False

    def predict(self, u: float, v: float, w: float) -> float:
        """`y` there; 0 when nothing was measured."""
        a, b, c, d = self.coefficients()
        return a + b * u + c * v + d * w

    def coefficients(self) -> tuple[float, float, float, float]:
        """None below 0."""
        if not self._solved:
            self._found = self._fit()
            self._solved = True
        return self._found

    def _fit(self) -> tuple[float, float, float, float]:
        """Leave out the most negative coefficient until none is negative."""
        with_a = with_b = with_c = with_d = 1.0
        while True:
            a, b, c, d = self._solve(with_a, with_b, with_c, with_d)
            lowest = min(a, b, c, d)
            if lowest >= 0.0:
                return a, b, c, d
            if a == lowest:
                with_a = 0.0
            elif b == lowest:
                with_b = 0.0
            elif c == lowest:
                with_c = 0.0
            else:
                with_d = 0.0

    def _solve(
        self, with_a: float, with_b: float, with_c: float, with_d: float
    ) -> tuple[float, float, float, float]:
        """Gaussian elimination; the ridge makes every pivot positive. A coefficient with a 0 is left out: its
        row and column are those of the identity, so that it is 0 and changes no other."""
        ridge = RIDGE * max(self.weight, 1e-9)
        ab, ac, ad = self._u * with_a * with_b, self._v * with_a * with_c, self._w * with_a * with_d
        bc, bd, cd = self._uv * with_b * with_c, self._uw * with_b * with_d, self._vw * with_c * with_d
        aa = self.weight + ridge if with_a else 1.0
        bb = self._uu + ridge if with_b else 1.0
        cc = self._vv + ridge if with_c else 1.0
        dd = self._ww + ridge if with_d else 1.0
        ay, by, cy, dy = self._y * with_a, self._uy * with_b, self._vy * with_c, self._wy * with_d
        # What is below the diagonal is not what is above it any more, in the last bits.
        factor = ab / aa
        bb, cb, db = bb - factor * ab, bc - ac / aa * ab, bd - ad / aa * ab
        bc, bd, by = bc - factor * ac, bd - factor * ad, by - factor * ay
        factor = ac / aa
        cc, dc = cc - factor * ac, cd - ad / aa * ac
        cd, cy = cd - factor * ad, cy - factor * ay
        factor = ad / aa
        dd, dy = dd - factor * ad, dy - factor * ay
        factor = cb / bb
        cc, cd, cy = cc - factor * bc, cd - factor * bd, cy - factor * by
        factor = db / bb
        dc, dd, dy = dc - factor * bc, dd - factor * bd, dy - factor * by
        factor = dc / cc
        d = (dy - factor * cy) / (dd - factor * cd)
        c = (cy - cd * d) / cc
        b = (by - bc * c - bd * d) / bb
        return (ay - ab * b - ac * c - ad * d) / aa, b, c, d
