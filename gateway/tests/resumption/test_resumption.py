"""What a client sees when the engine of its stream dies: the rest from another one, or one clear error."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from sluice_router.decision_replay import replay

from ..conftest import StartEngine
from ..scripted_engine import Call, event
from ..serving import Served, chat, eventually, serving, settings_of
from .continuing_engine import PROMPT, TEXT, Heart, Told
from .test_cut_anywhere import PATHS, UNLIMITED, replicas

ASK = chat(text=PROMPT, stream=True)
LEGACY = {"model": "m", "prompt": PROMPT, "stream": True, "max_tokens": 50}
LOST_LABELS = {"backend": "main", "failure": "upstream_lost"}
LOST = "The backend 'main' went away before its answer was complete; try again shortly."


def cut_after(heart: Heart, words: int, fields: dict[str, Any] = ASK) -> int:
    """Bytes of a stream's first words, and the role before them in a chat."""
    roles = 1 if "messages" in fields else 0
    return sum(map(len, list(heart.events(fields))[: roles + words]))


@asynccontextmanager
async def two_engines(
    start_engine: StartEngine, heart: Heart, adapter: str = "sglang", **settings: Any
) -> AsyncIterator[Served]:
    urls = [(await start_engine(heart)).url for _ in range(2)]
    settings = {"failover": UNLIMITED, **settings}
    async with serving(settings_of(backends=replicas(*urls, adapter=adapter), **settings)) as served:
        yield served


async def ask(served: Served, fields: dict[str, Any], **headers: str) -> Told:
    path = PATHS["chat" if "messages" in fields else "completions"]
    response = await served.http.post(path, json=fields, headers=headers)
    assert response.status_code == 200, response.text
    return Told(response.content)


def results(served: Served) -> dict[str, float]:
    names = ("completed", "refused", "exhausted", "failed")
    counted = {name: served.metric("resumptions_total", result=name) for name in names}
    return {name: count for name, count in counted.items() if count}


UNSAFE: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (ASK, {"response_format": {"type": "json_object"}}),
    (ASK, {"guided_regex": ".*"}),
    (ASK, {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "required"}),
    (ASK, {"n": 2}),
    (ASK, {"logprobs": True}),
    (ASK, {"frequency_penalty": 0.5}),
    (ASK, {"add_generation_prompt": False}),
    (ASK, {"messages": [*ASK["messages"], {"role": "assistant", "content": "Well,"}]}),
    (ASK, {"stop": [TEXT[4:7] + "!"]}),
    (ASK, {"max_tokens": 1}),
    (ASK, {"n_predict": 50}),
    (ASK, {"a_field_of_tomorrow": 1}),
    (ASK, {"reasoning_effort": "low"}),
    (ASK, {"include_reasoning": False}),
    (LEGACY, {"max_tokens": None}),
    (LEGACY, {"logprobs": 0}),
    (LEGACY, {"best_of": 2}),
    (LEGACY, {"suffix": "the end"}),
    (LEGACY, {"echo": True}),
]


async def test_what_is_unsafe_ends_with_the_failure(start_engine: StartEngine) -> None:
    heart = Heart()
    async with two_engines(start_engine, heart) as served:
        for number, (fields, more) in enumerate(UNSAFE, start=1):
            heart.cuts = [cut_after(heart, 1, fields)]
            told = await ask(served, {**fields, **more})
            assert (told.text, told.done) == ("Größe", 0), more
            assert [error["message"] for error in told.errors] == [LOST]
            assert results(served) == {"refused": number}, more
        await served.until_idle()
    assert len(heart.asked) == len(UNSAFE)


SAID: list[dict[str, Any]] = [
    {"delta": {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}]}},
    {"delta": {"reasoning_content": "Hm."}},
    {"delta": {"content": "second"}, "index": 1},
    {"delta": {"content": "x"}, "logprobs": {"content": []}},
    {"delta": {"content": "</think>"}},
    {"delta": {}, "finish_reason": "stop"},
]


