"""What goes wrong, as the client sees it: OpenAI's error body, and the status SDKs choose their exception by.

`ApiError` is raised anywhere while a request is handled and turned into an answer in one place, `app`. Before
the answer has begun it becomes a real status with a JSON body; afterwards one `data:` event of a stream.
"""

from __future__ import annotations

import msgspec

RETRY_SOON = ((b"retry-after", b"1"),)


class ErrorDetail(msgspec.Struct, frozen=True, kw_only=True):
    """The inside of OpenAI's error body; all four keys are always present."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(msgspec.Struct, frozen=True):
    """OpenAI's error body."""

    error: ErrorDetail


class ApiError(Exception):
    """An answer other than 200. `message` is for the client: a sentence that says what to do."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.detail = ErrorDetail(message=message, type=type, param=param, code=code)
        self.headers = headers

    def body(self) -> bytes:
        """JSON, without a line end."""
        return msgspec.json.encode(ErrorBody(self.detail))


def invalid(message: str, param: str | None, code: str | None = None) -> ApiError:
    """400: the request itself must change."""
    return ApiError(400, message, param=param, code=code)


def unsupported(message: str, param: str) -> ApiError:
    """400: a parameter asks for what this server does not do."""
    return invalid(message, param, "unsupported_parameter")


def context_too_long(max_model_len: int, prompt_tokens: int, param: str) -> ApiError:
    """400: the prompt leaves no room for an answer. Clients look for "maximum context length" in the text."""
    message = (
        f"This model's maximum context length is {max_model_len} tokens, prompt and answer together. "
        f"However, your {param} resulted in {prompt_tokens} tokens. Please reduce the length of the {param}."
    )
    return invalid(message, param, "context_length_exceeded")


def model_not_found(model: str, served: tuple[str, ...]) -> ApiError:
    """404: a name this server does not serve."""
    message = f"The model `{model[:200]}` does not exist. This server has: {', '.join(served)}."
    return ApiError(404, message, param="model", code="model_not_found")


def path_not_found(method: str, path: str) -> ApiError:
    """404: no such endpoint."""
    return ApiError(404, f"Unknown request URL: {method} {path[:200]}. Please check the URL for typos.")


def method_not_allowed(method: str, allowed: tuple[str, ...]) -> ApiError:
    """405: the path exists, with another method."""
    return ApiError(
        405,
        f"This endpoint does not accept {method}. Use {' or '.join(allowed)}.",
        code="method_not_allowed",
        headers=((b"allow", ", ".join(allowed).encode()),),
    )


def body_too_large(limit_bytes: int) -> ApiError:
    """413: more bytes than the server reads."""
    return ApiError(413, f"The request body is larger than {limit_bytes} bytes. Send a smaller request.")


def engine_unavailable(message: str) -> ApiError:
    """503: nothing is wrong with the request; try again soon."""
    return ApiError(503, message, type="server_error", code="engine_unavailable", headers=RETRY_SOON)


def internal_error() -> ApiError:
    """500: a bug of ours. The cause is in the log, not in the answer."""
    return ApiError(500, "The server had an error while processing your request.", type="server_error")
