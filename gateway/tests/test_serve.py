"""The command, as a process: it starts, says so, stops in order, and complains in one sentence."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from sluice_gateway.auth import digest

SLUICE = str(Path(sys.executable).parent / "sluice")
FAKE_ENGINE = """
import http.server, json, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"data": [{"id": "fake"}]}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_POST(self):
        os._exit(9)
    def log_message(self, *args): pass
print("engine is up", flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Running:
    """`sluice serve` with a configuration of its own."""

    def __init__(self, folder: Path, config: str) -> None:
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        (folder / "sluice.yaml").write_text(config)
        self.log = folder / "log"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [SLUICE, "serve", "--port", str(port)],
                cwd=folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/ready", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    def until(self, condition: object, within_s: float = 30) -> None:
        deadline = time.monotonic() + within_s
        while not condition():  # type: ignore[operator]
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def stop(self, number: int) -> int:
        os.killpg(self.process.pid, number)
        return self.process.wait(10)


@pytest.fixture
def start(tmp_path: Path):
    started: list[Running] = []

    def run(config: str) -> Running:
        started.append(Running(tmp_path, config))
        return started[-1]

    yield run
    for running in started:
        if running.process.poll() is None:
            running.process.kill()
            running.process.wait()


ECHO = "backends:\n  - {name: echo, adapter: echo}\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_how_to_use_it_and_stops_in_order(start, number: int) -> None:
    running = start(ECHO)
    running.until(running.ready)
    running.until(lambda: "Press Ctrl-C" in running.log.read_text())
    printed = running.log.read_text()
    for part in (running.url, "Model: echo", "curl", "from openai import OpenAI"):
        assert part in printed
    assert running.stop(number) == 0
    assert "Traceback" not in running.log.read_text()


def test_a_stream_ends_with_an_error_when_the_drain_is_over(start) -> None:
    running = start(ECHO + "server: {drain_s: 0.1}\n")
    running.until(running.ready)
    body = {"model": "echo", "stream": True, "messages": [{"role": "user", "content": "a b c d e f g"}]}
    pace = {"x-echo-tokens-per-s": "1"}
    request = httpx.stream("POST", f"{running.url}/v1/chat/completions", json=body, headers=pace, timeout=20)
    with request as answer:
        pieces = answer.iter_raw()
        seen = next(pieces)
        os.killpg(running.process.pid, signal.SIGTERM)
        seen += b"".join(pieces)
    assert b"shutting down" in seen
    assert running.process.wait(10) == 0


def streaming(running: Running, words: str, tokens_per_s: str):
    body = {"model": "echo", "stream": True, "messages": [{"role": "user", "content": words}]}
    pace = {"x-echo-tokens-per-s": tokens_per_s}
    return httpx.stream("POST", f"{running.url}/v1/chat/completions", json=body, headers=pace, timeout=30)


def test_while_it_drains_streams_go_on_and_new_requests_are_told_when_to_come_back(start) -> None:
    running = start(ECHO)
    running.until(running.ready)
    with streaming(running, "a b c d e f", "4") as answer:
        pieces = answer.iter_raw()
        seen = next(pieces)
        os.kill(running.process.pid, signal.SIGTERM)
        running.until(lambda: not running.ready())
        body = {"model": "echo", "messages": [{"role": "user", "content": "hi"}]}
        refused = httpx.post(f"{running.url}/v1/chat/completions", json=body)
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        seen += b"".join(pieces)
    assert seen.endswith(b"data: [DONE]\n\n")
    assert running.process.wait(10) == 0


@pytest.mark.parametrize(
    ("first", "second"),
    [(signal.SIGTERM, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT)],
)
def test_a_second_signal_waits_for_nobody(start, first: int, second: int) -> None:
    running = start(ECHO)
    running.until(running.ready)
    with streaming(running, "a b c d e f", "0.1") as answer:
        pieces = answer.iter_raw()
        seen = next(pieces)
        os.kill(running.process.pid, first)
        running.until(lambda: "Stopping" in running.log.read_text())
        os.kill(running.process.pid, second)
        seen += b"".join(pieces)
    assert b"shutting down" in seen
    assert running.process.wait(10) == 0


def test_ctrl_c_has_a_patience_of_its_own(start) -> None:
    running = start(ECHO + "server: {interrupt_drain_s: 0.1}\n")
    running.until(running.ready)
    with streaming(running, "a b c d e f", "0.1") as answer:
        pieces = answer.iter_raw()
        seen = next(pieces)
        os.kill(running.process.pid, signal.SIGINT)
        seen += b"".join(pieces)
    assert b"shutting down" in seen
    assert running.process.wait(10) == 0


def test_a_hangup_reloads_where_there_is_no_terminal(start, tmp_path: Path) -> None:
    running = start(ECHO)
    running.until(running.ready)
    for text, said in (
        ("backends: [{name: second, adapter: echo}]\n", "configuration 2 is in force"),
        ("backends: [{}]\n", "not reloaded: sluice.yaml, line 1"),
    ):
        (tmp_path / "sluice.yaml").write_text(text)
        os.kill(running.process.pid, signal.SIGHUP)
        running.until(lambda said=said: said in running.log.read_text())
    assert 'backend="second"' in httpx.get(f"{running.url}/metrics").text
    assert running.stop(signal.SIGINT) == 0


def test_metrics_have_a_port_of_their_own_where_that_is_wanted(start) -> None:
    port = free_port()
    running = start(ECHO + f"server: {{metrics_port: {port}}}\n")
    running.until(running.ready)
    page = httpx.get(f"http://127.0.0.1:{port}/metrics")
    assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "sluice_gateway_requests_in_flight 0.0" in page.text
    assert httpx.get(f"http://127.0.0.1:{port}/v1/models").status_code == 404
    with socket.create_connection(("127.0.0.1", port)) as rude:
        rude.sendall(b"x" * 100_000)
    assert httpx.head(f"http://127.0.0.1:{port}/metrics").status_code == 200


def test_a_managed_engine_is_started_again_and_never_left_behind(start, tmp_path: Path) -> None:
    program = tmp_path / "engine.py"
    program.write_text(FAKE_ENGINE)
    command = f'[{sys.executable}, {program}, "{{port}}"]'
    running = start(
        "backends:\n  - name: fake\n    adapter: openai_compatible\n"
        f"    managed:\n      command: {command}\nhealth: {{interval_s: 60}}\n"
    )
    running.until(running.ready)
    assert "[fake] engine is up" in running.log.read_text()
    family = psutil.Process(running.process.pid).children(recursive=True)
    engine = next(p for p in family if str(program) in p.cmdline() and p.name().startswith("python"))
    body = {"model": "fake", "messages": [{"role": "user", "content": "die"}]}
    answer = httpx.post(f"{running.url}/v1/chat/completions", json=body, timeout=20)
    assert answer.status_code == 502
    running.until(lambda: not running.ready())
    running.until(running.ready)
    family += psutil.Process(running.process.pid).children(recursive=True)
    assert running.stop(signal.SIGINT) == 0
    _, alive = psutil.wait_procs(family, timeout=2)
    assert alive == []
    assert not engine.is_running()


def complaint(*arguments: str, cwd: Path, **environment: str) -> str:
    """What the command says on standard error when it refuses."""
    ended = subprocess.run(
        [SLUICE, *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    return ended.stderr


def test_a_taken_port_is_one_sentence_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"Port {port} is in use" in complaint("serve", cwd=tmp_path, SLUICE_PORT=str(port))


def test_other_addresses_need_a_key(tmp_path: Path) -> None:
    assert "keys" in complaint("serve", "--host", "0.0.0.0", cwd=tmp_path)


def test_a_wrong_configuration_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "sluice.yaml").write_text("servers: {}\n")
    assert "line 1" in complaint("serve", cwd=tmp_path)
    assert "line 1" in complaint("config", "check", cwd=tmp_path)


def test_a_program_that_is_not_installed_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "sluice.yaml").write_text(
        "backends: [{name: x, adapter: worker, managed: {command: [no-such-engine]}}]"
    )
    assert "no-such-engine" in complaint("serve", "--port", str(free_port()), cwd=tmp_path)


def test_a_managed_engine_that_is_not_installed_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "sluice.yaml").write_text(
        "backends: [{name: x, adapter: llamacpp, managed: {args: [--model, x.gguf]}}]"
    )
    text = complaint("serve", "--port", str(free_port()), cwd=tmp_path)
    assert "'llama-server' is not installed" in text
    assert "'command'" in text


def said(*arguments: str, cwd: Path, stdin: str = "") -> str:
    ended = subprocess.run(
        [SLUICE, *arguments], cwd=cwd, input=stdin, capture_output=True, text=True, timeout=30
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_a_new_key_fits_its_entry(tmp_path: Path) -> None:
    printed = said("keys", "new", "--id", "alice", cwd=tmp_path)
    secret = next(word for word in printed.split() if word.startswith("sk-sluice-"))
    assert f"- id: alice\n    sha256: {digest(secret)}" in printed
    assert said("keys", "hash", cwd=tmp_path, stdin=f"{secret}\n").strip() == digest(secret)
    (tmp_path / "sluice.yaml").write_text(ECHO + printed[printed.index("keys:") :])
    assert "API keys: 1" in said("config", "check", cwd=tmp_path)
