"""Joining a configured base URL and an OpenAI path.

People write base URLs both ways, `https://host` and `https://host/v1`; both have to work. Both come from
configuration and code, never from a client, so that few pairs are remembered.
"""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import urlsplit


@lru_cache(maxsize=512)
def join_base_url(base_url: str, path: str) -> tuple[str, str]:
    """`(origin, path)` for an upstream request.

    A path inside `base_url` is put in front of `path`, without repeating a `/v1` that both have. A
    `http+unix://` URL is a socket's file name and is left whole.
    """
    parts = urlsplit(base_url)
    if parts.scheme == "http+unix":
        return base_url, path
    prefix = parts.path.rstrip("/")
    if prefix.endswith("/v1") and (path == "/v1" or path.startswith("/v1/")):
        prefix = prefix.removesuffix("/v1")
    return f"{parts.scheme}://{parts.netloc}", prefix + path
