"""Scene: one of two workers is slow. It gets what it can do, and not every other request."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from sluice_bench.loops import ClosedLoop
from sluice_bench.rehearsal.asking import Outcome, in_a_loop, load, outcomes
from sluice_bench.rehearsal.finding import Check, Finding, all_served
from sluice_bench.rehearsal.stage import QUICK, SLOW, SLOW_SHARE, TENANTS, Stage
from sluice_bench.workload import Shape

USERS = 6
REQUESTS = 60

_SHAPE = Shape(prompt_words=20, output_tokens=64)


def slow_worker(stage: Stage) -> Finding:
    """Tenants take turns; users ask again as soon as they are served."""
    requests = stage.requests_by_turns(_SHAPE, REQUESTS // len(TENANTS), seed=300)

    async def scene() -> list[Outcome]:
        return await outcomes(load(stage.target, requests, ClosedLoop(USERS)))

    with stage.slowed():
        return slow_worker_finding(in_a_loop(scene))


def slow_worker_finding(found: Sequence[Outcome]) -> Finding:
    """From what became of all requests."""
    by_worker = {name: [o for o in found if o.served and o.record.backend == name] for name in (QUICK, SLOW)}
    share = len(by_worker[SLOW]) / len(found)
    return Finding(
        promise="A slow worker gets what it can do, and not every other request.",
        title=f"A worker at {SLOW_SHARE:.0%} of its speed beside another",
        header=("worker", "requests", "share", "E2E p50"),
        rows=tuple(
            (name, str(len(own)), f"{len(own) / len(found):.0%}", _e2e_p50(own))
            for name, own in by_worker.items()
        ),
        checks=(
            all_served(found, "requests"),
            Check(
                f"the slow worker got {share:.0%} and must get less than a third; by turns it would be 50 %",
                share < 1 / 3,
            ),
        ),
    )


def _e2e_p50(own: Sequence[Outcome]) -> str:
    if not own:
        return ""
    return f"{statistics.median((o.record.end_ns or 0) - o.record.scheduled_ns for o in own) / 1e6:.0f} ms"
