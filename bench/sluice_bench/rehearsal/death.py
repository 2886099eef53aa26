"""Scene: `kill -9` of a worker in the middle of its answers. Only answers of which the client had a part may
end with an error; all others are the other worker's. Started again, it gets its part again.

For half a minute after that the router treads softly with it, so this scene comes last.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import psutil

from sluice_bench.connection import Exchange
from sluice_bench.load_run import LoadRun
from sluice_bench.loops import ClosedLoop
from sluice_bench.processes import ServerProcess
from sluice_bench.rehearsal.asking import Outcome, in_a_loop, load, outcomes, together, until
from sluice_bench.rehearsal.finding import Check, Finding, all_served
from sluice_bench.rehearsal.stage import AT_ONCE, QUICK, TENANTS, Stage
from sluice_bench.target import WireRequest
from sluice_bench.workload import Shape, chat_requests

VICTIM = QUICK
USERS = 2 * AT_ONCE
REQUESTS = 48
"""Half of them streams."""

_BEGUN = 2
"""Streams of the victim that make it worth killing."""
_SHAPE = Shape(prompt_words=20, output_tokens=160)


def death(stage: Stage) -> Finding:
    """Kill it, see what becomes of the requests, start it, see whether it is asked again."""
    worker = stage.stack.engines[VICTIM]
    doomed = load(stage.target, _requests(stage, seed=400), ClosedLoop(USERS))
    again = load(stage.target, _requests(stage, seed=410), ClosedLoop(USERS))

    async def die() -> list[Outcome]:
        await _kill(worker, doomed)
        return []

    async def scene(running: LoadRun, beside: bool) -> list[Outcome]:
        found = await together(outcomes(running), *([die()] if beside else []))
        return found[0]

    before = in_a_loop(lambda: scene(doomed, beside=True))
    _start_again(stage, worker)
    after = in_a_loop(lambda: scene(again, beside=False))
    return death_finding(before, after)


def _requests(stage: Stage, seed: int) -> list[WireRequest]:
    """Of all tenants by turns, streamed or not by turns."""
    each = [
        chat_requests(stage.target, _SHAPE, stage.asking(tenant, stream=stream), REQUESTS // 6, seed=number)
        for number, (tenant, stream) in enumerate(
            ((tenant, stream) for stream in (True, False) for tenant in TENANTS), start=seed
        )
    ]
    return [request for turn in zip(*each, strict=True) for request in turn]


async def _kill(worker: ServerProcess, running: LoadRun) -> None:
    """When it is in the middle of some streams."""
    await until(lambda: sum(map(_is_begun, running.exchanges)) >= _BEGUN)
    for process in worker.processes():
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _is_begun(exchange: Exchange) -> bool:
    """A stream of the victim's, of which the client has more than the head."""
    if exchange.end_ns is not None or len(exchange.reads) < 2 or not exchange.request.stream:
        return False
    return f"x-sluice-backend: {VICTIM}".encode() in exchange.reads[0][1].lower()


def _start_again(stage: Stage, worker: ServerProcess) -> None:
    """At its old address. Raises `ServerFailed`."""
    worker.stop()
    worker.__enter__()
    stage.wait_until_healthy()


def death_finding(before: Sequence[Outcome], after: Sequence[Outcome]) -> Finding:
    """From what became of the requests around its death, and of those after its return."""
    failed = [outcome for outcome in before if not outcome.served]
    unbegun = [outcome for outcome in failed if outcome.record.first_token_ns is None]
    returned = sum(outcome.record.backend == VICTIM for outcome in after)
    rows = (_row("around its death", before), _row("after its return", after))
    return Finding(
        promise="A worker that dies cuts at most answers of which the client had a part; all others are the "
        "other worker's, and started again it gets its part again.",
        title=f"`kill -9` of worker {VICTIM} in the middle of its answers",
        header=(
            "when",
            "requests",
            "served",
            "cut after a first token",
            "failed before",
            "by the killed",
        ),
        rows=rows,
        checks=(
            Check(
                f"{len(unbegun)} of {len(before)} requests failed of which the client had nothing",
                not unbegun,
            ),
            Check(
                f"{len(failed)} streams were cut, of at most {AT_ONCE} that the worker had",
                len(failed) <= AT_ONCE,
            ),
            all_served(after, "requests after its return"),
            Check(f"{returned} of them by the worker that had been killed", returned > 0),
        ),
    )


def _row(when: str, found: Sequence[Outcome]) -> tuple[str, ...]:
    failed = [outcome for outcome in found if not outcome.served]
    begun = sum(outcome.record.first_token_ns is not None for outcome in failed)
    by_victim = sum(outcome.record.backend == VICTIM for outcome in found)
    numbers = (len(found), len(found) - len(failed), begun, len(failed) - begun, by_victim)
    return (when, *map(str, numbers))
