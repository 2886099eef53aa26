"""One whole page of an engine: what probing and supervising need of a transport.

It goes over the transport that requests go over, so that what a probe meets is what a request would meet.
"""

from __future__ import annotations

import msgspec

from sluice_engines.base_url import join_base_url
from sluice_engines.http_headers import bearer
from sluice_engines.transport import (
    Deadlines,
    ProtocolViolation,
    Transport,
    UpstreamRequest,
    UpstreamResponse,
)

MAX_PAGE_BYTES = 16 << 20
"""No page that an engine tells about itself comes near; what does is something else."""


class Page(msgspec.Struct, frozen=True):
    """An answer, read to its end."""

    status: int
    body: bytes

    @property
    def is_success(self) -> bool:
        """The status is a 2xx."""
        return 200 <= self.status < 300


class PageRequest:
    """GET of one path, to be sent again and again."""

    def __init__(self, base_url: str, path: str, api_key: str | None = None, *, timeout_s: float) -> None:
        """`timeout_s` is from connecting to the last byte."""
        origin, full_path = join_base_url(base_url, path)
        self._request = UpstreamRequest(
            base_url=origin, path=full_path, method="GET", headers=bearer(api_key)
        )
        self._deadlines = Deadlines(
            connect_s=timeout_s, first_byte_s=timeout_s, idle_s=timeout_s, total_s=timeout_s
        )

    async def send(self, transport: Transport) -> Page:
        """Send it. Raises `UpstreamError`, and `ValueError` for an address or a key that cannot go on the
        wire."""
        response = await transport.send(self._request, self._deadlines)
        try:
            return Page(response.status, await _whole(response))
        finally:
            await response.aclose()


async def _whole(response: UpstreamResponse) -> bytes:
    chunks, size = [], 0
    async for chunk in response:
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_PAGE_BYTES:
            raise ProtocolViolation(f"the page has more than {MAX_PAGE_BYTES >> 20} MiB")
    return b"".join(chunks)


async def get_page(
    transport: Transport, base_url: str, path: str, api_key: str | None = None, *, timeout_s: float
) -> Page:
    """GET `path` below `base_url`, within `timeout_s` from connecting to the last byte.

    Raises `UpstreamError`, and `ValueError` for an address or a key that cannot go on the wire.
    """
    return await PageRequest(base_url, path, api_key, timeout_s=timeout_s).send(transport)
