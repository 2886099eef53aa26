"""Several processes as one gateway: one page of metrics, one configuration, one life."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from ..limits.redis_server import RedisServer
from ..managed_engine import PROGRAM as FAKE_ENGINE
from .conftest import StartGateway, config_of
from .processes import CHAT, SLUICE, Gateway

REQUESTS = 240


async def visit(gateway: Gateway, number: int) -> str:
    """One request of one kind or another, on a connection of its own; the outcome that it must be counted
    under."""
    body = {"model": "echo", "messages": [{"role": "user", "content": "one two three"}]}
    async with httpx.AsyncClient(base_url=gateway.url, timeout=30, verify=False) as http:
        match number % 6:
            case 0:
                assert (await http.post(CHAT, json={**body, "model": f"m-{number}"})).status_code == 404
                return "model_not_found"
            case 1:
                answer = await http.post(CHAT, json=body, headers={"x-echo-status": "503"})
                assert answer.status_code == 503
                return "upstream_unavailable"
            case 2:
                assert (await http.post(CHAT, content=b"{")).status_code == 400
                return "invalid_json"
            case 3:
                pace = {"x-echo-tokens-per-s": "0.1"}
                async with http.stream("POST", CHAT, json={**body, "stream": True}, headers=pace) as answer:
                    await anext(answer.aiter_raw())
                return "client_gone"
            case 4:
                async with http.stream("POST", CHAT, json={**body, "stream": True}) as answer:
                    assert (await answer.aread()).endswith(b"data: [DONE]\n\n")
                return "ok"
        assert (await http.post(CHAT, json=body)).status_code == 200
        return "ok"


async def counted(gateway: Gateway, visitors: int) -> dict[str, int]:
    """What a client sees of many requests, some at the same time."""
    turns, truth = iter(range(REQUESTS)), dict[str, int]()

    async def visitor() -> None:
        for number in turns:
            outcome = await visit(gateway, number)
            truth[outcome] = truth.get(outcome, 0) + 1

    await asyncio.gather(*(visitor() for _ in range(visitors)))
    return truth


def outcomes(gateway: Gateway, truth: dict[str, int]) -> dict[str, float]:
    return {outcome: gateway.metric("requests_total", outcome=outcome) for outcome in truth}


def test_four_processes_count_what_the_client_counted(start: StartGateway) -> None:
    gateway = start(4)
    gateway.until_serving(4)
    truth = asyncio.run(counted(gateway, visitors=8))
    assert len(truth) == 5
    gateway.until(lambda: outcomes(gateway, truth) == truth)
    assert gateway.metric("requests_total") == REQUESTS
    assert gateway.metric("request_duration_seconds_count") == REQUESTS
    assert gateway.metric("tokens_total", direction="completion") >= 3 * truth["ok"]
    assert gateway.metric("requests_in_flight") == 0
    series = [line.rpartition(" ")[0] for line in gateway.page().splitlines() if line[0] != "#"]
    assert len(series) == len(set(series))
    assert len(gateway.workers()) == 4


def test_a_worker_that_dies_is_replaced_and_its_counts_stay(start: StartGateway) -> None:
    gateway = start(2)
    gateway.until_serving(2)
    for _ in range(10):
        assert gateway.post().is_success
    gateway.until(lambda: gateway.metric("requests_total", outcome="ok") == 10)
    before = gateway.workers()
    for worker in before:
        worker.kill()
    gateway.until(lambda: gateway.metric("workers_replaced_total") == 2)
    gateway.until_serving(2)
    assert not {w.pid for w in before} & {w.pid for w in gateway.workers()}
    assert gateway.metric("requests_total", outcome="ok") == 10
    assert gateway.post().is_success
    gateway.until(lambda: gateway.metric("requests_total", outcome="ok") == 11)


def test_a_worker_that_hangs_is_replaced_and_says_where(start: StartGateway) -> None:
    gateway = start(2, "server: {worker_timeout_s: 2}\n")
    gateway.until_serving(2)
    hanging = random.choice(gateway.workers())
    hanging.suspend()
    gateway.until(lambda: "has not answered" in gateway.log())
    hanging.resume()
    gateway.until(lambda: not hanging.is_running())
    gateway.until_serving(2)
    assert f"process {hanging.pid}" in gateway.log()
    assert "Current thread" in gateway.log() or "SIGKILL" in gateway.log()


def test_a_reload_reaches_every_process_or_none(start: StartGateway, redis: RedisServer) -> None:
    gateway = start(2)
    gateway.until_serving(2)

    def models() -> set[str]:
        """What many connections, and so both processes, are told."""
        answers = [httpx.get(f"{gateway.url}/v1/models").json()["data"] for _ in range(12)]
        return {" ".join(model["id"] for model in data) for data in answers}

    gateway.configure(config_of(redis, models="echo, other"))
    answer = httpx.post(f"{gateway.url}/admin/v1/reload", json={}, timeout=30)
    assert answer.json() == {"status": "reloaded", "configuration": 2}
    assert models() == {"echo other"}

    gateway.configure(config_of(redis, "queue: {max_waiting: -1}\n", models="third"))
    refused = httpx.post(f"{gateway.url}/admin/v1/reload", json={}, timeout=30)
    assert refused.status_code == 400
    assert "sluice.yaml, line 5: queue.max_waiting" in refused.json()["error"]["message"]
    assert models() == {"echo other"}

    gateway.configure(config_of(redis, models="third"))
    gateway.signal(signal.SIGHUP)
    gateway.until(lambda: models() == {"third"})
    for worker in gateway.workers():
        worker.kill()
    gateway.until(lambda: gateway.metric("workers_replaced_total") == 2)
    gateway.until_serving(2)
    assert models() == {"third"}


def test_a_managed_engine_is_started_once_for_all_and_stopped_when_nobody_needs_it(
    start: StartGateway, redis: RedisServer, tmp_path: Path
) -> None:
    program = tmp_path / "engine.py"
    program.write_text(FAKE_ENGINE)
    command = f'[{sys.executable}, {program}, "{{port}}", fake]'
    managed = f"  - {{name: fake, adapter: openai_compatible, managed: {{command: {command}}}}}\n"
    config = config_of(redis, "health: {interval_s: 60}\n").replace("redis:", managed + "redis:", 1)
    gateway = start(2, config=config)
    gateway.until_serving(2)
    gateway.until(lambda: gateway.metric("endpoint_healthy", endpoint="fake") == 1)

    def engines() -> list[psutil.Process]:
        family = psutil.Process(gateway.process.pid).children(recursive=True)
        return [p for p in family if p.is_running() and str(program) in p.cmdline()[:2]]

    (engine,) = engines()
    engine.kill()
    gateway.until(lambda: gateway.metric("endpoint_healthy", endpoint="fake") == 0)
    gateway.until(lambda: gateway.metric("endpoint_healthy", endpoint="fake") == 1)
    (engine,) = engines()

    gateway.configure(config_of(redis, "health: {interval_s: 60}\n"))
    gateway.signal(signal.SIGHUP)
    gateway.until(lambda: "configuration 2 is in force in all workers" in gateway.log())
    gateway.until(lambda: not engine.is_running())
    assert gateway.post().is_success


def test_it_stops_in_order_and_leaves_nothing(start: StartGateway) -> None:
    gateway = start(2)
    gateway.until_serving(2)
    gateway.until(lambda: "Press Ctrl-C" in gateway.log())
    family = psutil.Process(gateway.process.pid).children(recursive=True)
    body = {"model": "echo", "stream": True, "messages": [{"role": "user", "content": "a b c d e f"}]}
    pace = {"x-echo-tokens-per-s": "4"}
    with httpx.stream("POST", f"{gateway.url}{CHAT}", json=body, headers=pace, timeout=30) as answer:
        pieces = answer.iter_raw()
        seen = next(pieces)
        gateway.signal(signal.SIGTERM)
        gateway.until(lambda: not httpx.get(f"{gateway.url}/ready").is_success)
        refused = gateway.post()
        assert refused.status_code == 503
        assert refused.headers["retry-after"]
        seen += b"".join(pieces)
    assert seen.endswith(b"data: [DONE]\n\n")
    assert gateway.process.wait(20) == 0
    _, alive = psutil.wait_procs(family, timeout=5)
    assert alive == []
    assert gateway.log().count("Sluice is ready") == 1
    assert "Traceback" not in gateway.log()


def test_no_worker_outlives_its_supervisor(start: StartGateway) -> None:
    gateway = start(2)
    gateway.until_serving(2)
    workers = gateway.workers()
    gateway.process.kill()
    gateway.process.wait(10)
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert alive == []


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ("", "need Redis"),
        ("redis: {}\nstore: {url: 'sqlite:///:memory:'}\n", "store that they share"),
    ],
)
def test_what_processes_must_share_is_one_sentence(tmp_path: Path, config: str, word: str) -> None:
    (tmp_path / "sluice.yaml").write_text(config)
    ended = subprocess.run(
        [SLUICE, "serve", "--workers", "2"], cwd=tmp_path, capture_output=True, text=True, timeout=30
    )
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert word in ended.stderr
