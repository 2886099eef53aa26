"""Scene: one of three equal tenants asks for far more than its part, and keeps asking.

The others are served as if it asked for no more than they do: none of their requests is refused, and while
all three have something waiting each gets about as many tokens as the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

from sluice_bench.load_run import LoadRun
from sluice_bench.loops import ClosedLoop
from sluice_bench.rehearsal.asking import Outcome, in_a_loop, load, outcomes, together
from sluice_bench.rehearsal.finding import Check, Finding, all_served
from sluice_bench.rehearsal.stage import TENANTS, Stage
from sluice_bench.workload import Shape, chat_requests

FLOODER = "cleo"
USERS = 4
"""Of each other tenant."""
FLOODING_USERS = 30
REQUESTS = 20
"""Of each other tenant; the flooder's end with theirs."""

_THINK_S = 0.25
"""Of the flooder's users, refused or not."""
_PLENTY = 5000
_SHAPE = Shape(prompt_words=20, output_tokens=64)


def flood(stage: Stage) -> Finding:
    """The flood lasts until the others have been served."""
    loads = {tenant: _load(stage, tenant) for tenant in TENANTS}

    async def others() -> list[list[Outcome]]:
        found = await together(*(outcomes(loads[tenant]) for tenant in TENANTS if tenant != FLOODER))
        loads[FLOODER].stop_sending()
        return found

    async def scene() -> list[list[Outcome]]:
        calm, flooded = await together(others(), together(outcomes(loads[FLOODER])))
        return [*calm, *flooded]

    with stage.slowed():
        found = in_a_loop(scene)
    return flood_finding(dict(zip(TENANTS, found, strict=True)))


def _load(stage: Stage, tenant: str) -> LoadRun:
    flooding = tenant == FLOODER
    count = _PLENTY if flooding else REQUESTS
    requests = chat_requests(
        stage.target, _SHAPE, stage.asking(tenant), count, seed=200 + TENANTS.index(tenant)
    )
    loop = ClosedLoop(FLOODING_USERS, _THINK_S) if flooding else ClosedLoop(USERS)
    return load(stage.target, requests, loop)


def flood_finding(found: Mapping[str, Sequence[Outcome]]) -> Finding:
    """From what became of each tenant's requests; the last tenant is the flooder."""
    calm = [found[tenant] for tenant in TENANTS if tenant != FLOODER]
    until_ns = min(max(outcome.record.scheduled_ns for outcome in own) for own in calm)
    tokens = {tenant: _tokens_until(own, until_ns) for tenant, own in found.items()}
    share = {tenant: number / max(1, sum(tokens.values())) for tenant, number in tokens.items()}
    refusals = [outcome for outcome in found[FLOODER] if outcome.refused]
    odd = [outcome for outcome in found[FLOODER] if not outcome.served and not outcome.refused]
    by_users = FLOODING_USERS / (FLOODING_USERS + USERS * len(calm))
    return Finding(
        promise="Whoever asks for more than its part is refused, and nobody else; while all have something "
        "waiting, each tenant gets about as many tokens as the others.",
        title=f"{FLOODER} floods: {FLOODING_USERS} users beside {USERS} of each other tenant",
        header=("tenant", "requests", "served", "refused", "tokens while all three waited", "share"),
        rows=tuple(
            (
                tenant,
                str(len(own)),
                str(sum(outcome.served for outcome in own)),
                str(sum(outcome.refused for outcome in own)),
                str(tokens[tenant]),
                f"{share[tenant]:.0%}",
            )
            for tenant, own in found.items()
        ),
        checks=(
            all_served(list(chain.from_iterable(calm)), "requests of the others"),
            Check(
                f"{FLOODER} was refused {len(refusals)} times, each with a code and `Retry-After`",
                bool(refusals) and all(r.code and r.retry_after_s for r in refusals) and not odd,
            ),
            Check(
                f"{FLOODER} got {share[FLOODER]:.0%} of the tokens while all waited and must get less than "
                f"half; by its users it would be {by_users:.0%}",
                share[FLOODER] < 0.5,
            ),
            Check(
                "no other tenant got less than half of its third",
                all(share[tenant] > 1 / 6 for tenant in TENANTS if tenant != FLOODER),
            ),
        ),
    )


def _tokens_until(own: Sequence[Outcome], until_ns: int) -> int:
    chunks = chain.from_iterable(outcome.record.chunks for outcome in own)
    return sum(chunk.n_tokens for chunk in chunks if chunk.arrived_ns <= until_ns)
