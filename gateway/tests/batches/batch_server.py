"""Files and batches served on a real port, with a runner that does as a test says."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import uvicorn
from fastapi import FastAPI, Request

from sluice_gateway.auth import Keyring, digest
from sluice_gateway.batches.routes import batches_router
from sluice_gateway.batches.runner_types import CollectedAnswer
from sluice_gateway.batches.service import BatchService
from sluice_gateway.batches.settings import BatchesSettings
from sluice_gateway.errors import Problem
from sluice_gateway.files.routes import files_router
from sluice_gateway.files.service import FileService
from sluice_gateway.files.settings import FilesSettings
from sluice_gateway.identity import Key
from sluice_gateway.routes import Kind
from sluice_gateway.store.database import Database

from ..prompt_server import PromptServer
from ..serving import PATIENCE_S, eventually

Answer = Callable[[dict[str, Any]], Awaitable[CollectedAnswer]]


def ok(text: str, tokens: int = 3) -> CollectedAnswer:
    """A chat completion, printed over several lines as some engines do."""
    body = {
        "id": "c",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": tokens, "completion_tokens": 1, "total_tokens": tokens + 1},
    }
    return CollectedAnswer(status=200, body=json.dumps(body, indent=2).encode())


def refusal(status: int, **headers: str) -> CollectedAnswer:
    """An error in OpenAI's shape."""
    body = {"error": {"message": "no", "type": "t", "param": None, "code": None}}
    given = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return CollectedAnswer(status=status, headers=given, body=json.dumps(body).encode())


async def say_again(fields: dict[str, Any]) -> CollectedAnswer:
    """An answer: what was asked."""
    return ok(fields["messages"][0]["content"])


@dataclass
class ScriptedRunner:
    """Answers as `answer` does, and remembers who asked what."""

    answer: Answer = say_again
    calls: list[tuple[str, str, str, str]] = field(default_factory=list)
    """(what was asked, path, key, priority)"""
    running: int = 0
    most_running: int = 0

    async def __call__(
        self, kind: Kind, path: str, body: bytes, key: Key, *, request_id: str, priority: str
    ) -> CollectedAnswer:
        fields = json.loads(body)
        self.calls.append((fields["messages"][0]["content"], path, key.id, priority))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await asyncio.sleep(0)
            return await self.answer(fields)
        finally:
            self.running -= 1

    @property
    def asked(self) -> list[str]:
        return [call[0] for call in self.calls]


@dataclass
class BatchServer:
    """What is served."""

    url: str
    database: Database
    files: FileService
    batches: BatchService
    runner: ScriptedRunner
    keys: dict[str, Key]
    """By secret; a test may take one away."""
    now: list[float]
    """The wall clock: as the file system's at the start, then the test's."""
    folder: Path

    def client(self, secret: str = "sk-a") -> openai.AsyncOpenAI:
        http = openai.DefaultAsyncHttpxClient(verify=False)
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key=secret, max_retries=0, http_client=http)

    @property
    def http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self.url, headers={"authorization": "Bearer sk-a"}, timeout=PATIENCE_S, verify=False
        )

    async def batch(self, client: openai.AsyncOpenAI, lines: bytes | list[str], **more: Any) -> Any:
        """Upload and begin."""
        content = lines if isinstance(lines, bytes) else jsonl(lines)
        file = await client.files.create(file=("in.jsonl", content), purpose="batch")
        wish: dict[str, Any] = {"endpoint": "/v1/chat/completions", "completion_window": "24h", **more}
        return await client.batches.create(input_file_id=file.id, **wish)

    async def until(self, client: openai.AsyncOpenAI, batch_id: str, *statuses: str) -> Any:
        """The batch, once it has one of these."""
        seen = None
        for _ in range(int(PATIENCE_S / 0.01)):
            seen = await client.batches.retrieve(batch_id)
            if seen.status in statuses:
                return seen
            await asyncio.sleep(0.01)
        raise AssertionError(f"the batch never was {statuses}: {seen}")


TENANTS = {"sk-a": Key(id="a", tenant="one"), "sk-b": Key(id="b", tenant="two")}


@asynccontextmanager
async def batch_server(
    folder: Path, runner: ScriptedRunner | None = None, **options: Any
) -> AsyncIterator[BatchServer]:
    """Serve until the block ends. `options`: `max_bytes`, `ttl_days`, `concurrency`, `lease_s`, `idle_s`,
    `url` of the database."""
    runner = runner or ScriptedRunner()
    keys, now = dict(TENANTS), [float(int(time.time()))]
    database = Database(options.pop("url", f"sqlite:///{folder}/store.db"))
    await database.migrate()
    idle_s, lease_s = options.pop("idle_s", PATIENCE_S), options.pop("lease_s", 0.3)
    concurrency = BatchesSettings(concurrency=options.pop("concurrency", 4))
    files = FileService(FilesSettings(dir=str(folder / "files"), **options), database, lambda: now[0])
    batches = BatchService(
        concurrency,
        database,
        files,
        runner,
        lambda key_id: next((key for key in keys.values() if key.id == key_id), None),
        lambda: now[0],
        max_body_bytes=4096,
        lease_s=lease_s,
    )
    app = FastAPI()

    @app.middleware("http")
    async def name(request: Request, call_next: Any) -> Any:
        request.state.request_id = "req_test"
        return await call_next(request)

    def authenticate(request: Request) -> Key | Problem:
        known = Keyring({digest(secret): key for secret, key in TENANTS.items()})
        return known.authenticate(dict(request.scope["headers"]), request.scope.get("server"))

    app.include_router(files_router(files, authenticate, idle_s))
    app.include_router(batches_router(batches, authenticate, idle_s))
    server = PromptServer(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    files.start()
    batches.start()
    task = asyncio.create_task(server.serve())
    try:
        await eventually(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield BatchServer(f"http://127.0.0.1:{port}", database, files, batches, runner, keys, now, folder)
    finally:
        server.stop()
        await task
        await batches.aclose()
        await files.aclose()
        await database.aclose()


def request_line(text: str, **changes: Any) -> dict[str, Any]:
    """One line of an input file."""
    body = {"model": "m", "messages": [{"role": "user", "content": text}]}
    line = {"custom_id": f"id-{text}", "method": "POST", "url": "/v1/chat/completions", "body": body}
    return {name: value for name, value in {**line, **changes}.items() if value is not None}


def jsonl(texts: list[str]) -> bytes:
    """An input file that asks each of these."""
    return b"".join(json.dumps(request_line(text)).encode() + b"\n" for text in texts)


async def results(client: openai.AsyncOpenAI, file_id: str | None) -> dict[str, Any]:
    """A result file, by custom id."""
    if file_id is None:
        return {}
    lines = [json.loads(line) for line in (await client.files.content(file_id)).text.splitlines()]
    assert len({line["custom_id"] for line in lines}) == len(lines)
    return {line["custom_id"]: line for line in lines}
