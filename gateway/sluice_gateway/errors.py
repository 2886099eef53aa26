"""Every way a request can fail, and what each looks like on the wire. One table, no other place decides.

A failure is a value (`Problem`), returned by the stage that found it. On the wire it is always OpenAI's
shape with all four keys, `{"error": {"message", "type", "param", "code"}}`, whatever the path and status:

    INVALID_JSON, INVALID_REQUEST, UNKNOWN_BACKEND, ...   400   the request can never succeed as it is
    INVALID_API_KEY                                       401
    *_NOT_ALLOWED                                         403
    NOT_FOUND, MODEL_NOT_FOUND                            404
    METHOD_NOT_ALLOWED, BODY_*, CONFLICT                  405, 408, 413, 415; 409
    IDEMPOTENCY_IN_PROGRESS                               409   with Retry-After
    CONCURRENCY_LIMIT, QUEUE_FULL, TOO_LATE               429   with Retry-After
    CLIENT_GONE, CLIENT_STALLED                           499   in the log only: nobody is there to read it
    INTERNAL                                              500
    UPSTREAM_*                                            502, 504, or the engine's own status
    NO_ENGINE, QUEUE_EXPIRED, STORE_*, SHUTTING_DOWN      503   with Retry-After

The enum's values are of low cardinality: they are the `outcome` label of the metrics.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from sluice_router.types import FailureClass, Outcome, Reject


class Failure(StrEnum):
    """What went wrong."""

    INVALID_JSON = "invalid_json"
    """The body is not a JSON object."""
    INVALID_REQUEST = "invalid_request"
    """A field is missing, or has a value that is not allowed."""
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    """The `Idempotency-Key` belongs to a request with another body."""
    IDEMPOTENCY_IN_PROGRESS = "idempotency_in_progress"
    """The request with this `Idempotency-Key` is being answered where it cannot be joined."""
    INVALID_TYPE = "invalid_type"
    """A field has the wrong JSON type."""
    UNSUPPORTED = "unsupported_parameter"
    """No engine that could serve the request has a feature it uses."""
    PREVIOUS_RESPONSE_NOT_FOUND = "previous_response_not_found"
    """A conversation is to be continued that is not stored, or is another tenant's."""
    UNKNOWN_BACKEND = "unknown_backend"
    """`X-Backend` names nothing that is configured."""
    UNKNOWN_QUANT = "unknown_quant"
    """`X-Quant` is not a quantization, or none that is configured."""
    INVALID_API_KEY = "invalid_api_key"
    """No key, or a wrong one."""
    BACKEND_NOT_ALLOWED = "backend_not_allowed"
    """The key may not use the backend."""
    MODEL_NOT_ALLOWED = "model_not_allowed"
    """The same of the model."""
    QUANT_NOT_ALLOWED = "quant_not_allowed"
    """The same of the quantization."""
    ENDPOINT_NOT_ALLOWED = "endpoint_not_allowed"
    """The same of the kind of request."""
    ADMIN_NOT_ALLOWED = "admin_not_allowed"
    """The same of the admin API."""
    ORIGIN_NOT_ALLOWED = "origin_not_allowed"
    """A web page from elsewhere wants to administer an open gateway."""
    REMOTE_NOT_ALLOWED = "remote_not_allowed"
    """Open mode, but the request did not come in over loopback."""
    NOT_FOUND = "not_found"
    """No such path."""
    MODEL_NOT_FOUND = "model_not_found"
    """No such model."""
    METHOD_NOT_ALLOWED = "method_not_allowed"
    """The path exists, the method does not."""
    CONFLICT = "conflict"
    """What is to be made is there already, or what is to be changed does not allow it as it is."""
    BODY_TIMEOUT = "body_timeout"
    """The client was too slow to send its request."""
    BODY_TOO_LARGE = "body_too_large"
    """The request's body passes the limit."""
    BODY_ENCODING = "body_encoding"
    """The request's body is compressed."""
    OVER_WHOLE_LIMIT = "over_whole_limit"
    """The request alone is larger than a limit."""
    REQUEST_LIMIT = "request_limit"
    """The requests per minute of a key, a tenant or a model are used up."""
    TOKEN_LIMIT = "token_limit"
    """The same of tokens."""
    BUDGET_SPENT = "budget_spent"
    """The same of money."""
    LIMITS_UNAVAILABLE = "limits_unavailable"
    """Limits that must not be guessed cannot be checked: Redis does not answer."""
    CONCURRENCY_LIMIT = "concurrency_limit"
    """As many requests as the key, or the gateway, may have are running."""
    QUEUE_FULL = "queue_full"
    """All engines are busy, and so is the queue."""
    TOO_LATE = "too_late"
    """The answer would begin too late for the request's class, or for the client's own budget."""
    CLIENT_GONE = "client_gone"
    """The client closed the connection."""
    CLIENT_STALLED = "client_stalled"
    """The client stopped reading and the write deadline ran out."""
    INTERNAL = "internal"
    """A bug in the gateway."""
    UPSTREAM_CONNECT = "upstream_connect"
    """No connection to the engine."""
    UPSTREAM_LOST = "upstream_lost"
    """The engine went away before its answer was complete."""
    UPSTREAM_PROTOCOL = "upstream_protocol"
    """The engine's bytes are not HTTP, or not what was asked for."""
    UPSTREAM_TIMEOUT = "upstream_timeout"
    """A deadline on the engine ran out."""
    UPSTREAM_ERROR = "upstream_error"
    """The engine failed: 5xx, or an error event."""
    UPSTREAM_UNAVAILABLE = "upstream_unavailable"
    """The engine said that it cannot take the request now: 429, 502, 503, 504."""
    UPSTREAM_REFUSED = "upstream_refused"
    """The engine said that the request is wrong: any other 4xx."""
    UPSTREAM_CREDENTIAL = "upstream_credential"
    """The engine did not accept the gateway's own key."""
    NO_ENGINE = "no_engine"
    """No healthy engine for what was asked."""
    QUEUE_EXPIRED = "queue_expired"
    """Waited too long for a free engine."""
    STORE_UNAVAILABLE = "store_unavailable"
    """The database, or the folder for files, cannot be used now."""
    SHUTTING_DOWN = "shutting_down"
    """The gateway is stopping."""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One failure, ready to be sent."""

    failure: Failure
    status: int
    type: str
    code: str | None
    message: str
    """A sentence that says what to do; never a stack trace, a secret or a prompt."""
    param: str | None = None
    retry_after_s: float | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """Further response headers, e.g. the limits as they stand."""

    def body(self) -> bytes:
        """OpenAI's error JSON."""
        fields = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": fields})

    def event(self) -> bytes:
        """The same as one server-sent event, for a stream that has begun."""
        return b"data: " + self.body() + b"\n\n"


