"""The transport that the `tgi` adapter puts around the gateway's: OpenAI outside, TGI inside.

Completions go to the native API, chat to the engine's Messages API, all else passes as it is. Several prompts
of one request are several calls: at the same time when the answer is whole, one after the other when it is
streamed. Closing an answer closes the call, whose connection the engine watches, so that it stops generating.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec

from sluice_engines.http_headers import Headers, first_value
from sluice_engines.tgi_native.answers import Answer, Choice, ChoiceStream, Scored, Usage, whole_choice
from sluice_engines.tgi_native.chat import ChatEvents, chat_body, repaired_answer
from sluice_engines.tgi_native.client import Call, read_whole
from sluice_engines.tgi_native.completions import Asked, read_completion
from sluice_engines.tgi_native.refusals import Refused, refusal_of
from sluice_engines.transport import (
    ConnectionLost,
    Deadlines,
    Transport,
    UpstreamError,
    UpstreamRequest,
    UpstreamResponse,
)

GENERATE, GENERATE_STREAM, TOKENIZE = "/generate", "/generate_stream", "/tokenize"
CHAT, MODELS, INFO = "/v1/chat/completions", "/v1/models", "/info"
_MAX_BODY_BYTES = 64 << 20
_CALLS_AT_ONCE = 16
"""Of one request with many prompts: what is more waits here, and not in the engine's queue."""
_STREAM_HEADERS: Headers = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
)


