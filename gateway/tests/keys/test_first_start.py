"""The first start of a container: several gateways at once, one volume, one key that nobody else learns."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from ..limits.redis_server import free_port
from ..supervisor.processes import SLUICE

GATEWAYS = 3
PATIENCE_S = 60.0
CONFIG = "backends:\n  - {name: echo, adapter: echo, models: [echo]}\nstore: {url: 'sqlite:///store.db'}\n"
CHAT = {"model": "echo", "messages": [{"role": "user", "content": "one two"}]}


def surroundings(folder: Path) -> dict[str, str]:
    return {**os.environ, "SLUICE_BOOTSTRAP_KEY_FILE": str(folder / "volume" / "bootstrap.key")}


@contextmanager
def gateway(folder: Path, port: int) -> Iterator[str]:
    """`sluice serve` on all addresses, as in a container, with its log in the folder."""
    command = [SLUICE, "serve", "--host", "0.0.0.0", "--port", str(port)]
    with (folder / f"log-{port}").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=surroundings(folder), stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        assert process.wait(PATIENCE_S) == 0


def wait_until_ready(url: str, folder: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            if httpx.get(f"{url}/ready").is_success:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, [log.read_text() for log in folder.glob("log-*")]
        time.sleep(0.05)


def sluice(folder: Path, *arguments: str) -> str:
    """What a command prints, run beside the gateways as `docker compose exec` does."""
    done = subprocess.run(
        [SLUICE, *arguments], cwd=folder, env=surroundings(folder), capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("container")
    (folder / "sluice.yaml").write_text(CONFIG)
    return folder


@pytest.fixture(scope="module")
def urls(folder: Path) -> Iterator[list[str]]:
    """Gateways that start together and find no key."""
    with ExitStack() as stack:
        started = [stack.enter_context(gateway(folder, free_port())) for _ in range(GATEWAYS)]
        for url in started:
            wait_until_ready(url, folder)
        yield started


def test_they_agree_on_one_key_that_only_its_owner_reads(urls: list[str], folder: Path) -> None:
    file = folder / "volume" / "bootstrap.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [entry.name for entry in file.parent.iterdir()] == [file.name]
    keys = json.loads(sluice(folder, "keys", "list", "--json"))
    assert [(key["id"], key["scopes"]["admin"]) for key in keys] == [("bootstrap", True)]


def test_the_shown_key_opens_all_of_them_and_nothing_else_does(urls: list[str], folder: Path) -> None:
    secret = sluice(folder, "keys", "show", "--bootstrap").strip()
    assert json.loads(sluice(folder, "keys", "show", "--bootstrap", "--json")) == {"secret": secret}
    for url in urls:
        for path in ("/v1/models", "/admin/v1/keys"):
            assert httpx.get(url + path).status_code == 401
            assert httpx.get(url + path, headers={"authorization": f"Bearer {secret}"}).status_code == 200
        wrong = httpx.post(f"{url}/v1/chat/completions", json=CHAT, headers={"x-api-key": secret + "x"})
        assert wrong.status_code == 401
        right = httpx.post(f"{url}/v1/chat/completions", json=CHAT, headers={"x-api-key": secret})
        assert right.status_code == 200


def test_it_is_in_no_log_and_in_no_other_file(urls: list[str], folder: Path) -> None:
    secret = (folder / "volume" / "bootstrap.key").read_bytes().strip()
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "bootstrap.key"]
    assert {path.name.partition("-")[0] for path in files} >= {"log", "store.db", "sluice.yaml"}
    assert [path.name for path in files if secret in path.read_bytes()] == []
