"""OpenAI's SDK creates, continues, lists and forgets responses."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.responses import Response, ResponseItemList

from sluice_gateway.errors import Failure, Problem, problem
from sluice_gateway.identity import Key
from sluice_gateway.responses_api.ask import ResponseAsk
from sluice_gateway.responses_api.service import ResponsesService
from sluice_gateway.store.database import Database

from .responses_server import CALLS, HELLO, Engine, piece, service_of, standing, stored

TOOLS: Any = [{"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": False}]
KEY = Key(id="k", tenant="a")


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "input": "hi", **fields}).encode()


async def opened(service: ResponsesService, key: Key = KEY, **fields: Any) -> ResponseAsk:
    ask = await service.open(body(**fields), key)
    assert isinstance(ask, ResponseAsk), ask
    return ask


async def answered(service: ResponsesService, **fields: Any) -> str:
    """Have a response made and kept; its id."""
    ask = await opened(service, **fields)
    ask.translation().whole(Engine().message())
    await ask.conclude()
    return ask.id


async def test_a_response_is_kept_until_it_is_deleted(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand, stand.sdk() as client:
        made = await client.responses.create(model="m", input="hi", metadata={"a": "b"})
        assert made.output_text == "Hello"
        kept = await client.responses.retrieve(made.id)
        assert kept.to_dict() == made.to_dict()
        Response.model_validate_json(kept.to_json(), strict=True)
        await client.responses.delete(made.id)
        with pytest.raises(openai.NotFoundError, match=made.id):
            await client.responses.retrieve(made.id)
        with pytest.raises(openai.NotFoundError):
            await client.responses.delete(made.id)


async def test_a_stream_ends_in_what_is_kept(tmp_path: Path) -> None:
    async with standing(tmp_path, Engine(CALLS)) as stand, stand.sdk() as client:
        async with client.responses.stream(model="m", input="Weather?", tools=TOOLS) as stream:
            events = [event async for event in stream]
            final = await stream.get_final_response()
        kept = await client.responses.retrieve(final.id)
        assert [event.sequence_number for event in events] == [*range(len(events))]
        thoughts, call = kept.output
        assert (thoughts.type, call.type) == ("reasoning", "function_call")
        assert [item["id"] for item in final.to_dict()["output"]] == [thoughts.id, call.id]  # type: ignore[attr-defined]
        snapshots = [e.snapshot for e in events if e.type == "response.function_call_arguments.delta"]
        assert snapshots[-1] == '{"at":"Bern"}'


async def test_a_client_may_continue_as_soon_as_it_sees_the_end(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand, stand.sdk() as client:
        previous = None
        for _ in range(5):
            stream = await client.responses.create(
                model="m", input="go on", stream=True, previous_response_id=previous
            )
            async for event in stream:
                if event.type == "response.completed":
                    previous = event.response.id
                    break
        assert len(stand.engine.asked[-1]["messages"]) == 9


async def test_the_whole_turn_is_replayed_thoughts_calls_and_outputs(tmp_path: Path) -> None:
    async with standing(tmp_path, Engine(CALLS)) as stand, stand.sdk() as client:
        first = await client.responses.create(model="m", input="Weather?", instructions="old", tools=TOOLS)
        stand.engine.chunks = HELLO
        output: Any = {"type": "function_call_output", "call_id": "call_w", "output": "sunny"}
        second = await client.responses.create(model="m", input=[output], previous_response_id=first.id)
        third = await client.responses.create(
            model="m", input="Thanks", instructions="new", previous_response_id=second.id
        )
    assert third.previous_response_id == second.id
    call = {"id": "call_w", "type": "function"}
    function = {"name": "weather", "arguments": '{"at":"Bern"}'}
    thoughts = "I need the weather."
    assert stand.engine.asked[-1]["messages"] == [
        {"role": "system", "content": "new"},
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": thoughts,
            "reasoning": thoughts,
            "tool_calls": [{**call, "function": function}],
        },
        {"role": "tool", "tool_call_id": "call_w", "content": "sunny"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Thanks"},
    ]


async def test_nobody_finds_another_tenants_responses(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand, stand.sdk("a") as mine, stand.sdk("b") as theirs:
        made = await mine.responses.create(model="m", input="secret")
        for attempt in (
            theirs.responses.retrieve(made.id),
            theirs.responses.delete(made.id),
            theirs.responses.cancel(made.id),
            theirs.responses.input_items.list(made.id),
        ):
            with pytest.raises(openai.NotFoundError):
                await attempt
        with pytest.raises(openai.BadRequestError) as caught:
            await theirs.responses.create(model="m", input="x", previous_response_id=made.id)
        assert caught.value.code == "previous_response_not_found"
        reference: Any = {"type": "item_reference", "id": made.output[0].id}
        with pytest.raises(openai.BadRequestError, match="not found"):
            await theirs.responses.create(model="m", input=[reference])
        assert (await mine.responses.retrieve(made.id)).id == made.id
        assert "secret" not in str(stand.engine.asked[1:])


async def test_without_a_key_there_is_nothing(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand, stand.sdk() as client:
        with pytest.raises(openai.AuthenticationError):
            await client.with_options(api_key="").responses.retrieve(
                "resp_1", extra_headers={"Authorization": ""}
            )


async def test_input_items_come_in_pages(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand, stand.sdk() as client:
        image: Any = {"type": "input_image", "image_url": "data:image/png;base64,AA=="}
        given: Any = [
            {"role": "developer", "content": "0"},
            {"role": "user", "content": [{"type": "input_text", "text": "1"}, image]},
            {"role": "assistant", "content": "2"},
            {"role": "user", "content": "3"},
        ]
        made = await client.responses.create(model="m", input=given)
        page = await client.responses.input_items.list(made.id, limit=3, order="asc")
        everything = [item async for item in page]
        newest = await client.responses.input_items.list(made.id, limit=1)
        assert [item.role for item in everything] == ["developer", "user", "assistant", "user"]  # type: ignore[union-attr]
        assert page.has_more
        assert newest.data[0].id == everything[-1].id
        ResponseItemList.model_validate_json(json.dumps({**page.to_dict()}), strict=True)
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.input_items.list(made.id, after="msg_none")
        assert caught.value.param == "after"


async def test_an_item_may_be_sent_by_its_id(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand, stand.sdk() as client:
        made = await client.responses.create(model="m", input="hi")
        reference: Any = {"type": "item_reference", "id": made.output[0].id}
        given: Any = [reference, {"role": "user", "content": "again"}]
        await client.responses.create(model="m", input=given)
    assert stand.engine.asked[-1]["messages"] == [
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "again"},
    ]


async def test_a_history_replayed_without_ids_is_taken(tmp_path: Path) -> None:
    async with standing(tmp_path, Engine(CALLS)) as stand, stand.sdk() as client:
        made = await client.responses.create(model="m", input="Weather?", tools=TOOLS, store=False)
        items: Any = [item.to_dict() for item in made.output]
        for item in items:
            del item["id"], item["status"]
        output: Any = {"type": "function_call_output", "call_id": "call_w", "output": "sunny"}
        stand.engine.chunks = HELLO
        again = await client.responses.create(model="m", input=[*items, output], store=False)
        assert again.output_text == "Hello"
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(again.id)


async def test_tokens_of_the_input_are_counted_history_included(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand, stand.sdk() as client:
        made = await client.responses.create(model="m", input="hi")
        counted = await client.responses.input_tokens.count(
            model="m", input="go on", previous_response_id=made.id
        )
        assert (counted.object, counted.input_tokens) == ("response.input_tokens", 3)


async def test_a_deleted_link_breaks_the_chain_with_its_name(tmp_path: Path) -> None:
    async with stored(tmp_path) as database:
        service = service_of(database)
        first = await answered(service)
        second = await answered(service, previous_response_id=first)
        await service.delete(first, KEY)
        found = await service.open(body(previous_response_id=second), KEY)
        assert isinstance(found, Problem)
        assert (found.status, found.code) == (400, "previous_response_not_found")
        assert first in found.message


async def test_time_forgets_except_what_is_continued(tmp_path: Path) -> None:
    now = [0.0]
    async with stored(tmp_path) as database:
        service = service_of(database, clock=lambda: now[0], ttl_days=1.0)
        kept, forgotten = await answered(service), await answered(service)
        now[0] = 80_000.0
        second = await answered(service, previous_response_id=kept)
        now[0] = 90_000.0
        gone = await service.retrieve(forgotten, KEY)
        assert isinstance(gone, Problem)
        assert gone.status == 404
        third = await opened(service, previous_response_id=second)
        assert third.turn.ancestors == (kept, second)


async def test_what_is_too_large_is_answered_but_not_kept(tmp_path: Path) -> None:
    large = Engine((piece(content="x" * 4096), piece("stop")))
    async with standing(tmp_path, large, max_stored_bytes=2048) as stand, stand.sdk() as client:
        made = await client.responses.create(model="m", input="hi")
        assert len(made.output_text) == 4096
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(made.id)


async def test_without_a_store_answers_go_on_and_continuing_waits(tmp_path: Path) -> None:
    nowhere = Database(f"sqlite:///{tmp_path / 'without_tables.db'}")
    service = service_of(nowhere)
    ask = await opened(service)
    answer = ask.translation().whole(Engine().message())
    await asyncio.wait_for(ask.conclude(), 20)
    assert json.loads(answer)["status"] == "completed"
    for found in (
        await service.open(body(previous_response_id="resp_x"), KEY),
        await service.retrieve(ask.id, KEY),
    ):
        assert isinstance(found, Problem)
        assert (found.status, found.code) == (503, "store_unavailable")
    await nowhere.aclose()


@pytest.mark.parametrize("fields", [{"previous_response_id": "resp_x"}, {"background": True}])
async def test_what_needs_the_store_is_refused_when_it_is_switched_off(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    async with stored(tmp_path) as database:
        service = service_of(database, store=False)
        found = await service.open(body(**fields), KEY)
        assert isinstance(found, Problem)
        assert (found.status, found.code, found.param) == (400, "unsupported_parameter", next(iter(fields)))
        assert json.loads((await opened(service)).translation().whole(Engine().message()))["store"] is False


async def test_an_engine_that_speaks_the_api_gets_the_clients_bytes_where_it_can(tmp_path: Path) -> None:
    async with stored(tmp_path) as database:
        service = service_of(database)
        given = body(input=[{"role": "user", "content": "hi"}], custom=1)
        plain = await service.open(given, KEY)
        assert isinstance(plain, ResponseAsk)
        assert plain.native_translation().body == given
        first = await answered(service)
        second = await opened(service, previous_response_id=first, background=True, custom=1)
        sent = json.loads(second.native_translation().body)
        assert [item["role"] for item in sent.pop("input")] == ["user", "assistant", "user"]
        assert sent == {"model": "m", "custom": 1, "store": False}


async def test_the_facts_count_the_history(tmp_path: Path) -> None:
    async with stored(tmp_path) as database:
        service = service_of(database)
        image = {"type": "input_image", "image_url": "data:,"}
        first = await answered(service, input=[{"role": "user", "content": [image]}])
        ask = await opened(service, previous_response_id=first, tools=TOOLS, max_output_tokens=9)
        assert ask.facts.needs == {"tools", "images"}
        assert ask.facts.max_tokens == 9
        assert ask.facts.prompt_tokens_estimate > 20


async def test_a_plain_request_that_fails_leaves_nothing_and_a_cut_stream_what_there_is(
    tmp_path: Path,
) -> None:
    async with stored(tmp_path) as database:
        service = service_of(database)
        lost, left = problem(Failure.UPSTREAM_LOST, "Lost."), problem(Failure.CLIENT_GONE, "Left.")
        plain = await opened(service)
        plain.translation()
        await plain.conclude(lost)
        assert isinstance(await service.retrieve(plain.id, KEY), Problem)
        for found, status in ((lost, "failed"), (left, "cancelled")):
            cut = await opened(service, stream=True)
            cut.translation().events(piece(content="half"))
            await cut.conclude(found)
            kept = await service.retrieve(cut.id, KEY)
            assert not isinstance(kept, Problem)
            assert kept["status"] == status
            assert kept["output"][0]["content"][0]["text"] == "half"
