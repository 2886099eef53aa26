"""`make run` as the README promises it: it starts, says where it is, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import httpx
import pytest
from running_stack import ROOT, free_port, interrupt, start

SETUP = ROOT / "ops" / "dev" / "setup.sh"


def test_make_run_prints_how_to_use_it_and_ctrl_c_ends_all_of_it(tmp_path: Path) -> None:
    running = start(["make", "run"], tmp_path)
    answer = httpx.post(
        f"{running.url}/v1/chat/completions",
        json={"model": "sluice-tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8},
    )
    survivors = interrupt(running)
    printed = running.log.read_text()
    assert answer.status_code == 200
    assert survivors == []
    for part in (running.url, "sluice-tiny", "curl ", "from openai import OpenAI"):
        assert part in printed
    assert "Traceback" not in printed


def setup(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the installer and return how it ended."""
    return subprocess.run(
        ["bash", str(SETUP), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_taken_port_is_one_clear_sentence(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        ended = setup("run", SLUICE_PORT=str(port))
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert f"port {port} is in use" in ended.stderr


def test_no_suitable_python_is_one_clear_sentence(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("bash", "dirname", "cat", "cksum", "df", "awk", "sed", "uname"):
        (tools / tool).symlink_to(shutil.which(tool) or pytest.fail(f"{tool} is missing"))
    old = tools / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    ended = setup("test", PATH=str(tools), VENV=str(tmp_path / "venv"), PYTHON="")
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert "Python 3.11 or newer" in ended.stderr


def test_no_disk_is_one_clear_sentence(tmp_path: Path) -> None:
    ended = setup(
        "run",
        VENV=str(tmp_path / "venv"),
        SLUICE_PORT=str(free_port()),
        SLUICE_MINIMUM_DISK_MB="999999999",
    )
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert "free disk" in ended.stderr
    assert not (tmp_path / "venv").exists()
