"""The bytes that open a request.

Framing belongs to the transport: `Host`, `Content-Length`, `Connection` and their like are written here and
refused from callers, and nothing that could end a line early gets through. A request that breaks these rules
is the caller's fault, not the engine's, so it raises `ValueError` and never an `UpstreamError` (which would
count against the engine and be tried elsewhere).

Source: RFC 9112 sections 3 and 5, RFC 9110 section 5.
"""

from __future__ import annotations

import re
from functools import lru_cache

from sluice_engines.transport import UpstreamRequest

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""CONNECT and TRACE change what a connection means, so they are not spoken."""

_OWNED = frozenset(
    {
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"upgrade",
        b"te",
        b"trailer",
        b"expect",
    }
)
_BODY_EXPECTED = frozenset({"POST", "PUT", "PATCH"})
_TARGET = re.compile(r"/[\x21-\x7e]*")
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


def encode_head(request: UpstreamRequest, authority: str) -> bytes:
    """Request line and headers, blank line included. Raises `ValueError` when they cannot be sent safely."""
    check_request(request)
    lines = [f"{request.method} {request.path} HTTP/1.1\r\nhost: {authority}\r\n".encode("ascii")]
    for name, value in request.headers:
        lines += (name, b": ", value, b"\r\n")
    if request.body or request.method in _BODY_EXPECTED:
        lines.append(b"content-length: %d\r\n" % len(request.body))
    lines.append(b"\r\n")
    return b"".join(lines)


def check_request(request: UpstreamRequest) -> None:
    """Raise `ValueError` unless method, path and headers can go on the wire as they are."""
    _check_line(request.method, request.path)
    for name, value in request.headers:
        _check_name(name)
        if _BAD_VALUE.search(value):
            raise ValueError(f"the value of header {name!r} holds control characters")


# Paths and names are few and come again: what has passed is remembered, what raises is not.


@lru_cache(maxsize=1024)
def _check_line(method: str, path: str) -> None:
    if method not in METHODS:
        raise ValueError(f"method {method!r} is not one of {', '.join(sorted(METHODS))}")
    if not _TARGET.fullmatch(path):
        raise ValueError("the path must start with '/' and hold visible ASCII characters only")


@lru_cache(maxsize=1024)
def _check_name(name: bytes) -> None:
    if name in _OWNED:
        raise ValueError(f"header {name!r} is the transport's to write")
    if not _NAME.fullmatch(name):
        raise ValueError(f"header name {name!r} is not a lower-case token")
