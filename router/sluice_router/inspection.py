"""What a router holds, for people who ask why: who waits, who will come back, and what was placed last.

It goes through all that waits, so it is made when somebody asks and is no part of the snapshot that metrics
are made of. Changes nothing that is decided.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from sluice_router import priority
from sluice_router.budget import RetryBudget
from sluice_router.dispatcher import Dispatcher
from sluice_router.placer import Placer
from sluice_router.scoring import Score
from sluice_router.snapshot import ReturnsSnapshot
from sluice_router.ticket import Ticket


class WaitingSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What a tenant has waiting in a class."""

    priority: str
    tenant: str
    requests: int
    tokens: int
    """Prompt tokens."""
    work: int
    """What they are expected to cost."""
    oldest_arrived_at: float
    """On the router's clock."""


class PlacedSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One placement, and what it was decided by."""

    request_id: str
    tenant: str
    priority: str
    placed_at: float
    """On the router's clock."""
    route: str
    """As in `Ticket.route`."""
    prompt_tokens: int
    """Estimated."""
    hit_tokens: int
    """Of them, those expected in the endpoint's cache."""
    output_tokens: int
    """Expected."""
    waited_s: float
    scores: tuple[Score, ...]
    """Of the candidates, when the prompt's prefix or its session decided."""


class RouterDetails(msgspec.Struct, frozen=True, kw_only=True):
    """What the snapshot leaves out, because it takes time in proportion to what waits: for people."""

    waiting: tuple[WaitingSnapshot, ...]
    """The most urgent class first, and in it who waits for most."""
    waiting_bytes: int
    """Of request bodies."""
    returns: ReturnsSnapshot
    retries_left: float
    """Retries that the budget has now."""
    placed: tuple[PlacedSnapshot, ...]
    """The last placements that still stand, the newest first."""


def details(dispatcher: Dispatcher, placer: Placer, budget: RetryBudget, now: float) -> RouterDetails:
    """As it is now."""
    return RouterDetails(
        waiting=waiting(dispatcher.room),
        waiting_bytes=dispatcher.room.body_bytes,
        returns=dispatcher.shedding.returns(now),
        retries_left=budget.left(now),
        placed=placed(placer.recent),
    )


def waiting(tickets: Iterable[Ticket]) -> tuple[WaitingSnapshot, ...]:
    """By class and tenant."""
    groups: dict[tuple[int, str], list[Ticket]] = {}
    for ticket in tickets:
        facts = ticket.facts
        groups.setdefault((priority.BANDS[facts.priority], facts.tenant), []).append(ticket)
    found = [
        (
            band,
            WaitingSnapshot(
                priority=group[0].facts.priority,
                tenant=tenant,
                requests=len(group),
                tokens=sum(ticket.cost.prompt_tokens for ticket in group),
                work=sum(ticket.cost.work for ticket in group),
                oldest_arrived_at=min(ticket.arrived_at for ticket in group),
            ),
        )
        for (band, tenant), group in groups.items()
    ]
    found.sort(key=lambda pair: (pair[0], -pair[1].work, pair[1].tenant))
    return tuple(one for _, one in found)


def placed(tickets: Iterable[Ticket]) -> tuple[PlacedSnapshot, ...]:
    """The newest first; but for those that have been tried again and wait, or were refused then."""
    newest = dict.fromkeys(reversed(list(tickets)))
    return tuple(
        PlacedSnapshot(
            request_id=ticket.facts.request_id,
            tenant=ticket.facts.tenant,
            priority=ticket.facts.priority,
            placed_at=ticket.lease.placed_at,
            route=ticket.route,
            prompt_tokens=ticket.cost.prompt_tokens,
            hit_tokens=ticket.hit_tokens,
            output_tokens=ticket.cost.output_tokens,
            waited_s=ticket.waited_s,
            scores=ticket.scores,
        )
        for ticket in newest
        if ticket.endpoint is not None and ticket.lease is not None
    )
