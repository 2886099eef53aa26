"""Files, and batches of them run by the bundled engine, as OpenAI's SDK uses them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types import Batch
from running_stack import Stack

from .conftest import MAX_BODY_BYTES, WORKER_MODEL
from .scripted_upstream import PATIENCE_S, ScriptedServer, wait_for

CHAT = "/v1/chat/completions"


def request(name: str, url: str = CHAT, **body: Any) -> dict[str, Any]:
    said = [{"role": "user", "content": "What is the capital of France?"}]
    fields = {"model": WORKER_MODEL, "messages": said, "temperature": 0, "max_tokens": 20, **body}
    return {"custom_id": name, "method": "POST", "url": url, "body": fields}


def uploaded(client: openai.OpenAI, *requests: dict[str, Any]) -> str:
    lines = "\n".join(map(json.dumps, requests)).encode()
    return client.files.create(file=("requests.jsonl", lines), purpose="batch").id


def begun(client: openai.OpenAI, *requests: dict[str, Any], endpoint: Any = CHAT) -> Batch:
    return client.batches.create(
        input_file_id=uploaded(client, *requests), endpoint=endpoint, completion_window="24h"
    )


def until(client: openai.OpenAI, batch: Batch, done: Callable[[Batch], bool]) -> Batch:
    deadline = time.monotonic() + PATIENCE_S
    while not done(batch):
        assert time.monotonic() < deadline, batch
        time.sleep(0.05)
        batch = client.batches.retrieve(batch.id)
    return batch


def ended(batch: Batch) -> bool:
    return batch.status in ("completed", "failed", "cancelled", "expired")


def lines_of(client: openai.OpenAI, file_id: str | None) -> dict[str, Any]:
    assert file_id is not None
    found = [json.loads(line) for line in client.files.content(file_id).text.splitlines()]
    return {line["custom_id"]: line for line in found}


def test_a_file_is_kept_given_back_and_deleted(client: openai.OpenAI, tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_bytes(b'{"a": "\xc3\xa9"}\n' * 100)
    made = client.files.create(file=path, purpose="user_data")

    assert (made.object, made.filename, made.purpose) == ("file", "notes.jsonl", "user_data")
    assert made.bytes == path.stat().st_size
    assert client.files.retrieve(made.id) == made
    assert made.id in [file.id for file in client.files.list(purpose="user_data")]
    assert client.files.content(made.id).read() == path.read_bytes()
    assert client.files.delete(made.id).deleted
    for look in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError):
            look(made.id)


def test_a_file_may_be_larger_than_other_bodies(client: openai.OpenAI) -> None:
    content = b"x" * (2 * MAX_BODY_BYTES)
    made = client.files.create(file=("large.txt", content), purpose="user_data")

    assert client.files.content(made.id).read() == content


def test_files_are_listed_in_pages(client: openai.OpenAI) -> None:
    made = [client.files.create(file=(f"{n}.txt", b"x"), purpose="vision").id for n in range(3)]
    page = client.files.list(purpose="vision", limit=2, order="asc")

    assert len(page.data) == 2
    assert [file.id for file in page] == made


def test_other_tenants_see_nothing_of_it(client: openai.OpenAI, sluice: Stack) -> None:
    made = client.files.create(file=("mine.txt", b"x"), purpose="user_data")
    with openai.OpenAI(base_url=f"{sluice.url}/v1", api_key="sk-other", max_retries=0) as stranger:
        assert made.id not in [file.id for file in stranger.files.list()]
        for look in (stranger.files.retrieve, stranger.files.content, stranger.files.delete):
            with pytest.raises(openai.NotFoundError):
                look(made.id)


def test_a_file_without_a_purpose_is_a_bad_request(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.files.create(file=("a.txt", b"x"), purpose="nonsense")  # type: ignore[arg-type]

    assert caught.value.param == "purpose"


def test_a_batch_is_run_to_its_output_file(client: openai.OpenAI) -> None:
    batch = begun(
        client, request("right"), request("too hot", temperature=9), request("nobody", model="nobody")
    )
    assert (batch.object, batch.endpoint) == ("batch", CHAT)
    batch = until(client, batch, ended)

    assert batch.status == "completed"
    assert batch.request_counts is not None
    counts = batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (3, 1, 2)
    (line,) = lines_of(client, batch.output_file_id).values()
    assert line["custom_id"] == "right"
    assert line["response"]["status_code"] == 200
    assert "Paris" in line["response"]["body"]["choices"][0]["message"]["content"]
    assert line["response"]["request_id"]
    failed = lines_of(client, batch.error_file_id)
    assert failed["too hot"]["response"]["body"]["error"]["param"] == "temperature"
    assert failed["nobody"]["response"]["status_code"] == 404
    assert batch.id in [found.id for found in client.batches.list(limit=1)]
    with pytest.raises(openai.BadRequestError):
        client.batches.cancel(batch.id)


@pytest.mark.parametrize(
    ("endpoint", "body", "answer"),
    [
        ("/v1/completions", {"prompt": "Once upon a time"}, "text_completion"),
        ("/v1/responses", {"input": "Hello"}, "response"),
        ("/v1/embeddings", {"input": "Hello", "model": "scripted"}, "list"),
    ],
)
def test_batches_of_other_kinds(
    client: openai.OpenAI, endpoint: str, body: dict[str, Any], answer: str
) -> None:
    line = {"custom_id": "1", "method": "POST", "url": endpoint, "body": {"model": WORKER_MODEL, **body}}
    batch = until(client, begun(client, line, endpoint=endpoint), ended)

    made = lines_of(client, batch.output_file_id)["1"]["response"]
    assert (made["status_code"], made["body"]["object"]) == (200, answer)


def test_a_batch_that_is_cancelled_ends_there(client: openai.OpenAI, upstream: ScriptedServer) -> None:
    batch = begun(client, *(request(str(number), model="holds") for number in range(20)))
    wait_for(lambda: any(call.model == "holds" for call in upstream.calls), "it has begun")
    assert client.batches.cancel(batch.id).status == "cancelling"

    batch = until(client, batch, lambda found: upstream.go_on() or ended(found))
    assert batch.status == "cancelled"
    assert batch.request_counts is not None
    assert 0 < batch.request_counts.completed < 20
    assert len(lines_of(client, batch.output_file_id)) == batch.request_counts.completed
    assert client.batches.cancel(batch.id).status == "cancelled"


def test_lines_that_are_no_requests_fail_the_batch(client: openai.OpenAI) -> None:
    batch = until(client, begun(client, {"custom_id": "1"}, request("2", url="/v1/embeddings")), ended)

    assert batch.status == "failed"
    assert batch.errors is not None
    assert {error.line for error in batch.errors.data or []} == {1, 2}


def test_what_is_not_there_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.batches.retrieve("batch_0")
    with pytest.raises(openai.BadRequestError) as caught:
        client.batches.create(input_file_id="file-0", endpoint=CHAT, completion_window="24h")
    assert caught.value.param == "input_file_id"
