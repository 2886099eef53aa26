"""A request's second attempt on another engine, in simulated time: beside the visit that is the first one.

Until one of the two has a first token both compute; then the other is aborted. From there on, or when the
first one's engine has died, this is the visit's carrier: what its engine tells is passed on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sluice_bench.simulator.job import Job

if TYPE_CHECKING:
    from sluice_bench.simulator.engine_model import EngineModel
    from sluice_bench.simulator.gateway_model import Visit


class SecondTry(Job):
    """The job that the other engine gets."""

    __slots__ = ("engine", "visit")

    def __init__(self, visit: Visit, engine: EngineModel) -> None:
        super().__init__(visit.stream, visit.shared, visit.prompt, visit.output)
        self.visit = visit
        self.engine = engine

    def first_token(self, now: float) -> None:
        """See `Job`."""
        self.visit.second_answered(now)

    def finished(self, now: float) -> None:
        """See `Job`."""
        self.visit.generated = self.generated
        self.visit.finished(now)

    def broken(self, now: float) -> None:
        """See `Job`."""
        self.visit.generated = self.generated
        self.visit.second_broken(self, now)
