"""Another package adds an engine: the worked example in `engines/examples/parrot`, installed and used."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sluice_engines.adapter import ClientRequest, EngineAdapter
from sluice_engines.load_reader import LoadReader
from sluice_engines.probe import probe
from sluice_engines.registry import adapter_names, create_adapter, load_adapters
from sluice_router.types import EngineLoad

from .page_server import Engine, serving
from .simple_transport import SimpleTransport

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "engines" / "examples" / "parrot"

PAGES = {
    "/healthz": (200, "{}"),
    "/about": (200, '{"version": "3.1"}'),
    "/v1/models": (200, '{"data": [{"id": "polly"}]}'),
    "/metrics": (200, "parrot_talking 2\nparrot_queue 5\n"),
}


def create() -> EngineAdapter:
    """The adapter, found and made as the gateway does it."""
    return create_adapter(load_adapters(["parrot"])["parrot"])


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that pip has installed the example to, with its entry point."""
    folder = tmp_path_factory.mktemp("site")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(folder)]
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", *options, str(EXAMPLE)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PIP_USER": "0"}
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_the_gateway_finds_it_by_its_name(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = adapter_names()
    monkeypatch.syspath_prepend(installed)

    assert set(adapter_names()) - set(before) == {"parrot"}
    assert create().title == "Parrot"


async def test_it_is_probed_and_its_load_is_read_over_a_socket(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(installed)
    adapter, http = create(), SimpleTransport()
    async with serving(Engine(PAGES)) as url:
        reading = await probe(http, adapter, url, ask_version=True)
        load = await LoadReader(http, adapter, url, clock=lambda: 0.0).read()

    assert (reading.ready, reading.models, reading.version) == (True, ("polly",), "3.1")
    assert (load.load, load.problem) == (EngineLoad(running=2, waiting=5), None)


async def test_what_is_missing_is_said_in_its_own_words(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(installed)
    adapter, http = create(), SimpleTransport()
    async with serving(Engine({})) as url:
        load = await LoadReader(http, adapter, url, clock=lambda: 0.0).read()

    assert load.problem == "/metrics answered 404 (start it with --gauges)"


def test_requests_reach_it_in_its_dialect(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(installed)
    request = ClientRequest(kind="chat", path="/v1/chat/completions", body=b"{}")

    prepared = create().prepare(request, "http://127.0.0.1:9000", "secret")

    assert (prepared.base_url, prepared.path) == ("http://127.0.0.1:9000", "/talk")
    assert prepared.headers == ((b"authorization", b"Bearer secret"),)


def test_the_guide_shows_the_example_as_it_is() -> None:
    """All of the code, in no more lines than it promises."""
    guide = (ROOT / "docs" / "engines.md").read_text()
    section = guide.partition("## Add your own engine in 40 lines")[2]
    shown = re.findall(r"^```(?:python|toml)\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    code = (EXAMPLE / "parrot_sluice.py").read_text()

    assert shown[0] == code
    assert len(code.splitlines()) <= 40
    assert shown[1] in (EXAMPLE / "pyproject.toml").read_text()
