"""Two attempts at one request on real sockets: one answer, one usage, nothing left behind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import pytest

from sluice_router import hedging
from sluice_router.latency_model import MEASURED

from .conftest import StartEngine
from .scripted_engine import DONE, FINISH, PLAIN, ROLE, Call, delta, event, plain, streamed
from .serving import Served, chat, eventually, serving, settings_of

PATH = "/v1/chat/completions"
TAUGHT = hedging.ENOUGH + 4 * MEASURED
"""Two engines have to be measured before it is known what is late."""
LONGER = event(choices=[], usage={"prompt_tokens": 7, "completion_tokens": 9, "total_tokens": 16})


class Plan:
    """What two engines do with the next requests: the first one asked, and the second."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.scripts: list[Callable[[Call], Awaitable[None]]] = []

    async def __call__(self, call: Call) -> None:
        if not self.scripts:
            if call.fields.get("stream"):
                await call.stream(ROLE, delta("x"), delta("y"), FINISH, LONGER, DONE)
            else:
                await plain(call)
            return
        self.calls.append(call)
        await self.scripts[len(self.calls) - 1](call)

    def then(self, *scripts: Callable[[Call], Awaitable[None]]) -> None:
        self.scripts = list(scripts)


async def silent(call: Call) -> None:
    await call.left.wait()


async def only_a_role(call: Call) -> None:
    await call.start_events()
    await call.write(ROLE)
    await call.left.wait()


async def full(call: Call) -> None:
    await call.answer(503, {"error": {"message": "full"}})


async def refused(call: Call) -> None:
    await call.answer(400, {"error": {"message": "no"}})


@asynccontextmanager
async def taught(start_engine: StartEngine, plan: Plan, **backend: Any) -> AsyncIterator[Served]:
    """A gateway with two engines that has seen how quick they are."""
    one, two = await start_engine(plan), await start_engine(plan)
    backends = [{"name": "own", "adapter": "vllm", "url": [one.url, two.url], **backend}]
    async with serving(settings_of(backends=backends)) as served:
        for _ in range(TAUGHT):
            answer = await served.http.post(PATH, json=chat(stream=True))
            assert answer.status_code == 200
        yield served


async def test_the_second_engine_answers_for_one_that_is_late(start_engine: StartEngine) -> None:
    plan = Plan()
    async with taught(start_engine, plan) as served:
        before = served.metric("tokens_total", backend="own", direction="completion")
        plan.then(only_a_role, streamed)
        answer = await served.http.post(PATH, json=chat(stream=True))
        assert answer.content == ROLE + delta("Hel") + delta("lo") + FINISH + DONE
        assert "reason=hedge," in answer.headers["x-sluice-route"]
        await plan.calls[0].left.wait()
        await served.until_idle()
        assert served.metric("hedges_total", result="won") == 1
        assert served.metric("tokens_total", backend="own", direction="completion") - before == 2
        assert served.gateway.router.snapshot().outcomes["dispatched"] == TAUGHT + 1


async def test_the_first_engine_may_still_be_first(start_engine: StartEngine) -> None:
    plan = Plan()
    begun = asyncio.Event()

    async def at_the_last_moment(call: Call) -> None:
        await begun.wait()
        await streamed(call)

    async def begins(call: Call) -> None:
        begun.set()
        await only_a_role(call)

    async with taught(start_engine, plan) as served:
        before = served.metric("tokens_total", backend="own", direction="completion")
        plan.then(at_the_last_moment, begins)
        answer = await served.http.post(PATH, json=chat(stream=True))
        assert answer.content == ROLE + delta("Hel") + delta("lo") + FINISH + DONE
        assert "hedge" not in answer.headers["x-sluice-route"]
        await plan.calls[1].left.wait()
        await served.until_idle()
        assert served.metric("hedges_total", result="lost") == 1
        assert served.metric("tokens_total", backend="own", direction="completion") - before == 2


