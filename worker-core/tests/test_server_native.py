"""The worker's own endpoints over real sockets: before a repeating engine, and once before the real one."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from parrot import CONTEXT, Worker, parrot_worker, running, token_ids, write_folder
from parrot_requests import COMPLETIONS, completion_body, eventually, is_idle

WHOLE, STREAM, ALONE = "/generate", "/v1/generate", "/v1/generate_nobatch"


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with parrot_worker(write_folder(tmp_path_factory.mktemp("models") / "parrot")) as worker:
        yield worker


@pytest.fixture(scope="module")
def slow_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """20 ms a token."""
    with parrot_worker(write_folder(tmp_path_factory.mktemp("models") / "slow")) as worker:
        yield worker


@pytest.fixture(scope="module")
def real_worker() -> Iterator[Worker]:
    """The bundled model."""
    with running([sys.executable, "-m", "sluice_worker", "serve", "--port", "0"]) as worker:
        yield worker


def events(text: str) -> list[tuple[str, dict[str, Any]]]:
    """(name, data) of each event; a name that is not given is `data`."""
    frames = text.split("\n\n")
    assert frames.pop() == ""
    found = []
    for frame in frames:
        name, _, data = frame.rpartition("data: ")
        found.append((name.removeprefix("event: ").strip() or "data", json.loads(data)))
    return found


def test_a_stream_tells_the_first_token_the_text_and_the_end(worker: Worker) -> None:
    response = worker.http.post(STREAM, json={"prompt": "hé", "max_new_tokens": 4})

    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    found = events(response.text)
    assert [name for name, _ in found] == ["ttft", "data", "data", "data", "done"]
    assert 0 < found[0][1]["ttft_s"] < 30
    assert [data["text"] for name, data in found if name == "data"] == ["h", "é", "h"]
    # Half a character is held back, its token is not lost.
    assert [data["token_ids"] for name, data in found if name == "data"] == [
        token_ids("h"),
        token_ids("é"),
        token_ids("h"),
    ]
    end = found[-1][1]
    assert end["finish_reason"] == "length"
    assert (end["usage"]["prompt_tokens"], end["usage"]["completion_tokens"]) == (3, 4)
    assert end["timings"]["ttft_s"] == found[0][1]["ttft_s"] <= end["timings"]["total_s"]
    assert end["timings"]["tokens_per_s"] > 0


def test_an_answer_without_text_still_has_a_beginning_and_an_end(worker: Worker) -> None:
    found = events(worker.http.post(STREAM, json={"prompt": "<|end|>", "max_tokens": 5}).text)

    assert [name for name, _ in found] == ["ttft", "done"]
    assert found[-1][1]["finish_reason"] == "stop"
    assert found[-1][1]["timings"]["tokens_per_s"] is None


def test_a_stop_string_ends_a_stream_and_frees_the_engine(worker: Worker) -> None:
    body = {"prompt": "one. two", "max_tokens": 200, "stop": ". t"}
    found = events(worker.http.post(STREAM, json=body).text)

    assert "".join(data["text"] for name, data in found if name == "data") == "one"
    assert found[-1][1]["finish_reason"] == "stop"
    eventually(lambda: is_idle(worker))


def test_an_answer_alone_is_whole(worker: Worker) -> None:
    answer = worker.http.post(ALONE, json={"prompt": token_ids("abc"), "max_new_tokens": 5}).json()

    assert answer["text"] == "abcab"
    assert answer["token_ids"] == token_ids("abcab")
    assert answer["finish_reason"] == "length"
    assert answer["usage"]["total_tokens"] == 8
    assert set(answer["timings"]) == {"ttft_s", "total_s", "tokens_per_s"}


@pytest.mark.parametrize("name", ["max_tokens", "max_new_tokens"])
def test_the_simple_form_answers_as_completions_do(worker: Worker, name: str) -> None:
    simple = worker.http.post(WHOLE, json={"prompt": "hello", name: 3}).json()
    legacy = worker.http.post(COMPLETIONS, json=completion_body("hello", max_tokens=3)).json()

    for answer in (simple, legacy):
        answer.pop("id"), answer.pop("created")
    assert simple == legacy
    assert simple["choices"][0]["text"] == "hel"


def test_the_simple_form_takes_what_completions_take(worker: Worker) -> None:
    body = {"prompt": ["ab", "c"], "n": 2, "max_tokens": 2, "model": "parrot", "echo": True}
    answer = worker.http.post(WHOLE, json=body).json()

    assert [choice["text"] for choice in answer["choices"]] == ["abab", "abab", "ccc", "ccc"]


@pytest.mark.parametrize("path", [WHOLE, STREAM, ALONE])
@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"model": "other"}, 404, "model"),
        ({"prompt": None}, None, None),
        ({"prompt": []}, 400, "prompt"),
        ({"prompt": 7}, 400, "prompt"),
        ({"prompt": "x" * CONTEXT}, 400, "prompt"),
        ({"max_new_tokens": 0}, 400, "max_new_tokens"),
        ({"max_new_tokens": "many"}, 400, "max_new_tokens"),
        ({"max_new_tokens": 3, "max_tokens": 4}, 400, "max_new_tokens"),
        ({"temperature": 3}, 400, "temperature"),
        ({"stop": ["a", "b", "c", "d", "e"]}, 400, "stop"),
    ],
)
def test_mistakes_are_told_as_openai_tells_them(
    worker: Worker, path: str, fields: dict[str, Any], status: int | None, param: str | None
) -> None:
    response = worker.http.post(path, json={"prompt": "hello", "max_tokens": None, **fields})

    if status is None:  # no prompt is the beginning of text, as in completions
        assert response.status_code == 200
        return
    assert response.status_code == status
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == param


@pytest.mark.parametrize("path", [STREAM, ALONE])
@pytest.mark.parametrize(
    "fields", [{"n": 2}, {"prompt": ["a", "b"]}, {"echo": True}, {"logprobs": 1}, {"best_of": 3}]
)
def test_one_prompt_gives_one_answer(worker: Worker, path: str, fields: dict[str, Any]) -> None:
    response = worker.http.post(path, json={"prompt": "hello", **fields})

    assert response.status_code == 400
    assert response.json()["error"]["param"] in fields


def test_the_simple_form_does_not_stream(worker: Worker) -> None:
    response = worker.http.post(WHOLE, json={"prompt": "hello", "stream": True})

    assert response.status_code == 400
    assert "/v1/generate" in response.json()["error"]["message"]


@pytest.mark.parametrize("path", [WHOLE, STREAM, ALONE])
def test_a_client_that_leaves_frees_its_blocks(slow_worker: Worker, path: str) -> None:
    before = slow_worker.metric("generation_tokens_total")
    payload = json.dumps({"prompt": "hello", "max_tokens": 250}).encode()
    connection = socket.create_connection(("127.0.0.1", slow_worker.port), timeout=10)
    connection.sendall(f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(payload)}\r\n\r\n".encode())
    connection.sendall(payload)
    eventually(lambda: slow_worker.metric("requests_running") == 1)

    connection.close()

    eventually(lambda: is_idle(slow_worker))
    assert slow_worker.metric("generation_tokens_total") - before < 200


def test_who_asks_to_run_alone_has_no_company_in_the_engine(real_worker: Worker) -> None:
    def ask(number: int) -> dict[str, Any]:
        body = {"prompt": f"Story {number}", "max_new_tokens": 30, "temperature": 0, "ignore_eos": True}
        return real_worker.http.post(ALONE, json=body).json()  # type: ignore[no-any-return]

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, range(4)))

    assert [len(answer["token_ids"]) for answer in answers] == [30] * 4
    assert real_worker.metric("sequence_steps_total") == real_worker.metric("steps_total")


def test_alone_streamed_and_simple_give_the_same_text(real_worker: Worker) -> None:
    body = {"prompt": "Once upon a time", "max_new_tokens": 20, "temperature": 0, "ignore_eos": True}
    streamed = events(real_worker.http.post(STREAM, json=body).text)
    text = "".join(data["text"] for name, data in streamed if name == "data")

    assert real_worker.http.post(ALONE, json=body).json()["text"] == text
    assert real_worker.http.post(WHOLE, json=body).json()["choices"][0]["text"] == text
    assert len(text) > 20


def test_metrics_and_model_tell_the_mode(real_worker: Worker) -> None:
    info = real_worker.http.get("/model").json()
    assert (info["batching"], info["kv"]) == ("continuous", "paged")
    assert real_worker.metric("kv_held_steps_total") <= real_worker.metric("kv_reserved_steps_total")
    assert real_worker.metric("kv_tokens_reserved") == real_worker.metric("kv_tokens_held") == 0
