"""A client in the common style, for comparison: aiohttp, and every event parsed when it comes.

It does what the benchmark client of vLLM does for each chunk (take what arrived, cut it into events, decode,
parse JSON, look for text, stamp the first event and the gap to the one before, join the text), written anew.
Run in a process of its own, with an interpreter that has aiohttp; uses nothing else of Sluice:

    python aiohttp_streams.py '{"url": "http://127.0.0.1:9000", "requests": 100, "per_s": 50}'

Prints what it cost as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field

import aiohttp  # type: ignore[import-not-found, unused-ignore]


@dataclass
class Measured:
    """One answer."""

    ttft_s: float = 0.0
    gaps_s: list[float] = field(default_factory=list)
    text: str = ""
    tokens: int = 0
    events: int = 0
    failed: bool = False


class EventCutter:
    """Turns what arrives into whole events."""

    def __init__(self) -> None:
        self._kept = ""

    def cut(self, data: bytes) -> list[str]:
        """The events that are whole now."""
        self._kept += data.decode("utf-8")
        *whole, self._kept = self._kept.split("\n\n")
        return [event.strip() for event in whole if event.strip()]


async def ask(session: aiohttp.ClientSession, url: str, body: dict[str, object]) -> Measured:
    """One streamed request."""
    measured, cutter = Measured(), EventCutter()
    start = latest = time.perf_counter()
    async with session.post(url, json=body) as response:
        measured.failed = response.status != 200
        async for data in response.content.iter_any():
            for event in cutter.cut(data):
                if event.startswith(":"):
                    continue
                measured.events += 1
                text = event.removeprefix("data: ")
                if text == "[DONE]":
                    continue
                now = time.perf_counter()
                answer = json.loads(text)
                if choices := answer.get("choices"):
                    if measured.ttft_s == 0.0:
                        measured.ttft_s = now - start
                    else:
                        measured.gaps_s.append(now - latest)
                    measured.text += choices[0]["delta"].get("content") or ""
                elif usage := answer.get("usage"):
                    measured.tokens = usage.get("completion_tokens", 0)
                latest = now
    return measured


async def run(url: str, requests: int, per_s: float) -> dict[str, float]:
    """All requests, `per_s` of them started in each second."""
    connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=300, keepalive_timeout=60)
    timeout = aiohttp.ClientTimeout(total=6 * 3600)
    body = {
        "model": "null",
        "messages": [{"role": "user", "content": "Write a story."}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        before, start = time.process_time(), time.perf_counter()
        tasks = []
        for place in range(requests):
            await asyncio.sleep(max(0.0, start + place / per_s - time.perf_counter()))
            tasks.append(asyncio.create_task(ask(session, f"{url}/v1/chat/completions", body)))
        answers = await asyncio.gather(*tasks)
        return {
            "hot_cpu_s": time.process_time() - before,
            "wall_s": time.perf_counter() - start,
            "events": sum(answer.events for answer in answers),
            "failures": sum(answer.failed for answer in answers),
        }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run(**json.loads(sys.argv[1])))))  # noqa: T201  its result
