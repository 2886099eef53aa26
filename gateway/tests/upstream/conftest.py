"""Every test here runs on asyncio's own loop and on uvloop: their transports differ in what they promise."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from sluice_gateway.upstream import HttpTransport
from sluice_gateway.upstream.httpx_transport import HttpxTransport

from .scripted_server import Script, ScriptedServer

CERTIFICATES = Path(__file__).parent / "certificates"

ServeScript = Callable[..., Awaitable[ScriptedServer]]


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Both loops, for every test in this folder."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
async def serve() -> AsyncIterator[ServeScript]:
    """Starts scripted servers, and stops them when the test is over."""
    servers: list[ScriptedServer] = []

    async def start(script: Script, **where: Any) -> ScriptedServer:
        server = ScriptedServer(script)
        servers.append(server)
        await server.start(**where)
        return server

    yield start
    for server in servers:
        await server.stop()


@pytest.fixture
def client_tls() -> ssl.SSLContext:
    """Trusts the test certificate and nothing else."""
    return ssl.create_default_context(cafile=str(CERTIFICATES / "localhost.pem"))


@pytest.fixture
def server_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / "localhost.pem", CERTIFICATES / "localhost.key")
    return context


@pytest.fixture
async def client(client_tls: ssl.SSLContext) -> AsyncIterator[HttpTransport]:
    """The gateway's own client."""
    transport = HttpTransport(ssl_context=client_tls)
    yield transport
    await transport.aclose()


@pytest.fixture(params=[HttpTransport, HttpxTransport], ids=["own", "httpx"])
async def transport(
    request: pytest.FixtureRequest, client_tls: ssl.SSLContext
) -> AsyncIterator[HttpTransport | HttpxTransport]:
    """Each implementation in turn, for what both must do."""
    made = request.param(ssl_context=client_tls)
    yield made
    await made.aclose()
