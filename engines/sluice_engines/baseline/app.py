"""OpenAI's chat and completions over a batcher, as one ASGI application."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from sluice_engines.baseline.answers import Choice, Job, complete, stream
from sluice_engines.baseline.batcher import Batcher
from sluice_engines.baseline.requests import (
    DEFAULT_COMPLETION_TOKENS,
    ChatBody,
    CompletionBody,
    GenerationBody,
    parse_body,
)
from sluice_engines.baseline.runtime import Row, Runtime
from sluice_engines.baseline.text import RowText
from sluice_engines.baseline.wire import TEXT, Message, Receive, Send, send_error, send_whole
from sluice_engines.openai_bodies import BadRequest

_MAX_BODY_BYTES = 16 << 20


class Tokenizer(Protocol):
    """Text to tokens and back."""

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids."""
        ...

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Text."""
        ...

    def apply_chat_template(self, messages: list[Any], *, tokenize: bool, add_generation_prompt: bool) -> str:
        """The prompt of a conversation."""
        ...


class App:
    """The application. `serve_batches` has to run beside it."""

    def __init__(self, runtime: Runtime, tokenizer: Tokenizer, model: str, batcher: Batcher) -> None:
        self._runtime = runtime
        self._tokenizer = tokenizer
        self._model = model
        self._batcher = batcher

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """ASGI. The batcher lives from startup to shutdown."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        try:
            await self._route(scope["method"], scope["path"], receive, send)
        except BadRequest as error:
            await send_error(send, error.status, str(error), error.param, error.code)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        batches = asyncio.create_task(self._batcher.run())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        batches.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await batches
        await send({"type": "lifespan.shutdown.complete"})

    async def _route(self, method: str, path: str, receive: Receive, send: Send) -> None:
        if (method, path) == ("POST", "/v1/chat/completions"):
            await self._answer(self._chat(parse_body(await _read(receive), ChatBody)), receive, send)
        elif (method, path) == ("POST", "/v1/completions"):
            body = parse_body(await _read(receive), CompletionBody)
            await self._answer(self._completion(body), receive, send)
        elif method == "GET" and path in ("/health", "/ready"):
            await send_whole(send, 200, b'{"status":"ok"}')
        elif (method, path) == ("GET", "/v1/models"):
            listed = {
                "id": self._model,
                "object": "model",
                "created": 0,
                "owned_by": f"sluice-baseline-{self._runtime.name}",
                "max_model_len": self._runtime.max_model_len,
            }
            await send_whole(send, 200, msgspec.json.encode({"object": "list", "data": [listed]}))
        elif (method, path) == ("GET", "/metrics"):
            await send_whole(send, 200, self._metrics(), TEXT)
        else:
            raise BadRequest(f"This server has no {method} {path}.", status=404)

    def _metrics(self) -> bytes:
        gauges = {
            "running": self._batcher.running,
            "waiting": self._batcher.waiting,
            "max": self._runtime.max_batch,
        }
        lines = (
            f"# TYPE sluice_baseline_requests_{name} gauge\nsluice_baseline_requests_{name} {value}\n"
            for name, value in gauges.items()
        )
        return "".join(lines).encode()

    def _chat(self, body: ChatBody) -> Job:
        try:
            text = self._tokenizer.apply_chat_template(
                body.messages, tokenize=False, add_generation_prompt=True
            )
        except Exception as error:  # a template is a program of the model's, and may refuse in any way
            raise BadRequest(f"The model's chat template refuses: {error}.", param="messages") from error
        prompt = self._tokenizer.encode(text, add_special_tokens=False)
        return self._job(body, [prompt], body.max_completion_tokens or body.max_tokens)

    def _completion(self, body: CompletionBody) -> Job:
        prompts = [p if isinstance(p, list) else self._tokenizer.encode(p) for p in body.prompts]
        return self._job(body, prompts, body.max_tokens or DEFAULT_COMPLETION_TOKENS)

    def _job(self, body: GenerationBody, prompts: list[list[int]], max_tokens: int | None) -> Job:
        if body.model != self._model:
            message = f"The model '{body.model}' does not exist; this server has '{self._model}'."
            raise BadRequest(message, param="model", code="model_not_found", status=404)
        limit = self._runtime.max_model_len
        for prompt in prompts:
            if not prompt:
                raise BadRequest("The prompt is empty.", param="prompt")
            if len(prompt) >= limit:
                raise BadRequest(
                    f"This model's maximum context length is {limit} tokens; the prompt has {len(prompt)}.",
                    param="messages" if isinstance(body, ChatBody) else "prompt",
                    code="context_length_exceeded",
                )
        choices = [
            self._choice(body, prompt, min(max_tokens or limit, limit - len(prompt)))
            for prompt in prompts
            for _ in range(body.n or 1)
        ]
        return Job(body, choices, sum(map(len, prompts)))

    def _choice(self, body: GenerationBody, prompt: list[int], max_tokens: int) -> Choice:
        loop = asyncio.get_running_loop()

        def decode(ids: Sequence[int]) -> str:
            return self._tokenizer.decode(ids, skip_special_tokens=True)

        choice = Choice(RowText(decode, body.stops))

        def on_token(token: int | None, reason: str | None) -> None:
            loop.call_soon_threadsafe(choice.news.put_nowait, (token, reason))

        choice.row = Row(prompt, max_tokens, body.sampling, on_token)
        return choice

    async def _answer(self, job: Job, receive: Receive, send: Send) -> None:
        """Generate, and stop when the client leaves."""
        for choice in job.choices:
            if choice.row is not None:
                self._batcher.add(choice.row)
        answering = asyncio.create_task((stream if job.body.stream else complete)(job, send))
        leaving = asyncio.create_task(_until_left(receive))
        try:
            await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for choice in job.choices:
                choice.cancel()
            for task in (answering, leaving):
                if not task.done():
                    task.cancel()
            results = await asyncio.gather(answering, leaving, return_exceptions=True)
        if isinstance(results[0], Exception):
            raise results[0]


async def _until_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _read(receive: Receive) -> bytes:
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise BadRequest("The client left.")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > _MAX_BODY_BYTES:
            raise BadRequest(f"The body has more than {_MAX_BODY_BYTES >> 20} MiB.", status=413)
        if not message.get("more_body"):
            return b"".join(parts)
