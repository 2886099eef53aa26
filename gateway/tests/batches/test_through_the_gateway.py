"""Files and batches through a whole gateway: its keys, its limits, its pipeline, its log."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import openai
import pytest

from sluice_gateway.auth import digest

from ..serving import ECHO, PATIENCE_S, Served, eventually, serving, settings_of
from .batch_server import results

KEYS = [
    {"id": "a", "sha256": digest("sk-a"), "tenant": "one"},
    {"id": "b", "sha256": digest("sk-b"), "tenant": "two", "limits": {"concurrent": 1}},
]


def sdk(served: Served, secret: str = "sk-a") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key=secret, max_retries=0)


def settings_in(folder: Path, **more: Any) -> Any:
    return settings_of(backends=[ECHO], keys=KEYS, files={"dir": str(folder / "files")}, **more)


async def run(client: openai.AsyncOpenAI, endpoint: Any, bodies: list[dict[str, Any]]) -> Any:
    """A batch of these, at its end."""
    lines = [
        {"custom_id": str(n), "method": "POST", "url": endpoint, "body": {"model": "echo", **body}}
        for n, body in enumerate(bodies)
    ]
    content = "\n".join(map(json.dumps, lines)).encode()
    file = await client.files.create(file=("in.jsonl", content), purpose="batch")
    made = await client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h")
    for _ in range(int(PATIENCE_S / 0.02)):
        now = await client.batches.retrieve(made.id)
        if now.status in ("completed", "failed", "expired", "cancelled"):
            return now
        await asyncio.sleep(0.02)
    raise AssertionError(f"the batch never ended: {now}")


def chat(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


async def test_each_endpoint_answers_in_its_own_shape(tmp_path: Path) -> None:
    async with serving(settings_in(tmp_path)) as served, sdk(served) as client:
        done = await run(client, "/v1/chat/completions", [chat("one two"), chat("three"), {"messages": 7}])
        assert done.request_counts.model_dump() == {"total": 3, "completed": 2, "failed": 1}
        lines = await results(client, done.output_file_id)
        said = {
            name: line["response"]["body"]["choices"][0]["message"]["content"] for name, line in lines.items()
        }
        assert said == {"0": "one two", "1": "three"}
        assert done.usage.total_tokens > 0
        wrong = (await results(client, done.error_file_id))["2"]["response"]
        await eventually(lambda: wrong["request_id"] in served.log.getvalue())
        legacy = await run(client, "/v1/completions", [{"prompt": "four five"}])
        line = (await results(client, legacy.output_file_id))["0"]
        assert line["response"]["body"]["choices"][0]["text"] == "four five"
        vectors = await run(client, "/v1/embeddings", [{"input": ["a", "b"]}])
        line = (await results(client, vectors.output_file_id))["0"]
        assert len(line["response"]["body"]["data"]) == 2
        await served.until_idle()


async def test_responses_run_in_a_batch(tmp_path: Path) -> None:
    async with serving(settings_in(tmp_path)) as served, sdk(served) as client:
        done = await run(client, "/v1/responses", [{"input": "say this"}])
        assert done.request_counts.completed == 1, await results(client, done.error_file_id)
        line = (await results(client, done.output_file_id))["0"]
        assert line["response"]["body"]["output"][0]["content"][0]["text"] == "say this"
        assert done.usage.input_tokens > 0


async def test_a_batch_waits_for_its_keys_limits(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, batches={"concurrency": 3})
    async with serving(settings) as served, sdk(served, "sk-b") as client:
        done = await run(client, "/v1/chat/completions", [chat(str(n)) for n in range(6)])
        assert done.request_counts.model_dump() == {"total": 6, "completed": 6, "failed": 0}


async def test_tenants_do_not_see_each_other(tmp_path: Path) -> None:
    async with serving(settings_in(tmp_path)) as served, sdk(served) as mine, sdk(served, "sk-b") as theirs:
        done = await run(mine, "/v1/chat/completions", [chat("secret")])
        with pytest.raises(openai.NotFoundError):
            await theirs.batches.retrieve(done.id)
        with pytest.raises(openai.NotFoundError):
            await theirs.files.content(done.output_file_id)
        assert [file async for file in theirs.files.list()] == []
        async with sdk(served, "sk-c") as nobody:
            with pytest.raises(openai.AuthenticationError):
                await nobody.files.list()
        assert "secret" not in served.log.getvalue()


async def test_wrong_queries_have_openais_shape(tmp_path: Path) -> None:
    async with serving(settings_in(tmp_path)) as served:
        headers = {"authorization": "Bearer sk-a"}
        for path, param in (
            ("/v1/files?limit=0", "limit"),
            ("/v1/batches?limit=x", "limit"),
            ("/v1/files?purpose=%00", "purpose"),
        ):
            answer = await served.http.get(path, headers=headers)
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
        for path in ("/v1/files/%00", "/v1/batches/%00", "/v1/files?after=%00", "/v1/files/%ff/content"):
            assert (await served.http.get(path, headers=headers)).status_code == 404
        gone = await served.http.get("/v1/files/file-0/content", headers=headers)
        assert (gone.status_code, gone.json()["error"]["type"]) == (404, "invalid_request_error")
        assert gone.headers["x-request-id"]
