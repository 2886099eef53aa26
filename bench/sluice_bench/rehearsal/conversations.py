"""Scene: tenants converse. A turn goes where the turns before it are cached, by its prompt alone or by a
session's name; that the engine had them cached is in the usage that it tells the client."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import pairwise

from sluice_bench.load_run import LoadRun
from sluice_bench.loops import ClosedLoop
from sluice_bench.rehearsal.asking import Outcome, in_a_loop, load, outcomes, together
from sluice_bench.rehearsal.finding import Check, Finding, all_served
from sluice_bench.rehearsal.stage import TENANTS, Stage
from sluice_bench.target import WireRequest
from sluice_bench.workload import post, random_words, request_body

TURNS = 5
_SYSTEM_WORDS, _TURN_WORDS = 60, 25
_ANSWER_TOKENS = 16


def conversations(stage: Stage) -> Finding:
    """All tenants at the same time; first without a word on sessions, then with a header."""

    def scene(named: bool) -> list[list[Outcome]]:
        loads = [_load(stage, tenant, named) for tenant in TENANTS]

        async def talk() -> list[list[Outcome]]:
            return await together(*map(outcomes, loads))

        return in_a_loop(talk)

    with stage.slowed():
        return conversations_finding(scene(named=False), scene(named=True))


def _load(stage: Stage, tenant: str, named: bool) -> LoadRun:
    requests: list[WireRequest] = []
    name = f"{tenant}-{'named' if named else 'plain'}"
    headers = (("X-Session-Id", name),) if named else ()
    asking = stage.asking(tenant, *headers)
    for messages in _turns(name):
        body = request_body({"messages": messages}, _ANSWER_TOKENS, asking)
        wire = post(stage.target, "/v1/chat/completions", body, asking)
        requests.append(WireRequest(wire, stream=True, asked_tokens=_ANSWER_TOKENS))
    return load(stage.target, requests, ClosedLoop(1))


def _turns(name: str) -> Iterator[list[dict[str, str]]]:
    """The messages of each turn: all of the turn before, an answer, and a further question."""
    source = random.Random(name)
    messages = [{"role": "system", "content": f"{name}. {random_words(source, _SYSTEM_WORDS)}"}]
    for _ in range(TURNS):
        messages = [*messages, {"role": "user", "content": random_words(source, _TURN_WORDS)}]
        yield messages
        messages = [*messages, {"role": "assistant", "content": random_words(source, _TURN_WORDS)}]


def conversations_finding(plain: Sequence[Sequence[Outcome]], named: Sequence[Sequence[Outcome]]) -> Finding:
    """From the turns of each conversation, without and with a session's name."""
    turns = [outcome for talk in (*plain, *named) for outcome in talk]
    kept, followed = _kept(plain), _followed(plain)
    kept_named, followed_named = _kept(named), _followed(named)
    known, possible = _cached([*plain, *named])
    return Finding(
        promise="A turn goes where the turns before it are cached, known by its prompt alone or by a "
        "session's name.",
        title=f"Conversations of {TURNS} turns, {len(TENANTS)} at a time",
        header=("turn", "prompt tokens", "of them cached", "on the worker of the turn before"),
        rows=tuple(_row(number, [*plain, *named]) for number in range(TURNS)),
        checks=(
            all_served(turns, "turns"),
            Check(
                f"{kept} of {followed} turns were served where the turn before was, known by their prompt; "
                "at least 80 % must, by turns it would be half",
                kept >= 0.8 * followed,
            ),
            Check(
                f"{kept_named} of {followed_named} were, with `X-Session-Id`", kept_named == followed_named
            ),
            Check(
                f"{known} tokens were cached where the turns before had {possible}; at least 70 % must",
                known >= 0.7 * possible,
            ),
            Check(
                "with a name, each turn had more cached than the one before",
                all(_of(b) > _of(a) for talk in named for a, b in pairwise(talk)),
            ),
        ),
    )


def _row(number: int, talks: Sequence[Sequence[Outcome]]) -> tuple[str, str, str, str]:
    own = [talk[number] for talk in talks]
    stayed = sum(talk[number].record.backend == talk[number - 1].record.backend for talk in talks)
    return (
        str(number + 1),
        str(sum(outcome.record.prompt_tokens or 0 for outcome in own)),
        str(sum(map(_of, own))),
        f"{stayed} of {len(talks)}" if number else "",
    )


def _of(outcome: Outcome) -> int:
    return outcome.record.cached_tokens or 0


def _kept(talks: Sequence[Sequence[Outcome]]) -> int:
    return sum(a.record.backend == b.record.backend for talk in talks for a, b in pairwise(talk))


def _followed(talks: Sequence[Sequence[Outcome]]) -> int:
    return sum(len(talk) - 1 for talk in talks)


def _cached(talks: Sequence[Sequence[Outcome]]) -> tuple[int, int]:
    """Tokens that were cached, and those that the turn before had had computed."""
    pairs = [pair for talk in talks for pair in pairwise(talk)]
    return sum(_of(b) for _, b in pairs), sum(a.record.prompt_tokens or 0 for a, _ in pairs)
