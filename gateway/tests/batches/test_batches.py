"""`/v1/batches` as OpenAI's SDK sees it, over real sockets; a script answers the requests in them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types import Batch

from sluice_gateway.batches.creation import new_batch
from sluice_gateway.batches.runner_types import CollectedAnswer
from sluice_gateway.errors import Problem
from sluice_gateway.identity import Key

from ..serving import eventually
from .batch_server import ScriptedRunner, batch_server, jsonl, ok, refusal, results

ENDED = ("completed", "failed", "expired", "cancelled")


async def test_every_request_gets_its_answer(tmp_path: Path) -> None:
    async with batch_server(tmp_path) as at, at.client() as client:
        made = await at.batch(client, ["one", "two", "three"], metadata={"night": "7"})
        assert (made.status, made.metadata) == ("validating", {"night": "7"})
        assert made.expires_at == made.created_at + 86_400
        done = await at.until(client, made.id, *ENDED)
        assert (done.status, done.error_file_id, done.model, done.errors) == ("completed", None, "m", None)
        assert done.request_counts.model_dump() == {"total": 3, "completed": 3, "failed": 0}
        assert done.in_progress_at and done.finalizing_at and done.completed_at
        assert (done.usage.input_tokens, done.usage.output_tokens, done.usage.total_tokens) == (9, 3, 12)
        Batch.model_validate(done.model_dump())
        lines = await results(client, done.output_file_id)
        assert {name: _said(line) for name, line in lines.items()} == {
            "id-one": "one",
            "id-two": "two",
            "id-three": "three",
        }
        line = lines["id-one"]
        assert set(line) == {"id", "custom_id", "response", "error"}
        assert line["error"] is None
        assert set(line["response"]) == {"status_code", "request_id", "body"}
        output = await client.files.retrieve(done.output_file_id)
        assert (output.purpose, output.filename) == ("batch_output", f"{done.id}_output.jsonl")
        assert {call[1:] for call in at.runner.calls} == {("/v1/chat/completions", "a", "bulk")}
        assert list((tmp_path / "files" / "progress").iterdir()) == []


def _said(line: dict[str, Any]) -> str:
    return str(line["response"]["body"]["choices"][0]["message"]["content"])


async def test_a_request_that_failed_is_in_the_error_file(tmp_path: Path) -> None:
    async def answer(fields: dict[str, Any]) -> CollectedAnswer:
        text = fields["messages"][0]["content"]
        if text == "crash":
            raise RuntimeError("a bug")
        strange = CollectedAnswer(status=200, body=b"<html>")
        return {"bad": refusal(400), "html": strange}.get(text) or ok(text)

    async with batch_server(tmp_path, ScriptedRunner(answer)) as at, at.client() as client:
        made = await at.batch(client, ["good", "bad", "html", "crash"])
        done = await at.until(client, made.id, *ENDED)
        assert done.status == "completed"
        assert done.request_counts.model_dump() == {"total": 4, "completed": 1, "failed": 3}
        assert list(await results(client, done.output_file_id)) == ["id-good"]
        errors = await results(client, done.error_file_id)
        assert errors["id-bad"]["response"]["status_code"] == 400
        assert errors["id-bad"]["response"]["body"]["error"]["message"] == "no"
        assert errors["id-html"]["error"]["code"] == "invalid_response"
        assert errors["id-crash"]["response"]["status_code"] == 500
        assert "a bug" not in json.dumps(errors)


async def test_no_more_requests_run_at_once_than_is_allowed(tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def answer(fields: dict[str, Any]) -> CollectedAnswer:
        await gate.wait()
        return ok("x")

    runner = ScriptedRunner(answer)
    async with batch_server(tmp_path, runner, concurrency=3) as at, at.client() as client:
        made = [await at.batch(client, [f"{batch}{n}" for n in range(6)]) for batch in "ab"]
        await eventually(lambda: runner.running == 3)
        gate.set()
        for batch in made:
            assert (await at.until(client, batch.id, *ENDED)).request_counts.completed == 6
        assert runner.most_running == 3


async def test_what_is_only_not_now_is_asked_again(tmp_path: Path) -> None:
    runner = ScriptedRunner()

    async def answer(fields: dict[str, Any]) -> CollectedAnswer:
        text = fields["messages"][0]["content"]
        turn = runner.asked.count(text)
        if text == "limited" and turn <= 3:
            return refusal(429 if turn % 2 else 503, retry_after_ms="10")
        if text == "never":
            return refusal(429, retry_after_ms="10", x_should_retry="false")
        return refusal(502, retry_after_ms="10") if text == "broken" else ok(text)

    runner.answer = answer
    async with batch_server(tmp_path, runner) as at, at.client() as client:
        made = await at.batch(client, ["limited", "broken", "never"])
        done = await at.until(client, made.id, *ENDED)
        assert list(await results(client, done.output_file_id)) == ["id-limited"]
        errors = await results(client, done.error_file_id)
        assert [errors[name]["response"]["status_code"] for name in ("id-broken", "id-never")] == [502, 429]
        assert (runner.asked.count("limited"), runner.asked.count("never")) == (4, 1)
        assert 1 < runner.asked.count("broken") < 10


async def test_a_cancelled_batch_keeps_what_is_done_and_ends_what_runs(tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def answer(fields: dict[str, Any]) -> CollectedAnswer:
        text = fields["messages"][0]["content"]
        if text != "0":
            await gate.wait()
        return ok(text)

    runner = ScriptedRunner(answer)
    async with batch_server(tmp_path, runner, concurrency=1) as at, at.client() as client:
        made = await at.batch(client, [str(n) for n in range(5)])
        await eventually(lambda: runner.asked == ["0", "1"])
        cancelling = await client.batches.cancel(made.id)
        assert cancelling.status == "cancelling"
        assert cancelling.cancelling_at
        await asyncio.sleep(0.3)  # until whoever runs the batch has heard of it
        gate.set()
        done = await at.until(client, made.id, *ENDED)
        assert (done.status, done.request_counts.completed) == ("cancelled", 2)
        assert done.cancelled_at
        assert set(await results(client, done.output_file_id)) == {"id-0", "id-1"}
        errors = await results(client, done.error_file_id)
        assert {name: line["error"]["code"] for name, line in errors.items()} == dict.fromkeys(
            ("id-2", "id-3", "id-4"), "batch_cancelled"
        )
        assert runner.asked == ["0", "1"]
        assert (await client.batches.cancel(made.id)).status == "cancelled"


async def test_a_batch_that_is_at_its_end_cannot_be_cancelled(tmp_path: Path) -> None:
    async with batch_server(tmp_path) as at, at.client() as client:
        made = await at.batch(client, ["x"])
        await at.until(client, made.id, "completed")
        with pytest.raises(openai.BadRequestError, match="completed"):
            await client.batches.cancel(made.id)


async def test_a_batch_ends_with_its_window(tmp_path: Path) -> None:
    async def answer(fields: dict[str, Any]) -> CollectedAnswer:
        text = fields["messages"][0]["content"]
        if text != "0":
            await asyncio.Event().wait()
        return ok(text)

    runner = ScriptedRunner(answer)
    async with batch_server(tmp_path, runner, concurrency=2) as at, at.client() as client:
        made = await at.batch(client, ["0", "1", "2", "3"], completion_window="30m")
        await eventually(lambda: runner.asked == ["0", "1", "2"])
        at.now[0] += 1801
        done = await at.until(client, made.id, *ENDED)
        assert (done.status, bool(done.expired_at)) == ("expired", True)
        assert list(await results(client, done.output_file_id)) == ["id-0"]
        errors = await results(client, done.error_file_id)
        assert {line["error"]["code"] for line in errors.values()} == {"batch_expired"}
        assert set(errors) == {"id-1", "id-2", "id-3"}
        assert runner.running == 0


async def test_a_batch_whose_key_is_revoked_fails_and_keeps_what_is_done(tmp_path: Path) -> None:
    async def answer(fields: dict[str, Any]) -> CollectedAnswer:
        at.keys.pop("sk-a", None)
        return ok(fields["messages"][0]["content"])

    async with batch_server(tmp_path, ScriptedRunner(answer), concurrency=1) as at, at.client() as client:
        made = await at.batch(client, ["one", "two"])
        done = await at.until(client, made.id, *ENDED)
        assert (done.status, bool(done.failed_at)) == ("failed", True)
        assert [error.code for error in done.errors.data] == ["key_revoked"]
        assert list(await results(client, done.output_file_id)) == ["id-one"]
        assert at.runner.asked == ["one"]


async def test_the_holder_of_a_token_keeps_what_the_token_allowed(tmp_path: Path) -> None:
    async with batch_server(tmp_path) as at, at.client() as client:
        del at.keys["sk-a"]  # known to authentication, not by its id: a token
        made = await at.batch(client, ["one"])
        assert (await at.until(client, made.id, *ENDED)).status == "completed"
        assert at.runner.calls[0][2] == "a"


async def test_mistakes_in_the_file_are_listed_and_nothing_runs(tmp_path: Path) -> None:
    async with batch_server(tmp_path) as at, at.client() as client:
        made = await at.batch(client, jsonl(["a"]) + b"{\n" + jsonl(["a"]))
        done = await at.until(client, made.id, *ENDED)
        assert (done.status, bool(done.failed_at)) == ("failed", True)
        assert [(error.code, error.line) for error in done.errors.data] == [
            ("invalid_json_line", 2),
            ("duplicate_custom_id", 3),
        ]
        assert at.runner.calls == []


async def test_without_its_input_file_a_batch_fails(tmp_path: Path) -> None:
    async with batch_server(tmp_path) as at, at.client() as client:
        runs = asyncio.Event()

        async def answer(fields: dict[str, Any]) -> CollectedAnswer:
            runs.set()
            await asyncio.Event().wait()
            raise AssertionError

        at.runner.answer = answer
        made = await at.batch(client, ["a", "b"])
        await asyncio.wait_for(runs.wait(), 20)
        await client.files.delete(made.input_file_id)
        await at.batches.aclose()  # as a restart would
        at.batches.start()
        done = await at.until(client, made.id, *ENDED)
        assert (done.status, done.errors.data[0].code) == ("failed", "input_file_missing")


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"endpoint": "/v1/audio/speech"}, "endpoint"),
        ({"endpoint": None}, "endpoint"),
        ({"completion_window": "1 week"}, "completion_window"),
        ({"completion_window": "15d"}, "completion_window"),
        ({"completion_window": None}, "completion_window"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"metadata": {str(n): "x" for n in range(17)}}, "metadata"),
        ({"metadata": {"a": "x" * 513}}, "metadata"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, "output_expires_after"),
        ({"input_file_id": 7}, "input_file_id"),
    ],
)
def test_a_wrong_wish_names_its_field(changes: dict[str, Any], param: str) -> None:
    wish = {"input_file_id": "file-0", "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    changed = {name: value for name, value in {**wish, **changes}.items() if value is not None}
    found = new_batch(json.dumps(changed).encode(), Key(id="a"), 0.0)
    assert isinstance(found, Problem)
    assert (found.status, found.param) == (400, param)


async def test_a_wrong_wish_is_a_400(tmp_path: Path) -> None:
    async with batch_server(tmp_path) as at, at.http as http:
        wish = {"input_file_id": "file-0", "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        missing = await http.post("/v1/batches", json=wish)
        assert (missing.status_code, missing.json()["error"]["param"]) == (400, "input_file_id")
        broken = await http.post("/v1/batches", content=b"{")
        assert (broken.status_code, broken.json()["error"]["code"]) == (400, "invalid_json")
        large = await http.post("/v1/batches", content=b" " * 100_000)
        assert large.status_code == 413


async def test_a_file_for_another_purpose_is_refused(tmp_path: Path) -> None:
    async with batch_server(tmp_path) as at, at.client() as client:
        file = await client.files.create(file=jsonl(["a"]), purpose="user_data")
        with pytest.raises(openai.BadRequestError, match="purpose"):
            await client.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
            )


async def test_batches_and_results_of_others_do_not_exist(tmp_path: Path) -> None:
    async with batch_server(tmp_path) as at, at.client() as mine, at.client("sk-b") as theirs:
        made = await at.batch(mine, ["a"])
        done = await at.until(mine, made.id, "completed")
        for ask in (theirs.batches.retrieve, theirs.batches.cancel):
            with pytest.raises(openai.NotFoundError):
                await ask(made.id)
        assert [batch async for batch in theirs.batches.list()] == []
        with pytest.raises(openai.NotFoundError):
            await theirs.files.content(done.output_file_id)


async def test_a_list_is_read_page_by_page(tmp_path: Path) -> None:
    async with batch_server(tmp_path) as at, at.client() as client:
        made = []
        for _ in range(3):
            at.now[0] += 0.1
            made.append((await at.batch(client, ["a"])).id)
        assert [batch.id async for batch in client.batches.list(limit=2)] == made[::-1]
        with pytest.raises(openai.NotFoundError):
            await client.batches.list(after="batch_0")


async def test_results_live_as_long_as_was_asked(tmp_path: Path) -> None:
    async with batch_server(tmp_path) as at, at.client() as client:
        expiry = {"anchor": "created_at", "seconds": 7200}
        made = await at.batch(client, ["a"], output_expires_after=expiry)
        done = await at.until(client, made.id, "completed")
        output = await client.files.retrieve(done.output_file_id)
        assert output.expires_at == output.created_at + 7200
