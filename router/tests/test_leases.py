"""Five thousand requests on their engines at once, and nothing of any stays behind."""

from __future__ import annotations

import pytest
from lease_storm import EVENTS, LeaseStorm

from sluice_router.types import HedgeResult, Outcome


@pytest.mark.parametrize("seed", [4])
def test_of_five_thousand_leases_none_is_left_whatever_happens(seed: int):
    """A million events: `router/tests/perf/lease_storm_run.py`."""
    storm = LeaseStorm(seed)

    storm.run(35_000)
    snapshot = storm.router.snapshot()
    storm.end()

    assert storm.most >= 5000
    assert all(storm.events[name] for name in (*EVENTS, "arrive", "hedged"))
    assert all(snapshot.outcomes[outcome] for outcome in Outcome), snapshot.outcomes
    happened = HedgeResult.WON, HedgeResult.LOST, HedgeResult.FAILED, HedgeResult.LEFT
    assert all(snapshot.hedges[result] for result in happened), snapshot.hedges
