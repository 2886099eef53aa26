"""Reading a request's body: whole, once, bounded in bytes and in time."""

from __future__ import annotations

import asyncio

from sluice_gateway.errors import Failure, Problem, problem
from sluice_gateway.wire import Receive

_GONE = problem(Failure.CLIENT_GONE, "The client left while it sent its request.")


async def read_body(
    receive: Receive, headers: dict[bytes, bytes], limit: int, timeout_s: float
) -> bytes | Problem:
    """The body, or why there is none: compressed, too large (`limit` in bytes), too slow, or the client left.

    A declared length over the limit is refused before anything is read.
    """
    if headers.get(b"content-encoding", b"identity") != b"identity":
        return problem(Failure.BODY_ENCODING, "The request's body must not be compressed.")
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > limit:
        return _too_large(limit)
    try:
        async with asyncio.timeout(timeout_s):
            return await _collect(receive, limit)
    except TimeoutError:
        return problem(
            Failure.BODY_TIMEOUT, f"The request's body did not arrive within {timeout_s:g} s; send it again."
        )


async def _collect(receive: Receive, limit: int) -> bytes | Problem:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return _GONE
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > limit:
            return _too_large(limit)
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(limit: int) -> Problem:
    return problem(
        Failure.BODY_TOO_LARGE,
        f"The request's body is larger than the {limit} bytes that this gateway accepts.",
    )