_CALLER = "invalid_request_error"
_SERVER = "server_error"
_LIMIT = "requests"

_TABLE: dict[Failure, tuple[int, str, str | None]] = {
    Failure.INVALID_JSON: (400, _CALLER, "invalid_json"),
    Failure.INVALID_REQUEST: (400, _CALLER, None),
    Failure.INVALID_TYPE: (400, _CALLER, "invalid_type"),
    Failure.IDEMPOTENCY_KEY_REUSED: (400, _CALLER, "idempotency_key_reused"),
    Failure.IDEMPOTENCY_IN_PROGRESS: (409, _CALLER, "idempotency_in_progress"),
    Failure.UNSUPPORTED: (400, _CALLER, "unsupported_parameter"),
    Failure.PREVIOUS_RESPONSE_NOT_FOUND: (400, _CALLER, "previous_response_not_found"),
    Failure.UNKNOWN_BACKEND: (400, _CALLER, "unknown_backend"),
    Failure.UNKNOWN_QUANT: (400, _CALLER, "unknown_quant"),
    Failure.INVALID_API_KEY: (401, _CALLER, "invalid_api_key"),
    Failure.BACKEND_NOT_ALLOWED: (403, _CALLER, "backend_not_allowed"),
    Failure.MODEL_NOT_ALLOWED: (403, _CALLER, "model_not_allowed"),
    Failure.QUANT_NOT_ALLOWED: (403, _CALLER, "quant_not_allowed"),
    Failure.ENDPOINT_NOT_ALLOWED: (403, _CALLER, "endpoint_not_allowed"),
    Failure.ADMIN_NOT_ALLOWED: (403, _CALLER, "admin_not_allowed"),
    Failure.ORIGIN_NOT_ALLOWED: (403, _CALLER, "origin_not_allowed"),
    Failure.REMOTE_NOT_ALLOWED: (403, _CALLER, "remote_not_allowed"),
    Failure.NOT_FOUND: (404, _CALLER, None),
    Failure.MODEL_NOT_FOUND: (404, _CALLER, "model_not_found"),
    Failure.METHOD_NOT_ALLOWED: (405, _CALLER, "method_not_allowed"),
    Failure.CONFLICT: (409, _CALLER, "conflict"),
    Failure.BODY_TIMEOUT: (408, _CALLER, "timeout"),
    Failure.BODY_TOO_LARGE: (413, _CALLER, "request_too_large"),
    Failure.BODY_ENCODING: (415, _CALLER, "unsupported_media_type"),
    Failure.OVER_WHOLE_LIMIT: (400, _CALLER, "request_too_large"),
    Failure.REQUEST_LIMIT: (429, _LIMIT, "rate_limit_exceeded"),
    Failure.TOKEN_LIMIT: (429, "tokens", "rate_limit_exceeded"),
    Failure.BUDGET_SPENT: (429, "insufficient_quota", "insufficient_quota"),
    Failure.LIMITS_UNAVAILABLE: (503, _SERVER, "overloaded"),
    Failure.CONCURRENCY_LIMIT: (429, _LIMIT, "rate_limit_exceeded"),
    Failure.QUEUE_FULL: (429, _LIMIT, "rate_limit_exceeded"),
    Failure.TOO_LATE: (429, _LIMIT, "rate_limit_exceeded"),
    Failure.CLIENT_GONE: (499, _CALLER, None),
    Failure.CLIENT_STALLED: (499, _CALLER, None),
    Failure.INTERNAL: (500, _SERVER, None),
    Failure.UPSTREAM_CONNECT: (502, _SERVER, "engine_unavailable"),
    Failure.UPSTREAM_LOST: (502, _SERVER, "engine_unavailable"),
    Failure.UPSTREAM_PROTOCOL: (502, _SERVER, "engine_unavailable"),
    Failure.UPSTREAM_TIMEOUT: (504, _SERVER, "timeout"),
    Failure.UPSTREAM_ERROR: (502, _SERVER, "engine_unavailable"),
    Failure.UPSTREAM_UNAVAILABLE: (503, _SERVER, "overloaded"),
    Failure.UPSTREAM_REFUSED: (400, _CALLER, None),
    Failure.UPSTREAM_CREDENTIAL: (502, _SERVER, "engine_unavailable"),
    Failure.NO_ENGINE: (503, _SERVER, "engine_unavailable"),
    Failure.QUEUE_EXPIRED: (503, _SERVER, "overloaded"),
    Failure.STORE_UNAVAILABLE: (503, _SERVER, "store_unavailable"),
    Failure.SHUTTING_DOWN: (503, _SERVER, "engine_unavailable"),
}