async def test_a_plain_answer_is_hedged_too(start_engine: StartEngine) -> None:
    plan = Plan()
    async with taught(start_engine, plan) as served:
        for _ in range(hedging.ENOUGH + MEASURED):
            await served.http.post(PATH, json=chat())
        plan.then(silent, plain)
        answer = await served.http.post(PATH, json=chat())
        assert answer.json() == PLAIN
        await plan.calls[0].left.wait()
        await served.until_idle()
        assert served.metric("hedges_total", result="won") == 1
        answered = TAUGHT + hedging.ENOUGH + MEASURED + 1
        assert served.metric("tokens_total", backend="own", direction="prompt") == 7 * answered


@pytest.mark.parametrize("first", [full, silent])
async def test_the_failure_of_one_leaves_the_other(start_engine: StartEngine, first: Any) -> None:
    """The first one fails while the second is at it, or the second fails and the first goes on."""
    plan = Plan()
    begun = asyncio.Event()

    async def fails_then(call: Call) -> None:
        await begun.wait()
        await full(call)

    async def begins(call: Call) -> None:
        begun.set()
        await asyncio.sleep(0.05)
        await streamed(call)

    async def begins_and_fails(call: Call) -> None:
        begun.set()
        await full(call)

    async def goes_on(call: Call) -> None:
        await begun.wait()
        await asyncio.sleep(0.05)
        await streamed(call)

    async with taught(start_engine, plan) as served:
        plan.then(*((fails_then, begins) if first is full else (goes_on, begins_and_fails)))
        answer = await served.http.post(PATH, json=chat(stream=True))
        assert answer.content.endswith(FINISH + DONE)
        await served.until_idle()
        result = "won" if first is full else "failed"
        assert served.metric("hedges_total", result=result) == 1
        assert len(plan.calls) == 2
        assert served.gateway.router.snapshot().retries == 0
        assert served.metric("upstream_failures_total", backend="own", failure="upstream_unavailable") == 1


async def test_when_both_fail_the_client_gets_one_error(start_engine: StartEngine) -> None:
    plan = Plan()
    begun = asyncio.Event()

    async def fails_then(call: Call) -> None:
        await begun.wait()
        await full(call)

    async def fails_last(call: Call) -> None:
        begun.set()
        await asyncio.sleep(0.05)
        await full(call)

    async with taught(start_engine, plan) as served:
        plan.then(fails_then, fails_last)
        answer = await served.http.post(PATH, json=chat(stream=True))
        assert answer.status_code == 503
        await served.until_idle()
        assert served.metric("upstream_failures_total", backend="own", failure="upstream_unavailable") == 2


async def test_what_is_the_requests_fault_ends_both(start_engine: StartEngine) -> None:
    plan = Plan()
    begun = asyncio.Event()

    async def refuses(call: Call) -> None:
        await begun.wait()
        await refused(call)

    async def begins(call: Call) -> None:
        begun.set()
        await silent(call)

    async with taught(start_engine, plan) as served:
        plan.then(refuses, begins)
        answer = await served.http.post(PATH, json=chat(stream=True))
        assert answer.status_code == 400
        await plan.calls[1].left.wait()
        await served.until_idle()


async def test_a_client_that_leaves_ends_both(start_engine: StartEngine) -> None:
    plan = Plan()
    async with taught(start_engine, plan) as served:
        plan.then(silent, silent)
        asked = asyncio.create_task(served.http.post(PATH, json=chat(stream=True)))
        await eventually(lambda: len(plan.calls) == 2)
        asked.cancel()
        with suppress(asyncio.CancelledError, httpx.HTTPError):
            await asked
        await plan.calls[0].left.wait()
        await plan.calls[1].left.wait()
        await served.until_idle()
        assert served.metric("hedges_total", result="left") == 1


async def test_a_client_that_leaves_in_the_middle_pays_for_what_it_got(start_engine: StartEngine) -> None:
    plan = Plan()

    async def half(call: Call) -> None:
        await call.start_events()
        await call.write(ROLE, delta("half"))
        await call.left.wait()

    async with taught(start_engine, plan) as served:
        before = served.metric("tokens_total", backend="own", direction="completion")
        plan.then(silent, half)
        async with served.http.stream("POST", PATH, json=chat(stream=True)) as answer:
            async for _ in answer.aiter_bytes():
                break
        await plan.calls[1].left.wait()
        await served.until_idle()
        assert served.metric("tokens_total", backend="own", direction="completion") - before == 1


