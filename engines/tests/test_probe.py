"""Looks at engines over real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sluice_engines.echo import EchoAdapter
from sluice_engines.openai_compatible import OpenAICompatibleAdapter
from sluice_engines.probe import Reading, probe
from sluice_engines.worker import WorkerAdapter
from sluice_router.types import EngineLoad

from .simple_transport import SimpleTransport

MODELS = json.dumps({"object": "list", "data": [{"id": "tiny", "object": "model"}, {"id": "big"}]})
METRICS = "sluice_worker_requests_running 1\nsluice_worker_requests_waiting 2\n"
HEALTHY = {
    "/health": (200, "{}"),
    "/ready": (200, "{}"),
    "/v1/models": (200, MODELS),
    "/metrics": (200, METRICS),
}


class Engine:
    """A server with fixed pages."""

    def __init__(self, pages: dict[str, tuple[int, str]], stall: str | None = None) -> None:
        self.pages = pages
        self.stall = stall
        self.authorizations: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                path = head.split(" ")[1]
                for line in head.split("\r\n"):
                    if line.lower().startswith("authorization: "):
                        self.authorizations.append(line.split(": ")[1])
                if path == self.stall:
                    await asyncio.sleep(3600)
                status, body = self.pages.get(path, (404, "{}"))
                writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
        except (asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(engine: Engine, uds: Path | None = None) -> AsyncIterator[str]:
    """The engine's base URL."""
    connections: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(asyncio.ensure_future(engine.serve(reader, writer)))

    if uds is None:
        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    else:
        server = await asyncio.start_unix_server(connected, uds)
        url = f"http+unix://{uds}"
    try:
        yield url
    finally:
        server.close()
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections)
        await server.wait_closed()


async def look(engine: Engine, adapter=None, suffix: str = "", uds: Path | None = None, **options) -> Reading:
    async with serving(engine, uds) as url:
        return await probe(SimpleTransport(), adapter or WorkerAdapter(), url + suffix, **options)


async def test_a_healthy_engine_is_read_in_full():
    reading = await look(Engine(HEALTHY))

    assert reading == Reading(
        alive=True, ready=True, models=("tiny", "big"), load=EngineLoad(running=1, waiting=2)
    )


async def test_an_engine_that_loads_its_model_is_alive_but_not_ready():
    reading = await look(Engine(HEALTHY | {"/ready": (503, "{}")}))

    assert (reading.alive, reading.ready) == (True, False)
    assert reading.problem == "/ready answered 503"
    assert reading.models is None


async def test_a_sick_engine_is_not_alive():
    reading = await look(Engine(HEALTHY | {"/health": (500, "{}")}))

    assert (reading.alive, reading.ready, reading.problem) == (False, False, "/health answered 500")


async def test_an_engine_that_is_not_there_is_a_reading_too(unused_tcp_port):
    reading = await probe(SimpleTransport(), WorkerAdapter(), f"http://127.0.0.1:{unused_tcp_port}")

    assert (reading.alive, reading.ready) == (False, False)
    assert reading.problem.startswith("/health: ")


async def test_an_engine_that_does_not_answer_is_given_up_in_time():
    reading = await look(Engine(HEALTHY, stall="/health"), timeout_s=0.05)

    assert reading.problem == "/health did not answer within 0.05 s"


@pytest.mark.parametrize(
    ("pages", "problem", "known"),
    [
        ({"/metrics": (200, "{not metrics")}, "/metrics is not a metrics page", lambda r: r.models),
        ({"/metrics": (404, "")}, "/metrics answered 404", lambda r: r.models),
        ({"/v1/models": (200, "[]")}, "/v1/models is not a model list", lambda r: r.load),
    ],
)
async def test_an_unreadable_page_costs_only_what_it_would_have_said(
    pages: dict, problem: str, known: Callable[[Reading], object]
):
    reading = await look(Engine(HEALTHY | pages))

    assert reading.ready
    assert reading.problem.startswith(problem)
    assert known(reading) is not None


async def test_an_engine_with_a_key_is_asked_with_it():
    engine = Engine(HEALTHY)

    await look(engine, OpenAICompatibleAdapter(), suffix="/v1", api_key="secret")

    assert set(engine.authorizations) == {"Bearer secret"}


async def test_an_engine_behind_a_socket_file_is_reached(tmp_path):
    reading = await look(Engine(HEALTHY), uds=tmp_path / "engine.sock")

    assert reading.ready
    assert reading.models == ("tiny", "big")


async def test_an_engine_in_process_is_probed_over_its_own_transport():
    adapter = EchoAdapter({"models": ["echo", "parrot"]})

    reading = await probe(adapter.transport(), adapter, "http://echo")

    assert (reading.ready, reading.models, reading.problem) == (True, ("echo", "parrot"), None)
    assert adapter.transport().in_flight == 0
