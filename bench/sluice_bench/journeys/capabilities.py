"""What the engines behind a server can do, found by asking: the journeys that it serves, and why no others.

A few requests of one token each, before any user starts. A journey whose capability nobody has is skipped
with the server's own sentence; nothing is skipped silently. Backends and quantizations are asked from
Sluice's gateway, which names them when it is asked for one that does not exist; another server takes no
notice of the header, and has nothing to choose from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from sluice_bench.connection import Exchange
from sluice_bench.http_wire import HttpWireError, parse_response
from sluice_bench.journeys.prompts import Prompts
from sluice_bench.target import Target, WireRequest, http_request
from sluice_bench.workload import Asking, post

Ask = Callable[[WireRequest], Exchange]

MOST_MODELS = 8
"""Of a longer list only the first are asked, and the one of `--model`."""

CHAT = "/v1/chat/completions"
_NOBODY = "no-such-name"
_VALID_ONES = re.compile(r"valid ones are: (.+)\.$")
_UNKNOWN = ("unknown_backend", "unknown_quant")
_HEADERS = ("X-Backend", "X-Quant")


class ProbeFailed(Exception):
    """The server cannot be asked at all; the message says why and what to do."""


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One way to say by header where a request is to run."""

    header: str
    value: str
    model: str
    """One that can be asked for there."""


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What there is."""

    model: str
    """For chat; empty when no model chats."""
    tools_model: str = ""
    embeddings_model: str = ""
    choices: tuple[Choice, ...] = ()
    absent: tuple[str, ...] = ()
    """Backends and quantizations that the gateway knows and nobody serves now: `X-Quant: awq`."""
    missing: Mapping[str, str] = {}
    """Capability, and why it is missing, in words: of `chat`, `tools`, `embeddings`, `headers`."""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """An answer to a probe."""

    status: int
    """0 when there was none."""
    body: Mapping[str, Any]
    trouble: str
    """In words; empty when the answer is good."""


def probe(target: Target, ask: Ask, api_key: str | None, prompts: Prompts, model: str | None) -> Findings:
    """Ask for everything that a journey needs; `model` is to chat, whatever else the server lists.

    Raises `ProbeFailed` when the server lists no models.
    """
    prober = _Prober(target, ask, api_key)
    listed = prober.models()
    models = list(dict.fromkeys([model, *listed])) if model else listed
    missing: dict[str, str] = {}
    chatting = [model] if model else models
    chat = prober.first("chat", CHAT, ({"model": name, **_HELLO} for name in chatting), missing)
    embeddings = prober.first(
        "embeddings", "/v1/embeddings", ({"model": name, "input": "Hello"} for name in models), missing
    )
    tools = prober.first("tools", CHAT, ({"model": name, **_call(prompts)} for name in models), missing)
    choices, absent = prober.choices(models)
    if not choices:
        missing["headers"] = "the server chooses no engine by X-Backend or X-Quant"
    return Findings(
        model=chat,
        tools_model=tools,
        embeddings_model=embeddings,
        choices=choices,
        absent=absent,
        missing=missing,
    )


_HELLO: Mapping[str, Any] = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}


def _call(prompts: Prompts) -> Mapping[str, Any]:
    """A question that must be answered with a call."""
    item = prompts.item("tools")
    return {**item.body, "max_tokens": item.max_tokens, "tool_choice": "required"}


class _Prober:
    def __init__(self, target: Target, ask: Ask, api_key: str | None) -> None:
        self._target = target
        self._ask = ask
        self._asking = Asking(model="", stream=False, api_key=api_key)

    def models(self) -> list[str]:
        """The first of those that the server lists. Raises `ProbeFailed`."""
        headers = [("Authorization", f"Bearer {key}")] if (key := self._asking.api_key) else []
        wire = http_request(self._target, "GET", "/v1/models", headers=headers)
        reply = reply_of(self._ask(WireRequest(wire, stream=False)))
        if reply.status == 401:
            raise ProbeFailed(f"{self._target.url} wants a key: put it into OPENAI_API_KEY")
        if reply.status == 0:
            raise ProbeFailed(
                f"Nobody serves at {self._target.url} ({reply.trouble}); start it with: make run"
            )
        if reply.trouble:
            raise ProbeFailed(f"/v1/models of {self._target.url}: {reply.trouble}")
        listed = [entry["id"] for entry in _list(reply.body.get("data")) if isinstance(entry.get("id"), str)]
        if not listed:
            raise ProbeFailed(f"{self._target.url} lists no models")
        return listed[:MOST_MODELS]

    def first(
        self, capability: str, path: str, bodies: Iterator[dict[str, Any]], missing: dict[str, str]
    ) -> str:
        """The model of the first body that gets what it asks for; else why not goes into `missing`."""
        for body in bodies:
            reply = self._post(path, body)
            trouble = reply.trouble or _lacks(capability, reply.body)
            if not trouble:
                missing.pop(capability, None)
                return str(body["model"])
            missing.setdefault(capability, trouble)
        return ""

    def choices(self, models: Sequence[str]) -> tuple[tuple[Choice, ...], tuple[str, ...]]:
        """What headers may choose and who serves it, and what nobody serves."""
        found: list[Choice] = []
        absent: list[str] = []
        for header in _HEADERS:
            for value in self._names(header, models[0]):
                served = next((m for m in models if not self._hello(m, header, value).trouble), None)
                if served is None:
                    absent.append(f"{header}: {value}")
                else:
                    found.append(Choice(header=header, value=value, model=served))
        return tuple(found), tuple(absent)

    def _names(self, header: str, model: str) -> list[str]:
        """Valid values, as the gateway's refusal of an invalid one names them."""
        reply = self._hello(model, header, _NOBODY)
        error = reply.body.get("error")
        named = _VALID_ONES.search(str(error.get("message", ""))) if isinstance(error, dict) else None
        known = isinstance(error, dict) and error.get("code") in _UNKNOWN
        return named.group(1).split(", ") if known and named else []

    def _hello(self, model: str, header: str, value: str) -> Reply:
        return self._post(CHAT, {"model": model, **_HELLO}, (header, value))

    def _post(self, path: str, body: Mapping[str, Any], *headers: tuple[str, str]) -> Reply:
        asking = msgspec.structs.replace(self._asking, headers=headers)
        wire = post(self._target, path, msgspec.json.encode(body), asking)
        return reply_of(self._ask(WireRequest(wire, stream=False)))


