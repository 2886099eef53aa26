"""Errors of Text Generation Inference as OpenAI's.

A body is `{"error": "...", "error_type": "..."}`; in a stream it is an event of a 200. What the type means
for the client:

    validation, tool_error, template_error, missing_template_variable   400: the request is wrong
    overloaded                                                          429: another replica may have room
    generation, incomplete_generation, anything else                    500: the engine failed
"""

from __future__ import annotations

from typing import Any

import msgspec

_REFUSED = frozenset({"validation", "tool_error", "template_error", "missing_template_variable"})
_FAILED_GENERATION = 424
_VALIDATION = 422


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """An error as OpenAI's clients know it."""

    status: int
    message: str
    param: str | None = None
    code: str | None = None

    @property
    def type(self) -> str:
        """OpenAI's word for who is to blame."""
        return "invalid_request_error" if self.status < 429 else "server_error"

    def body(self) -> bytes:
        """The body of an answer."""
        return msgspec.json.encode({"error": self._error(self.code)})

    def event(self) -> bytes:
        """The event that ends a stream; its `code` is the status, for a stream has no other place for it."""
        return b"data: " + msgspec.json.encode({"error": self._error(self.status)}) + b"\n\n"

    def _error(self, code: str | int | None) -> dict[str, object]:
        return {"message": self.message, "type": self.type, "param": self.param, "code": code}


class Refused(Exception):
    """The request cannot be answered."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


def unsupported(param: str, message: str) -> Refused:
    """The engine lacks what the request asks for."""
    return Refused(Refusal(status=400, message=message, param=param, code="unsupported_parameter"))


def status_of(error_type: str | None, status: int | None = None) -> int:
    """The status to answer with. `status` is the engine's own, where it gave one that was no success."""
    if error_type in _REFUSED:
        return 400
    if error_type == "overloaded":
        return 429
    if error_type is None and status is not None and status >= 400:
        return {_VALIDATION: 400, _FAILED_GENERATION: 500}.get(status, status)
    if status is not None and 400 <= status < 500 and status not in (_FAILED_GENERATION, 408):
        return 400 if status == _VALIDATION else status
    return 500


def refusal_of(document: Any, status: int | None = None) -> Refusal | None:
    """The error that a decoded body or event stands for; `None` when it is none."""
    if not isinstance(document, dict):
        return None
    error = document.get("error")
    if not isinstance(error, str):
        return None
    kind = document.get("error_type")
    return Refusal(status=status_of(kind if isinstance(kind, str) else None, status), message=error)