_FAILOVER = frozenset(
    {
        Failure.UPSTREAM_CONNECT,
        Failure.UPSTREAM_LOST,
        Failure.UPSTREAM_PROTOCOL,
        Failure.UPSTREAM_UNAVAILABLE,
        Failure.UPSTREAM_CREDENTIAL,
    }
)

_OUTCOMES = {
    Outcome.SHED_CAPACITY: Failure.QUEUE_FULL,
    Outcome.SHED_DEADLINE: Failure.TOO_LATE,
    Outcome.NO_ENDPOINT: Failure.NO_ENGINE,
    Outcome.EXPIRED: Failure.QUEUE_EXPIRED,
    Outcome.CANCELLED: Failure.CLIENT_GONE,
    Outcome.EXHAUSTED: Failure.NO_ENGINE,
}

_RETRY_AFTER_S = 1.0
"""For 429 and 503 when nothing better is known: without it clients guess."""


def problem(
    failure: Failure, message: str, *, param: str | None = None, retry_after_s: float | None = None
) -> Problem:
    """A failure with its status, type and code from the table."""
    status, kind, code = _TABLE[failure]
    if retry_after_s is None and status in (429, 503):
        retry_after_s = _RETRY_AFTER_S
    return Problem(
        failure=failure,
        status=status,
        type=kind,
        code=code,
        message=message,
        param=param,
        retry_after_s=retry_after_s,
    )


def internal(request_id: str) -> Problem:
    """A bug in the gateway. The details are in its log, never on the wire."""
    text = f"The gateway failed on this request; its log has the details under {request_id}."
    return problem(Failure.INTERNAL, text)


def may_fail_over(failure: Failure) -> bool:
    """Whether another endpoint may succeed where this one failed: it is the endpoint's fault, not the
    request's.

    A timeout is not in the list: its time is spent. Nor is a plain 500, which the same request would meet
    again.
    """
    return failure in _FAILOVER


_CLASSES = {
    Failure.CLIENT_GONE: FailureClass.CLIENT_GONE,
    Failure.CLIENT_STALLED: FailureClass.CLIENT_GONE,
    Failure.UPSTREAM_CONNECT: FailureClass.UNREACHABLE,
    Failure.UPSTREAM_LOST: FailureClass.BROKEN,
    Failure.UPSTREAM_PROTOCOL: FailureClass.BROKEN,
    Failure.UPSTREAM_TIMEOUT: FailureClass.TIMEOUT,
    Failure.UPSTREAM_ERROR: FailureClass.FAULT,
    Failure.UPSTREAM_UNAVAILABLE: FailureClass.OVERLOADED,
    Failure.UPSTREAM_CREDENTIAL: FailureClass.CREDENTIAL,
    Failure.INTERNAL: FailureClass.GATEWAY,
    Failure.SHUTTING_DOWN: FailureClass.GATEWAY,
}


def failure_class(found: Problem) -> FailureClass:
    """Whose fault a failure is: what the router decides by. What is not in the table is the caller's."""
    return _CLASSES.get(found.failure, FailureClass.CALLER)


def from_reject(reject: Reject) -> Problem:
    """The router's refusal as the client sees it."""
    return problem(_OUTCOMES[reject.outcome], reject.message, retry_after_s=reject.retry_after_s)
