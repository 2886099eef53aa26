from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

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
