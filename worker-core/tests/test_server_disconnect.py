"""Many clients at once, and clients that leave, over real sockets and before a repeating engine."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from parrot import Worker, parrot_worker, write_folder
from parrot_requests import CHAT, COMPLETIONS, chat_body, events, eventually, is_idle


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with parrot_worker(write_folder(tmp_path_factory.mktemp("models") / "parrot")) as worker:
        yield worker


@pytest.fixture(scope="module")
def slow_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """20 ms a token, and a keep-alive comment after 50 ms."""
    folder = write_folder(tmp_path_factory.mktemp("models") / "slow")
    with parrot_worker(folder, keep_alive_s=0.01) as worker:
        yield worker


def test_many_streams_at_once_do_not_mix(worker: Worker) -> None:
    def answer(number: int) -> bool:
        text = f"<{number:03d}>"
        chunks = events(worker.http.post(CHAT, json=chat_body(text, stream=True, max_tokens=10)).text)
        said = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
        return said == text * 2

    with ThreadPoolExecutor(32) as pool:
        assert all(pool.map(answer, range(64)))
    eventually(lambda: is_idle(worker))


def open_request(worker: Worker, body: dict[str, Any], path: str = CHAT) -> socket.socket:
    payload = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(payload)}\r\n\r\n"
    connection = socket.create_connection(("127.0.0.1", worker.port), timeout=10)
    connection.sendall(head.encode() + payload)
    return connection


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_a_client_that_leaves_frees_its_blocks(slow_worker: Worker, stream: bool, path: str) -> None:
    before = slow_worker.metric("generation_tokens_total")
    body = {**chat_body("hello", max_tokens=250, stream=stream, n=2), "prompt": "hello"}
    connection = open_request(slow_worker, body, path)
    eventually(lambda: slow_worker.metric("requests_running") == 2)

    connection.close()

    eventually(lambda: is_idle(slow_worker))
    assert slow_worker.metric("generation_tokens_total") - before < 400
    page = slow_worker.http.get("/metrics").text
    endpoint = "chat" if path == CHAT else "completions"
    assert f'sluice_worker_requests_total{{endpoint="{endpoint}",outcome="cancelled"}}' in page


def test_a_client_that_leaves_while_sending_its_body_leaves_nothing_behind(slow_worker: Worker) -> None:
    with socket.create_connection(("127.0.0.1", slow_worker.port)) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        eventually(lambda: slow_worker.metric("http_requests_in_flight") == 1)

    eventually(lambda: is_idle(slow_worker))


def test_a_client_that_stops_reading_and_then_leaves_costs_nothing_after(worker: Worker) -> None:
    before = worker.metric("generation_tokens_total")
    connection = open_request(worker, chat_body("hello", max_tokens=250, stream=True, n=128))
    # The engine has finished, and the server waits for a client that does not read.
    eventually(lambda: worker.metric("generation_tokens_total") - before == 128 * 250)
    assert worker.metric("http_requests_in_flight") == 1

    connection.close()

    eventually(lambda: is_idle(worker))


def test_silence_is_filled_with_comments(slow_worker: Worker) -> None:
    with open_request(slow_worker, chat_body("ab", stream=True, max_tokens=2)) as connection:
        received = b""
        while b"[DONE]" not in received:
            received += connection.recv(65536)

    assert b": keep-alive\n\n" in received
    assert received.index(b": keep-alive") < received.index(b"data:")


async def test_half_of_many_clients_leave_and_the_others_do_not_notice(slow_worker: Worker) -> None:
    async def client(number: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", slow_worker.port)
        payload = json.dumps(chat_body(f"<{number:02d}>", stream=True, max_tokens=12)).encode()
        writer.write(
            b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (CHAT.encode(), len(payload))
        )
        writer.write(payload)
        await writer.drain()
        leaves_after = 200 if number % 2 else None
        received = b""
        while b"[DONE]" not in received and (leaves_after is None or len(received) < leaves_after):
            received += await reader.read(100)
        writer.close()
        return received

    async with asyncio.timeout(60):
        received = await asyncio.gather(*(client(number) for number in range(40)))

    for number, text in enumerate(received):
        if number % 2 == 0:
            assert text.count(b'"content":') == 13
            assert text.count(b"[DONE]") == 1
    await asyncio.to_thread(eventually, lambda: is_idle(slow_worker))
