"""Looks at engines over real sockets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sluice_engines.echo import EchoAdapter
from sluice_engines.openai_compatible import OpenAICompatibleAdapter
from sluice_engines.probe import Reading, probe
from sluice_engines.vllm import VllmAdapter
from sluice_engines.worker import WorkerAdapter

from .page_server import Engine, serving
from .simple_transport import SimpleTransport

MODELS = json.dumps({"object": "list", "data": [{"id": "tiny", "object": "model"}, {"id": "big"}]})
HEALTHY = {
    "/health": (200, "{}"),
    "/ready": (200, "{}"),
    "/v1/models": (200, MODELS),
}


async def look(engine: Engine, adapter=None, suffix: str = "", uds: Path | None = None, **options) -> Reading:
    async with serving(engine, uds) as url:
        return await probe(SimpleTransport(), adapter or WorkerAdapter(), url + suffix, **options)


async def test_a_healthy_engine_is_read_in_full():
    reading = await look(Engine(HEALTHY))

    assert reading == Reading(alive=True, ready=True, models=("tiny", "big"))


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


async def test_an_unreadable_model_list_is_a_problem_of_a_ready_engine():
    reading = await look(Engine(HEALTHY | {"/v1/models": (200, "[]")}))

    assert (reading.ready, reading.models) == (True, None)
    assert reading.problem.startswith("/v1/models is not a model list")


async def test_the_version_is_read_when_it_is_asked_for():
    engine = Engine(HEALTHY | {"/version": (200, '{"version": "0.32.0"}')})

    assert (await look(engine, VllmAdapter())).version is None
    assert (await look(engine, VllmAdapter(), ask_version=True)).version == "0.32.0"


@pytest.mark.parametrize("page", [(404, ""), (200, "0.32"), (200, '{"version": 32}'), (200, "{}")])
async def test_an_engine_that_does_not_say_its_version_is_well_all_the_same(page: tuple[int, str]):
    reading = await look(Engine(HEALTHY | {"/version": page}), VllmAdapter(), ask_version=True)

    assert (reading.ready, reading.version, reading.problem) == (True, None, None)


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
