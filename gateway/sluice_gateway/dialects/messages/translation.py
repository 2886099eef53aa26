"""One attempt at a Messages request at an engine that speaks chat completions; and at counting its tokens.

`translate` and `translate_count` take the client's original bytes; the model in the answer is the one named
there, whatever the engine is asked for.
"""

from __future__ import annotations

import msgspec

from sluice_gateway.dialects import anthropic_errors
from sluice_gateway.dialects.messages import answer, request, schema
from sluice_gateway.dialects.messages.refusal import Untranslatable, invalid
from sluice_gateway.dialects.messages.stream import MessageStream
from sluice_gateway.errors import Problem


def translate(body: bytes) -> MessagesTranslation | Problem:
    """A translation of a request of kind `messages`, or why there is none."""
    try:
        return MessagesTranslation(body)
    except Untranslatable as error:
        return error.problem


def translate_count(body: bytes) -> CountTokensTranslation | Problem:
    """A translation of a request of kind `count_tokens`, or why there is none."""
    try:
        return CountTokensTranslation(body)
    except Untranslatable as error:
        return error.problem


class MessagesTranslation:
    """See `Translation`."""

    path = "/v1/chat/completions"

    def __init__(self, body: bytes) -> None:
        """Raises `Untranslatable`."""
        asked, fields = schema.decode(body)
        if asked.max_tokens is None:
            raise invalid("max_tokens", "is required.")
        self.body = msgspec.json.encode(request.chat_body(asked, fields))
        self._model = asked.model
        self._sequences = tuple(asked.stop_sequences or ())
        self._shows_thinking = asked.shows_thinking
        self._stream = MessageStream(self._model, self._sequences, self._shows_thinking)

    def whole(self, body: bytes) -> bytes:
        """See `Translation`."""
        return answer.message(body, self._model, self._sequences, self._shows_thinking)

    def events(self, data: bytes) -> bytes:
        """See `Translation`."""
        return self._stream.feed(data)

    def end(self) -> bytes:
        """See `Translation`."""
        return self._stream.end()

    def failure(self, found: Problem) -> bytes:
        """See `Translation`."""
        return anthropic_errors.event(found)


class _Count(msgspec.Struct, frozen=True):
    count: int


_COUNT = msgspec.json.Decoder(_Count)


class CountTokensTranslation:
    """See `Translation`. Asks `/tokenize` in vLLM's shape, which renders the same prompt as the request would
    and tells its length. Nothing here streams."""

    path = "/tokenize"

    def __init__(self, body: bytes) -> None:
        """Raises `Untranslatable`."""
        asked, fields = schema.decode(body)
        self.body = msgspec.json.encode(request.count_body(asked, fields))

    def whole(self, body: bytes) -> bytes:
        """See `Translation`."""
        return msgspec.json.encode({"input_tokens": _COUNT.decode(body).count})

    def events(self, data: bytes) -> bytes:
        """See `Translation`."""
        raise ValueError("a stream where a count was expected")

    def end(self) -> bytes:
        """See `Translation`."""
        return b""

    def failure(self, found: Problem) -> bytes:
        """See `Translation`."""
        return anthropic_errors.event(found)
