"""What all layers share within one step."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor


class StepContext(NamedTuple):
    """Where the rows of a step are in their sequences and in the cache. T rows."""

    positions: Tensor
    """int64 [T]."""
    slots: Tensor
    """int64 [T]."""
    cos_sin: Tensor
    """float32 [positions, head dim], see `layers.rope`."""
    plan: Any
    """The backend's attention plan of this step."""
