from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from .postgres import PostgresServer, binaries, running_server
from .scripted_engine import Script, ScriptedEngine

StartEngine = Callable[..., Awaitable[ScriptedEngine]]


@pytest.fixture
async def start_engine() -> AsyncIterator[StartEngine]:
    """Start a scripted engine; all of them are stopped after the test."""
    engines: list[ScriptedEngine] = []

    async def start(script: Script, *models: str) -> ScriptedEngine:
        engine = ScriptedEngine(script, models or ("m",))
        await engine.start()
        engines.append(engine)
        return engine

    yield start
    for engine in engines:
        await engine.stop()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One server for all tests; each takes a database of its own."""
    if binaries() is None and not os.environ.get("CI"):
        pytest.skip("PostgreSQL is not installed")
    with running_server() as server:
        yield server


_databases = itertools.count()


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.db"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.create_database(f"store_{next(_databases)}")
