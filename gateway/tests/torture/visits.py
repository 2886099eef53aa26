"""What visitors of a storm ask for, in which phase they leave, and what those who stay may expect.

A visit is drawn from its number alone, so that a storm can be told again.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from .wild_engine import FAILING, marker

Phase = Literal[
    "while sending", "at once", "while waiting", "while connecting", "in the answer", "after the answer"
]
Ending = Literal["FIN", "RST", "half-closed"]

LEAVING = 0.2
_BOUNDARY = "0123456789"


@dataclass(frozen=True)
class Endpoint:
    """One path of the data plane, and a request that it accepts."""

    path: str
    body: Callable[[str, bool], dict[str, Any]]
    """From model and `stream`."""
    streams: bool = False
    multipart: bool = False
    counts: bool = False
    """The answer is a number instead of a text."""


def _messages(model: str, stream: bool) -> dict[str, Any]:
    return {
        "model": model,
        "messages": [{"role": "user", "content": "Hello"}],
        "stream": stream,
        "max_tokens": 50,
    }


def _counted(model: str, stream: bool) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Hello"}]}


def _with(**fields: Any) -> Callable[[str, bool], dict[str, Any]]:
    return lambda model, stream: {"model": model, **fields, **({"stream": True} if stream else {})}


ENDPOINTS = (
    Endpoint("/v1/chat/completions", _messages, streams=True),
    Endpoint("/v1/completions", _with(prompt="Hello", max_tokens=9), streams=True),
    Endpoint("/v1/embeddings", _with(input=["Hello"])),
    Endpoint("/v1/responses", _with(input="Hello", store=False), streams=True),
    Endpoint("/v1/messages", _messages, streams=True),
    Endpoint("/v1/messages/count_tokens", _counted, counts=True),
    Endpoint("/tokenize", _with(prompt="Hello")),
    Endpoint("/detokenize", _with(tokens=[1, 2])),
    Endpoint("/v1/rerank", _with(query="q", documents=["a", "b"])),
    Endpoint("/v1/score", _with(text_1="a", text_2="b")),
    Endpoint("/v1/audio/speech", _with(input="Hello", voice="a")),
    Endpoint("/v1/audio/transcriptions", _with(), multipart=True),
    Endpoint("/v1/images/generations", _with(prompt="a cat")),
)
KINDS = (
    "chat", "completions", "embeddings", "tokenize", "detokenize", "rerank", "score",
    "audio_speech", "audio_transcriptions", "images_generations",
)  # fmt: skip
"""What the engine declares; the others are translated."""


@dataclass(frozen=True)
class Visit:
    """One request and what its visitor does."""

    number: int
    method: str
    target: str
    body: bytes
    headers: tuple[tuple[str, str], ...]
    leaves: Phase | None = None
    ending: Ending = "FIN"
    moment: float = 0.0
    """[0, 1): how far into the phase the visitor leaves."""
    pause_s: float = 0.0
    """How long the engine takes."""
    split: bool = False
    """The request comes in pieces."""
    chunked: bool = False
    twice: bool = False
    """A second request follows in the same write."""
    statuses: frozenset[int] = frozenset({200})
    """What a visitor who stays may get. 500 is the engine's, in the engine's words."""
    may_break: bool = False
    """The answer may end with an error event or be cut, once it has begun."""
    expects: str | None = None
    """What a 200 has to hold."""

    @property
    def path(self) -> str:
        """Where it goes, without the query."""
        return self.target.partition("?")[0]


def draw(number: int, secret: str, *, store_is_down: bool) -> Visit:
    """The visit of that number."""
    chance = random.Random(number)
    if chance.random() < 0.02:
        return _odd(number, chance, secret, store_is_down)
    endpoint = chance.choice(ENDPOINTS)
    stream = endpoint.streams and chance.random() < 0.5
    leaves = _phase(chance, stream) if chance.random() < LEAVING else None
    way = _way(chance, leaves, stream)
    pause_ms = chance.randrange(5, 60)
    model = "nowhere" if leaves == "while connecting" else chance.choice(("m", "m", "m", "narrow"))
    if way == "hang":
        model = "m"
    named = chance.random() < 0.03 and model == "m" and way != "hang"
    headers = [
        ("authorization", f"Bearer {secret}"),
        ("x-echo-id", str(number)),
        ("x-echo-way", way),
        ("x-echo-ms", str(pause_ms)),
        *([("x-echo-stream", "1")] if stream else []),
        *([("idempotency-key", f"key-{number // 40}")] if named else []),
        *([("expect", "100-continue")] if chance.random() < 0.05 else []),
    ]
    kind, body = encoded(endpoint, model, stream)
    failing = way in FAILING
    return Visit(
        number=number,
        method="POST",
        target=endpoint.path + ("?way=asgi" if chance.random() < 0.1 else ""),
        body=body,
        headers=(*headers, ("content-type", kind)),
        leaves=leaves,
        ending=chance.choice(("FIN", "FIN", "RST", "RST", "half-closed")),
        moment=chance.random(),
        pause_s=pause_ms / 1000,
        split=chance.random() < 0.1,
        chunked=chance.random() < 0.05,
        twice=not named and leaves is None and chance.random() < 0.02,
        statuses=_statuses(failing, named),
        may_break=failing or named,
        expects=None if named else str(number) if endpoint.counts else marker(number),
    )


def calm(number: int, endpoint: Endpoint, way: str, stream: bool, secret: str) -> Visit:
    """A visit to be left in a phase that the engine tells of."""
    kind, body = encoded(endpoint, "m", stream)
    headers = {
        "authorization": f"Bearer {secret}",
        "x-echo-id": str(number),
        "x-echo-way": way,
        "x-echo-ms": "20000",
        "content-type": kind,
        **({"x-echo-stream": "1"} if stream else {}),
    }
    return Visit(number, "POST", endpoint.path, body, tuple(headers.items()))


def _phase(chance: random.Random, stream: bool) -> Phase:
    phases: list[Phase] = ["while sending", "at once", "while waiting", "while waiting", "after the answer"]
    if stream:
        phases += ["in the answer"] * 3
    return "while connecting" if chance.random() < 0.03 else chance.choice(phases)


def _way(chance: random.Random, leaves: Phase | None, stream: bool) -> str:
    if leaves == "while waiting":
        return chance.choice(("slow", "half", "drip", "hang"))
    if leaves == "in the answer":
        return "drip"
    if chance.random() < 0.8:
        return "ok"
    return chance.choice(("slow", "half", "drip", *sorted(FAILING)))


def _statuses(failing: bool, named: bool) -> frozenset[int]:
    if named:
        return frozenset({200, 400, 409, 500, 502, 503})
    return frozenset({400, 500, 502, 503}) if failing else frozenset({200})


def encoded(endpoint: Endpoint, model: str, stream: bool) -> tuple[str, bytes]:
    """Content type and body of a sound request."""
    if not endpoint.multipart:
        return "application/json", json.dumps(endpoint.body(model, stream)).encode()
    part = f'--{_BOUNDARY}\r\ncontent-disposition: form-data; name="%s"\r\n\r\n'
    form = f"{part % 'model'}{model}\r\n".encode()
    file = f'--{_BOUNDARY}\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'.encode()
    body = form + file + b"RIFF\0\1" * 50 + f"\r\n--{_BOUNDARY}--\r\n".encode()
    return f"multipart/form-data; boundary={_BOUNDARY}", body


def _odd(number: int, chance: random.Random, secret: str, store_is_down: bool) -> Visit:
    """Everything beside the data plane, and what is wrong with a request."""
    stored = frozenset({503} if store_is_down else {200, 400, 404})
    key = ("authorization", f"Bearer {secret}")
    chat = json.dumps(_messages("m", False)).encode()
    found: list[tuple[str, str, bytes, frozenset[int]]] = [
        ("GET", "/v1/models", b"", frozenset({200})),
        ("GET", "/health", b"", frozenset({200})),
        ("GET", "/metrics", b"", frozenset({200})),
        ("GET", f"/nowhere/{number}", b"", frozenset({404})),
        ("POST", "/v1/chat/completions", chat[:30], frozenset({400})),
        ("PUT", "/v1/chat/completions", chat, frozenset({405})),
        ("POST", "/v1/chat/completions", json.dumps(_messages("none", False)).encode(), frozenset({404})),
    ]
    if chance.random() < 0.1:
        found = [
            ("GET", "/v1/files", b"", stored),
            ("GET", "/v1/batches", b"", stored),
            ("GET", "/v1/files/file-none", b"", stored | {404}),
            ("GET", "/v1/responses/resp_none", b"", stored),
            ("POST", "/v1/batches", b"{}", stored | {400}),
        ]
    method, target, body, statuses = chance.choice(found)
    headers = (key, ("content-type", "application/json"))
    if chance.random() < 0.1:
        statuses = frozenset({503} if store_is_down else {401}) | (statuses & {404, 405})
        headers = (("authorization", f"Bearer sk-unknown-{number}"), headers[1])
        if target in ("/health", "/metrics"):
            statuses = frozenset({200})
    return Visit(number, method, target, body, headers, statuses=statuses)
