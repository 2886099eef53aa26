"""The echo engine's transport: requests in, paced OpenAI answers out, without a socket.

Keeps the promises of `Transport`, deadlines included, so that what works against it works against an engine.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Annotated

import msgspec
from msgspec import Meta

from sluice_engines.echo_answers import (
    Answer,
    chat_answer,
    completion_answer,
    embeddings_body,
    error_body,
    full_body,
    model_object,
    stream_steps,
)
from sluice_engines.echo_requests import (
    ChatBody,
    CompletionBody,
    EmbeddingBody,
    parse_body,
)
from sluice_engines.http_headers import Headers, first_value
from sluice_engines.openai_bodies import BadRequest
from sluice_engines.transport import (
    ConnectionLost,
    DeadlineExceeded,
    Deadlines,
    Phase,
    UpstreamRequest,
    UpstreamResponse,
)

Sleep = Callable[[float], Awaitable[None]]
Clock = Callable[[], float]
Random = Callable[[], float]
"""Uniform in [0, 1)."""

_TOLD_TO_FAIL = "The echo engine was told to fail."


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How an answer comes: the settings that a request may override."""

    delay_s: Annotated[float, Meta(ge=0)] = 0.0
    """Until the first token; for an answer that is not streamed, before all others."""
    tokens_per_s: Annotated[float, Meta(gt=0)] | None = None
    """Of each choice, after the first token. `None`: at once."""
    status: Annotated[int, Meta(ge=400, le=599)] | None = None
    """Answer with this error instead."""
    lose_after: Annotated[int, Meta(ge=0)] | None = None
    """Lose the connection after so many tokens of each choice."""
    fail_after: Annotated[int, Meta(ge=0)] | None = None
    """End a stream with an error event after so many tokens of each choice; else answer with a 500."""
    fault_rate: Annotated[float, Meta(ge=0, le=1)] = 1.0
    """Share of requests that meet the faults above."""


class Part(msgspec.Struct, frozen=True):
    """A piece of a body and how long it takes to come."""

    wait_s: float
    data: bytes


class EchoSettings(Pace, frozen=True, kw_only=True):
    """A backend's options."""

    models: tuple[str, ...] = ("echo",)


_STREAM_HEADERS: Headers = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
)


def overridden(pace: Pace, headers: Headers, extras: dict[str, object]) -> Pace:
    """`pace` with a request's own wishes. Raises `BadRequest` on a wish that makes no sense."""
    wishes: dict[str, object] = {}
    for field in msgspec.structs.fields(Pace):
        value = first_value(headers, b"x-echo-" + field.name.replace("_", "-").encode())
        if value is not None:
            wishes[field.name] = value.decode("latin-1")
    settings = {field.name: getattr(pace, field.name) for field in msgspec.structs.fields(Pace)}
    unknown = sorted(extras.keys() - settings.keys())
    if unknown:
        raise BadRequest(f"'x_echo' has no '{unknown[0]}'; it has: {', '.join(settings)}.", param="x_echo")
    try:
        return msgspec.convert(settings | wishes | extras, Pace, strict=False)
    except msgspec.ValidationError as error:
        raise BadRequest(f"Wrong echo setting: {error}.", param="x_echo") from error


class EchoTransport:
    """Answers requests in process."""

    def __init__(
        self,
        settings: EchoSettings,
        *,
        sleep: Sleep,
        clock: Clock,
        new_id: Callable[[], str],
        random: Random,
    ) -> None:
        """`clock` gives Unix time, seconds, for `created`; `random` decides who meets a fault."""
        self._settings = settings
        self._sleep = sleep
        self._clock = clock
        self._new_id = new_id
        self._random = random
        self.in_flight = 0
        """Requests whose answer is neither read to its end nor closed."""

    async def send(self, request: UpstreamRequest, deadlines: Deadlines) -> UpstreamResponse:
        """Answer. Raises `ConnectionLost` when told to, `DeadlineExceeded` when its own pace is too slow."""
        self.in_flight += 1
        try:
            return await self._respond(request, Waits(self._sleep, deadlines))
        except BadRequest as error:
            return self._error(str(error), error.status, error.param, error.code)
        except BaseException:
            self._finished()
            raise

    async def aclose(self) -> None:
        """It holds nothing open."""

    def _finished(self) -> None:
        self.in_flight -= 1

    async def _respond(self, request: UpstreamRequest, waits: Waits) -> EchoResponse:
        path = request.path.partition("?")[0]
        if request.method == "GET":
            return self._get(path)
        if path == "/v1/embeddings":
            embedding = parse_body(request.body, EmbeddingBody)
            self._check_model(embedding.model)
            return self._json(200, embeddings_body(embedding))
        if path == "/v1/chat/completions":
            return await self._generate(parse_body(request.body, ChatBody), request.headers, waits)
        if path == "/v1/completions":
            return await self._generate(parse_body(request.body, CompletionBody), request.headers, waits)
        raise BadRequest(f"The echo engine has no {request.method} {path}.", status=404)

    def _get(self, path: str) -> EchoResponse:
        if path in ("/health", "/ready"):
            return self._json(200, b'{"status":"ok"}')
        models = [model_object(model) for model in self._settings.models]
        if path == "/v1/models":
            return self._json(200, msgspec.json.encode({"object": "list", "data": models}))
        raise BadRequest(f"The echo engine has no GET {path}.", status=404)

    async def _generate(
        self, body: ChatBody | CompletionBody, headers: Headers, waits: Waits
    ) -> EchoResponse:
        self._check_model(body.model)
        pace = overridden(self._settings, headers, body.x_echo)
        if pace.fault_rate < 1 and self._random() >= pace.fault_rate:
            pace = msgspec.structs.replace(pace, status=None, lose_after=None, fail_after=None)
        if pace.status is not None:
            return self._error(_TOLD_TO_FAIL, pace.status)
        answer = self._answer(body)
        if body.stream:
            return EchoResponse(200, _STREAM_HEADERS, _parts(answer, pace), waits, self._finished)
        await _think(answer, pace, waits)
        if pace.fail_after is not None and pace.fail_after < answer.num_steps:
            return self._error(_TOLD_TO_FAIL, 500)
        return self._json(200, full_body(answer))

    def _answer(self, body: ChatBody | CompletionBody) -> Answer:
        request_id, created = self._new_id(), int(self._clock())
        if isinstance(body, ChatBody):
            return chat_answer(body, request_id, created)
        return completion_answer(body, request_id, created)

    def _check_model(self, model: str) -> None:
        if self._settings.models and model not in self._settings.models:
            raise BadRequest(
                f"The model '{model}' does not exist; this engine has: {', '.join(self._settings.models)}.",
                param="model",
                code="model_not_found",
                status=404,
            )

    def _error(
        self, message: str, status: int, param: str | None = None, code: str | None = None
    ) -> EchoResponse:
        return self._json(status, error_body(message, status, param, code))

    def _json(self, status: int, body: bytes) -> EchoResponse:
        headers = ((b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)))
        at_once = Waits(self._sleep, Deadlines())
        return EchoResponse(status, headers, iter([Part(0.0, body)]), at_once, self._finished)


