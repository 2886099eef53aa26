"""One attempt at a Responses request on an engine that speaks the Responses API itself.

The engine's events pass through byte for byte, except where they would contradict what the gateway stores
and shows: the response's identity, the numbering after events that were announced before, and keys that
typed clients cannot do without and engines forget. The last event is held back until `end`, so that the
response can be kept before its client knows that it is complete.
"""

from __future__ import annotations

from typing import Any

import msgspec

from sluice_gateway.dialects.responses.chat_answer import used
from sluice_gateway.dialects.responses.event_stream import LAST, frame
from sluice_gateway.dialects.responses.response_object import (
    FINAL,
    Echo,
    Outcome,
    ResponseObject,
    error_of,
)
from sluice_gateway.errors import Failure, Problem, problem
from sluice_router.types import Usage

_OURS = ("id", "created_at", "previous_response_id", "store", "background", "model")
_NEEDS_LOGPROBS = frozenset({"response.output_text.delta", "response.output_text.done"})
_OPENING = frozenset({"response.created", "response.queued"})
_CUT = "The engine ended its answer early; try again."

_OBJECT = msgspec.json.Decoder(dict[str, Any])


class NativeTranslation:
    """See `Translation`."""

    path = "/v1/responses"

    def __init__(self, body: bytes, echo: Echo, *, announced: int = 0) -> None:
        """`announced`: events that the client has got already, `response.created` first."""
        self.body = body
        self.response: ResponseObject | None = None
        """The finished response; `None` until it is."""
        self._echo = echo
        self._base = echo.object(Outcome())
        self._announced = announced
        self._next = announced
        self._last = b""
        self._done: list[dict[str, Any]] = []
        self._usage: dict[str, Any] | None = None

    @property
    def started(self) -> bool:
        """Whether the engine has sent an event."""
        return self._next > self._announced

    @property
    def usage(self) -> Usage | None:
        """What the engine reported."""
        return used(self._usage)

    def whole(self, body: bytes) -> bytes:
        """See `Translation`."""
        found = _decode(body)
        if found.get("object") != "response":
            raise ValueError("not a response object")
        patched = self._patched(found)
        self._usage = patched.get("usage")
        if patched["status"] in FINAL:
            self.response = patched
        return msgspec.json.encode(patched)

    def events(self, data: bytes) -> bytes:
        """See `Translation`."""
        fields = _decode(data)
        kind = fields.get("type")
        if not isinstance(kind, str):
            raise ValueError("not an event of a response")
        if self._announced and kind in _OPENING:
            return b""
        changed = self._changed(kind, fields)
        self._note(kind, changed)
        self._next += 1
        framed = frame(kind, changed)
        if changed is fields:
            framed = b"event: %b\ndata: %b\n\n" % (kind.encode(), data)
        if kind in LAST:
            self._last, framed = framed, b""
        return framed

    def end(self) -> bytes:
        """See `Translation`: the event that was held back, or a failure if the engine sent none."""
        return self._last or self.failure(problem(Failure.UPSTREAM_LOST, _CUT))

    def failure(self, found: Problem) -> bytes:
        """See `Translation`."""
        if self._last:
            return self._last
        pieces = b""
        if not self._next:
            pieces = frame("response.created", self._numbered("response.created", self._base))
        self.response = self._echo.object(self._outcome("failed", error_of(found)))
        return pieces + frame("response.failed", self._numbered("response.failed", self.response))

    def broken_off(self, status: str, error: dict[str, Any] | None) -> ResponseObject:
        """The response as it stands, when it ends without the engine's or the stream's last word."""
        return self._echo.object(self._outcome(status, error))

    def _changed(self, kind: str, fields: dict[str, Any]) -> dict[str, Any]:
        """The event as the client is to see it: the same object when nothing has to change."""
        changed: dict[str, Any] = {}
        if isinstance(fields.get("response"), dict):
            changed["response"] = self._patched(fields["response"])
        if fields.get("sequence_number") != self._next:
            changed["sequence_number"] = self._next
        if kind in _NEEDS_LOGPROBS and fields.get("logprobs") is None:
            changed["logprobs"] = []
        return {**fields, **changed} if changed else fields

    def _note(self, kind: str, fields: dict[str, Any]) -> None:
        if kind == "response.output_item.done" and isinstance(fields.get("item"), dict):
            self._done.append(fields["item"])
        if kind in LAST:
            if not isinstance(fields.get("response"), dict):
                raise ValueError("the last event has no response")
            self.response = fields["response"]
            self._usage = fields["response"].get("usage")

    def _patched(self, response: dict[str, Any]) -> ResponseObject:
        return {**self._base, **response, **{name: self._base[name] for name in _OURS}}

    def _numbered(self, kind: str, response: ResponseObject) -> dict[str, Any]:
        fields = {"type": kind, "sequence_number": self._next, "response": response}
        self._next += 1
        return fields

    def _outcome(self, status: str, error: dict[str, Any] | None) -> Outcome:
        return Outcome(status=status, output=list(self._done), usage=self._usage, error=error)


def _decode(data: bytes) -> dict[str, Any]:
    try:
        return _OBJECT.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError("not a JSON object") from error
