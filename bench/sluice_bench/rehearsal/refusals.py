"""Scene: three tenants ask for more at once than there is room for.

Whoever has no room is told so with 429, a code and `Retry-After`, and whoever obeys is served. Whoever would
be served too late for its own deadline is told so at once, though there is room to wait.
"""

from __future__ import annotations

from collections.abc import Sequence

from sluice_bench.load_run import LoadRun
from sluice_bench.loops import ClosedLoop, OpenLoop
from sluice_bench.rehearsal.asking import (
    Outcome,
    asked_until_served,
    in_a_loop,
    load,
    outcomes,
    together,
    until,
)
from sluice_bench.rehearsal.finding import Check, Finding, all_served
from sluice_bench.rehearsal.stage import AT_ONCE, TENANTS, WAITING, Stage
from sluice_bench.workload import Shape, chat_requests

EACH = 12
"""Requests of a tenant, all at once."""
ROOM = 2 * AT_ONCE + WAITING
CODE = "rate_limit_exceeded"
IMPATIENT = 3
IMPATIENT_MS = 50

_SHAPE = Shape(prompt_words=20, output_tokens=192)
_TOO_LATE = "X-SLO-TTFT-Ms"
_KNOWN_AFTER = 12
"""Answers of each worker, before the gateway foretells anything."""


def crowd(stage: Stage) -> Finding:
    """Each client comes back as it is told, until it is served."""

    async def all_at_once() -> list[list[Outcome]]:
        requests = [
            request
            for number, tenant in enumerate(TENANTS)
            for request in chat_requests(stage.target, _SHAPE, stage.asking(tenant), EACH, seed=100 + number)
        ]
        return await together(*(asked_until_served(stage.target, request) for request in requests))

    with stage.slowed():
        return crowd_finding(in_a_loop(all_at_once))


def crowd_finding(clients: Sequence[Sequence[Outcome]]) -> Finding:
    """From the tries of each client."""
    refusals = [outcome for tries in clients for outcome in tries if outcome.refused]
    told_off = [tries for tries in clients if tries[0].refused]
    honest = sum(not tries[1].refused for tries in told_off if len(tries) > 1)
    by_tenant = [clients[at * EACH : (at + 1) * EACH] for at in range(len(TENANTS))]
    return Finding(
        promise="Whoever has no room is told so with 429, a code and `Retry-After`, and whoever obeys is "
        "served.",
        title=f"Room for {ROOM} requests, {len(clients)} at once",
        header=("tenant", "requests", "refused at first", "served at last", "tries"),
        rows=tuple(
            (
                tenant,
                str(len(own)),
                str(sum(tries[0].refused for tries in own)),
                str(sum(tries[-1].served for tries in own)),
                str(sum(map(len, own))),
            )
            for tenant, own in zip(TENANTS, by_tenant, strict=True)
        ),
        checks=(
            Check(f"{len(told_off)} of {len(clients)} clients were refused at first", bool(told_off)),
            Check(
                f"each of {len(refusals)} refusals was a 429 `{CODE}` with `Retry-After`",
                all(r.code == CODE and (r.retry_after_s or 0) >= 1 for r in refusals),
            ),
            Check(
                f"{honest} of {len(told_off)} were let in when they first came back as told; at least half "
                "must",
                2 * honest >= len(told_off),
                needs_quiet=True,
            ),
            all_served([tries[-1] for tries in clients], "clients"),
        ),
    )


def impatience(stage: Stage) -> Finding:
    """Some of those who come while others wait have a deadline that is too short for that."""

    async def scene() -> list[list[Outcome]]:
        patient = load(
            stage.target,
            chat_requests(stage.target, _SHAPE, stage.asking("ada"), ROOM - IMPATIENT, seed=110),
            OpenLoop((0,) * (ROOM - IMPATIENT)),
        )
        return await together(outcomes(patient), _impatient(stage, patient))

    with stage.slowed():
        in_a_loop(lambda: _make_known(stage))
        patient, impatient = in_a_loop(scene)
    return impatience_finding(patient, impatient)


async def _make_known(stage: Stage) -> None:
    """Ask both workers so often that the gateway knows how fast they are."""
    for number, worker in enumerate(stage.stack.engines):
        asking = stage.asking("ada", ("X-Backend", worker))
        shape = Shape(prompt_words=20, output_tokens=8)
        requests = chat_requests(stage.target, shape, asking, _KNOWN_AFTER, seed=120 + number)
        await outcomes(load(stage.target, requests, ClosedLoop(AT_ONCE)))


async def _impatient(stage: Stage, patient: LoadRun) -> list[Outcome]:
    """When the others are there."""
    await until(lambda: any(exchange.reads for exchange in patient.exchanges))
    asking = stage.asking("ben", ("X-SLO-TTFT-Ms", str(IMPATIENT_MS)))
    requests = chat_requests(stage.target, _SHAPE, asking, IMPATIENT, seed=111)
    return await outcomes(load(stage.target, requests, OpenLoop((0,) * IMPATIENT)))


def impatience_finding(patient: Sequence[Outcome], impatient: Sequence[Outcome]) -> Finding:
    """From what became of both."""
    late = sum(outcome.refused and _TOO_LATE in outcome.record.message for outcome in impatient)
    last_begun_ns = max((o.record.first_token_ns or 0 for o in patient), default=0)
    at_once = sum((outcome.record.end_ns or 0) < last_begun_ns for outcome in impatient)
    return Finding(
        promise="Whoever would be served too late for its own deadline is told so at once, though there is "
        "room to wait.",
        title=f"A deadline of {IMPATIENT_MS} ms where others wait",
        header=("clients", "requests", "served", "refused as too late"),
        rows=(
            ("patient", str(len(patient)), str(sum(o.served for o in patient)), "0"),
            ("impatient", str(len(impatient)), str(sum(o.served for o in impatient)), str(late)),
        ),
        checks=(
            Check(
                f"{late} of {len(impatient)} who cannot wait got 429 for it",
                late == len(impatient),
            ),
            Check(
                f"{at_once} of {len(impatient)} were told before all those had a first token who came before",
                at_once == len(impatient),
            ),
            all_served(patient, "who can wait"),
        ),
    )