class Waits:
    """Sleeps that respect the deadlines of one exchange, counted in time slept."""

    def __init__(self, sleep: Sleep, deadlines: Deadlines) -> None:
        self._sleep = sleep
        self._deadlines = deadlines
        self._slept_s = 0.0

    async def before_head(self, wait_s: float) -> None:
        """Sleep before the response head. Raises `DeadlineExceeded` at `first_byte` or `total`."""
        await self._wait(wait_s, "first_byte", self._deadlines.first_byte_s)

    async def between_reads(self, wait_s: float) -> None:
        """Sleep between two body chunks. Raises `DeadlineExceeded` at `idle` or `total`."""
        await self._wait(wait_s, "idle", self._deadlines.idle_s)

    async def _wait(self, wait_s: float, phase: Phase, limit_s: float | None) -> None:
        if wait_s <= 0:
            return
        total_s = self._deadlines.total_s
        if total_s is not None and (limit_s is None or total_s - self._slept_s < limit_s):
            phase, limit_s, left_s = "total", total_s, total_s - self._slept_s
        else:
            left_s = wait_s if limit_s is None else limit_s
        await self._sleep(min(wait_s, left_s))
        self._slept_s += min(wait_s, left_s)
        if limit_s is not None and wait_s > left_s:
            raise DeadlineExceeded(phase, limit_s)


def _parts(answer: Answer, pace: Pace) -> Iterator[Part]:
    """A streamed answer at its pace. Raises `ConnectionLost` where it was told to."""
    wait_s, told = pace.delay_s, 0
    for step in stream_steps(answer):
        if step.tokens:
            _maybe_lose(pace, told)
            if pace.fail_after is not None and told >= pace.fail_after:
                yield Part(wait_s, b"data: " + error_body(_TOLD_TO_FAIL, 500) + b"\n\n")
                return
            if told and pace.tokens_per_s is not None:
                wait_s = 1 / pace.tokens_per_s
            told += 1
        yield Part(wait_s, step.data)
        wait_s = 0.0


async def _think(answer: Answer, pace: Pace, waits: Waits) -> None:
    """What an answer that is not streamed takes."""
    limits = (limit for limit in (pace.lose_after, pace.fail_after) if limit is not None)
    thought = min(answer.num_steps, *limits, answer.num_steps)
    steps_s = max(0, thought - 1) / pace.tokens_per_s if pace.tokens_per_s is not None else 0.0
    await waits.before_head(pace.delay_s + steps_s)
    if thought < answer.num_steps:
        _maybe_lose(pace, thought)


def _maybe_lose(pace: Pace, told: int) -> None:
    if pace.lose_after is not None and told >= pace.lose_after:
        raise ConnectionLost("the echo engine was told to lose the connection")


class EchoResponse:
    """An answer whose head is there; see `UpstreamResponse`."""

    def __init__(
        self, status: int, headers: Headers, parts: Iterator[Part], waits: Waits, finished: Callable[[], None]
    ) -> None:
        """`finished` is called once: at the end of the body, at an error, or by `aclose`."""
        self.status = status
        self.headers = headers
        self._parts = parts
        self._waits = waits
        self._finished: Callable[[], None] | None = finished

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The body, a step at a time."""
        return self

    async def __anext__(self) -> bytes:
        """The next part, when its time has come. Raises `ConnectionLost` or `DeadlineExceeded`."""
        try:
            part = next(self._parts, None) if self._finished is not None else None
            if part is not None:
                await self._waits.between_reads(part.wait_s)
        except BaseException:
            await self.aclose()
            raise
        if part is None or self._finished is None:
            await self.aclose()
            raise StopAsyncIteration
        return part.data

    async def aclose(self) -> None:
        """Drop the rest. Idempotent."""
        finished, self._finished = self._finished, None
        if finished is not None:
            finished()
