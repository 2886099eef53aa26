"""Headers of an upstream request: what the client's may keep, and the engine's own credential."""

from __future__ import annotations

Headers = tuple[tuple[bytes, bytes], ...]

NOT_FORWARDED = frozenset(
    {
        b"authorization",
        b"connection",
        b"content-length",
        b"cookie",
        b"host",
        b"keep-alive",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"x-api-key",
    }
)
"""The client's credentials, and hop-by-hop headers (RFC 9110 §7.6.1), which the transport sets itself."""


def upstream_headers(headers: Headers, api_key: str | None) -> Headers:
    """`headers` in lower case, without those in `NOT_FORWARDED`, and `api_key` as a bearer token if given."""
    kept = []
    for name, value in headers:
        lower = name.lower()
        if lower not in NOT_FORWARDED:
            kept.append((lower, value))
    if api_key:
        kept += bearer(api_key)
    return tuple(kept)


def bearer(api_key: str | None) -> Headers:
    """The `authorization` header for `api_key`; nothing for `None`."""
    return ((b"authorization", b"Bearer " + api_key.encode()),) if api_key else ()


def first_value(headers: Headers, name: bytes) -> bytes | None:
    """The value of the first header called `name` (lower case), if any."""
    return next((value for key, value in headers if key.lower() == name), None)
