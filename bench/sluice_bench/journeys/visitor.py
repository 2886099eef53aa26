"""One user of a server: the journeys, step by step, and what comes of each request.

Knows nothing of Locust: requests go out through a `BlockingClient`, what came of them goes to `report`,
and pauses are made by `pause`, all passed in. What is a token, TTFT, TPOT and E2E is what `answers.py` and
`metrics.py` say; JSON is read when an answer is over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count, cycle
from typing import Any, Literal, Protocol

import msgspec

from sluice_bench.answers import read_answer
from sluice_bench.connection import Exchange
from sluice_bench.journeys.capabilities import CHAT, Choice, Findings, calls_of, reply_of, vectors_of
from sluice_bench.journeys.prompts import Prompts
from sluice_bench.metrics import e2e_s, tpot_s, ttft_user_s
from sluice_bench.records import Failure, RequestRecord
from sluice_bench.target import Target, WireRequest
from sluice_bench.workload import Asking, post, request_body
from sluice_bench.workloads.items import WorkloadItem

Kind = Literal["ttft", "tpot", "e2e", "left"]

NEEDS: Mapping[str, str] = {
    "chat": "chat",
    "multi-turn": "chat",
    "tools": "tools",
    "embeddings": "embeddings",
    "toggle": "headers",
    "cancel": "chat",
}
"""Every journey, and the capability without which it is skipped."""

WEIGHTS: Mapping[str, int] = {
    "chat": 6,
    "multi-turn": 2,
    "tools": 2,
    "embeddings": 3,
    "toggle": 4,
    "cancel": 3,
}
"""Of the mix: how often each is begun. A conversation is two to five requests."""

LEAVE_AFTER_READS = (3, 0, 8, 1, 5)
"""When clients leave, in turn: in mid-stream, at once, later, with the head, …"""

_RESULT = '{"status": "ok", "note": "as asked"}'


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of one request, or its failure."""

    kind: Kind
    name: str
    """The journey."""
    ms: float | None
    """`None` with a failure: percentiles cover complete requests. Also of an answer without text."""
    n_bytes: int = 0
    """Of generated text, with `e2e`."""
    failure: str = ""


class Client(Protocol):
    """As `BlockingClient` is."""

    def send(self, request: WireRequest) -> Exchange:
        """Send and read."""

    def send_and_leave(self, request: WireRequest, after_reads: int) -> tuple[Exchange, bool]:
        """Send, read so often, leave, unless the answer is over before."""


class World:
    """What all users of a process share. Taking from it never waits, so greenlets cannot come between."""

    def __init__(self, target: Target, findings: Findings, prompts: Prompts, api_key: str | None) -> None:
        self.target = target
        self.findings = findings
        self.prompts = prompts
        self.api_key = api_key
        self.sessions = count()
        self.choices: Iterator[Choice] = cycle(findings.choices)
        self.leave_after_reads = cycle(LEAVE_AFTER_READS)


