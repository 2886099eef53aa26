"""Streams as a client reads them, and a load of them that lasts until it is told to end."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import httpx

from .fleet import ALIAS, Fleet

LONG = 900
"""Tokens of a long answer; prompt and answer fit the bundled model's context of 1024."""
SHORTER = 200
"""Tokens of each answer under load, where there are many."""
HEADERS = {"content-type": "application/json"}


def body(text: str = "Tell me a story.", **more: Any) -> dict[str, Any]:
    """A chat request."""
    return {"model": ALIAS, "messages": [{"role": "user", "content": text}], **more}


def long_body(number: int = 0, tokens: int = LONG, **more: Any) -> dict[str, Any]:
    """One whose answer is long; each number has a prompt of its own, which no prefix cache has."""
    text = f"{number}. Tell me a long story of a ship."
    return body(text, max_tokens=tokens, ignore_eos=True, temperature=1.0, seed=number, **more)


def on(engine: str, *, prefer: bool = False) -> dict[str, str]:
    """Headers that ask for an engine."""
    return HEADERS | {"x-backend": engine} | ({"x-route": "prefer"} if prefer else {})


def contents(lines: Iterator[str]) -> Iterator[str]:
    """The pieces of a stream's text, until `[DONE]`. Raises `ValueError` with the words of an error event."""
    for line in lines:
        data = line.removeprefix("data: ")
        if not line.startswith("data: "):
            continue
        if data == "[DONE]":
            return
        event = json.loads(data)
        if "error" in event:
            raise ValueError(event["error"]["message"])
        for choice in event["choices"]:
            if piece := choice["delta"].get("content"):
                yield piece
    raise ValueError("the stream ended without [DONE]")


@dataclass(frozen=True)
class Ending:
    """How one request of a load ended."""

    backend: str | None
    """Who served, or was tried last."""
    began: bool
    """Content had reached the client."""
    error: str | None
    """`None` when it was complete."""


class Load:
    """Users who ask for one long answer after another, streamed or not in turn, until the block ends."""

    def __init__(self, fleet: Fleet, headers: dict[str, str], users: int) -> None:
        self.endings: list[Ending] = []
        self.first_content = threading.Event()
        self._url, self._headers = f"{fleet.url}/v1/chat/completions", headers
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._talk, args=(user,), daemon=True) for user in range(users)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """No new request; those that run are waited for."""
        self._ended.set()
        for thread in self._threads:
            thread.join(timeout=300)

    def _talk(self, user: int) -> None:
        with httpx.Client(timeout=300) as http:
            number = user
            while not self._ended.is_set():
                streamed = (number // len(self._threads)) % 2 == 0
                self.endings.append(self._streamed(http, number) if streamed else self._plain(http, number))
                number += len(self._threads)

    def _streamed(self, http: httpx.Client, number: int) -> Ending:
        began, backend = False, None
        sent = long_body(number, SHORTER, stream=True)
        try:
            with http.stream("POST", self._url, json=sent, headers=self._headers) as answer:
                backend = answer.headers.get("x-sluice-backend")
                if answer.status_code != 200:
                    return Ending(backend, False, f"{answer.status_code} {answer.read().decode()}")
                for _ in contents(answer.iter_lines()):
                    began = True
                    self.first_content.set()
        except (ValueError, httpx.HTTPError) as error:
            return Ending(backend, began, repr(error))
        return Ending(backend, began, None)

    def _plain(self, http: httpx.Client, number: int) -> Ending:
        answer = http.post(self._url, json=long_body(number, SHORTER), headers=self._headers)
        backend = answer.headers.get("x-sluice-backend")
        return Ending(backend, False, None if answer.is_success else f"{answer.status_code} {answer.text}")
