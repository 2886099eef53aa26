"""What goes wrong in a simulated fleet, and when.

Written as `KIND:SHARE@START+SECONDS`, e.g. `death:0.1@30+20`: a tenth of the replicas die at 30 s and start
again 20 s later, which takes them their cold start.
"""

from __future__ import annotations

import re
from typing import Literal, get_args

import msgspec

Kind = Literal["death", "stall", "pauses", "slow", "metrics", "sync"]

SLOWNESS = 3.0
"""What a slow node multiplies its steps with."""


PAUSE_S = 5.0
PAUSES_EVERY_S = 300.0
"""An engine with pauses stands still so long, about so often: a collection of garbage, a compilation, a
neighbour on the machine."""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One fault of a share of the replicas, the first ones. Raises `ValueError` when it cannot be."""

    kind: Kind
    """`death`, `stall` (no step is taken), `pauses` (now and then none is), `slow`; `metrics`: they cannot
    be scraped; `sync`: gateways that share state cannot."""
    share: float
    start_s: float
    seconds: float

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1 or self.start_s < 0 or self.seconds <= 0:
            raise ValueError("a fault needs a share from 0 to 1, a start from 0 on and a positive duration")

    @property
    def end_s(self) -> float:
        """When it is over."""
        return self.start_s + self.seconds

    def hit(self, replicas: int) -> range:
        """The replicas that have it, at least one."""
        return range(max(1, round(self.share * replicas)))


def read_fault(text: str) -> Fault:
    """From `KIND:SHARE@START+SECONDS`. Raises `ValueError`."""
    number = r"\d+(?:\.\d+)?"
    found = re.fullmatch(rf"([a-z]+):({number})@({number})\+({number})", text)
    if found is None or found[1] not in get_args(Kind):
        kinds = ", ".join(get_args(Kind))
        raise ValueError(
            f"{text!r} is no fault; write KIND:SHARE@START+SECONDS, where KIND is one of {kinds}"
        )
    return Fault(
        kind=found[1],  # type: ignore[arg-type]
        share=float(found[2]),
        start_s=float(found[3]),
        seconds=float(found[4]),
    )