async def test_what_an_engine_said_may_make_it_unsafe(start_engine: StartEngine) -> None:
    asked: list[Any] = []

    async def script(call: Call) -> None:
        asked.append(call.fields)
        await call.start_events()
        for choice in ({"delta": {"content": "Once"}}, SAID[len(asked) - 1]):
            await call.write(event(choices=[{"index": 0, "finish_reason": None, **choice}]))
        await asyncio.sleep(0.01)
        call.reset()

    urls = [(await start_engine(script)).url for _ in range(2)]
    async with serving(settings_of(backends=replicas(*urls), failover=UNLIMITED)) as served:
        for number in range(1, len(SAID) + 1):
            body = (await served.http.post(PATHS["chat"], json=ASK)).content
            assert results(served) == {"refused": number}
            assert body.count(b'"error"') == 1
            assert b"[DONE]" not in body
    assert len(asked) == len(SAID)


async def test_events_of_several_tokens_leave_no_bound_to_be_kept(start_engine: StartEngine) -> None:
    heart = Heart(["several words in an event, ", "and more", "."])
    async with two_engines(start_engine, heart) as served:
        for more, text in (({}, "".join(heart.words)), ({"max_tokens": 50}, heart.words[0])):
            heart.cuts = [cut_after(heart, 1)]
            assert (await ask(served, {**ASK, **more})).text == text


