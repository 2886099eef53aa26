"""Which key a request shows, and what it may do with it."""

from __future__ import annotations

import pytest

from sluice_gateway.auth import OPEN, Keyring, digest, is_loopback, new_secret
from sluice_gateway.errors import Failure, Problem
from sluice_gateway.identity import Key

LOCAL = ("127.0.0.1", 8000)
ALICE = Key(id="alice")
RING = Keyring({digest("sk-a"): ALICE})


@pytest.mark.parametrize(
    "headers",
    [
        {b"authorization": b"Bearer sk-a"},
        {b"authorization": b"bearer   sk-a"},
        {b"authorization": b"BEARER sk-a"},
        {b"x-api-key": b"sk-a"},
        {b"authorization": b"Bearer wrong", b"x-api-key": b"sk-a"},
        {b"authorization": b"Bearer sk-a", b"x-api-key": b"wrong"},
    ],
)
def test_a_right_key_is_known_in_either_header(headers: dict[bytes, bytes]) -> None:
    assert RING.authenticate(headers, ("10.0.0.1", 8000)) is ALICE


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {b"authorization": b"Basic sk-a"},
        {b"authorization": b"Bearer "},
        {b"authorization": b"sk-a"},
        {b"authorization": b"Bearer sk-A"},
        {b"x-api-key": b""},
        {b"x-api-key": "é".encode("latin-1")},
    ],
)
def test_anything_else_is_a_401(headers: dict[bytes, bytes]) -> None:
    found = RING.authenticate(headers, LOCAL)
    assert isinstance(found, Problem)
    assert (found.status, found.code) == (401, "invalid_api_key")
    assert "sk-" not in found.message


@pytest.mark.parametrize("server", [LOCAL, ("127.9.9.9", 1), ("::1", 1), ("/run/sluice.sock", None), None])
def test_without_keys_loopback_is_open(server: tuple[str, int | None] | None) -> None:
    assert Keyring({}).authenticate({}, server) is OPEN


@pytest.mark.parametrize("server", [("10.0.0.1", 8000), ("::", 8000), ("192.168.0.2", 80)])
def test_without_keys_other_addresses_are_closed(server: tuple[str, int]) -> None:
    found = Keyring({}).authenticate({b"x-api-key": b"sk-a"}, server)
    assert isinstance(found, Problem)
    assert found.failure is Failure.REMOTE_NOT_ALLOWED


@pytest.mark.parametrize(
    "host",
    [
        *(b"localhost:8000", b"127.0.0.1", b"[::1]:8000", b"192.168.0.2", b"", b"devbox:8000"),
        *(b"sluice.localhost", b"host.docker.internal:8000", b"Devbox.local."),
    ],
)
def test_without_keys_names_that_only_this_network_can_give_are_fine(host: bytes) -> None:
    assert Keyring({}).authenticate({b"host": host}, LOCAL) is OPEN


@pytest.mark.parametrize(
    "host",
    [b"evil.example", b"EVIL.example:8000", b"evil.example.", b"127.0.0.1.evil.example", b"\xff.example"],
)
def test_without_keys_a_page_cannot_point_its_own_name_at_loopback(host: bytes) -> None:
    found = Keyring({}).authenticate({b"host": host}, LOCAL)
    assert isinstance(found, Problem)
    assert (found.status, found.failure) == (403, Failure.REMOTE_NOT_ALLOWED)
    assert "localhost" in found.message


def test_with_keys_any_name_will_do() -> None:
    headers = {b"host": b"sluice.example", b"x-api-key": b"sk-a"}
    assert RING.authenticate(headers, LOCAL) is ALICE


def test_new_secrets_differ_and_hash_to_what_the_configuration_holds() -> None:
    first, second = new_secret(), new_secret()
    assert first != second
    assert Keyring({digest(first): ALICE}).authenticate({b"x-api-key": first.encode()}, LOCAL) is ALICE


def test_loopback_names() -> None:
    assert is_loopback("localhost")
    assert not is_loopback("0.0.0.0")
