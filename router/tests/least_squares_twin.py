"""Least squares for any number of features, in loops: the twin of `sluice_router/least_squares.py`."""

from __future__ import annotations

from collections.abc import Sequence

from sluice_router.least_squares import RIDGE


class LeastSquares:
    """Fits `y = sum of coefficient * feature`."""

    __slots__ = ("_coefficients", "_features", "_forgetting", "_moments", "_products", "_solved", "weight")

    def __init__(self, features: int, forgetting: float) -> None:
        """`features`: how many numbers a measurement comes with."""
        self._features = features
        self._forgetting = forgetting
        self._products = [[0.0] * features for _ in range(features)]
        self._moments = [0.0] * features
        self._coefficients = [0.0] * features
        self._solved = True
        self.weight = 0.0
        """Measurements that count, old ones less: at most `1 / (1 - forgetting)`."""

    def learn(self, features: Sequence[float], y: float) -> None:
        """Add a measurement."""
        keep = self._forgetting
        for i in range(self._features):
            row = self._products[i]
            x = features[i]
            for j in range(self._features):
                row[j] = keep * row[j] + x * features[j]
            self._moments[i] = keep * self._moments[i] + x * y
        self.weight = keep * self.weight + 1.0
        self._solved = False

    def predict(self, features: Sequence[float]) -> float:
        """`y` for these features; 0 when nothing was measured."""
        coefficients = self.coefficients()
        y = 0.0
        for i in range(self._features):
            y += coefficients[i] * features[i]
        return y

    def coefficients(self) -> list[float]:
        """In the order of the features, none below 0."""
        if not self._solved:
            self._coefficients = self._fit()
            self._solved = True
        return self._coefficients

    def _fit(self) -> list[float]:
        """Leave out the most negative coefficient until none is negative."""
        kept = list(range(self._features))
        found = [0.0] * self._features
        while kept:
            solution = self._solve(kept)
            lowest = min(solution)
            if lowest >= 0.0:
                for place, feature in enumerate(kept):
                    found[feature] = solution[place]
                return found
            del kept[solution.index(lowest)]
        return found

    def _solve(self, kept: list[int]) -> list[float]:
        """Gaussian elimination on the features in `kept`; the ridge makes every pivot positive."""
        ridge = RIDGE * max(self.weight, 1e-9)
        rows = [[self._products[i][j] for j in kept] + [self._moments[i]] for i in kept]
        size = len(kept)
        for i in range(size):
            rows[i][i] += ridge
        for i in range(size):
            pivot = rows[i]
            for k in range(i + 1, size):
                factor = rows[k][i] / pivot[i]
                for j in range(i, size + 1):
                    rows[k][j] -= factor * pivot[j]
        solution = [0.0] * size
        for i in range(size - 1, -1, -1):
            rest = rows[i][size]
            for j in range(i + 1, size):
                rest -= rows[i][j] * solution[j]
            solution[i] = rest / rows[i][i]
        return solution
