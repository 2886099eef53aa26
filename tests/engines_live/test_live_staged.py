"""llama-server on a file that the stager made: both with the commands of Compose's services."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from compose_file import Project, load
from running_stack import ROOT, SLUICE, free_port
from service_facts import command

from . import installed
from .fleet import eventually

STAGER = str(Path(sys.executable).parent / "sluice-worker")
QUESTION = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0}


pytestmark = pytest.mark.starts_engines("llamacpp")


@pytest.fixture
def project() -> Project:
    return load(ROOT / "docker-compose.yml", {})


def here(words: list[str], volume: Path, port: int = 0) -> list[str]:
    """A service's command without its container: the volume is a folder, the port another, on loopback."""
    found = [word.replace("/models", str(volume)).replace("0.0.0.0", "127.0.0.1") for word in words]
    return [str(port) if before == "--port" else word for before, word in pairwise(["", *found])]


def stage(project: Project, volume: Path) -> None:
    words = here(command(project.services["stage-llamacpp"]), volume)
    done = subprocess.run([STAGER, *words], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@contextmanager
def llama_server(project: Project, volume: Path, log: Path) -> Iterator[str]:
    """Its URL, once it says that it is healthy at the path that its service's check asks."""
    port = free_port()
    words = here(command(project.services["llamacpp"]), volume, port)
    url = f"http://127.0.0.1:{port}"
    checked = project.services["llamacpp"]["healthcheck"]["test"][-1]

    def healthy() -> bool:
        assert process.poll() is None, log.read_text(errors="replace")
        try:
            return httpx.get(url + httpx.URL(checked).path).is_success
        except httpx.TransportError:
            return False

    with log.open("wb") as output:
        process = subprocess.Popen([str(installed.llama_server()), *words], stdout=output, stderr=output)
    try:
        eventually(healthy, explain=lambda: log.read_text(errors="replace"))
        yield url
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_it_answers_from_what_was_staged(project: Project, tmp_path: Path) -> None:
    volume = tmp_path / "models"
    stage(project, volume)
    file = volume / "llamacpp" / "model.gguf"
    written = file.stat().st_mtime_ns
    stage(project, volume)

    with llama_server(project, volume, tmp_path / "llama-server.log") as url:
        answer = httpx.post(f"{url}/v1/chat/completions", json=QUESTION, timeout=120).json()
        probed = subprocess.run([SLUICE, "engines", "probe", url, "--json"], capture_output=True, check=True)
        slots = httpx.get(f"{url}/slots").json()
        metrics = httpx.get(f"{url}/metrics")

    assert file.stat().st_mtime_ns == written, "the second start finds it there"
    assert "Paris" in answer["choices"][0]["message"]["content"]
    identity = json.loads(probed.stdout)["identity"]
    assert (identity["adapter"], identity["models"]) == ("llamacpp", ["sluice-tiny"])
    assert slots[0]["n_ctx"] > 0
    assert b"llamacpp:requests_processing" in metrics.content
