"""How many users there are at a moment of a run: `steady`, or in a shape. Pure arithmetic."""

from __future__ import annotations

from typing import Literal, get_args

ShapeName = Literal["steady", "step", "spike", "ramp"]
SHAPES: tuple[ShapeName, ...] = get_args(ShapeName)

_STEPS = 4


def users_at(shape: ShapeName, most: int, run_s: float, at_s: float) -> int | None:
    """Users wanted `at_s` seconds into a run of `run_s`, 1 to `most`; `None` when the run is over.

    `step`: a quarter more in each quarter of the run. `spike`: a quarter of them, all of them in the middle
    fifth of the run, a quarter again. `ramp`: from one to all, evenly.
    """
    if at_s >= run_s:
        return None
    share = at_s / run_s
    if shape == "step":
        return _part(most, (int(share * _STEPS) + 1) / _STEPS)
    if shape == "spike":
        return most if 0.4 <= share < 0.6 else _part(most, 1 / 4)
    if shape == "ramp":
        return _part(most, share)
    return most


def _part(most: int, share: float) -> int:
    return max(1, round(most * share))