class TgiTransport:
    """One engine's translation. It holds nothing open itself."""

    def __init__(
        self,
        http: Transport,
        *,
        loras: tuple[str, ...],
        clock: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        """`clock` gives Unix time, seconds."""
        self._http = http
        self._loras = loras
        self._clock = clock
        self._new_id = new_id

    async def send(self, request: UpstreamRequest, deadlines: Deadlines) -> UpstreamResponse:
        """Send, and return once the response head is there. Raises `UpstreamError`."""
        try:
            if request.path.endswith(GENERATE):
                return await self._complete(request, deadlines)
            if request.path.endswith(CHAT):
                return await self._chat(request, deadlines)
        except Refused as error:
            return WholeAnswer(error.refusal.status, error.refusal.body())
        response = await self._http.send(request, deadlines)
        if response.status == 404 and request.path.endswith(MODELS):
            return await self._models(request, response, deadlines)
        return response

    async def aclose(self) -> None:
        """The connections are not its own."""

    async def _complete(self, request: UpstreamRequest, deadlines: Deadlines) -> UpstreamResponse:
        asked = read_completion(request.body, self._loras)
        answer = Answer(asked, self._new_id(), int(self._clock()))
        if not asked.stream:
            return WholeAnswer(200, answer.whole(await self._choices(asked, request, deadlines)))
        path = request.path.removesuffix(GENERATE) + GENERATE_STREAM
        streamed = msgspec.structs.replace(request, path=path)

        async def count(prompt: str) -> int | None:
            return await self._prompt_tokens(asked, prompt, request, deadlines)

        stream = CompletionStream(asked, answer, lambda: Call(self._http, streamed, deadlines), count)
        await stream.open()
        return stream

    async def _prompt_tokens(
        self, asked: Asked, prompt: str, request: UpstreamRequest, deadlines: Deadlines
    ) -> int | None:
        """What a generation would count; `None` where the engine cannot say: old versions."""
        path, body = request.path.removesuffix(GENERATE) + TOKENIZE, msgspec.json.encode({"inputs": prompt})
        asking = msgspec.structs.replace(request, path=path, body=body)
        try:
            response = await self._http.send(asking, deadlines)
            tokens = _decoded(await read_whole(response, _MAX_BODY_BYTES))
        except UpstreamError:
            return None  # the answer is complete, and stays so
        if response.status != 200 or not isinstance(tokens, list):
            return None
        limit: int = asked.parameters.get("truncate", len(tokens))
        return min(len(tokens), limit)

    async def _choices(self, asked: Asked, request: UpstreamRequest, deadlines: Deadlines) -> list[Choice]:
        room = asyncio.Semaphore(_CALLS_AT_ONCE)

        async def one(prompt: str) -> Choice:
            async with room, Call(self._http, request, deadlines) as call:
                output = await call.generate(prompt, asked.parameters)
                return whole_choice(asked, output, prompt, call.prompt_tokens)

        tasks = [asyncio.ensure_future(one(prompt)) for prompt in asked.prompts]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _chat(self, request: UpstreamRequest, deadlines: Deadlines) -> UpstreamResponse:
        body = chat_body(request.body, self._loras)
        response = await self._http.send(msgspec.structs.replace(request, body=body), deadlines)
        kind = first_value(response.headers, b"content-type") or b""
        if response.status == 200 and kind.startswith(b"text/event-stream"):
            return RepairedStream(response, ChatEvents(self._new_id))
        whole = await read_whole(response, _MAX_BODY_BYTES)
        refusal = refusal_of(_decoded(whole), response.status if response.status >= 400 else None)
        if refusal is not None:
            return WholeAnswer(refusal.status, refusal.body(), _kept(response.headers))
        if response.status == 200:
            whole = repaired_answer(whole, self._new_id)
        return WholeAnswer(response.status, whole, _kept(response.headers))

    async def _models(
        self, request: UpstreamRequest, response: UpstreamResponse, deadlines: Deadlines
    ) -> UpstreamResponse:
        """Versions before 2.4 list no models, and have one, which they name at `/info`."""
        await response.aclose()
        path = request.path.removesuffix(MODELS) + INFO
        found = await self._http.send(msgspec.structs.replace(request, path=path), deadlines)
        info = _decoded(await read_whole(found, _MAX_BODY_BYTES))
        model = info.get("model_id") if isinstance(info, dict) else None
        if found.status != 200 or not isinstance(model, str):
            return WholeAnswer(404, b"{}")
        listed = {"id": model, "object": "model", "created": 0, "owned_by": "tgi"}
        return WholeAnswer(200, msgspec.json.encode({"object": "list", "data": [listed]}))


def _decoded(body: bytes) -> object:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return None


def _kept(headers: Headers) -> Headers:
    """What of the engine's headers is true of a translated body too."""
    return tuple((name, value) for name, value in headers if name == b"retry-after")


class WholeAnswer:
    """An answer that is complete; see `UpstreamResponse`."""

    def __init__(self, status: int, body: bytes, headers: Headers = ()) -> None:
        self.status = status
        self.headers: Headers = (
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            *headers,
        )
        self._body: bytes | None = body

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """The body, once."""
        body, self._body = self._body, None
        if not body:
            raise StopAsyncIteration
        return body

    async def aclose(self) -> None:
        """Drop it."""
        self._body = None


class RepairedStream:
    """The Messages API's stream, repaired on the way; see `UpstreamResponse`."""

    def __init__(self, response: UpstreamResponse, events: ChatEvents) -> None:
        self.status = response.status
        self.headers = response.headers
        self._response = response
        self._chunks = aiter(response)
        self._events = events
        self._ended = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """Whole events. Raises `UpstreamError`."""
        while not self._ended:
            try:
                given = self._events.feed(await anext(self._chunks))
            except StopAsyncIteration:
                self._ended = True
                given = self._events.flush()
            if given:
                return given
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Drop the rest."""
        self._ended = True
        await self._response.aclose()


class CompletionStream:
    """A completion as OpenAI streams it, from native calls; see `UpstreamResponse`."""

    def __init__(
        self,
        asked: Asked,
        answer: Answer,
        new_call: Callable[[], Call],
        count: Callable[[str], Awaitable[int | None]],
    ) -> None:
        """`count` tells a prompt's tokens: the engine does so only with a stream's last message, which one
        that is cut does not get."""
        self.status = 200
        self.headers = _STREAM_HEADERS
        self._asked = asked
        self._answer = answer
        self._new_call = new_call
        self._count = count
        self._call: Call | None = None
        self._index = 0
        """Of the prompt at hand."""
        self._choice = ChoiceStream(asked)
        self._offset = 0
        """Characters of the choice that were given on."""
        self._usages: list[Usage] = []
        self._events: deque[bytes] = deque()
        self._ended = False

    async def open(self) -> None:
        """Make the call for the prompt at hand. Raises `Refused` and `UpstreamError`; then none is left."""
        prompt = self._asked.prompts[self._index]
        self._choice, self._offset = ChoiceStream(self._asked), 0
        self._call = self._new_call()
        try:
            await self._call.open(prompt, self._asked.parameters)
        except BaseException:
            await self._end_call()
            raise
        if self._asked.echo:
            self._tell(prompt, ())

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """The next event. Raises `UpstreamError`."""
        while not self._events:
            if self._ended:
                raise StopAsyncIteration
            try:
                await self._advance()
            except Refused as error:
                self._ended = True
                self._events.append(error.refusal.event())
        return self._events.popleft()

    async def aclose(self) -> None:
        """Drop the rest, and have the engine stop."""
        self._ended = True
        self._events.clear()
        await self._end_call()

    async def _end_call(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            await call.aclose()

    async def _advance(self) -> None:
        """Read one message, begin the next prompt, or come to the end."""
        if self._index == len(self._asked.prompts):
            self._ended = True
            self._events.append(self._answer.end(await self._known_usages()))
        elif self._call is None:
            await self.open()
        else:
            await self._read(self._call)

    async def _known_usages(self) -> list[Usage]:
        """Those of all prompts, where they are wanted. Nothing generates any more."""
        pairs = zip(self._asked.prompts, self._usages, strict=True) if self._asked.include_usage else ()
        return [
            usage if usage.prompt is not None else Usage(await self._count(prompt), usage.generated)
            for prompt, usage in pairs
        ]

    async def _read(self, call: Call) -> None:
        message = await call.next_message()
        if message is None:
            raise ConnectionLost("the stream ended without its last message")
        piece = self._choice.feed(message)
        if (piece.text or piece.tokens) and not self._asked.no_output:
            self._tell(piece.text, piece.tokens)
        if piece.finish_reason is not None:
            reason = "length" if self._asked.no_output else piece.finish_reason
            self._events.append(self._answer.chunk(self._index, "", (), self._offset, reason))
            self._usages.append(piece.usage or Usage(None, 0))
            self._index += 1
            await self._end_call()

    def _tell(self, text: str, tokens: tuple[Scored, ...]) -> None:
        self._events.append(self._answer.chunk(self._index, text, tokens, self._offset))
        self._offset += len(text)
