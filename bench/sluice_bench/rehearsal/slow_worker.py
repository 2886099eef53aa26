"""Scene: one of two workers is slow. It gets what it can do, and not every other request."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from sluice_bench.loops import ClosedLoop
from sluice_bench.rehearsal.asking import Outcome, in_a_loop, load, outcomes
from sluice_bench.rehearsal.finding import Check, Finding
from sluice_bench.rehearsal.stage import QUICK, SLOW, SLOW_SHARE, TENANTS, Stage
from sluice_bench.workload import Shape, chat_requests

USERS = 6
REQUESTS = 60

_SHAPE = Shape(prompt_words=20, output_tokens=64)


def slow_worker(stage: Stage) -> Finding:
    """Tenants take turns; users ask again as soon as they are served."""
    each = [
        chat_requests(stage.target, _SHAPE, stage.asking(tenant), REQUESTS // len(TENANTS), seed=300 + number)
        for number, tenant in enumerate(TENANTS)
    ]
    requests = [request for turn in zip(*each, strict=True) for request in turn]

    async def scene() -> list[Outcome]:
        return await outcomes(load(stage.target, requests, ClosedLoop(USERS)))

    with stage.slowed():
        return slow_worker_finding(in_a_loop(scene))


def slow_worker_finding(found: Sequence[Outcome]) -> Finding:
    """From what became of all requests."""
    by_worker = {name: [o for o in found if o.served and o.record.backend == name] for name in (QUICK, SLOW)}
    share = len(by_worker[SLOW]) / len(found)
    served = sum(map(len, by_worker.values()))
    return Finding(
        title=f"A worker at {SLOW_SHARE:.0%} of its speed beside another",
        header=("worker", "requests", "share", "E2E p50"),
        rows=tuple(
            (name, str(len(own)), f"{len(own) / len(found):.0%}", _e2e_p50(own))
            for name, own in by_worker.items()
        ),
        checks=(
            Check(f"{served} of {len(found)} requests were served", served == len(found)),
            Check(f"the slow worker got {share:.0%}; by turns it would be 50 %", share < 0.25),
        ),
    )


def _e2e_p50(own: Sequence[Outcome]) -> str:
    if not own:
        return ""
    return f"{statistics.median((o.record.end_ns or 0) - o.record.scheduled_ns for o in own) / 1e6:.0f} ms"
