"""Which of the endpoints that could serve a request should: pure functions over the router's replicas.

Among the endpoints with room, a session's home wins (`affinity.py`), then the least loaded: own requests in
flight plus those the engine reports as waiting, relative to the endpoint's size; equals take turns. Both
avoid an endpoint that has just failed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf

from sluice_router.affinity import home
from sluice_router.cost import Cost
from sluice_router.replica import Replica
from sluice_router.types import RequestFacts

LEAST_LOADED = "least_loaded"
AFFINITY = "affinity"


Pick = tuple[Replica, str]
"""Where to, and why: `LEAST_LOADED` or `AFFINITY`."""


def choose(
    replicas: Sequence[Replica], facts: RequestFacts, cost: Cost, now: float, load_ttl_s: float
) -> Pick | None:
    """The replica to place a request on now, and why; `None` when none takes it."""
    if facts.session is not None:
        at_home = home(replicas, facts.tenant, facts.session)
        if at_home is not None and at_home.takes(cost, now) and now >= at_home.avoid_until:
            return at_home, AFFINITY
    least = least_loaded(replicas, cost, now, load_ttl_s)
    return None if least is None else (least, LEAST_LOADED)


def least_loaded(replicas: Iterable[Replica], cost: Cost, now: float, load_ttl_s: float) -> Replica | None:
    """The replica with the smallest relative load of those that take the request; `None` when none does.

    Readings older than `load_ttl_s` count as unknown. Equal loads take turns. What has just failed is chosen
    only when nothing else is available.
    """
    best, smallest = None, (True, inf, 0)
    for replica in replicas:
        if replica.takes(cost, now):
            occupied = replica.in_flight + replica.reported_waiting(now, load_ttl_s)
            share = occupied / replica.endpoint.max_in_flight
            load = (now < replica.avoid_until, share, replica.last_placed)
            if load < smallest:
                best, smallest = replica, load
    return best
