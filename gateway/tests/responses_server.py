"""The Responses API on a real port, over an engine that a test scripts: what the pipeline does, in short."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import uvicorn
from fastapi import FastAPI, Request, Response
from starlette.responses import StreamingResponse

from sluice_gateway.errors import Failure, Problem, problem
from sluice_gateway.identity import Key
from sluice_gateway.responses_api.ask import ResponseAsk
from sluice_gateway.responses_api.routes import build_router
from sluice_gateway.responses_api.service import ResponsesService
from sluice_gateway.responses_api.settings import ResponsesSettings
from sluice_gateway.store.database import Database
from sluice_gateway.wire import Wire

from .prompt_server import PromptServer
from .serving import PATIENCE_S, eventually

BEAT_S = SILENCE_S = 0.02


def piece(finish: str | None = None, **delta: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return json.dumps({"choices": [choice]}).encode()


USAGE = json.dumps({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}).encode()
HELLO = (piece(content="Hel"), piece(content="lo"), piece("stop"), USAGE)
CALLS = (
    piece(reasoning_content="I need the weather."),
    piece(tool_calls=[{"index": 0, "id": "call_w", "function": {"name": "weather", "arguments": '{"at"'}}]),
    piece(tool_calls=[{"index": 0, "function": {"arguments": ':"Bern"}'}}]),
    piece("tool_calls"),
    USAGE,
)


@dataclass
class Engine:
    """Answers each request with `chunks`; waits before each chunk while `gate` is closed."""

    chunks: tuple[bytes, ...] = HELLO
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[dict[str, Any]] = field(default_factory=list)
    cancelled: int = 0
    refusal: Problem | None = None

    def __post_init__(self) -> None:
        self.gate.set()

    async def stream(self, body: bytes) -> AsyncIterator[bytes]:
        self.asked.append(json.loads(body))
        try:
            for chunk in self.chunks:
                await self.gate.wait()
                yield chunk
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    def message(self) -> bytes:
        """The chunks as a plain answer."""
        parts = [json.loads(chunk) for chunk in self.chunks]
        said: dict[str, Any] = {}
        finish, usage = None, None
        for part in parts:
            usage = part.get("usage") or usage
            for choice in part["choices"]:
                finish = choice["finish_reason"] or finish
                for name, value in choice["delta"].items():
                    said[name] = said.get(name, "") + value if isinstance(value, str) else _join(said, value)
        choices = [{"index": 0, "message": said, "finish_reason": finish}]
        return json.dumps({"choices": choices, "usage": usage}).encode()


def _join(said: dict[str, Any], calls: Any) -> Any:
    joined = said.get("tool_calls") or [{**call, "function": {"arguments": ""}} for call in calls]
    for call, more in zip(joined, calls, strict=True):
        call["function"]["name"] = call["function"].get("name") or more["function"]["name"]
        call["function"]["arguments"] += more["function"]["arguments"]
    return joined


async def generate(engine: Engine, ask: ResponseAsk, wire: Wire) -> None:
    """The pipeline's part, without its care."""
    if engine.refusal is not None:
        wire.whole(engine.refusal.status, [], engine.refusal.body())
        return
    translation = ask.translation()
    if not ask.stream:
        async for _ in engine.stream(translation.body):
            pass
        answer = translation.whole(engine.message())
        await ask.conclude()
        wire.whole(200, [], answer)
        return
    wire.start(200, [])
    async for chunk in engine.stream(translation.body):
        events = translation.events(chunk)
        if events:
            wire.write(events)
    last = translation.end()
    await ask.conclude()
    wire.finish(last)


class _Collected:
    """A wire that hands the body on."""

    def __init__(self) -> None:
        self.pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.status = 200

    def start(self, status: int, headers: Any) -> None:
        self.status = status

    def write(self, data: bytes) -> None:
        self.pieces.put_nowait(data)

    def finish(self, data: bytes = b"") -> None:
        self.pieces.put_nowait(data)
        self.pieces.put_nowait(None)

    def whole(self, status: int, headers: Any, body: bytes) -> None:
        self.status = status
        self.finish(body)


@dataclass
class Stand:
    """A served Responses API."""

    service: ResponsesService
    engine: Engine
    url: str

    def sdk(self, tenant: str = "a") -> openai.AsyncOpenAI:
        http = openai.DefaultAsyncHttpxClient(verify=False)
        return openai.AsyncOpenAI(
            base_url=f"{self.url}/v1", api_key=tenant, max_retries=0, timeout=PATIENCE_S, http_client=http
        )


def key_of(request: Request) -> Key | Problem:
    """The bearer is the tenant."""
    tenant = request.headers.get("authorization", "").removeprefix("Bearer ")
    return Key(id=tenant, tenant=tenant) if tenant else problem(Failure.INVALID_API_KEY, "No key.")


def build_app(service: ResponsesService, engine: Engine) -> FastAPI:
    app = FastAPI()

    async def run(ask: ResponseAsk, wire: Wire) -> None:
        await generate(engine, ask, wire)

    @app.post("/v1/responses")
    async def create(request: Request) -> Response:
        key = key_of(request)
        ask = key if isinstance(key, Problem) else await service.open(await request.body(), key)
        if isinstance(ask, Problem):
            return Response(ask.body(), ask.status, media_type="application/json")
        if ask.background:
            begun = await service.begin(ask, run)
            if isinstance(begun, Problem):
                return Response(begun.body(), begun.status, media_type="application/json")
            if not ask.stream:
                return Response(begun.queued, media_type="application/json")
            return StreamingResponse(begun.log.follow(-1), media_type="text/event-stream")
        wire = _Collected()
        task = asyncio.create_task(run(ask, wire))
        if not ask.stream:
            await task
            return Response(await wire.pieces.get(), wire.status, media_type="application/json")

        async def body() -> AsyncIterator[bytes]:
            while (data := await wire.pieces.get()) is not None:
                yield data
            await task

        return StreamingResponse(body(), media_type="text/event-stream")

    async def count(body: bytes, key: Key) -> int | Problem:
        return len(json.loads(body)["messages"])

    router = build_router(
        service,
        key_of,
        count,
        max_body_bytes=65_536,
        body_timeout_s=PATIENCE_S,
        keep_alive_s=SILENCE_S,
    )
    app.include_router(router)
    return app


def service_of(
    database: Database,
    clock: Callable[[], float] = lambda: 1_700_000_000.0,
    seed: int = 0,
    beat_s: float = BEAT_S,
    **settings: Any,
) -> ResponsesService:
    numbers = itertools.count(seed * 1_000_000)
    return ResponsesService(
        database,
        ResponsesSettings(**settings),
        clock=clock,
        randomness=lambda size: next(numbers).to_bytes(size, "big"),
        beat_s=beat_s,
    )


@asynccontextmanager
async def stored(path: Path) -> AsyncIterator[Database]:
    """A database of its own."""
    database = Database(f"sqlite:///{path / 'responses.db'}")
    await database.migrate()
    yield database
    await database.aclose()


@asynccontextmanager
async def standing(path: Path, engine: Engine | None = None, **settings: Any) -> AsyncIterator[Stand]:
    """Serve until the block ends."""
    engine = engine or Engine()
    async with stored(path) as database:
        service = service_of(database, **settings)
        service.start()
        listener = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(build_app(service, engine), log_config=None, timeout_graceful_shutdown=1)
        server = PromptServer(config)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            await eventually(lambda: server.started or task.done())
            yield Stand(service, engine, f"http://127.0.0.1:{listener.getsockname()[1]}")
        finally:
            server.stop()
            await task
            await service.aclose()
