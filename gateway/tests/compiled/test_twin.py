"""`sluice serve` from compiled modules and from their sources gives the same answers, byte for byte."""

from __future__ import annotations

import asyncio
import os
import random
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from sluice_gateway.compiled import build, finder

from ..conftest import StartEngine
from ..limits.redis_server import free_port
from ..scripted_engine import ROLE, Call, delta, event
from ..serving import eventually
from ..test_native_twin import KINDS, PATH, ask_at, bodies, by_its_number

SLUICE = str(Path(sys.executable).parent / "sluice")
SAID = re.compile(r"serves from (\S+)")


async def paced(call: Call) -> None:
    """As `by_its_number`, but what follows content comes well after it: whether the gateways, in processes of
    their own, read both at once is not for the scheduler to say."""
    kind = call.fields["seed"] % 10
    if kind > 1 or not call.fields["stream"]:
        await by_its_number(call)
        return
    await call.start_events()
    await call.write(ROLE, delta("be"))
    await asyncio.sleep(0.05)
    if kind == 0:
        call.reset()
    else:
        await call.write(event(error={"message": "broken", "code": 500}))


def settled(body: bytes) -> bool:
    """Whether the engine's answer to it depends on no reading of both at once."""
    seed = re.search(rb'"seed": (\d+)', body)
    chosen = random.Random(int(seed[1])).choice(KINDS) if seed else ""
    streamed = b'"stream": true' in body
    return not streamed or seed is None or int(seed[1]) % 10 <= 1 or chosen not in ("cut", "error event")


def configure(folder: Path, engine_url: str) -> Path:
    """Write a configuration; where the log goes."""
    folder.mkdir()
    backend = {"name": "main", "adapter": "openai_compatible", "url": engine_url}
    failover = {"retry_budget": 1.0, "breaker_failures": 1_000_000}
    # A probe that comes late on a busy machine would make one of the two answer otherwise.
    health = {"failures": 1000}
    config = {"backends": [backend], "failover": failover, "health": health, "logs": {"format": "json"}}
    (folder / "sluice.yaml").write_bytes(msgspec.json.encode(config))
    log = folder / "log"
    log.touch()
    return log


@asynccontextmanager
async def served(folder: Path, engine_url: str, compiled: bool) -> AsyncIterator[int]:
    """The port of a gateway in a process of its own."""
    port, log = free_port(), configure(folder, engine_url)
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", f"exec {SLUICE} serve --port {port} >log 2>&1"),
        cwd=folder,
        env={**os.environ, finder.SWITCH: str(int(compiled))},
    )
    try:
        await eventually(lambda: process.returncode is not None or "is ready" in log.read_text())
        assert SAID.findall(log.read_text()) == ["compiled" if compiled else "Python"]
        yield port
    finally:
        process.terminate()
        await process.wait()


async def answer(port: int, body: bytes, header: bytes) -> tuple[bytes, list[bytes], bytes]:
    """Without framing: whether a body is passed on whole or as it comes depends on how it came."""
    status, headers, content = await ask_at(port, PATH, body, header)
    return status, [line for line in headers if not line.startswith(b"content-length")], content


@pytest.mark.slow
async def test_the_same_answers(start_engine: StartEngine, tmp_path: Path) -> None:
    build.build()
    engine = await start_engine(paced)
    async with (
        served(tmp_path / "compiled", engine.url, True) as compiled,
        served(tmp_path / "python", engine.url, False) as python,
    ):
        for body in filter(settled, bodies()):
            for header in (b"x: y", b"x-quant: none", b"x-backend: nowhere", b"content-encoding: gzip"):
                found, wanted = [await answer(port, body, header) for port in (compiled, python)]
                assert found == wanted
