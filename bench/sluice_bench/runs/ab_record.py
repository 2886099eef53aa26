"""What is kept of an A/B: who was compared, how, every slot, and the verdicts. Written as JSON."""

from __future__ import annotations

import msgspec

from sluice_bench.environment import Environment
from sluice_bench.runs.ab_run import AbPlan, AbRun
from sluice_bench.runs.ab_slots import SlotLoad, Variant

SCHEMA = 1
_ROUTING = ("x-backend", "x-quant")
"""Headers whose values are kept; of others, which may be secrets, only the names."""


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """A or B, for others to read."""

    url: str
    model: str
    headers: tuple[str, ...]

    @property
    def words(self) -> str:
        """In a line."""
        return ", ".join((f"{self.model} at {self.url}", *self.headers))


class AbRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One comparison."""

    schema: int = SCHEMA
    started_utc: str
    environment: Environment
    a: Side
    b: Side
    load: SlotLoad
    plan: AbPlan
    run: AbRun


def described(variant: Variant) -> Side:
    """Without secrets."""
    return Side(
        url=variant.target.url,
        model=variant.asking.model,
        headers=tuple(
            f"{name}: {value}" if name.lower() in _ROUTING else name for name, value in variant.asking.headers
        ),
    )
