"""The listening socket."""

from __future__ import annotations

import asyncio
import signal
import socket

import msgspec
import pytest

from sluice_gateway import server
from sluice_gateway.config import ConfigError
from sluice_gateway.settings import Server

from .serving import settings_of


def settings_at(host: str, port: int):
    return msgspec.structs.replace(settings_of(), server=Server(host=host, port=port))


async def test_nobody_waits_for_nagle_and_nobody_holds_unread_data_for_ever() -> None:
    listener = server.listen(settings_at("127.0.0.1", 0))
    accepted: asyncio.Future[socket.socket] = asyncio.get_running_loop().create_future()

    class Accept(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            accepted.set_result(transport.get_extra_info("socket"))

    async with await asyncio.get_running_loop().create_server(Accept, sock=listener):
        _, writer = await asyncio.open_connection(*listener.getsockname())
        ours = await accepted
        assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000
        writer.close()


def test_a_taken_port_names_the_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"Port {port} is in use"):
            server.listen(settings_at("127.0.0.1", port))


def test_an_address_that_is_not_ours_is_named() -> None:
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1"):
        server.listen(settings_at("192.0.2.1", 8000))


@pytest.mark.parametrize(("disposition", "stops"), [(signal.SIG_DFL, True), (signal.SIG_IGN, False)])
def test_a_closed_terminal_stops_it_in_order_unless_nohup_says_otherwise(
    disposition: signal.Handlers, stops: bool
) -> None:
    before = signal.signal(signal.SIGHUP, disposition)
    try:
        assert (signal.SIGHUP in server.stop_signals()) is stops
    finally:
        signal.signal(signal.SIGHUP, before)
