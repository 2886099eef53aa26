"""The minimum of a function of few variables without derivatives: Nelder and Mead's simplex (1965).

Deterministic. It finds a minimum near where it starts, not the lowest there is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

Vector = list[float]
Cost = Callable[[Sequence[float]], float]


def minimise(cost: Cost, start: Sequence[float], size: float, evaluations: int) -> Vector:
    """The best point found. `size` is the first step along each variable."""
    corners = [list(start)]
    for place in range(len(start)):
        corners.append([value + size * (place == other) for other, value in enumerate(start)])
    simplex = sorted((cost(corner), corner) for corner in corners)
    left = evaluations - len(simplex)
    while left > 0:
        left -= _improve(simplex, cost)
        simplex.sort()
    return simplex[0][1]


def _improve(simplex: list[tuple[float, Vector]], cost: Cost) -> int:
    """Replace the worst corner, or shrink towards the best; how many evaluations it took."""
    worst_cost, worst = simplex[-1]
    others = [corner for _, corner in simplex[:-1]]
    middle = [sum(values) / len(others) for values in zip(*others, strict=True)]

    def at(distance: float) -> tuple[float, Vector]:
        point = [m + distance * (m - w) for m, w in zip(middle, worst, strict=True)]
        return cost(point), point

    reflected = at(1.0)
    if reflected[0] < simplex[0][0]:
        simplex[-1] = min(reflected, at(2.0))
        return 2
    if reflected[0] < simplex[-2][0]:
        simplex[-1] = reflected
        return 1
    contracted = at(0.5 if reflected[0] < worst_cost else -0.5)
    if contracted[0] < min(worst_cost, reflected[0]):
        simplex[-1] = contracted
        return 2
    best = simplex[0][1]
    for place in range(1, len(simplex)):
        corner = [(b + c) / 2 for b, c in zip(best, simplex[place][1], strict=True)]
        simplex[place] = (cost(corner), corner)
    return 2 + len(others)
