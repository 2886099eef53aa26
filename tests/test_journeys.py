"""User journeys with Locust against the real stack, as `make load` runs them: half a minute, with limits."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from running_stack import ROOT, Stack, free_port, interrupt, start

from sluice_bench.journeys.own_stack import BUNDLED, config_text

IN_FLIGHT = ("requests_in_flight", "endpoint_in_flight", "queue_depth")
GONE_WITHIN_S = 10.0
STARTED_WITHIN_S = 120.0


@pytest.fixture(scope="module")
def two_backends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Gateway, worker and the bundled model, and the echo engine."""
    folder = tmp_path_factory.mktemp("stack")
    (folder / "sluice.yaml").write_text(config_text(folder), encoding="utf-8")
    sluice = str(Path(sys.executable).parent / "sluice")
    running = start([sluice, "serve", "--config", str(folder / "sluice.yaml")], folder)
    give_up = time.monotonic() + STARTED_WITHIN_S
    while httpx.get(f"{running.url}/v1/models/{BUNDLED}").status_code != 200 and time.monotonic() < give_up:
        time.sleep(0.1)
    yield running
    assert interrupt(running) == []


def journeys(url: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run them and wait."""
    command = [sys.executable, "-m", "sluice_bench.journeys", "--url", url, *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180)


def requests_of(said: str) -> dict[str, int]:
    """Journeys of a summary, and how many requests each had."""
    return {
        name: int(count) for name, count in re.findall(r"^  ([\w-]+) +(\d+) requests$", said, re.MULTILINE)
    }


@pytest.mark.slow
def test_half_a_minute_of_journeys_keeps_to_the_limits_and_leaves_nothing(two_backends: Stack) -> None:
    ended = journeys(two_backends.url, "--time", "30s")

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"model {BUNDLED}" in ended.stdout
    assert requests_of(ended.stdout).keys() == {"chat", "multi-turn", "embeddings", "toggle", "cancel"}
    assert "  tools        SKIPPED, needs tools: " in ended.stdout
    assert "X-Backend: worker, X-Backend: echo, X-Quant: none" in ended.stdout
    assert "MISSED" not in ended.stdout
    give_up = time.monotonic() + GONE_WITHIN_S
    while held(two_backends) and time.monotonic() < give_up:
        time.sleep(0.1)
    assert held(two_backends) == {}
    page = httpx.get(f"{two_backends.url}/metrics").text
    assert sum(float(count) for count in re.findall(r'outcome="client_gone"\} (\S+)', page)) > 0


def held(stack: Stack) -> dict[str, float]:
    """What the gateway still has of requests."""
    counts = {name: stack.metric(f"sluice_gateway_{name}") for name in IN_FLIGHT}
    return {name: count for name, count in counts.items() if count}


def test_a_limit_that_nobody_keeps_to_fails_the_run(two_backends: Stack) -> None:
    ended = journeys(two_backends.url, "--time", "1s", "--journeys", "chat", "--p95-ttft-ms", "0.01")

    assert ended.returncode == 1
    assert "MISSED TTFT, p95: " in ended.stdout


def test_make_load_starts_a_stack_where_there_is_none_and_ends_it() -> None:
    port = free_port()
    command = ["make", "load", f"URL=http://127.0.0.1:{port}", "USERS=2", "TIME=2s", "ARGS=--think-s 0.1"]
    outer = {"ARGS", "TESTS", "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES"}
    environment = {name: value for name, value in os.environ.items() if name not in outer}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=180)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "starting gateway and worker there" in ended.stdout
    assert f"model {BUNDLED}" in ended.stdout
    assert requests_of(ended.stdout)["chat"] > 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("https://127.0.0.1:1", "Nobody listens at https://127.0.0.1:1; start the server"),
        ("here", "'here' is not a server address"),
    ],
)
def test_no_server_elsewhere_is_one_sentence(url: str, sentence: str) -> None:
    ended = journeys(url)

    assert ended.returncode == 1
    assert sentence in ended.stderr
    assert "Traceback" not in ended.stderr
