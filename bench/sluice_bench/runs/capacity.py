"""Can the client keep up with a load? Known before a run, from what an event and a request cost it.

The costs are those of docs/reports/client.md, rounded up; they are of a small virtual machine that others
used too, so most clients need less. A process that is to be believed has half of its
core free: the rest of a machine is never as quiet as one hopes.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence

from sluice_bench.loops import LoadPlan, OpenLoop

CPU_S_PER_EVENT = 11e-6
CPU_S_PER_REQUEST = 250e-6

MOST_CORES = 0.5
"""Of one process."""

STREAM_EVENTS_PER_S = 50.0
"""Of a user of a closed loop, whose server's speed nobody knows yet."""

_WINDOW_NS = 5_000_000_000
"""The busiest stretch of so long is what the client must be able to do."""


def cores_needed(plan: LoadPlan) -> float:
    """Of the client, while the load is at its height and the server keeps up."""
    requests, events = planned_rates(plan)
    return requests * CPU_S_PER_REQUEST + events * CPU_S_PER_EVENT


def planned_rates(plan: LoadPlan) -> tuple[float, float]:
    """Requests/s and events/s at the height of the load, an event a token; plain answers have none."""
    asked = [request.asked_tokens or 0 for request in plan.requests if request.stream]
    events_each = sum(asked) / len(plan.requests) if plan.requests else 0.0
    if not isinstance(plan.loop, OpenLoop):
        streams = min(plan.loop.concurrency, len(plan.requests))
        events = streams * STREAM_EVENTS_PER_S if asked else 0.0
        return (events / events_each if events_each else 0.0), events
    rate = _busiest_per_s(plan.loop.offsets_ns[: len(plan.requests)])
    return rate, rate * events_each


def _busiest_per_s(offsets_ns: Sequence[int]) -> float:
    crowds = (bisect_left(offsets_ns, due + _WINDOW_NS) - index for index, due in enumerate(offsets_ns))
    return max(crowds, default=0) / (_WINDOW_NS / 1e9)


def refusal(plan: LoadPlan, processes: int) -> str:
    """Why the load is too much for so many processes, and what to do; empty when it is not."""
    cores = cores_needed(plan)
    if cores <= MOST_CORES * processes:
        return ""
    requests, events = planned_rates(plan)
    return (
        f"The client would need about {cores / processes:.2f} of a core in each process for {requests:,.0f} "
        f"requests/s and {events:,.0f} events/s, and is not to be believed over {MOST_CORES:.2f}: give it "
        f"--processes {math.ceil(cores / MOST_CORES)} (or --force to try it nevertheless)."
    )
