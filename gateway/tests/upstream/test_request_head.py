"""The bytes that open a request, and those that never do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice_engines.transport import UpstreamRequest
from sluice_gateway.upstream.request_head import encode_head


def head(**fields: object) -> bytes:
    given_fields = {"base_url": "http://a", "path": "/", **fields}
    return encode_head(UpstreamRequest(**given_fields), "a")  # type: ignore[arg-type]


def test_post() -> None:
    headers = ((b"content-type", b"application/json"), (b"x-request-id", b"7"))
    assert head(path="/v1/x?y=1", headers=headers, body=b"{}") == (
        b"POST /v1/x?y=1 HTTP/1.1\r\n"
        b"host: a\r\n"
        b"content-type: application/json\r\n"
        b"x-request-id: 7\r\n"
        b"content-length: 2\r\n\r\n"
    )


@pytest.mark.parametrize(("method", "expected"), [("POST", True), ("PUT", True), ("GET", False)])
def test_an_empty_body_has_a_length_where_one_is_expected(method: str, expected: bool) -> None:
    assert (b"content-length: 0" in head(method=method)) is expected


def test_a_get_with_a_body_has_a_length() -> None:
    assert b"content-length: 3" in head(method="GET", body=b"abc")


@given(name=st.binary(max_size=20), value=st.binary(max_size=30))
def test_no_header_adds_or_ends_a_line(name: bytes, value: bytes) -> None:
    """Either it is refused, or the head has exactly the lines that were asked for."""
    try:
        written = head(method="GET", headers=((name, value),))
    except ValueError:
        return
    assert written == b"GET / HTTP/1.1\r\nhost: a\r\n" + name + b": " + value + b"\r\n\r\n"
    assert written.count(b"\r") == written.count(b"\n") == 4
    assert b":" not in name


@given(path=st.text(max_size=30))
def test_no_path_adds_to_the_request_line(path: str) -> None:
    try:
        written = head(method="GET", path=path)
    except ValueError:
        return
    assert written.split(b"\r\n")[0].split(b" ") == [b"GET", path.encode("ascii"), b"HTTP/1.1"]
