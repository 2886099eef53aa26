"""Failures in the shape that clients of Anthropic's API expect.

    {"type": "error", "error": {"type": ..., "message": ...}, "request_id": ...}

The HTTP status stays what the table in `errors` says; the type follows from it:

    400, 405, 408, 409, 415, ...   invalid_request_error
    401 authentication_error   403 permission_error   404 not_found_error   413 request_too_large
    429 rate_limit_error       503, 529 overloaded_error      504 timeout_error
    500, 502, ...                  api_error

Anthropic's own overload is 529, a status that only its clients know; being full or without an engine is 503
here as everywhere else, under the same type. Its SDKs retry both. The shape has no place for a parameter's
name, so the message begins with it when it does not name it anyway.
"""

from __future__ import annotations

import msgspec

from sluice_gateway.errors import Problem

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def error_type(status: int) -> str:
    """The `error.type` that goes with a status of 400 or more."""
    return _TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")


def body(found: Problem, request_id: str | None = None) -> bytes:
    """The JSON of an answer with `found.status`."""
    message = found.message
    if found.param is not None and found.param not in message:
        message = f"{found.param}: {message}"
    error = {"type": error_type(found.status), "message": message}
    return msgspec.json.encode({"type": "error", "error": error, "request_id": request_id})


def event(found: Problem, request_id: str | None = None) -> bytes:
    """The same as the event that ends a stream which has begun."""
    return b"event: error\ndata: " + body(found, request_id) + b"\n\n"
