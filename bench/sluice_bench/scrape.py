"""A server's page of Prometheus metrics, as it is."""

from __future__ import annotations

from urllib.error import URLError
from urllib.request import urlopen

_PATIENCE_S = 5.0


def metrics_page(url: str) -> str:
    """Text of `/metrics`; empty when the server has none, or does not show it."""
    try:
        with urlopen(f"{url}/metrics", timeout=_PATIENCE_S) as response:
            page: bytes = response.read()
            return page.decode()
    except (URLError, OSError, ValueError):
        return ""
