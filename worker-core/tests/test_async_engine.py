"""The engine in its own process, driven through the socket, with a parrot for a model."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from sluice_worker.async_engine import AsyncEngine, EngineStoppedError, spawn_engine
from sluice_worker.config import EngineConfig
from sluice_worker.errors import RequestError
from sluice_worker.outputs import EngineRequest, SequenceDelta
from sluice_worker.sampling_params import SamplingParams

FAKES = str(Path(__file__).parent / "fakes")
PARROT = "parrot_engine:ParrotEngine"
Start = Callable[[str], AsyncEngine]


@pytest.fixture
async def start(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    monkeypatch.setenv("PYTHONPATH", FAKES)
    engines = []

    def start_engine(model: str) -> AsyncEngine:
        engines.append(AsyncEngine(spawn_engine(EngineConfig(model=model), PARROT)))
        return engines[-1]

    yield start_engine
    for engine in engines:
        await engine.aclose()
        assert not psutil.pid_exists(engine.process_id)


def request(request_id: str, prompt: list[int], max_tokens: int = 8) -> EngineRequest:
    params = SamplingParams(max_tokens=max_tokens)
    return EngineRequest(request_id=request_id, prompt_token_ids=prompt, params=params)


async def started(start: Start, model: str = "parrot") -> AsyncEngine:
    engine = start(model)
    await engine.start()
    await engine.ready()
    return engine


async def collect(engine: AsyncEngine, *requests: EngineRequest) -> list[SequenceDelta]:
    async with engine.generate(*requests) as stream:
        return [delta async for delta in stream]


async def eventually(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not happen within ten seconds")


async def until_idle(engine: AsyncEngine) -> None:
    await eventually(lambda: engine.stats.num_running == 0 and engine.stats.kv_blocks_used == 0)


async def test_a_sequence_streams_to_its_end(start: Start) -> None:
    engine = await started(start)

    deltas = await collect(engine, request("a", [5, 6, 7], max_tokens=4))

    assert [delta.new_token_ids for delta in deltas] == [[5], [6], [7], [5]]
    assert [delta.finish_reason for delta in deltas] == [None, None, None, "length"]
    assert engine.stats.generation_tokens_total == 4


async def test_one_stream_carries_several_sequences(start: Start) -> None:
    engine = await started(start)

    deltas = await collect(engine, request("a", [1], 2), request("b", [2], 3))

    assert [d.new_token_ids for d in deltas if d.request_id == "a"] == [[1]] * 2
    assert [d.new_token_ids for d in deltas if d.request_id == "b"] == [[2]] * 3


async def test_many_streams_at_once_do_not_mix(start: Start) -> None:
    engine = await started(start)

    answers = await asyncio.gather(*(collect(engine, request(f"r{i}", [i], 20)) for i in range(100)))

    assert all([d.new_token_ids for d in deltas] == [[i]] * 20 for i, deltas in enumerate(answers))


async def test_leaving_a_stream_early_aborts_the_sequence(start: Start) -> None:
    engine = await started(start, "slow")

    async with engine.generate(request("a", [1], 200)) as stream:
        await anext(stream)
        assert engine.stats.num_running == 1

    await until_idle(engine)
    assert engine.stats.generation_tokens_total < 200


async def test_cancelling_the_reader_aborts_the_sequence(start: Start) -> None:
    engine = await started(start, "slow")
    reader = asyncio.create_task(collect(engine, request("a", [1], 200)))
    await eventually(lambda: engine.stats.num_running == 1)

    reader.cancel()

    with pytest.raises(asyncio.CancelledError):
        await reader
    await until_idle(engine)


async def test_a_timeout_while_waiting_loses_no_delta(start: Start) -> None:
    engine = await started(start, "slow")
    tokens: list[int] = []

    async with engine.generate(request("a", [1, 2, 3], 6)) as stream:
        while True:
            try:
                async with asyncio.timeout(0.003):
                    tokens += (await anext(stream)).new_token_ids
            except TimeoutError:
                continue
            except StopAsyncIteration:
                break

    assert tokens == [1, 2, 3, 1, 2, 3]


async def test_a_refused_request_raises_with_its_code_and_leaves_the_engine_well(start: Start) -> None:
    engine = await started(start)

    with pytest.raises(RequestError, match="maximum context length") as refused:
        await collect(engine, request("a", [1] * 300))

    assert refused.value.code == "context_length_exceeded"
    assert len(await collect(engine, request("b", [1], 3))) == 3


async def test_a_failing_step_ends_every_stream_and_says_why(
    start: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    engine = await started(start, "fragile")

    results = await asyncio.gather(
        *(collect(engine, request(f"r{i}", [1], 100)) for i in range(3)), return_exceptions=True
    )

    assert all(isinstance(result, EngineStoppedError) for result in results)
    assert await engine.stopped() == "The engine failed: RuntimeError: the kernel melted"
    assert not engine.healthy
    with pytest.raises(EngineStoppedError):
        await collect(engine, request("late", [1]))
    assert "Traceback" in capfd.readouterr().err  # for the operator, not for the client


async def test_a_killed_engine_is_noticed(start: Start) -> None:
    engine = await started(start, "killed")

    with pytest.raises(EngineStoppedError):
        await collect(engine, request("a", [1], 100))

    assert "SIGKILL" in await engine.stopped()


@pytest.mark.parametrize(
    ("model", "message"), [("missing", "no model called missing"), ("broken", "ZeroDivisionError: a bug")]
)
async def test_a_model_that_does_not_load_is_reported_in_one_sentence(
    start: Start, model: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    engine = start(model)
    await engine.start()

    with pytest.raises(EngineStoppedError, match=message):
        await engine.ready()

    assert ("Traceback" in capfd.readouterr().err) == (model == "broken")


async def test_stopping_the_streams_fails_them_and_refuses_new_ones(start: Start) -> None:
    engine = await started(start, "slow")
    reader = asyncio.create_task(collect(engine, request("a", [1], 200)))
    await eventually(lambda: engine.stats.num_running == 1)

    engine.stop_streams("The server is shutting down.")

    with pytest.raises(EngineStoppedError, match="shutting down"):
        await reader
    with pytest.raises(EngineStoppedError, match="shutting down"):
        await collect(engine, request("b", [1]))
    await until_idle(engine)


async def test_the_engine_ignores_the_signals_that_the_server_handles(start: Start) -> None:
    engine = await started(start)

    os.kill(engine.process_id, signal.SIGINT)
    os.kill(engine.process_id, signal.SIGTERM)

    assert len(await collect(engine, request("a", [1], 3))) == 3


async def test_an_idle_engine_uses_no_processor_time(start: Start) -> None:
    engine = await started(start)
    await collect(engine, request("a", [1], 3))
    await until_idle(engine)
    process = psutil.Process(engine.process_id)
    before = process.num_ctx_switches().voluntary

    await asyncio.sleep(0.5)

    # It may still have been on its way to sleep; a poll every 50 ms would wake it ten times.
    assert process.num_ctx_switches().voluntary - before <= 2


def test_the_engine_dies_with_a_server_that_is_killed() -> None:
    code = (
        "import time\n"
        "from sluice_worker.async_engine import spawn_engine\n"
        "from sluice_worker.config import EngineConfig\n"
        f"spawned = spawn_engine(EngineConfig(model='slow'), '{PARROT}')\n"
        "spawned.sock.recv(1)\n"
        "print(spawned.process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": FAKES},
    ) as server:
        assert server.stdout is not None
        engine = psutil.Process(int(server.stdout.readline()))

        server.kill()

    # The orphan is reaped by init, which may take its time: a zombie is dead enough.
    assert psutil.wait_procs([engine], timeout=10)[0] or engine.status() == psutil.STATUS_ZOMBIE
