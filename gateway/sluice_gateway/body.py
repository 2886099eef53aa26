"""Reading a request's body: whole, once, bounded in bytes and in time."""

from __future__ import annotations

import asyncio

from sluice_gateway.errors import Failure, Problem, problem
from sluice_gateway.wire import Receive

GONE = problem(Failure.CLIENT_GONE, "The client left while it sent its request.")
_ENCODED = problem(Failure.BODY_ENCODING, "The request's body must not be compressed.")


def refusal(headers: dict[bytes, bytes], limit: int) -> Problem | None:
    """What the head alone rules out: a compressed body, or a declared length over the limit in bytes."""
    encoding = headers.get(b"content-encoding")
    if encoding is not None and encoding.strip().lower() not in (b"identity", b""):
        return _ENCODED
    declared = headers.get(b"content-length")
    if declared is not None and declared.isdigit() and int(declared) > limit:
        return too_large(limit)
    return None


def too_large(limit: int) -> Problem:
    """More than `limit` bytes."""
    return problem(
        Failure.BODY_TOO_LARGE,
        f"The request's body is larger than the {limit} bytes that this gateway accepts.",
    )


def too_slow(timeout_s: float) -> Problem:
    """The body did not come."""
    return problem(
        Failure.BODY_TIMEOUT, f"The request's body did not arrive within {timeout_s:g} s; send it again."
    )


async def read_body(
    receive: Receive, headers: dict[bytes, bytes], limit: int, timeout_s: float
) -> bytes | Problem:
    """The body from an ASGI server, or why there is none."""
    found = refusal(headers, limit)
    if found is not None:
        return found
    try:
        async with asyncio.timeout(timeout_s):
            return await _collect(receive, limit)
    except TimeoutError:
        return too_slow(timeout_s)


async def _collect(receive: Receive, limit: int) -> bytes | Problem:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return GONE
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > limit:
            return too_large(limit)
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)
