"""An engine that knows one text by heart and goes on with any beginning of it, in a chat or a completion.

It sends one word an event, ends at `max_tokens` words or before a stop string, and tells its usage when
asked; and it dies after so many bytes of a body as the test says, once.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator
from typing import Any

from ..scripted_engine import DONE, Call

WORDS = ["Größe", ' "a"\n', " \\", "日本", " 👍", "."]
TEXT = "".join(WORDS)
PROMPT = "Say it."


class Heart:
    """Its script, for any number of engines. A new engine's streams have another id and another time."""

    def __init__(self, words: list[str] = WORDS) -> None:
        self.words = words
        self.cuts: list[int | None] = []
        """Bytes after which the next streams are lost, first come first; `None`, or nothing left: never."""
        self.error: bytes = b""
        """Sent in place of what is cut, before the connection is lost."""
        self.asked: list[dict[str, Any]] = []
        self.hold = asyncio.Event()
        """Set unless streams are to stand still where they would begin."""
        self.hold.set()
        self._ids = itertools.count()

    async def __call__(self, call: Call) -> None:
        fields = call.fields
        self.asked.append(fields)
        await self.hold.wait()
        body = b"".join(self.events(fields))
        cut = self.cuts.pop(0) if self.cuts else None
        await call.start_events()
        if cut is None or cut >= len(body):
            await call.write(body)
            await call.end()
            return
        if cut:
            await call.write(body[:cut])
        if self.error:
            await call.write(self.error)
            await call.end()
        else:
            await asyncio.sleep(0)
            call.reset()

    def events(self, fields: dict[str, Any]) -> Iterator[bytes]:
        """A whole stream."""
        number = next(self._ids)
        is_chat = "messages" in fields
        head = {"id": f"{number}", "created": 1000 + number, "model": fields["model"]}

        def event(choice: dict[str, Any] | None, **more: Any) -> bytes:
            choices = [] if choice is None else [{"index": 0, **choice}]
            fields = {**head, "choices": choices, **more}
            text = json.dumps(fields, separators=(",", ":"), ensure_ascii=not is_chat)
            return b"data: " + text.encode() + b"\n\n"

        begun = _begun(fields)
        written, reason = self._written(begun, fields)
        if is_chat:
            yield event({"delta": {"role": "assistant", "content": ""}, "finish_reason": None})
        for word in written:
            said: dict[str, Any] = {"delta": {"content": word}} if is_chat else {"text": word}
            yield event({**said, "finish_reason": None})
        yield event({**({"delta": {}} if is_chat else {"text": ""}), "finish_reason": reason})
        if (fields.get("stream_options") or {}).get("include_usage"):
            read = 3 + len(self._words_of(begun))
            usage = {"prompt_tokens": read, "completion_tokens": len(written)}
            yield event(None, usage={**usage, "total_tokens": read + len(written)})
        yield DONE

    def _written(self, begun: str, fields: dict[str, Any]) -> tuple[list[str], str]:
        words = self.words[len(self._words_of(begun)) :]
        limit = fields.get("max_tokens") or len(words)
        reason = "stop" if limit >= len(words) else "length"
        words = words[:limit]
        for stop in fields.get("stop") or ():
            at = "".join(words).find(stop)
            if at >= 0:
                kept = list(itertools.accumulate(words))
                words = [w for w, end in zip(words, kept, strict=True) if len(end) <= at]
                rest = "".join(self.words)[len(begun) + len("".join(words)) : len(begun) + at]
                return words + ([rest] if rest else []), "stop"
        return words, reason

    def _words_of(self, begun: str) -> list[str]:
        ends = list(itertools.accumulate(self.words, initial=""))
        assert begun in ends, f"not a beginning of the text: {begun!r}"
        return self.words[: ends.index(begun)]


def _begun(fields: dict[str, Any]) -> str:
    """What is there of the text already."""
    if "prompt" in fields:
        prompt: str = fields["prompt"]
        assert prompt.startswith(PROMPT)
        return prompt.removeprefix(PROMPT)
    if not fields.get("continue_final_message"):
        return ""
    assert fields["add_generation_prompt"] is False
    assert [m["role"] for m in fields["messages"]] == ["user", "assistant"]
    content: str = fields["messages"][-1]["content"]
    return content


class Told:
    """A client's stream, taken apart; asserts that it looks like one stream."""

    def __init__(self, body: bytes) -> None:
        events = [e.removeprefix("data: ") for e in body.decode().split("\n\n") if e.startswith("data: ")]
        self.done = events.count("[DONE]")
        chunks = [json.loads(e) for e in events if e != "[DONE]"]
        self.errors = [c["error"] for c in chunks if "error" in c]
        chunks = [c for c in chunks if "error" not in c]
        choices = [choice for chunk in chunks for choice in chunk["choices"]]
        deltas = [choice.get("delta", {}) for choice in choices]
        assert len({(c["id"], c["created"], c["model"]) for c in chunks}) == 1
        self.roles = [d["role"] for d in deltas if "role" in d]
        self.text = "".join(
            c.get("text") or d.get("content") or "" for c, d in zip(choices, deltas, strict=True)
        )
        self.reasons = [c["finish_reason"] for c in choices if c.get("finish_reason")]
        self.usages = [c["usage"] for c in chunks if c.get("usage")]
