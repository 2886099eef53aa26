"""Bodies of OpenAI's requests, for servers of our own that answer them: decoded, and refused as OpenAI does.

What the echo engine and the baseline server have in common. What each of them reads of a body, and what it
lacks, is its own.
"""

from __future__ import annotations

import re
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

T = TypeVar("T")


class BadRequest(Exception):
    """The request cannot be answered. Carries what OpenAI's error body needs."""

    def __init__(
        self, message: str, *, param: str | None = None, code: str | None = None, status: int = 400
    ) -> None:
        super().__init__(message)
        self.param = param
        self.code = code
        self.status = status


class StreamOptions(msgspec.Struct):
    """OpenAI's `stream_options`."""

    include_usage: bool | None = None


class StreamedBody(msgspec.Struct, kw_only=True):
    """What chat and legacy completions have in common everywhere."""

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    stop: str | Annotated[list[str], Meta(max_length=4)] | None = None
    logprobs: bool | int | None = None

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with its usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def stops(self) -> tuple[str, ...]:
        """Stop strings; an empty one stops nothing."""
        stops = (self.stop,) if isinstance(self.stop, str) else self.stop or ()
        return tuple(stop for stop in stops if stop)


def decoded_body(body: bytes, into: type[T]) -> T:
    """Decode and check a body. Raises `BadRequest` that names the parameter."""
    try:
        parsed = msgspec.json.decode(body, type=into)
    except msgspec.ValidationError as error:
        raise BadRequest(f"{error}.", param=_param(str(error)), code="invalid_type") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadRequest(f"The body is not valid JSON: {error}.", code="invalid_json") from error
    if isinstance(parsed, StreamedBody) and parsed.stream_options is not None and not parsed.stream:
        raise BadRequest("'stream_options' needs 'stream': true.", param="stream_options")
    return parsed


def _param(message: str) -> str | None:
    """The top-level parameter in msgspec's `... - at `$.messages[0].content`` or `... field `model``."""
    found = re.search(r"at `\$\.(\w+)", message) or re.search(r"required field `(\w+)`$", message)
    return found.group(1) if found else None