async def test_what_is_no_continuation_is_not_told(start_engine: StartEngine) -> None:
    asked: list[Any] = []
    others = ({"delta": {"reasoning_content": "Hm."}}, {"delta": {"content": "Twice"}, "index": 1})

    async def script(call: Call) -> None:
        asked.append(call.fields)
        await call.start_events()
        if len(asked) % 2:
            await call.write(
                event(choices=[{"index": 0, "delta": {"content": "Once"}, "finish_reason": None}])
            )
            await asyncio.sleep(0.01)
            call.reset()
        else:
            await call.write(
                event(choices=[{"index": 0, "finish_reason": None, **others[len(asked) // 2 - 1]}])
            )
            await call.left.wait()

    urls = [(await start_engine(script)).url for _ in range(2)]
    async with serving(settings_of(backends=replicas(*urls), failover=UNLIMITED)) as served:
        for number in (1, 2):
            body = (await served.http.post(PATHS["chat"], json=ASK)).text
            assert (body.count("Once"), body.count(LOST), body.count("data: ")) == (1, 1, 2)
            assert results(served) == {"failed": number}
        await served.until_idle()
        assert sum(r.failures for r in served.gateway.router.snapshot().replicas) == 2
    assert len(asked) == 4


async def test_what_could_not_be_translated_is_not_gone_on_with(start_engine: StartEngine) -> None:
    heart = Heart()
    calls: list[Call] = []

    async def script(call: Call) -> None:
        calls.append(call)
        events = list(heart.events(call.fields))
        await call.start_events()
        await call.write(b"".join(events[:2]))
        await asyncio.sleep(0.05)
        await call.write(events[2] + event(choices=[], usage="odd"))
        await call.left.wait()

    urls = [(await start_engine(script)).url for _ in range(2)]
    async with serving(settings_of(backends=replicas(*urls), failover=UNLIMITED)) as served:
        fields = {"model": "m", "stream": True, "max_tokens": 50}
        fields["messages"] = [{"role": "user", "content": PROMPT}]
        body = (await served.http.post("/v1/messages", json=fields)).text
        assert results(served) == {"refused": 1}
    assert "is not usable" in body
    assert len(calls) == 1


async def test_tools_that_are_merely_there_are_no_obstacle(start_engine: StartEngine) -> None:
    heart = Heart()
    heart.cuts = [cut_after(heart, 2)]
    tools = [{"type": "function", "function": {"name": "f"}}]
    async with two_engines(start_engine, heart) as served:
        assert (await ask(served, {**ASK, "tools": tools})).text == TEXT


@pytest.mark.parametrize(
    ("adapter", "words", "text"),
    [
        ("sglang", 2, TEXT),
        ("worker", 2, TEXT),
        ("vllm", 2, 'Größe "a"\n'),  # which ends with white space
        ("vllm", 1, TEXT),
        ("llamacpp", 1, TEXT),
        ("trt", 1, "Größe"),
        ("openai_compatible", 1, "Größe"),
    ],
)
async def test_a_chat_goes_on_at_engines_that_can(
    start_engine: StartEngine, adapter: str, words: int, text: str
) -> None:
    heart = Heart()
    heart.cuts = [cut_after(heart, words)]
    async with two_engines(start_engine, heart, adapter) as served:
        told = await ask(served, ASK)
        assert results(served) == ({"completed": 1} if text == TEXT else {"exhausted": 1})
    assert told.text == text
    assert bool(told.errors) is (text != TEXT)


async def test_a_completion_goes_on_at_any_engine(start_engine: StartEngine) -> None:
    heart = Heart()
    heart.cuts = [cut_after(heart, 2, LEGACY)]
    async with two_engines(start_engine, heart, "openai_compatible") as served:
        assert (await ask(served, LEGACY)).text == TEXT


async def test_an_error_event_that_may_be_retried_is_a_cut_and_others_are_not(
    start_engine: StartEngine,
) -> None:
    heart = Heart()
    async with two_engines(start_engine, heart) as served:
        for code, text in ((503, TEXT), (500, "Größe")):
            heart.cuts, heart.error = [cut_after(heart, 1)], event(error={"message": "no", "code": code})
            told = await ask(served, ASK)
            assert (told.text, bool(told.errors)) == (text, text != TEXT)
        assert results(served) == {"completed": 1}


async def test_stop_strings_end_the_whole_as_they_would_have(start_engine: StartEngine) -> None:
    heart = Heart()
    async with two_engines(start_engine, heart) as served:
        for stop in (TEXT[8:12], TEXT[3:5], TEXT[-3:-1], TEXT[1:3]):
            fields = {**ASK, "stop": [stop]}
            events = list(heart.events(fields))
            uncut = await ask(served, fields)
            assert uncut.text == TEXT[: TEXT.index(stop)]
            for count in range(1, len(events) - 2):
                heart.cuts = [sum(map(len, events[:count]))]
                told = await ask(served, fields)
                assert (told.text, told.reasons, told.done) == (uncut.text, uncut.reasons, 1), (stop, count)


async def test_a_bound_on_the_answer_is_kept_and_one_charge_made(start_engine: StartEngine) -> None:
    heart = Heart()
    fields = {**ASK, "max_tokens": 5, "stream_options": {"include_usage": True}}
    heart.cuts = [cut_after(heart, 2)]
    prices = {"models": {"m": {"input": 1e6, "output": 1e6}}}
    async with two_engines(start_engine, heart, prices=prices) as served:
        told = await ask(served, fields)
        await served.until_idle()
        written = served.metric("tokens_total", backend="main", direction="completion")
        read = served.metric("tokens_total", backend="main", direction="prompt")
        assert served.metric("requests_total", kind="chat", backend="main", outcome="ok") == 1
        assert served.metric("cost_total", backend="main") == 8
    assert (told.text, told.reasons) == ("".join(heart.words[:5]), ["length"])
    assert told.usages == [{"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}]
    assert (read, written) == (3, 5)


async def test_a_usage_that_was_not_asked_for_is_not_told_but_counted(start_engine: StartEngine) -> None:
    heart = Heart()
    heart.cuts = [cut_after(heart, 2)]
    async with two_engines(start_engine, heart) as served:
        told = await ask(served, ASK)
        await served.until_idle()
        assert served.metric("tokens_total", backend="main", direction="completion") == len(heart.words)
        assert served.metric("tokens_total", backend="main", direction="prompt") == 3
    assert told.usages == []


async def test_it_can_be_switched_off(start_engine: StartEngine) -> None:
    heart = Heart()
    heart.cuts = [cut_after(heart, 2)]
    async with two_engines(start_engine, heart, failover={"resume_streams": False}) as served:
        told = await ask(served, ASK)
        assert results(served) == {}
    assert (len(heart.asked), [e["message"] for e in told.errors]) == (1, [LOST])


async def test_an_engine_can_be_left_out(start_engine: StartEngine) -> None:
    heart = Heart()
    urls = [(await start_engine(heart)).url for _ in range(2)]
    backends = replicas(*urls, resuming=False)
    async with serving(settings_of(backends=backends, failover=UNLIMITED)) as served:
        for number, fields in enumerate((ASK, LEGACY), start=1):
            heart.cuts = [cut_after(heart, 2, fields)]
            assert (await ask(served, fields)).errors
            assert results(served) == {"exhausted": number}


async def test_its_decisions_are_written_down_and_decided_again(
    start_engine: StartEngine, tmp_path: Path
) -> None:
    heart = Heart()
    log = {"folder": str(tmp_path / "log")}
    async with two_engines(start_engine, heart, decision_log=log) as served:
        for words in (1, 2, 3):
            heart.cuts = [cut_after(heart, words)]
            assert (await ask(served, ASK)).text == TEXT
    [file] = (tmp_path / "log").glob("decisions-*.jsonl")
    lines = file.read_bytes().splitlines(keepends=True)
    assert sum(b'"name":"resume"' in line for line in lines) == 3
    assert replay(lines).difference is None
    assert not any(b"Gr\xc3\xb6" in line for line in lines)


async def test_both_engines_die(start_engine: StartEngine) -> None:
    heart = Heart()
    heart.cuts = [cut_after(heart, 1), cut_after(heart, 2)]
    async with two_engines(start_engine, heart) as served:
        told = await ask(served, ASK)
        await served.until_idle()
        assert results(served) == {"exhausted": 1}
        assert served.metric("tokens_total", backend="main", direction="completion") == 3
    assert told.text == "".join(heart.words[:3])
    assert ([e["message"] for e in told.errors], told.done) == ([LOST], 0)


async def test_the_attempts_and_the_budget_bound_it(start_engine: StartEngine) -> None:
    for failover in ({"max_attempts": 1}, {"retry_budget": 0.0}):
        heart = Heart()
        async with two_engines(
            start_engine, heart, failover={"breaker_failures": 1000, **failover}
        ) as served:
            for _ in range(25):  # a few are allowed whatever the budget
                heart.cuts = [cut_after(heart, 1)]
                told = await ask(served, ASK)
            assert told.errors
            assert results(served)["exhausted"] > 0


async def test_a_refused_continuation_is_not_the_clients_mistake(start_engine: StartEngine) -> None:
    heart = Heart()
    heart.cuts = [cut_after(heart, 1)]

    async def script(call: Call) -> None:
        if call.fields.get("continue_final_message"):
            await call.answer(400, {"error": {"message": "what is that?", "param": "messages"}})
        else:
            await heart(call)

    urls = [(await start_engine(script)).url for _ in range(2)]
    async with serving(settings_of(backends=replicas(*urls))) as served:
        told = await ask(served, ASK)
        assert results(served) == {"failed": 1}
    assert [e["message"] for e in told.errors] == [LOST]


async def test_the_time_for_the_whole_answer_bounds_it(start_engine: StartEngine) -> None:
    async def script(call: Call) -> None:
        await call.start_events()
        await call.write(event(choices=[{"index": 0, "delta": {"content": "Once"}, "finish_reason": None}]))
        if len(calls := call.fields["messages"]) > 1:
            assert calls[-1]["content"] == "Once"
            await call.left.wait()
        else:
            await asyncio.sleep(0.3)
            call.reset()

    urls = [(await start_engine(script)).url for _ in range(2)]
    settings = settings_of(backends=replicas(*urls), timeouts={"total_s": 0.8})
    async with serving(settings) as served:
        body = (await served.http.post(PATHS["chat"], json=ASK)).text
        assert results(served) == {"failed": 1}
    assert body.count("Once") == 2
    limit_s = float(body.split(" deadline of ")[1].split(" s ")[0])
    assert 0 < limit_s <= 0.5


async def test_a_client_that_leaves_meanwhile_frees_everything(start_engine: StartEngine) -> None:
    heart = Heart()
    heart.cuts = [cut_after(heart, 2)]
    lost = asyncio.Event()

    async def script(call: Call) -> None:
        if call.fields.get("continue_final_message"):
            await call.left.wait()
            lost.set()
        else:
            await heart(call)

    urls = [(await start_engine(script)).url for _ in range(2)]
    async with serving(settings_of(backends=replicas(*urls))) as served:
        async with (
            httpx.AsyncClient(base_url=served.url) as client,
            client.stream("POST", PATHS["chat"], json=ASK),
        ):
            await eventually(lambda: served.metric("upstream_failures_total", **LOST_LABELS) == 1)
            await eventually(lambda: served.occupied == 1)
        async with asyncio.timeout(20):
            await lost.wait()
        await served.until_idle()
        assert results(served) == {}


async def test_a_begun_message_of_the_client_is_gone_on_with(start_engine: StartEngine) -> None:
    heart = Heart()
    begun = heart.words[0]
    fields = {
        **ASK,
        "messages": [*ASK["messages"], {"role": "assistant", "content": begun}],
        "continue_final_message": True,
        "add_generation_prompt": False,
    }
    heart.cuts = [cut_after(heart, 2, fields)]
    async with two_engines(start_engine, heart) as served:
        told = await ask(served, fields)
        assert results(served) == {"completed": 1}
    assert begun + told.text == TEXT


async def test_the_same_model_under_an_alias(start_engine: StartEngine) -> None:
    heart = Heart()
    heart.cuts = [cut_after(heart, 2)]
    aliases = {"best": [{"model": "m"}, {"model": "other"}]}
    async with two_engines(start_engine, heart, aliases=aliases) as served:
        told = await ask(served, {**ASK, "model": "best"})
    assert told.text == TEXT
    assert [asked["model"] for asked in heart.asked] == ["m", "m"]


async def test_another_quantization_is_another_model(start_engine: StartEngine) -> None:
    heart = Heart()
    heart.cuts = [cut_after(heart, 1)]
    names = ("none", "awq")
    backends = [
        {**replicas((await start_engine(heart)).url)[0], "name": name, "quant": name} for name in names
    ]
    async with serving(settings_of(backends=backends)) as served:
        assert (await ask(served, ASK)).errors
        assert results(served) == {"exhausted": 1}


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses"])
async def test_dialects_that_are_translated_go_on_as_well(start_engine: StartEngine, path: str) -> None:
    heart = Heart()
    fields: dict[str, Any] = {"model": "m", "stream": True}
    if path == "/v1/messages":
        fields |= {"max_tokens": 50, "messages": [{"role": "user", "content": PROMPT}]}
    else:
        fields |= {"input": PROMPT, "store": False}
    async with two_engines(start_engine, heart) as served:
        uncut = await _events(served, path, fields)
        for words in range(1, len(heart.words)):
            heart.cuts = [cut_after(heart, words)]
            assert await _events(served, path, fields) == uncut, words
        assert results(served) == {"completed": len(heart.words) - 1}
    deltas = [e["delta"] for e in uncut if "delta" in e]
    assert "".join(d if isinstance(d, str) else d.get("text", "") for d in deltas) == TEXT


async def _events(served: Served, path: str, fields: dict[str, Any]) -> list[dict[str, Any]]:
    """Without what is new in each answer: ids and times."""
    body = (await served.http.post(path, json=fields)).text
    events = [json.loads(line[6:]) for line in body.splitlines() if line.startswith("data: {")]
    plain: list[dict[str, Any]] = json.loads(json.dumps(events), object_hook=_without_ids)
    return plain


def _without_ids(fields: dict[str, Any]) -> dict[str, Any]:
    new = ("id", "item_id", "created_at", "completed_at")
    return {name: value for name, value in fields.items() if name not in new}
