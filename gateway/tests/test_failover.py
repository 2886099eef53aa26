"""Another engine takes over while nothing has been said, and never after."""

from __future__ import annotations

import pytest

from .conftest import StartEngine
from .scripted_engine import DONE, FINISH, ROLE, Call, Script, delta, event, plain, streamed
from .serving import chat, serving, settings_of


def replicas(*urls: str) -> list[dict[str, object]]:
    return [{"name": "main", "adapter": "openai_compatible", "url": urls}]


async def overloaded(call: Call) -> None:
    await call.answer(503, {"error": {"message": "later"}})


async def lost(call: Call) -> None:
    call.reset()


async def lost_in_the_body(call: Call) -> None:
    await call.promise(500, b"{")
    call.reset()


async def lost_before_an_event(call: Call) -> None:
    await call.start_events()
    await call.write(b": thinking\n\n")
    call.reset()


async def error_first(call: Call) -> None:
    await call.stream(event(error={"message": "no room", "code": 503}))


@pytest.mark.parametrize(
    ("bad", "stream"),
    [
        (overloaded, False),
        (overloaded, True),
        (lost, False),
        (lost, True),
        (lost_in_the_body, False),
        (lost_before_an_event, True),
        (error_first, True),
    ],
)
async def test_a_failure_before_the_first_byte_is_repaired(
    start_engine: StartEngine, bad: Script, stream: bool
) -> None:
    broken, sound = await start_engine(bad), await start_engine(streamed if stream else plain)
    async with serving(settings_of(backends=replicas(broken.url, sound.url))) as served:
        await served.until_idle()
        answers = [await served.http.post("/v1/chat/completions", json=chat(stream=stream)) for _ in range(4)]
        await served.until_idle()
    assert [answer.status_code for answer in answers] == [200] * 4
    assert all(b"error" not in answer.content for answer in answers)
    assert broken.calls
    assert len(sound.calls) == 4


async def test_a_dead_engine_costs_one_attempt_not_one_per_request(start_engine: StartEngine) -> None:
    dying, sound = await start_engine(plain), await start_engine(plain)
    slow_probes = {"interval_s": 60, "timeout_s": 1}
    settings = settings_of(backends=replicas(dying.url, sound.url), health=slow_probes)
    async with serving(settings) as served:
        await served.http.get("/ready")
        await dying.stop()
        for _ in range(6):
            answer = await served.http.post("/v1/chat/completions", json=chat())
            assert answer.status_code == 200
        failures = served.metric("upstream_failures_total", backend="main", failure="upstream_connect")
    assert failures <= 1


async def test_the_engines_fault_is_told_when_no_other_is_left(start_engine: StartEngine) -> None:
    first, second = await start_engine(overloaded), await start_engine(overloaded)
    async with serving(settings_of(backends=replicas(first.url, second.url))) as served:
        answer = await served.http.post("/v1/chat/completions", json=chat())
    assert answer.status_code == 503
    assert answer.json()["error"]["message"] == "later"
    assert len(first.calls) + len(second.calls) == 2


async def test_what_is_the_requests_fault_is_not_tried_again(start_engine: StartEngine) -> None:
    async def refuse(call: Call) -> None:
        await call.answer(400, {"error": {"message": "no", "param": "temperature"}})

    first, second = await start_engine(refuse), await start_engine(refuse)
    async with serving(settings_of(backends=replicas(first.url, second.url))) as served:
        answer = await served.http.post("/v1/chat/completions", json=chat())
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "temperature")
    assert len(first.calls) + len(second.calls) == 1


async def test_after_the_first_byte_no_second_engine_is_asked(start_engine: StartEngine) -> None:
    async def half(call: Call) -> None:
        await call.stream(ROLE, delta("half"))

    first, second = await start_engine(half), await start_engine(half)
    async with serving(settings_of(backends=replicas(first.url, second.url))) as served:
        body = (await served.http.post("/v1/chat/completions", json=chat(stream=True))).content
    assert len(first.calls) + len(second.calls) == 1
    assert body.startswith(ROLE + delta("half") + b'data: {"error"')


async def test_a_model_that_two_backends_have_moves_between_them(start_engine: StartEngine) -> None:
    async def whole(call: Call) -> None:
        await call.stream(delta("x"), FINISH, DONE)

    broken, sound = await start_engine(lost), await start_engine(whole)
    backends = [
        {"name": "one", "adapter": "openai_compatible", "url": broken.url},
        {"name": "two", "adapter": "openai_compatible", "url": sound.url},
    ]
    async with serving(settings_of(backends=backends)) as served:
        await served.http.get("/ready")
        answers = [await served.http.post("/v1/chat/completions", json=chat(stream=True)) for _ in range(3)]
        chosen = await served.http.post(
            "/v1/chat/completions", json=chat(stream=True), headers={"x-backend": "one"}
        )
    assert {answer.headers["x-sluice-backend"] for answer in answers} == {"two"}
    assert chosen.status_code in (502, 503)
