"""Base URLs, read once per origin."""

from __future__ import annotations

import pytest

from sluice_engines.transport import ConnectFailed
from sluice_gateway.upstream.origin import parse_origin


@pytest.mark.parametrize(
    ("url", "host", "port", "tls", "authority"),
    [
        ("http://127.0.0.1:8006", "127.0.0.1", 8006, False, "127.0.0.1:8006"),
        ("http://worker", "worker", 80, False, "worker"),
        ("https://worker/", "worker", 443, True, "worker"),
        ("https://worker:8443", "worker", 8443, True, "worker:8443"),
        ("http://[::1]:8006", "::1", 8006, False, "[::1]:8006"),
    ],
)
def test_tcp(url: str, host: str, port: int, tls: bool, authority: str) -> None:
    origin = parse_origin(url)
    assert (origin.host, origin.port, origin.tls, origin.authority) == (host, port, tls, authority)
    assert origin.socket_path is None


def test_unix_socket() -> None:
    origin = parse_origin("http+unix:///run/my%20engine.sock")
    assert (origin.socket_path, origin.authority) == ("/run/my engine.sock", "localhost")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "worker:8006",
        "ws://worker",
        "http://worker:port",
        "http://worker:70000",
        "http://worker/v1",
        "http://worker\r\nx: y",
        "http://worker?a",
        "http://worker#a",
        "http://user@worker",
        "http+unix://run/engine.sock",
        "http+unix://",
    ],
)
def test_anything_else_says_what_to_write(url: str) -> None:
    with pytest.raises(ConnectFailed, match="use http://host:port"):
        parse_origin(url)
