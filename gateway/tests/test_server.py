"""The listening socket."""

from __future__ import annotations

import asyncio
import signal
import socket

import msgspec
import pytest

from sluice_gateway import listening, signals
from sluice_gateway.config import ConfigError
from sluice_gateway.settings import Server

from .serving import settings_of


def settings_at(host: str, port: int):
    return msgspec.structs.replace(settings_of(), server=Server(host=host, port=port))


async def test_nobody_waits_for_nagle_and_nobody_holds_unread_data_for_ever() -> None:
    listener = listening.listen(settings_at("127.0.0.1", 0))
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
            listening.listen(settings_at("127.0.0.1", port))


def test_an_address_that_is_not_ours_is_named() -> None:
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1"):
        listening.listen(settings_at("192.0.2.1", 8000))


@pytest.mark.parametrize(
    ("disposition", "has_terminal", "meaning"),
    [
        (signal.SIG_DFL, True, "stop"),
        (signal.SIG_DFL, False, "reload"),
        (signal.SIG_IGN, True, "ignore"),
        (signal.SIG_IGN, False, "ignore"),
    ],
)
def test_a_hangup_stops_where_there_is_a_terminal_and_reloads_where_there_is_none(
    disposition: signal.Handlers, has_terminal: bool, meaning: str
) -> None:
    before = signal.signal(signal.SIGHUP, disposition)
    try:
        assert signals.meaning_of_hangup(has_terminal=has_terminal) == meaning
    finally:
        signal.signal(signal.SIGHUP, before)
