"""All scenes by name, in the order in which they are played: a killed worker is trusted less for a while."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sluice_bench.rehearsal.conversations import conversations
from sluice_bench.rehearsal.death import death
from sluice_bench.rehearsal.finding import Finding
from sluice_bench.rehearsal.flood import flood
from sluice_bench.rehearsal.hedging import hedging
from sluice_bench.rehearsal.refusals import crowd, impatience
from sluice_bench.rehearsal.slow_worker import slow_worker
from sluice_bench.rehearsal.stage import Stage

SCENES: Mapping[str, Callable[[Stage], Finding]] = {
    "slow-worker": slow_worker,
    "crowd": crowd,
    "impatience": impatience,
    "flood": flood,
    "conversations": conversations,
    "hedging": hedging,
    "death": death,
}


def chosen(names: Sequence[str]) -> list[str]:
    """Those, in their order; all when none is named. Raises `ValueError` for one that there is not."""
    for name in names:
        if name not in SCENES:
            raise ValueError(f"--scene does not know {name}; choose from {', '.join(SCENES)}")
    return [name for name in SCENES if name in names or not names]
