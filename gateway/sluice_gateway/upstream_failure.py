"""What an engine's failure means to the client: exceptions, statuses and error events, mapped to `Problem`s.

Engines disagree on error bodies (`{"error": {...}}`, `{"error": "..."}`, `{"detail": ...}`, HTML); clients
get OpenAI's four keys whatever came. An engine's 401 or 403 is about the gateway's own credential, so the
client must not see it as being about its key. The engine's sentence is passed on, shortened; its headers are
not.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from sluice_engines.transport import (
    ConnectFailed,
    DeadlineExceeded,
    ProtocolViolation,
    UpstreamError,
)
from sluice_gateway.errors import Failure, Problem, problem

MAX_ERROR_BYTES = 65_536
_MAX_MESSAGE = 2000
_UNAVAILABLE = frozenset({429, 502, 503, 504, 529})
_CREDENTIAL = frozenset({401, 403})
_NO_SUCH_THING = frozenset({404, 405})
_TOO_LONG = re.compile(
    r"maximum context length|available context size|exceed_context_size|model's context length"
    r"|must have less than \d+ tokens|must be <= \d+\. Given|max_seq_len|max_num_tokens",
    re.IGNORECASE,
)
"""How engines say that a prompt does not fit: vLLM, llama.cpp (twice), SGLang, TGI (twice), TensorRT-LLM."""


def from_exception(error: UpstreamError, backend: str) -> Problem:
    """What a transport raised."""
    if isinstance(error, ConnectFailed):
        return _gone(Failure.UPSTREAM_CONNECT, backend, "cannot be reached")
    if isinstance(error, DeadlineExceeded):
        if error.phase == "connect":
            return _gone(Failure.UPSTREAM_CONNECT, backend, "cannot be reached")
        return problem(Failure.UPSTREAM_TIMEOUT, f"The backend '{backend}' took too long: {error}.")
    if isinstance(error, ProtocolViolation):
        return _gone(Failure.UPSTREAM_PROTOCOL, backend, "did not answer in HTTP")
    return _gone(Failure.UPSTREAM_LOST, backend, "went away before its answer was complete")


def first_token_timeout(backend: str, limit_s: float) -> Problem:
    """No content within the deadline."""
    return problem(Failure.UPSTREAM_TIMEOUT, f"The backend '{backend}' sent no token within {limit_s:g} s.")


def cut_short(backend: str) -> Problem:
    """The stream ended without its end."""
    return _gone(Failure.UPSTREAM_LOST, backend, "ended its answer early")


def no_stream(backend: str) -> Problem:
    """Anything but a stream, after the client was promised one."""
    return _gone(Failure.UPSTREAM_PROTOCOL, backend, "did not answer with a stream")


def not_understood(backend: str, error: ValueError) -> Problem:
    """The answer could not be translated into the client's dialect."""
    return problem(Failure.UPSTREAM_PROTOCOL, f"The answer of backend '{backend}' is not usable: {error}.")


def no_continuation(backend: str) -> Problem:
    """It was asked for the rest of an answer, and began something else."""
    return problem(Failure.UPSTREAM_REFUSED, f"The backend '{backend}' did not go on with the answer.")


def from_response(
    status: int, headers: tuple[tuple[bytes, bytes], ...], body: bytes, backend: str
) -> Problem:
    """An answer whose status is not 2xx."""
    said = _read(body)
    if status in _CREDENTIAL:
        return _gone(Failure.UPSTREAM_CREDENTIAL, backend, "did not accept the gateway's credential")
    if status in _UNAVAILABLE:
        found = _merge(Failure.UPSTREAM_UNAVAILABLE, said, f"The backend '{backend}' is overloaded.")
        kept = status if status != 529 else 503
        return msgspec.structs.replace(found, status=kept, retry_after_s=_retry_after(headers))
    if status >= 500:
        found = _merge(Failure.UPSTREAM_ERROR, said, f"The backend '{backend}' failed with status {status}.")
        return msgspec.structs.replace(found, status=500, code=said.get("code"))
    if status < 400 or (status in _NO_SUCH_THING and not said):
        return _gone(Failure.UPSTREAM_PROTOCOL, backend, f"does not serve this path (status {status})")
    found = _merge(Failure.UPSTREAM_REFUSED, said, f"The backend '{backend}' refused the request.")
    # 422 is how FastAPI says 400; OpenAI's clients know no 422.
    return msgspec.structs.replace(found, status=400 if status == 422 else status)


def from_error_object(data: bytes, backend: str) -> Problem:
    """An error that came with a success status: in a stream's event, or in a plain body."""
    said = _read(data)
    code = said.get("number")
    if isinstance(code, int) and 400 <= code < 600:
        return from_response(code, (), data, backend)
    if said.get("type") == "invalid_request_error":
        return _merge(Failure.UPSTREAM_REFUSED, said, f"The backend '{backend}' refused the request.")
    return _merge(Failure.UPSTREAM_ERROR, said, f"The backend '{backend}' failed while answering.")


def _gone(failure: Failure, backend: str, what: str) -> Problem:
    return problem(failure, f"The backend '{backend}' {what}; try again shortly.", retry_after_s=1.0)


def _merge(failure: Failure, said: dict[str, Any], otherwise: str) -> Problem:
    """The table's row for a failure, with what the engine said about it in place of our own words."""
    found = problem(failure, said.get("message") or otherwise, param=said.get("param"))
    if failure is not Failure.UPSTREAM_REFUSED:
        return found
    if _TOO_LONG.search(f"{said.get('type')} {said.get('message')}"):
        return msgspec.structs.replace(found, code="context_length_exceeded")
    return msgspec.structs.replace(found, type=said.get("type") or found.type, code=said.get("code"))


def _read(body: bytes) -> dict[str, Any]:
    """`message`, `type`, `param`, `code` (strings) and `number` (an integer code) as far as the body has
    them."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    error = value.get("error", value) if isinstance(value, dict) else None
    if isinstance(error, str):
        return {"message": error[:_MAX_MESSAGE]}
    if not isinstance(error, dict):
        return {}
    said: dict[str, Any] = {k: error[k] for k in ("type", "param", "code") if isinstance(error.get(k), str)}
    if isinstance(error.get("code"), int):
        said["number"] = error["code"]
    message = error.get("message") or error.get("detail")
    if message:
        said["message"] = (message if isinstance(message, str) else json.dumps(message))[:_MAX_MESSAGE]
    return said


def _retry_after(headers: tuple[tuple[bytes, bytes], ...]) -> float:
    """The engine's own wish in seconds, at most a minute; 1 without one."""
    for name, value in headers:
        if name == b"retry-after" and value.isdigit():
            return float(min(60, int(value)))
    return 1.0
