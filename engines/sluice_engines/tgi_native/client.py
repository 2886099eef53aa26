"""huggingface-hub's client of the native API, over the gateway's own connections.

`AsyncInferenceClient.text_generation` is the maintained client of Text Generation Inference: it makes the
request's body and reads answers, events and errors. How bytes reach the engine stays the gateway's: pooled
connections, Unix sockets, four deadlines. `Bridge` lies between: an httpx transport over a `Transport`.

What the client would add of its own is left behind at the bridge: its headers, and with them the token of the
Hub that it may find on the machine, which is no business of the engine.

Imported only when it is needed: it is heavy.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Any

import httpx2
import msgspec
from huggingface_hub import AsyncInferenceClient
from huggingface_hub.errors import HfHubHTTPError, TextGenerationError

from sluice_engines.http_headers import Headers, first_value
from sluice_engines.tgi_native.refusals import Refusal, Refused, refusal_of, status_of
from sluice_engines.transport import (
    Deadlines,
    ProtocolViolation,
    Transport,
    UpstreamRequest,
    UpstreamResponse,
)

_MAX_ERROR_BYTES = 65_536
_MAX_TAIL_BYTES = 4096
_NOWHERE = "http://text-generation-inference"
"""The client insists on a URL; where the request goes is the bridge's to know."""


class Bridge(httpx2.AsyncBaseTransport):
    """Sends the client's body with a given request, and keeps what the client hides of the answer."""

    def __init__(self, http: Transport, request: UpstreamRequest, deadlines: Deadlines) -> None:
        """`request` is sent with its own headers and the client's body."""
        self._http = http
        self._request = request
        self._deadlines = deadlines
        self._response: UpstreamResponse | None = None
        self.status: int | None = None
        self.headers: Headers = ()
        self.error_body = b""
        """Of an answer that is no success."""
        self.tail = b""
        """The last bytes of a stream that were read: where its error is, if it ended with one."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Raises `UpstreamError`, which passes through the client."""
        sent = msgspec.structs.replace(self._request, body=await request.aread())
        response = self._response = await self._http.send(sent, self._deadlines)
        self.status, self.headers = response.status, response.headers
        if response.status >= 400:
            self.error_body = await read_whole(response, _MAX_ERROR_BYTES)
            return httpx2.Response(response.status, content=self.error_body)
        kind = first_value(response.headers, b"content-type") or b""
        is_stream = kind.startswith(b"text/event-stream")
        return httpx2.Response(response.status, stream=_Body(self, response, is_stream))

    async def aclose(self) -> None:
        """Drop the answer; the connections are the gateway's."""
        if self._response is not None:
            await self._response.aclose()


async def read_whole(response: UpstreamResponse, limit: int) -> bytes:
    """The body, read to its end, or to `limit` bytes; then closed. Raises `UpstreamError`."""
    parts, size = [], 0
    try:
        async for chunk in response:
            parts.append(chunk)
            size += len(chunk)
            if size >= limit:
                break
    finally:
        await response.aclose()
    return b"".join(parts)


class LineSaver:
    """Escapes what Python takes for the end of a line and JSON does not.

    The client cuts a stream by `str.splitlines`, to which U+0085, U+2028 and U+2029 end a line; in JSON they
    stand for themselves, and only inside strings, where they may as well be escaped.
    """

    _ESCAPES = ((b"\xc2\x85", b"\\u0085"), (b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"))
    _BEGINNINGS = (b"\xe2\x80", b"\xe2", b"\xc2")

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """The next bytes; what may be half a character is held back."""
        data, self._rest = self._rest + data, b""
        for beginning in self._BEGINNINGS:
            if data.endswith(beginning):
                data, self._rest = data.removesuffix(beginning), beginning
                break
        for character, escape in self._ESCAPES:
            data = data.replace(character, escape)
        return data


class _Body(httpx2.AsyncByteStream):
    def __init__(self, bridge: Bridge, response: UpstreamResponse, is_stream: bool) -> None:
        self._bridge = bridge
        self._response = response
        self._lines = LineSaver() if is_stream else None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._response:
            if self._lines is None:
                yield chunk
            else:
                self._bridge.tail = (self._bridge.tail + chunk)[-_MAX_TAIL_BYTES:]
                yield self._lines.feed(chunk)

    async def aclose(self) -> None:
        await self._response.aclose()


class _Client(AsyncInferenceClient):
    """The client, with its HTTP over a bridge. It is made for one request: it keeps every answer's
    connection until it is closed."""

    def __init__(self, bridge: Bridge) -> None:
        # Given a token it looks for none on the machine; the bridge drops it.
        super().__init__(model=_NOWHERE, provider="hf-inference", token="unused")
        self._bridge = bridge

    async def _get_async_client(self) -> httpx2.AsyncClient:
        if self._async_client is None:
            made = httpx2.AsyncClient(transport=self._bridge, trust_env=False, timeout=None)
            self._async_client = await self.exit_stack.enter_async_context(made)
        return self._async_client


class Call:
    """One call of the native API. Whoever made it must close it, as a context manager does."""

    def __init__(self, http: Transport, request: UpstreamRequest, deadlines: Deadlines) -> None:
        """`request` names the path, `/generate` or `/generate_stream`."""
        self._bridge = Bridge(http, request, deadlines)
        self._client = _Client(self._bridge)
        self._messages: Any = None

    async def generate(self, prompt: str, parameters: dict[str, Any]) -> Any:
        """A `TextGenerationOutput`. Raises `Refused` and `UpstreamError`."""
        with self._errors():
            return await self._client.text_generation(prompt, **parameters)

    async def open(self, prompt: str, parameters: dict[str, Any]) -> None:
        """Until the head of the stream is there. Raises `Refused` and `UpstreamError`."""
        with self._errors():
            self._messages = await self._client.text_generation(prompt, stream=True, **parameters)

    async def next_message(self) -> Any:
        """The stream's next `TextGenerationStreamOutput`, `None` at its end.

        Raises `Refused` and `UpstreamError`.
        """
        with self._errors():
            return await anext(self._messages, None)

    @property
    def prompt_tokens(self) -> int | None:
        """What the answer's headers say; only when it is not streamed."""
        told = first_value(self._bridge.headers, b"x-prompt-tokens")
        return int(told) if told is not None and told.isdigit() else None

    async def aclose(self) -> None:
        """Close the stream and its connection. Idempotent."""
        if self._messages is not None:
            await self._messages.aclose()
        await self._client.close()  # type: ignore[no-untyped-call]

    async def __aenter__(self) -> Call:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """The client's exceptions as ours."""
        try:
            yield
        except (TextGenerationError, HfHubHTTPError) as error:
            raise Refused(self._refusal(error)) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ProtocolViolation(f"the answer is none of the native API: {error!r}") from error

    def _refusal(self, error: Exception) -> Refusal:
        """What the engine said, at the status it is for the client.

        The client's exceptions do not tell every type of error, so the engine's own words are read again.
        """
        status = self._bridge.status
        refused = status is not None and status >= 400
        said = self._bridge.error_body if refused else self._bridge.tail.rpartition(b"data:")[2]
        try:
            found = refusal_of(msgspec.json.decode(said), status if refused else None)
        except (msgspec.DecodeError, RecursionError):
            found = None
        if found is not None:
            return found
        message = f"The engine answered {status}." if refused else str(error)
        return Refusal(status=status_of(None, status if refused else None), message=message)