def reply_of(exchange: Exchange) -> Reply:
    """A plain answer, read."""
    try:
        response = parse_response(exchange.reads, closed=exchange.closed)
    except HttpWireError as error:
        return Reply(status=0, body={}, trouble=f"it does not speak HTTP/1.1: {error}")
    if exchange.failure is not None or response is None or not response.complete:
        return Reply(status=0, body={}, trouble=f"{exchange.failure or 'no answer'}: {exchange.detail}")
    status = response.head.status
    try:
        body = msgspec.json.decode(response.body.data)
    except msgspec.DecodeError:
        body = None
    if not isinstance(body, dict):
        return Reply(status=status, body={}, trouble=f"status {status} without a JSON object")
    return Reply(status=status, body=body, trouble="" if status == 200 else _words(status, body))


def calls_of(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The function calls in a plain chat answer."""
    choices = _list(body.get("choices"))
    message = choices[0].get("message") if choices else None
    return _list(message.get("tool_calls")) if isinstance(message, dict) else []


def vectors_of(body: Mapping[str, Any]) -> list[object]:
    """The vectors in an answer of `/v1/embeddings`."""
    return [entry["embedding"] for entry in _list(body.get("data")) if entry.get("embedding")]


def _lacks(capability: str, body: Mapping[str, Any]) -> str:
    """What a good answer does not have in it."""
    if capability == "tools" and not calls_of(body):
        return "the answer to tool_choice 'required' calls no function"
    if capability == "embeddings" and not vectors_of(body):
        return "the answer has no vector"
    return ""


def _words(status: int, body: Mapping[str, Any]) -> str:
    error = body.get("error")
    message = error.get("message") if isinstance(error, dict) else None
    return f"{message or 'no message'} (status {status})"


def _list(value: object) -> list[dict[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []
