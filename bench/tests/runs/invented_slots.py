"""Slots whose figures are known, without any server."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from sluice_bench.runs.ab_run import PlannedSlot, SlotResult

from ..stats.simulators import DriftingServer


def slot_result(
    slot: PlannedSlot,
    *,
    void: bool = False,
    failures: dict[str, int] | None = None,
    **figures: float | None,
) -> SlotResult:
    """Figures by name, with `_` for the hyphen."""
    return SlotResult(
        block=slot.block,
        position=slot.position,
        variant=slot.variant,
        scheduled=20,
        failures=failures or {},
        void=void,
        figures={name.replace("_", "-"): value for name, value in figures.items()},
    )


def simulated(seed: int, slowdown: float = 1.0, requests: int = 40) -> Callable[[PlannedSlot], SlotResult]:
    """A server on a shared machine; `slowdown` is what B costs more than A."""
    server = DriftingServer(Random(seed), slowdown)
    return lambda slot: slot_result(slot, ttft_p50=server.slot(slot.variant, requests))