class Visitor:
    """Does journeys."""

    def __init__(
        self, world: World, client: Client, report: Callable[[Event], None], pause: Callable[[], None]
    ) -> None:
        """`pause` waits for as long as a user thinks."""
        self._world = world
        self._client = client
        self._report = report
        self._pause = pause

    def go(self, journey: str) -> None:
        """Do one of `NEEDS`. What fails is reported, and ends the journey."""
        steps = {
            "chat": self._chat,
            "multi-turn": self._multi_turn,
            "tools": self._tools,
            "embeddings": self._embeddings,
            "toggle": self._toggle,
            "cancel": self._cancel,
        }
        steps[journey]()

    def _chat(self) -> None:
        self._stream("chat", self._world.prompts.item("short"))

    def _multi_turn(self) -> None:
        """A conversation that asks to stay on one engine, with a pause before each further turn."""
        session = ("X-Session-Id", f"journey-{next(self._world.sessions)}")
        for number, turn in enumerate(self._world.prompts.conversation()):
            if number:
                self._pause()
            if self._stream("multi-turn", turn, headers=(session,)).failure is not None:
                return

    def _tools(self) -> None:
        """A question, a call of a function, its result, an answer."""
        item = self._world.prompts.item("tools")
        model = self._world.findings.tools_model
        asked = self._plain(
            CHAT, {"model": model, **item.body, "max_tokens": item.max_tokens, "tool_choice": "required"}
        )
        reply = reply_of(asked)
        calls = calls_of(reply.body)
        self._report_plain("tools", asked, reply.trouble or ("" if calls else "no function was called"))
        if reply.trouble or not calls:
            return
        results = [{"role": "tool", "tool_call_id": call.get("id"), "content": _RESULT} for call in calls]
        call = {"role": "assistant", "content": None, "tool_calls": calls}
        body = {**item.body, "messages": [*item.body["messages"], call, *results]}
        self._stream("tools", msgspec.structs.replace(item, body=body), model=model)

    def _embeddings(self) -> None:
        text = self._world.prompts.item("short").body["messages"][-1]["content"]
        asked = self._plain("/v1/embeddings", {"model": self._world.findings.embeddings_model, "input": text})
        reply = reply_of(asked)
        lacking = "" if vectors_of(reply.body) else "the answer has no vector"
        self._report_plain("embeddings", asked, reply.trouble or lacking)

    def _toggle(self) -> None:
        """The next backend or quantization by header; who answered must be who was asked."""
        choice = next(self._world.choices)
        item = self._world.prompts.item("short")
        wanted = choice.value if choice.header == "X-Backend" else ""
        self._stream(
            "toggle", item, headers=((choice.header, choice.value),), model=choice.model, backend=wanted
        )

    def _cancel(self) -> None:
        """The client leaves before the answer is over."""
        item = self._world.prompts.item("rag-edit")  # has the longest answers
        request = self._streamed(item, self._world.findings.model, ())
        exchange, left = self._client.send_and_leave(request, next(self._world.leave_after_reads))
        if left:
            assert exchange.end_ns is not None
            self._report(
                Event(kind="left", name="cancel", ms=(exchange.end_ns - exchange.scheduled_ns) / 1e6)
            )
        else:
            self._report_stream("cancel", read_answer(exchange))

    def _streamed(self, item: WorkloadItem, model: str, headers: Sequence[tuple[str, str]]) -> WireRequest:
        asking = Asking(model=model, api_key=self._world.api_key, headers=tuple(headers))
        body = request_body(item.body, item.max_tokens, asking)
        return WireRequest(
            post(self._world.target, CHAT, body, asking),
            stream=True,
            asked_tokens=item.max_tokens,
            item=item.id,
        )

    def _stream(
        self,
        journey: str,
        item: WorkloadItem,
        *,
        headers: Sequence[tuple[str, str]] = (),
        model: str = "",
        backend: str = "",
    ) -> RequestRecord:
        """Ask for a stream and report it. `backend`: who has to answer."""
        request = self._streamed(item, model or self._world.findings.model, headers)
        record = read_answer(self._client.send(request))
        if record.failure is None and backend not in ("", record.backend):
            said = f"asked for backend {backend}, answered by {record.backend or 'nobody knows whom'}"
            record = msgspec.structs.replace(record, failure=Failure.PROTOCOL, message=said)
        self._report_stream(journey, record)
        return record

    def _plain(self, path: str, body: Mapping[str, Any]) -> Exchange:
        asking = Asking(model="", stream=False, api_key=self._world.api_key)
        wire = post(self._world.target, path, msgspec.json.encode(body), asking)
        return self._client.send(WireRequest(wire, stream=False))

    def _report_stream(self, journey: str, record: RequestRecord) -> None:
        if record.failure is not None:
            self._report(
                Event(kind="e2e", name=journey, ms=None, failure=f"{record.failure}: {record.message}")
            )
            return
        kinds: tuple[tuple[Kind, float | None], ...] = (
            ("ttft", ttft_user_s(record)),
            ("tpot", tpot_s(record)),
        )
        for kind, seconds in kinds:
            if seconds is not None:
                self._report(Event(kind=kind, name=journey, ms=seconds * 1000))
        total = e2e_s(record)  # none when the answer has no text
        ms = None if total is None else total * 1000
        self._report(Event(kind="e2e", name=journey, ms=ms, n_bytes=record.text_bytes))

    def _report_plain(self, journey: str, exchange: Exchange, trouble: str) -> None:
        assert exchange.end_ns is not None
        ms = None if trouble else (exchange.end_ns - exchange.scheduled_ns) / 1e6
        self._report(Event(kind="e2e", name=journey, ms=ms, failure=trouble))
