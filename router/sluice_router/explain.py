"""Why a request would go where it goes: the same decision as the router's, with every endpoint's verdict.

All endpoints count as healthy and empty; what an engine is like at the moment is the snapshot's to tell. The
pick is made by a router of its own, not by a copy of its rules.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sluice_router.admission_policy import AdmissionPolicy
from sluice_router.matching import RULES, Mismatch, candidates, mismatch
from sluice_router.router import Router
from sluice_router.scoring import Score
from sluice_router.targets import Target, targets
from sluice_router.types import Endpoint, RequestFacts

GIVES_WAY = "gives_way"
"""The rule by which an endpoint for any model is left out where another one names the model."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Of one endpoint, for one target."""

    endpoint: Endpoint
    rule: str | None
    """What leaves it out: `backend`, `model`, `kind`, `quant`, `needs` or `gives_way`; `None` when nothing
    does."""


class Assessment(msgspec.Struct, frozen=True, kw_only=True):
    """One target, and what every endpoint is to it."""

    target: Target
    verdicts: tuple[Verdict, ...]
    """In the order of the configuration."""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """The whole decision."""

    assessments: tuple[Assessment, ...]
    """Best first. Later ones are for when no endpoint of an earlier one is usable."""
    endpoint: str | None
    """Id of the one picked."""
    route: str
    """As in `Ticket.route`."""
    prompt_tokens: int
    """Estimated, as is all of the cost; nothing was learned from earlier requests."""
    output_tokens: int
    work: int
    """What its queue places and shares are charged with."""
    ttft_budget_s: float
    """Seconds to its first token after which it is not worth serving."""
    scores: tuple[Score, ...]
    """Of the candidates, when the prompt's prefix or the session decided."""
    mismatch: Mismatch | None
    """Why nothing could serve it; `None` when something was picked."""


def explain(
    endpoints: Sequence[Endpoint],
    facts: RequestFacts,
    policy: AdmissionPolicy = AdmissionPolicy(),  # noqa: B008  (it is frozen)
) -> Explanation:
    """The decision on one request that comes alone."""
    ticket = Router(endpoints, max_queue=0, queue_timeout_s=1.0, admission=policy).admit(facts, 0.0, _nothing)
    return Explanation(
        assessments=tuple(_assess(endpoints, target) for target in targets(facts)),
        endpoint=ticket.endpoint.id if ticket.endpoint is not None else None,
        route=ticket.route,
        prompt_tokens=ticket.cost.prompt_tokens,
        output_tokens=ticket.cost.output_tokens,
        work=ticket.cost.work,
        ttft_budget_s=policy.ttft_budget_s(facts),
        scores=ticket.scores,
        mismatch=mismatch(endpoints, facts),
    )


def _assess(endpoints: Sequence[Endpoint], target: Target) -> Assessment:
    chosen = {e.id for e in candidates(endpoints, target.facts)}
    verdicts = (Verdict(endpoint=e, rule=_left_out_by(e, target, chosen)) for e in endpoints)
    return Assessment(target=target, verdicts=tuple(verdicts))


def _left_out_by(endpoint: Endpoint, target: Target, chosen: set[str]) -> str | None:
    if endpoint.id in chosen:
        return None
    return next((name for name, rule in RULES if not rule(endpoint, target.facts)), GIVES_WAY)


def _nothing() -> None:
    """A lone request never waits."""
