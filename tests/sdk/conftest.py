"""One gateway for all SDK tests: the bundled worker with the bundled model, and a scripted engine."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import httpx
import msgspec
import openai
import pytest
from running_stack import READY_WITHIN_S, Stack, interrupt, start

from sluice_engines.worker import WorkerAdapter

from .scripted_upstream import FAULTS, MODEL, ScriptedServer, wait_for

WORKER_MODEL = "sluice-tiny"
MAX_BODY_BYTES = 200_000
SCRIPTED_KINDS = [
    *("chat", "completions", "embeddings", "tokenize", "rerank", "score"),
    *("audio_transcriptions", "audio_translations", "audio_speech"),
    *("images_generations", "images_edits", "images_variations"),
]
CAPABILITIES = (*SCRIPTED_KINDS, "tool_calls", "json_schema")
"""What a test may need of an engine."""


def _key(name: str, **fields: Any) -> dict[str, Any]:
    return {"id": name, "sha256": hashlib.sha256(f"sk-{name}".encode()).hexdigest(), **fields}


KEYS = [
    _key("sdk"),
    _key("other", tenant="other"),
    _key("narrow", models=["echo"]),
    _key("counted", limits={"requests_per_min": 20, "tokens_per_min": 1000}),
    _key("twice", limits={"requests_per_min": 2}),
    _key("twice-anthropic", limits={"requests_per_min": 2}),
    _key("twice-node", limits={"requests_per_min": 2}),
    _key("single", limits={"concurrent": 1}),
    _key("single-node", limits={"concurrent": 1}),
    _key("poor", limits={"budget_per_day": 20}),
    _key("expired", expires="2020-01-01T00:00:00Z"),
]


@dataclass(frozen=True)
class Engine:
    """Whom a test asks that needs a capability."""

    model: str

    @property
    def is_scripted(self) -> bool:
        """Its payloads are known to the letter."""
        return self.model == MODEL


@pytest.fixture(scope="session")
def upstream() -> Iterator[ScriptedServer]:
    """The scripted engine."""
    with ScriptedServer() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield server
        server.shutdown()


def _settings(upstream: ScriptedServer, folder: Path) -> dict[str, Any]:
    scripted = {"adapter": "openai_compatible", "url": upstream.url}
    return {
        "server": {"max_body_bytes": MAX_BODY_BYTES},
        "backends": [
            {"name": "worker", "adapter": "worker", "managed": {}},
            {"name": "echo", "adapter": "echo", "models": ["echo"]},
            {"name": "scripted", **scripted, "models": [MODEL], "endpoints": SCRIPTED_KINDS},
            {"name": "faulty", **scripted, "models": [*FAULTS]},
        ],
        "keys": KEYS,
        "prices": {"models": {"echo": {"input": 1_000_000, "output": 1_000_000}}},
        # Failing on purpose must not keep the next test from its engine.
        "failover": {"breaker_failures": 1000},
        "store": {"url": f"sqlite:///{folder}/sluice.db"},
        "ledger": {"journal_folder": f"{folder}/ledger"},
        "files": {"dir": f"{folder}/files"},
    }


@pytest.fixture(scope="session")
def sluice(upstream: ScriptedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """`sluice serve`, ready with the bundled model."""
    folder = tmp_path_factory.mktemp("sdk")
    config = folder / "sluice.yaml"
    config.write_text(json.dumps(_settings(upstream, folder)))
    command = [str(Path(sys.executable).parent / "sluice"), "serve", "--config", str(config)]
    running = start(command, folder)
    try:
        wait_for(lambda: WORKER_MODEL in _models(running), "the bundled model is served", READY_WITHIN_S)
        yield running
    finally:
        left = interrupt(running)
    assert left == []
    log = running.log.read_text()
    assert "Traceback" not in log, log
    assert "sk-" not in log


def _models(sluice: Stack) -> list[str]:
    listed = httpx.get(f"{sluice.url}/v1/models", headers={"x-api-key": "sk-sdk"}).json()
    return [model["id"] for model in listed["data"]]


@pytest.fixture
def client(sluice: Stack) -> Iterator[openai.OpenAI]:
    """OpenAI's SDK, with its own retries off, and no certificates read that nobody needs."""
    http = openai.DefaultHttpxClient(verify=False)
    settings: dict[str, Any] = {"max_retries": 0, "timeout": 60, "http_client": http}
    with openai.OpenAI(base_url=f"{sluice.url}/v1", api_key="sk-sdk", **settings) as sdk:
        yield sdk


@pytest.fixture
def claude(sluice: Stack) -> Iterator[anthropic.Anthropic]:
    """Anthropic's SDK, in the same way."""
    http = anthropic.DefaultHttpxClient(verify=False)
    settings: dict[str, Any] = {"max_retries": 0, "timeout": 60, "http_client": http}
    with anthropic.Anthropic(base_url=sluice.url, api_key="sk-sdk", **settings) as sdk:
        yield sdk


def declared(capability: str) -> bool:
    """Whether the worker says that it can do something: a kind of request, or a feature of one."""
    assert capability in CAPABILITIES, f"{capability} is not in CAPABILITIES"
    features = msgspec.structs.asdict(WorkerAdapter.capabilities)
    kinds = features.pop("endpoints")
    return bool(features.get(capability, capability in kinds))


def engines_for(capability: str) -> list[str]:
    """The models to ask: the scripted one always, the worker's once it can."""
    return [MODEL, *([WORKER_MODEL] if declared(capability) else [])]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that needs an engine on each that has what it needs."""
    if "engine" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("needs_engine")
        assert marker is not None, "a test that takes `engine` is marked needs_engine(CAPABILITY)"
        models = engines_for(marker.args[0])
        metafunc.parametrize("engine", [Engine(model) for model in models], ids=models)
