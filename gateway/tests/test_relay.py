"""What the engine sends is what the client gets, and what fails is said honestly."""

from __future__ import annotations

import asyncio
import json

import pytest

from .conftest import StartEngine
from .scripted_engine import (
    DONE,
    FINISH,
    KEEP_ALIVE,
    PLAIN,
    ROLE,
    USAGE,
    Call,
    ScriptedEngine,
    delta,
    event,
    plain,
    streamed,
)
from .serving import Served, chat, eventually, serving, settings_of

ERROR_KEYS = {"message", "type", "param", "code"}


def backend(engine: ScriptedEngine, **more: object) -> dict[str, object]:
    return {"name": "main", "adapter": "openai_compatible", "url": engine.url, **more}


async def post(served: Served, **more: object) -> bytes:
    answer = await served.http.post("/v1/chat/completions", json=chat(**more))
    return answer.content


async def test_a_stream_is_the_engines_bytes_without_the_usage_that_was_not_asked_for(
    start_engine: StartEngine,
) -> None:
    engine = await start_engine(streamed)
    async with serving(settings_of(backends=[backend(engine)])) as served:
        body = await post(served, stream=True)
        await served.until_idle()
    assert engine.calls[0].fields["stream_options"] == {"include_usage": True}
    assert body == ROLE + delta("Hel") + delta("lo") + FINISH + DONE
    assert served.metric("tokens_total", backend="main", direction="completion") == 2
    assert served.metric("tokens_total", backend="main", direction="prompt") == 7


async def test_a_client_that_asks_for_usage_gets_every_byte(start_engine: StartEngine) -> None:
    engine = await start_engine(streamed)
    async with serving(settings_of(backends=[backend(engine)])) as served:
        body = await post(served, stream=True, stream_options={"include_usage": True})
    assert body == ROLE + delta("Hel") + delta("lo") + FINISH + USAGE + DONE


async def test_usage_is_not_injected_where_it_is_switched_off(start_engine: StartEngine) -> None:
    engine = await start_engine(streamed)
    async with serving(settings_of(backends=[backend(engine, inject_usage=False)])) as served:
        await post(served, stream=True)
    assert "stream_options" not in engine.calls[0].fields
    assert served.metric("tokens_total", backend="main", direction="completion") == 2


@pytest.mark.parametrize("upstream", ["native", "httpx"])
async def test_events_cut_anywhere_arrive_whole(start_engine: StartEngine, upstream: str) -> None:
    wire = KEEP_ALIVE + ROLE + delta("Grüße ☀") + FINISH + USAGE + DONE

    async def byte_by_byte(call: Call) -> None:
        await call.stream(*(wire[i : i + 3] for i in range(0, len(wire), 3)))

    engine = await start_engine(byte_by_byte)
    async with serving(settings_of(backends=[backend(engine, upstream=upstream)])) as served:
        assert await post(served, stream=True) == KEEP_ALIVE + ROLE + delta("Grüße ☀") + FINISH + DONE


async def test_unknown_fields_and_odd_events_survive(start_engine: StartEngine) -> None:
    odd = b"event: note\r\nid: 4\r\ndata: not json\r\n\r\n" + event(choices=[], x_engine={"deep": [1]})

    async def script(call: Call) -> None:
        await call.stream(odd, delta("x"), FINISH, DONE)

    engine = await start_engine(script)
    async with serving(settings_of(backends=[backend(engine)])) as served:
        assert await post(served, stream=True) == odd + delta("x") + FINISH + DONE


async def test_each_event_goes_out_when_it_comes(start_engine: StartEngine) -> None:
    go_on = asyncio.Event()

    async def script(call: Call) -> None:
        await call.start_events()
        await call.write(ROLE, delta("first"))
        await go_on.wait()
        await call.write(FINISH, DONE)
        await call.end()

    engine = await start_engine(script)
    async with serving(settings_of(backends=[backend(engine)])) as served:
        request = served.http.stream("POST", "/v1/chat/completions", json=chat(stream=True))
        async with request as answer:
            pieces = answer.aiter_raw()
            seen = b""
            while b"first" not in seen:
                seen += await anext(pieces)
            go_on.set()
            seen += b"".join([piece async for piece in pieces])
    assert seen == ROLE + delta("first") + FINISH + DONE


async def test_a_plain_answer_is_the_engines_bytes(start_engine: StartEngine) -> None:
    engine = await start_engine(plain)
    async with serving(settings_of(backends=[backend(engine)])) as served:
        answer = await served.http.post("/v1/chat/completions", json=chat())
    assert answer.content == json.dumps(PLAIN).encode()
    assert answer.headers["x-sluice-backend"] == "main"
    assert answer.headers["openai-version"] == "2020-10-01"
    assert int(answer.headers["openai-processing-ms"]) >= 0
    assert served.metric("tokens_total", backend="main", direction="completion") == 1


