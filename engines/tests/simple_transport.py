"""A `Transport` over httpx, plain: tests of this package know nothing of the gateway's client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx

from sluice_engines.transport import (
    ConnectFailed,
    ConnectionLost,
    DeadlineExceeded,
    Deadlines,
    UpstreamRequest,
)

UNIX = "http+unix://"


class WholeResponse:
    """An answer that has been read already."""

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.headers = tuple(response.headers.raw)
        self._body = response.content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._body

    async def aclose(self) -> None:
        return


class SimpleTransport:
    """A connection for each request, read to its end before it returns."""

    async def send(self, request: UpstreamRequest, deadlines: Deadlines) -> WholeResponse:
        base, socket_path = request.base_url, None
        if base.startswith(UNIX):
            base, socket_path = "http://localhost", base.removeprefix(UNIX)
        over = httpx.AsyncHTTPTransport(uds=socket_path, verify=False)
        try:
            async with asyncio.timeout(deadlines.total_s), httpx.AsyncClient(transport=over) as client:
                url, headers = base + request.path, list(request.headers)
                return WholeResponse(await client.request(request.method, url, headers=headers))
        except TimeoutError as error:
            raise DeadlineExceeded("total", deadlines.total_s or 0) from error
        except httpx.ConnectError as error:
            raise ConnectFailed(str(error)) from error
        except httpx.HTTPError as error:
            raise ConnectionLost(str(error)) from error

    async def aclose(self) -> None:
        return
