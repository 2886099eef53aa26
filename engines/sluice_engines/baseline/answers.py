"""Answers under way: choices as their tokens come, written as OpenAI writes them."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from sluice_engines.baseline.requests import ChatBody, GenerationBody
from sluice_engines.baseline.runtime import Row
from sluice_engines.baseline.text import RowText
from sluice_engines.baseline.wire import EVENTS, Send, send_error, send_whole, start


class Choice:
    """One answer under way."""

    def __init__(self, text: RowText) -> None:
        self.text = text
        self.news: asyncio.Queue[tuple[int | None, str | None]] = asyncio.Queue()
        self.row: Row | None = None

    async def pieces(self) -> AsyncIterator[tuple[str, str | None]]:
        """Text, and with the last piece why it ended. Raises `RuntimeError` when the runtime failed."""
        while True:
            token, reason = await self.news.get()
            piece = self.text.feed(token) if token is not None else self.text.flush()
            if reason is not None and reason.startswith("error: "):
                raise RuntimeError(reason.removeprefix("error: "))
            if self.text.stopped:
                self.cancel()
                yield piece, "stop"
                return
            if piece or reason is not None:
                yield piece, reason
            if reason is not None:
                return

    def cancel(self) -> None:
        """Nobody reads it any more."""
        if self.row is not None:
            self.row.cancel()


class Job:
    """One request: its choices, and the frame of its answer."""

    def __init__(self, body: GenerationBody, choices: list[Choice], prompt_tokens: int) -> None:
        self.is_chat = isinstance(body, ChatBody)
        self.body = body
        self.choices = choices
        self._prompt_tokens = prompt_tokens
        self._id = ("chatcmpl-" if self.is_chat else "cmpl-") + uuid.uuid4().hex
        self._created = int(time.time())

    def envelope(self, choices: list[dict[str, Any]], *, streamed: bool) -> dict[str, Any]:
        """What every part of the answer begins with."""
        kind = "text_completion"
        if self.is_chat:
            kind = "chat.completion.chunk" if streamed else "chat.completion"
        frame = {"id": self._id, "object": kind, "created": self._created, "model": self.body.model}
        return {**frame, "choices": choices}

    def usage(self) -> dict[str, int]:
        """Prompts once, and what all choices generated."""
        generated = sum(choice.row.generated for choice in self.choices if choice.row is not None)
        total = self._prompt_tokens + generated
        return {
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": generated,
            "total_tokens": total,
        }


async def complete(job: Job, send: Send) -> None:
    """The whole answer, when all of it is there."""
    choices = []
    try:
        for index, choice in enumerate(job.choices):
            text, reason = "", None
            async for piece, why in choice.pieces():
                text, reason = text + piece, why
            content: dict[str, Any] = {"text": text}
            if job.is_chat:
                content = {"message": {"role": "assistant", "content": text, "refusal": None}}
            choices.append({"index": index, **content, "logprobs": None, "finish_reason": reason})
    except RuntimeError as error:
        await send_error(send, 500, f"Generation failed: {error}", None, None)
        return
    answer = job.envelope(choices, streamed=False) | {"usage": job.usage()}
    await send_whole(send, 200, msgspec.json.encode(answer))


async def stream(job: Job, send: Send) -> None:
    """The answer as it comes."""
    await start(send, 200, EVENTS)
    events: asyncio.Queue[bytes | None] = asyncio.Queue()
    tasks = [
        asyncio.create_task(_stream_choice(job, index, choice, events))
        for index, choice in enumerate(job.choices)
    ]
    try:
        left = len(tasks)
        while left:
            event = await events.get()
            if event is None:
                left -= 1
            else:
                await send({"type": "http.response.body", "body": event, "more_body": True})
        failed = next((task.exception() for task in tasks if task.exception() is not None), None)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    last = b"data: [DONE]\n\n"
    if failed is not None:
        error = {"message": f"Generation failed: {failed}", "type": "server_error", "param": None}
        last = _event({"error": {**error, "code": None}})
    elif job.body.include_usage:
        last = _event(job.envelope([], streamed=True) | {"usage": job.usage()}) + last
    await send({"type": "http.response.body", "body": last})


async def _stream_choice(job: Job, index: int, choice: Choice, events: asyncio.Queue[bytes | None]) -> None:
    def put(content: dict[str, Any], reason: str | None) -> None:
        fields = {"delta": content} if job.is_chat else {"text": content.get("content", "")}
        told = {"index": index, **fields, "logprobs": None, "finish_reason": reason}
        chunk = job.envelope([told], streamed=True)
        if job.body.include_usage:
            chunk["usage"] = None
        events.put_nowait(_event(chunk))

    try:
        if job.is_chat:
            put({"role": "assistant", "content": ""}, None)
        async for piece, reason in choice.pieces():
            if piece:
                put({"content": piece}, None)
            if reason is not None:
                put({}, reason)
    finally:
        events.put_nowait(None)


def _event(document: Any) -> bytes:
    return b"data: " + msgspec.json.encode(document) + b"\n\n"