async def test_the_clients_bytes_reach_the_engine_untouched(start_engine: StartEngine) -> None:
    raw = b'{ "x_new" : 1e0, "model":"m","messages":[{"role":"user","content":"\\u00e9"}] }'
    engine = await start_engine(plain)
    async with serving(settings_of(backends=[backend(engine)])) as served:
        await served.http.post("/v1/chat/completions", content=raw)
    assert engine.calls[0].body == raw


async def test_credentials_stay_here_and_trace_context_goes_on(start_engine: StartEngine) -> None:
    engine = await start_engine(plain)
    keyed = backend(engine, api_key_env="ENGINE_KEY")
    headers = {"authorization": "Bearer sk-client", "traceparent": "00-1-2-01", "x-request-id": "abc"}
    async with serving(settings_of(backends=[keyed]), {"ENGINE_KEY": "sk-engine"}) as served:
        answer = await served.http.post("/v1/chat/completions", json=chat(), headers=headers)
    seen = engine.calls[0].headers
    assert (seen["authorization"], seen["traceparent"]) == ("Bearer sk-engine", "00-1-2-01")
    assert seen["x-request-id"] == answer.headers["x-request-id"] == "abc"


async def test_a_large_plain_answer_is_passed_on_as_it_comes(start_engine: StartEngine) -> None:
    large = {**PLAIN, "padding": "x" * 3_000_000}
    large["usage"] = large.pop("usage")

    async def script(call: Call) -> None:
        await call.answer(200, large)

    engine = await start_engine(script)
    async with serving(settings_of(backends=[backend(engine)])) as served:
        assert json.loads(await post(served)) == large
        await served.until_idle()
    assert served.metric("tokens_total", backend="main", direction="prompt") == 7


# Failures before the first byte: a real status


async def test_an_error_as_first_event_becomes_a_status(start_engine: StartEngine) -> None:
    async def script(call: Call) -> None:
        await call.stream(KEEP_ALIVE, event(error={"message": "too long", "type": "invalid_request_error"}))

    engine = await start_engine(script)
    async with serving(settings_of(backends=[backend(engine)])) as served:
        answer = await served.http.post("/v1/chat/completions", json=chat(stream=True))
    assert answer.status_code == 400
    assert set(answer.json()["error"]) == ERROR_KEYS
    assert answer.json()["error"]["message"] == "too long"


@pytest.mark.parametrize(
    ("status", "body", "expected", "code"),
    [
        (400, {"error": {"message": "m", "code": "context_length_exceeded"}}, 400, "context_length_exceeded"),
        (400, {"error": {"message": "m", "code": 400}}, 400, None),
        (422, {"detail": [{"msg": "bad"}]}, 400, None),
        (404, {"error": {"message": "m", "code": "model_not_found"}}, 404, "model_not_found"),
        (404, b"<html>", 502, "engine_unavailable"),
        (401, {"error": "who?"}, 502, "engine_unavailable"),
        (429, {"error": {"message": "slow down"}}, 429, "overloaded"),
        (500, b"Traceback", 500, None),
        (503, {"error": {"message": "later"}}, 503, "overloaded"),
        (529, {}, 503, "overloaded"),
    ],
)
async def test_an_engines_status_is_worded_as_openai_does(
    start_engine: StartEngine, status: int, body: object, expected: int, code: str | None
) -> None:
    async def script(call: Call) -> None:
        await call.answer(status, body)

    engine = await start_engine(script)
    async with serving(settings_of(backends=[backend(engine)])) as served:
        answer = await served.http.post("/v1/chat/completions", json=chat())
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (expected, code)
    assert set(error) == ERROR_KEYS
    assert error["message"]
    assert "Traceback" not in error["message"]
    assert ("retry-after" in answer.headers) == (expected in (429, 502, 503))


async def test_an_error_inside_a_200_is_an_error(start_engine: StartEngine) -> None:
    async def script(call: Call) -> None:
        await call.answer(200, {"error": {"message": "no", "code": 429}})

    engine = await start_engine(script)
    async with serving(settings_of(backends=[backend(engine)])) as served:
        answer = await served.http.post("/v1/chat/completions", json=chat())
    assert answer.status_code == 429


async def test_a_plain_answer_lost_in_the_middle_is_a_status(start_engine: StartEngine) -> None:
    async def script(call: Call) -> None:
        await call.promise(1000, b'{"id": ')
        call.reset()

    engine = await start_engine(script)
    async with serving(settings_of(backends=[backend(engine)])) as served:
        answer = await served.http.post("/v1/chat/completions", json=chat())
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "engine_unavailable")


# Failures after the first byte: one error event, no [DONE]


def ends_with_error(body: bytes, before: bytes) -> bool:
    error = body.removeprefix(before)
    assert error.startswith(b"data: ")
    assert set(json.loads(error[6:])["error"]) == ERROR_KEYS
    return body.startswith(before) and error.count(b"data:") == 1 and b"[DONE]" not in body