async def test_hedges_end_where_their_budget_does(start_engine: StartEngine) -> None:
    """Two in a hundred: after one in ninety there is none left."""
    plan = Plan()
    async with taught(start_engine, plan) as served:
        plan.then(silent, streamed, after_two_hedges_would_be_due)
        await served.http.post(PATH, json=chat(stream=True))
        await served.http.post(PATH, json=chat(stream=True))
        assert len(plan.calls) == 3
        assert served.metric("hedges_total", result="no_budget") == 1


async def after_two_hedges_would_be_due(call: Call) -> None:
    await asyncio.sleep(3 * hedging.SOONEST_S)
    await streamed(call)


async def test_a_backend_that_may_cost_money_is_asked_once(start_engine: StartEngine) -> None:
    plan = Plan()
    async with taught(start_engine, plan, adapter="openai_compatible") as served:
        plan.then(after_two_hedges_would_be_due, streamed)
        await served.http.post(PATH, json=chat(stream=True))
        assert len(plan.calls) == 1


async def test_no_connection_is_left(start_engine: StartEngine) -> None:
    plan = Plan()
    async with taught(start_engine, plan) as served:
        plan.then(silent, streamed)
        await served.http.post(PATH, json=chat(stream=True))
        await served.until_idle()
        transport = served.gateway._generations.current.fleet.engines[0].transport
        await eventually(lambda: transport.open_connections == transport.idle_connections)


async def cut_off(call: Call) -> None:
    await call.start_events()
    await call.write(ROLE + delta("Hel"))
    await asyncio.sleep(0.02)
    call.reset()


async def the_rest(call: Call) -> None:
    assert call.fields["messages"][-1] == {"role": "assistant", "content": "Hel"}
    await asyncio.sleep(0.6)  # late, if anybody waited for it to be
    await call.stream(ROLE, delta("lo"), FINISH, DONE)


WHOLE = [{"role": "assistant", "content": ""}, {"content": "Hel"}, {"content": "lo"}, {}, "[DONE]"]


def what_was_told(answer: httpx.Response) -> list[Any]:
    """The deltas of a stream."""
    events = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    return [e if e == "[DONE]" else json.loads(e)["choices"][0]["delta"] for e in events]


async def test_an_answer_that_was_hedged_may_be_resumed_and_its_rest_is_not_hedged(
    start_engine: StartEngine,
) -> None:
    plan = Plan()
    async with taught(start_engine, plan) as served:
        before = served.metric("tokens_total", backend="own", direction="completion")
        plan.then(only_a_role, cut_off, the_rest)
        told = what_was_told(await served.http.post(PATH, json=chat(stream=True)))
        await served.until_idle()
        assert served.metric("hedges_total", result="won") == 1
        assert served.metric("resumptions_total", result="completed") == 1
        assert served.metric("tokens_total", backend="own", direction="completion") - before == 2
        assert served.gateway.router.snapshot().outcomes["dispatched"] == TAUGHT + 1
        assert sum(served.metric("hedges_total", result=r) for r in ("lost", "no_room", "no_budget")) == 0
    assert len(plan.calls) == 3
    assert told == WHOLE


async def test_the_first_one_may_be_resumed_where_the_second_was_tried(start_engine: StartEngine) -> None:
    plan = Plan()
    begun = asyncio.Event()

    async def late_and_cut_off(call: Call) -> None:
        await begun.wait()
        await cut_off(call)

    async def begins(call: Call) -> None:
        begun.set()
        await only_a_role(call)

    async with taught(start_engine, plan) as served:
        plan.then(late_and_cut_off, begins, the_rest)
        told = what_was_told(await served.http.post(PATH, json=chat(stream=True)))
        await served.until_idle()
        assert served.metric("hedges_total", result="lost") == 1
        assert served.metric("resumptions_total", result="completed") == 1
    assert len(plan.calls) == 3
    assert told == WHOLE
