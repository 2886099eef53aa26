"""Start, drain, stop and crash, as a supervisor sees them: signals, statuses, last words of streams."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from parrot import FAKES, Worker, parrot_worker, running, write_folder

CHAT = "/v1/chat/completions"


def long_stream(**fields: Any) -> dict[str, Any]:
    body = {"model": "parrot", "messages": [{"role": "user", "content": "hello"}], "stream": True}
    return {**body, "max_tokens": 200, **fields}


def error_of(lines: list[str]) -> dict[str, Any]:
    """The error event that ends a stream which has begun; nothing may follow it."""
    events = [line for line in lines if line]
    assert "data: [DONE]" not in events
    assert not any('"finish_reason":"stop"' in event for event in events)
    error: dict[str, Any] = json.loads(events[-1].removeprefix("data: "))["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def stop_while_streaming(worker: Worker, stop: Callable[[], None], **fields: Any) -> list[str]:
    """The lines of a stream in whose middle `stop` is called."""
    with worker.http.stream("POST", CHAT, json=long_stream(**fields)) as response:
        assert response.status_code == 200
        lines = response.iter_lines()
        received = [next(lines)]
        stop()
        return [*received, *lines]


def test_a_stream_in_flight_may_finish_within_the_drain_time(tmp_path: Path) -> None:
    with parrot_worker(write_folder(tmp_path / "slow"), drain_s=20.0) as worker:
        received = stop_while_streaming(worker, worker.process.terminate, max_tokens=20)

        assert received[-2] == "data: [DONE]"
        assert worker.process.wait(timeout=20) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_after_the_drain_time_streams_get_an_error_and_the_process_ends_well(
    tmp_path: Path, number: signal.Signals
) -> None:
    with parrot_worker(write_folder(tmp_path / "slow"), drain_s=0.2) as worker:
        engine = worker.engine

        received = stop_while_streaming(worker, lambda: worker.process.send_signal(number))

        assert error_of(received)["message"] == "The server is shutting down."
        assert worker.process.wait(timeout=20) == 0
        assert not psutil.pid_exists(engine.pid)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{worker.url}/health")


def test_a_second_signal_does_not_wait_for_the_drain(tmp_path: Path) -> None:
    with parrot_worker(write_folder(tmp_path / "slow"), drain_s=600.0) as worker:

        def signal_twice() -> None:
            worker.process.terminate()
            with pytest.raises(subprocess.TimeoutExpired):
                worker.process.wait(timeout=0.3)
            worker.process.terminate()

        assert error_of(stop_while_streaming(worker, signal_twice))["code"] == "engine_unavailable"
        assert worker.process.wait(timeout=20) == 0


@pytest.mark.parametrize("stream", [True, False])
def test_an_engine_that_is_killed_ends_streams_with_an_error_and_the_server_with_status_1(
    tmp_path: Path, stream: bool
) -> None:
    with parrot_worker(write_folder(tmp_path / "killed")) as worker:
        response = worker.http.post(CHAT, json=long_stream(stream=stream))

        if stream:
            assert error_of(response.text.split("\n\n"))["code"] == "engine_unavailable"
        else:
            assert response.status_code == 503
            assert response.headers["retry-after"]
            assert response.json()["error"]["type"] == "server_error"
        assert worker.process.wait(timeout=20) == 1
        assert worker.process.stderr is not None
        (line,) = worker.process.stderr.read().splitlines()
        assert "The engine process was ended by SIGKILL" in line


def test_killing_the_server_leaves_no_engine_behind(tmp_path: Path) -> None:
    with parrot_worker(write_folder(tmp_path / "slow")) as worker:
        engine = worker.engine

        worker.process.kill()

        gone, _ = psutil.wait_procs([engine], timeout=10)
        assert gone or engine.status() == psutil.STATUS_ZOMBIE


def test_while_the_model_loads_the_server_lives_but_is_not_ready(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "loading")
    with running([sys.executable, str(FAKES / "parrot_server.py"), str(folder), "15", "1"]) as worker:
        # The fake announces its address before it is ready when its fate is to load for long.
        assert worker.http.get("/health").status_code == 200
        assert worker.http.get("/model").status_code == 503
        response = worker.http.post(CHAT, json=long_stream())
        assert (response.status_code, response.json()["error"]["code"]) == (503, "engine_unavailable")
        assert worker.http.get("/ready").status_code == 503
        assert worker.metric("kv_usage_ratio") == 0

        worker.process.terminate()

        assert worker.process.wait(timeout=20) == 0
