"""Which ports managed engines get."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import msgspec
import pytest

from sluice_gateway.engines import Transports, build_engines
from sluice_gateway.managed_ports import ManagedPorts
from sluice_gateway.settings import Backend


@pytest.fixture
def ports() -> Iterator[ManagedPorts]:
    made = ManagedPorts()
    yield made
    made.close()


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_the_usual_port_is_preferred(ports: ManagedPorts, free_port: int) -> None:
    assert ports.choose(free_port) == free_port


def test_a_port_that_somebody_listens_on_is_left_alone(ports: ManagedPorts) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert ports.choose(other.getsockname()[1]) != other.getsockname()[1]


def test_two_managed_engines_of_one_gateway_get_different_ports(ports: ManagedPorts) -> None:
    backend = msgspec.convert({"name": "a", "adapter": "worker", "managed": {}}, Backend)
    other = msgspec.structs.replace(backend, name="b")
    first, second = build_engines([backend, other], {}, Transports(), ports)
    assert first.endpoint.url != second.endpoint.url


def test_two_gateways_that_start_at_once_get_different_ports(ports: ManagedPorts, free_port: int) -> None:
    neighbour = ManagedPorts()
    try:
        assert ports.choose(free_port) != neighbour.choose(free_port)
    finally:
        neighbour.close()


def test_a_gateway_that_has_ended_leaves_its_port_to_the_next(ports: ManagedPorts, free_port: int) -> None:
    ended = ManagedPorts()
    assert ended.choose(free_port) == free_port
    ended.close()
    assert ports.choose(free_port) == free_port
