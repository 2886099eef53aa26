"""A against B over real requests, in blocks of four slots: ABBA or BAAB by the toss of a coin.

The order and the verdict are those of `stats/paired.py`. Here is what becomes of a block in which something
went wrong: it is set aside whole, with its reason, and another is measured with other requests. A void slot
says more of the client than of the server; a request that failed has no latency, and the others had less to
wait for. Setting aside treats A and B alike, so it cannot tell equals apart; failures are counted beside the
verdict, by variant, because they are a result themselves. When more than half as many blocks as are wanted
had to be set aside, measuring ends.

With an effect to find, the first blocks are a pilot: their noise, not their mean, decides how many more
there will be, and they count.

Knows nothing of servers: a function measures one slot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random

import msgspec

from sluice_bench.stats.estimate import Comparison
from sluice_bench.stats.paired import MIN_BLOCKS, Block, Slot, blocks_needed, compare, slot_order

MORE_IS_BETTER: Mapping[str, bool] = {
    "ttft-p50": False,
    "ttft-mean": False,
    "tpot-p50": False,
    "e2e-p50": False,
    "tokens-per-s": True,
    "goodput": True,
}
"""The figures that are compared; latencies in milliseconds."""

SLOTS: tuple[Slot, Slot] = ("a", "b")
_SPARE = 3


class PlannedSlot(msgspec.Struct, frozen=True):
    """Which slot is measured next. Both halves of a block have an A and a B, which ask the same requests."""

    block: int
    """Counts blocks that were set aside too."""
    position: int
    """0 to 3."""
    variant: Slot

    @property
    def half(self) -> int:
        """Counts halves of all blocks from 0."""
        return 2 * self.block + self.position // 2


class SlotResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one slot came to."""

    block: int
    position: int
    variant: Slot
    started_utc: str = ""
    scheduled: int
    failures: dict[str, int]
    void: bool
    figures: dict[str, float | None]
    """By the names of `MORE_IS_BETTER`; `None` where nothing had the figure."""
    workload_sha256: str = ""
    """Of what was asked, equal for the A and the B of a half."""
    schedule_sha256: str = ""
    requests_sha256: str = ""
    """Of the bytes sent, which differ in model and headers."""
    records_sha256: str = ""
    figures_sha256: str = ""
    file: str = ""
    """Where its run is kept."""

    @property
    def defect(self) -> str:
        """Why its block cannot be compared; empty when it can."""
        if self.failures:
            return f"{self.variant.upper()} failed: {', '.join(self.failures)}"
        return "void: the client was too slow for it" if self.void else ""


class AbRun(msgspec.Struct, frozen=True, kw_only=True):
    """All slots in the order in which they were measured, and what they say."""

    slots: tuple[SlotResult, ...]
    set_aside: dict[int, str]
    """Blocks that are not compared, and why."""
    wanted_blocks: int
    needed_blocks: int | None
    """By the noise of the pilot; may be more than were measured. `None` without an effect to find."""
    comparisons: tuple[Comparison, ...]
    """Empty when fewer than `MIN_BLOCKS` blocks can be compared."""
    not_compared: dict[str, str]
    """Figures that were left out, and why."""

    @property
    def sound_blocks(self) -> int:
        """How many are compared."""
        return len({slot.block for slot in self.slots}) - len(self.set_aside)

    @property
    def complete(self) -> bool:
        """Whether as many blocks as were wanted could be measured."""
        return self.sound_blocks >= self.wanted_blocks

    def failed(self, variant: Slot) -> int:
        """Requests of one variant that failed, whether their block counts or not."""
        return sum(sum(slot.failures.values()) for slot in self.slots if slot.variant == variant)


class AbPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How many blocks, and what for."""

    blocks: int
    """With an `effect` those of the pilot."""
    primary: str = "ttft-p50"
    """The figure that the effect is about."""
    effect: float | None = None
    """The relative change that must not stay hidden: 0.05 is 5 %."""
    most_blocks: int = 100
    seed: int = 1


def run_ab(
    plan: AbPlan,
    measure_slot: Callable[[PlannedSlot], SlotResult],
    on_planned: Callable[[int], None] = lambda blocks: None,
) -> AbRun:
    """Carry it out; `on_planned` is told how many blocks there will be, again after a pilot.

    Raises `ValueError` of fewer than `MIN_BLOCKS`.
    """
    if plan.blocks < MIN_BLOCKS:
        raise ValueError(f"a comparison needs at least {MIN_BLOCKS} blocks, not {plan.blocks}")
    series = _Series(measure_slot, Random(plan.seed))
    wanted, needed = plan.blocks, None
    on_planned(wanted)
    series.measure(wanted)
    if plan.effect is not None and len(series.sound) == wanted:
        needed = blocks_needed([block.log_ratio() for block in series.blocks(plan.primary)], plan.effect)
        wanted = max(wanted, min(needed, plan.most_blocks))
        on_planned(wanted)
        series.measure(wanted)
    comparisons, left_out = series.comparisons(plan.seed)
    return AbRun(
        slots=tuple(series.slots),
        set_aside=series.set_aside,
        wanted_blocks=wanted,
        needed_blocks=needed,
        comparisons=comparisons,
        not_compared=left_out,
    )


class _Series:
    """Blocks so far."""

    def __init__(self, measure_slot: Callable[[PlannedSlot], SlotResult], coin: Random) -> None:
        self._measure_slot, self._coin = measure_slot, coin
        self.slots: list[SlotResult] = []
        self.sound: list[list[SlotResult]] = []
        self.set_aside: dict[int, str] = {}

    def measure(self, wanted: int) -> None:
        """Until so many blocks are sound, or too many were set aside."""
        spare = max(_SPARE, wanted // 2)
        while len(self.sound) < wanted and len(self.set_aside) <= spare:
            self._measure_block(len(self.sound) + len(self.set_aside))

    def _measure_block(self, number: int) -> None:
        [order] = slot_order(1, self._coin)
        block: list[SlotResult] = []
        for position, variant in enumerate(order):
            block.append(self._measure_slot(PlannedSlot(number, position, variant)))
            self.slots.append(block[-1])
            if block[-1].defect:
                self.set_aside[number] = block[-1].defect
                return
        self.sound.append(block)

    def blocks(self, figure: str) -> list[Block]:
        """Of one figure. Raises `ValueError` where a slot has none that a ratio can be made of."""
        found = []
        for slots in self.sound:
            first, second = (
                [_positive(slot, figure) for slot in slots if slot.variant == who] for who in SLOTS
            )
            found.append(Block((first[0], first[1]), (second[0], second[1])))
        return found

    def comparisons(self, seed: int) -> tuple[tuple[Comparison, ...], dict[str, str]]:
        """Of all figures that every slot has, and why others are left out."""
        compared: list[Comparison] = []
        left_out: dict[str, str] = {}
        for figure in self._figures() if len(self.sound) >= MIN_BLOCKS else ():
            try:
                blocks = self.blocks(figure)
            except ValueError as error:
                left_out[figure] = str(error)
                continue
            better = MORE_IS_BETTER.get(figure, False)
            compared.append(compare(figure, blocks, Random(seed), more_is_better=better))
        return tuple(compared), left_out

    def _figures(self) -> Sequence[str]:
        return tuple(self.sound[0][0].figures)


def _positive(slot: SlotResult, figure: str) -> float:
    value = slot.figures.get(figure)
    if value is None:
        raise ValueError(f"{slot.variant.upper()} has none in block {slot.block + 1}")
    if value <= 0:
        raise ValueError(
            f"{slot.variant.upper()} has {value:g} in block {slot.block + 1}, no basis of a ratio"
        )
    return value