async def test_a_stream_that_breaks_ends_with_one_error_event(start_engine: StartEngine) -> None:
    async def script(call: Call) -> None:
        await call.start_events()
        await call.write(ROLE, delta("half"), b'data: {"choi')
        await asyncio.sleep(0.05)
        call.reset()

    engine = await start_engine(script)
    async with serving(settings_of(backends=[backend(engine)])) as served:
        body = await post(served, stream=True)
        await served.until_idle()
    assert ends_with_error(body, ROLE + delta("half"))
    assert served.metric("tokens_total", backend="main", direction="completion") == 1
    assert served.metric("requests_total", kind="chat", backend="main", outcome="upstream_lost") == 1


async def test_a_stream_that_just_stops_ends_with_one_error_event(start_engine: StartEngine) -> None:
    async def script(call: Call) -> None:
        await call.stream(ROLE, delta("half"))

    engine = await start_engine(script)
    async with serving(settings_of(backends=[backend(engine)])) as served:
        assert ends_with_error(await post(served, stream=True), ROLE + delta("half"))


async def test_an_engines_error_event_is_reworded_and_ends_the_stream(start_engine: StartEngine) -> None:
    async def failing(call: Call) -> None:
        await call.start_events()
        await call.write(ROLE + delta("x"))
        await asyncio.sleep(0.02)
        await call.write(event(error={"message": "out of memory", "code": 500}), DONE)
        await call.end()

    engine = await start_engine(failing)
    async with serving(settings_of(backends=[backend(engine)])) as served:
        body = await post(served, stream=True)
    assert ends_with_error(body, ROLE + delta("x"))
    assert b"out of memory" in body


async def test_a_finish_reason_without_done_is_an_end(start_engine: StartEngine) -> None:
    async def script(call: Call) -> None:
        await call.stream(delta("x"), FINISH)

    engine = await start_engine(script)
    async with serving(settings_of(backends=[backend(engine)])) as served:
        assert await post(served, stream=True) == delta("x") + FINISH


# Deadlines


async def test_comments_do_not_count_as_a_first_token(start_engine: StartEngine) -> None:
    async def script(call: Call) -> None:
        await call.start_events()
        while not call.left.is_set():
            await call.write(KEEP_ALIVE)
            await asyncio.sleep(0.01)

    engine = await start_engine(script)
    timeouts = {"first_token_s": 0.2}
    async with serving(settings_of(backends=[backend(engine)], timeouts=timeouts)) as served:
        answer = await served.http.post("/v1/chat/completions", json=chat(stream=True))
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")


@pytest.mark.parametrize("query", ["", "?through=asgi"])
async def test_a_long_wait_for_the_first_token_is_bridged_with_comments(
    start_engine: StartEngine, query: str
) -> None:
    heard = asyncio.Event()

    async def script(call: Call) -> None:
        await heard.wait()
        await call.answer(500, {"error": {"message": "broken"}})

    engine = await start_engine(script)
    timeouts = {"hold_status_s": 0.05, "keep_alive_s": 0.05}
    async with serving(settings_of(backends=[backend(engine)], timeouts=timeouts)) as served:
        path = f"/v1/chat/completions{query}"
        async with served.http.stream("POST", path, json=chat(stream=True)) as answer:
            assert answer.status_code == 200
            received = b""
            async for chunk in answer.aiter_raw():
                received += chunk
                if received == KEEP_ALIVE * 3:
                    heard.set()
    comments, _, rest = received.rpartition(KEEP_ALIVE)
    assert set(comments.split(KEEP_ALIVE)) == {b""}
    assert ends_with_error(rest, b"")


async def test_comments_do_not_stand_in_the_way_of_another_engine(start_engine: StartEngine) -> None:
    async def hangs_up_late(call: Call) -> None:
        await asyncio.sleep(0.15)
        call.reset()

    first, second = await start_engine(hangs_up_late), await start_engine(streamed)
    settings = settings_of(
        backends=[{**backend(first), "url": [first.url, second.url]}],
        timeouts={"hold_status_s": 0.05, "keep_alive_s": 10},
    )
    async with serving(settings) as served:
        received = {await post(served, stream=True) for _ in range(2)}
    assert KEEP_ALIVE + ROLE + delta("Hel") + delta("lo") + FINISH + DONE in received


async def test_a_stream_that_stalls_ends_with_an_error(start_engine: StartEngine) -> None:
    async def script(call: Call) -> None:
        await call.start_events()
        await call.write(delta("x"))
        await call.left.wait()

    engine = await start_engine(script)
    async with serving(settings_of(backends=[backend(engine)], timeouts={"idle_s": 0.1})) as served:
        body = await post(served, stream=True)
        await eventually(engine.calls[0].left.is_set)
    assert ends_with_error(body, delta("x"))
    assert b'"code":"timeout"' in body
