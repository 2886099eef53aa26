"""Addresses as users write them."""

from __future__ import annotations

import pytest

from sluice_bench.target import Target


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8000", Target(host="127.0.0.1", port=8000)),
        ("http://127.0.0.1:8000/v1/", Target(host="127.0.0.1", port=8000)),
        ("https://api.example.com", Target(host="api.example.com", port=443, tls=True)),
        ("http://[::1]:80/openai/v1", Target(host="::1", port=80, prefix="/openai")),
    ],
)
def test_addresses_are_understood(url: str, expected: Target) -> None:
    assert Target.parse(url) == expected
    assert Target.parse(expected.url) == expected


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://x", "http://", ""])
def test_an_address_without_a_scheme_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(ValueError, match="for example http://"):
        Target.parse(url)
