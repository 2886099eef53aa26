"""Locust itself, each time in a process of its own: gevent changes the whole process that it is in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sluice_bench.journeys.__main__ import LOCUSTFILE

HOT = f"""
import sys
sys.path.insert(0, {str(LOCUSTFILE.parent)!r})
from locust import runners
runners.CPU_WARNING_THRESHOLD, runners.CPU_MONITOR_INTERVAL = -1, 0.2
from locustfile import JourneyUser
"""
"""A locustfile under which Locust finds that it uses too much CPU, and says so."""

BROKEN = f"""
import sys
sys.path.insert(0, {str(LOCUSTFILE.parent)!r})
from locustfile import JourneyUser
JourneyUser.on_stop = lambda self: self.nowhere
JourneyUser.wait_time = lambda self: self.nowhere
"""


def locust(target, *options, locustfile=LOCUSTFILE):
    """Run it for a second with three users who hardly think."""
    command = [sys.executable, "-m", "locust", "-f", str(locustfile), "--headless", "--only-summary"]
    command += ["--host", target.url, "-u", "3", "-r", "3", "-t", "1s", "--think-s", "0.05", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=Path.home())


def test_everything_that_can_be_served_is_and_the_key_is_never_shown(engine, monkeypatch):
    key = "alice-s3cret"
    monkeypatch.setenv("OPENAI_API_KEY", key)
    fake, target = engine(calls=True, embeds="small", backends={"gpu": "small"}, pause_s=0.01, key=key)

    ended = locust(target, "-t", "2s")

    assert ended.returncode == 0, ended.stderr
    assert "SKIPPED" not in ended.stdout + ended.stderr
    assert "NOT REACHED" not in ended.stdout
    assert ended.stdout.count("  ok ") == 3
    assert {path for path, _, _ in fake.asked} == {"/v1/models", "/v1/chat/completions", "/v1/embeddings"}
    assert key not in ended.stdout + ended.stderr


def test_what_cannot_be_served_is_said_before_and_after(engine):
    _, target = engine(pause_s=0.01)

    ended = locust(target)

    assert ended.returncode == 0, ended.stderr
    for said in (ended.stdout, ended.stderr):
        assert all(journey in said for journey in ("tools", "embeddings", "toggle"))
        assert said.count("SKIPPED") == 3


def test_a_missed_limit_sets_the_status(engine):
    _, target = engine(pause_s=0.01)

    ended = locust(target, "--journeys", "chat", "--p95-e2e-ms", "1")

    assert ended.returncode == 1
    assert "MISSED E2E, p95: " in ended.stdout
    assert ended.stdout.count("MISSED") == 1


def test_failures_count_and_have_no_times(engine):
    _, target = engine(says="cpu", backends={"gpu": "small"})

    ended = locust(target, "--journeys", "chat,toggle", "--max-failed", "0.1")

    assert ended.returncode == 1
    assert "MISSED failed: " in ended.stdout
    assert ended.stdout.count("MISSED") == 1
    assert "asked for backend gpu, answered by cpu" in ended.stderr


def test_two_workers_and_a_master_add_up_and_wait_for_the_slowest_answers(engine):
    fake, target = engine(pause_s=0.1, pieces=15)

    ended = locust(target, "--processes", "2", "--journeys", "chat")

    assert ended.returncode == 0, ended.stderr
    tags = [body["messages"][0]["content"][:14] for _, _, body in fake.asked if body and body.get("stream")]
    assert len(tags) == len(set(tags)) >= 3
    assert f"chat         {len(tags)} requests" in ended.stdout
    assert f"of {len(tags)} requests (at most 15000 ms)" in ended.stdout


def test_who_is_stopped_in_mid_answer_has_failed(engine):
    _, target = engine(pause_s=0.3, pieces=20)

    ended = locust(target, "--journeys", "chat", "--stop-timeout", "1s")

    assert ended.returncode == 1
    assert "failed: 3 of 3 requests" in ended.stdout
    assert "unanswered at the end of the run" in ended.stderr


def test_a_shape_changes_the_number_of_users(engine):
    _, target = engine()

    ended = locust(target, "--journeys", "chat", "--shape", "step", "-u", "4", "-t", "2s")

    assert ended.returncode == 0, ended.stderr
    assert "updating to 1 users" in ended.stderr
    assert "updating to 3 users" in ended.stderr  # after a second, Locust's pace


@pytest.mark.parametrize(
    ("text", "sentence"),
    [(HOT, "Locust used more than 90 % of a core"), (BROKEN, "the test itself broke")],
)
def test_a_run_that_says_nothing_of_the_server_is_not_good(engine, tmp_path, text, sentence):
    _, target = engine()
    wrapper = tmp_path / "wrapper.py"
    wrapper.write_text(text)

    ended = locust(target, "--journeys", "chat", locustfile=wrapper)

    assert ended.returncode == 1
    assert f"MISSED {sentence}" in ended.stdout


@pytest.mark.parametrize(
    ("abilities", "options", "status", "sentence"),
    [
        ({}, ("--journeys", "tools"), 2, "Nothing of tools can be served"),
        ({}, ("--journeys", "fly"), 1, "There is no journey 'fly'; there are mixed, chat"),
        ({"key": "alice"}, (), 1, "put it into OPENAI_API_KEY"),
        ({}, ("--host", "http://127.0.0.1:1", "--processes", "2"), 1, "make run"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(engine, abilities, options, status, sentence):
    _, target = engine(**abilities)

    ended = locust(target, *options)

    assert ended.returncode == status
    assert sentence in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "Objectives" not in ended.stdout
