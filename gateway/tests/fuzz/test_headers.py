"""No header makes the gateway fail, and both ways to the data plane make the same of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from .fuzzed_gateway import ADMIN, FuzzedGateway, fuzzing
from .raw_client import check, exchange

PATH = "/v1/chat/completions"
BODY = b'{"model":"m","messages":[{"role":"user","content":"Hi"}]}'
NAMES = (
    "authorization", "x-api-key", "content-type", "accept", "traceparent", "tracestate", "baggage",
    "x-request-id", "x-backend", "x-quant", "x-priority", "x-session-id", "x-slo-ttft-ms",
    "x-sluice-route", "idempotency-key",
    "content-encoding", "expect", "origin", "access-control-request-method", "cookie", "host", "te", "via",
    "forwarded", "x-forwarded-for", "anthropic-version", "anthropic-beta", "openai-organization", "range",
    "cache-control", "upgrade", "connection", "keep-alive", "date", "user-agent", "accept-encoding",
    "x-echo-a",
    "content-length", "transfer-encoding", "trailer", "proxy-connection", "if-none-match",
)  # fmt: skip
VALUES = st.one_of(
    st.binary(max_size=40).map(lambda value: bytes(c for c in value if c not in b"\r\n")),
    st.text(max_size=30).map(str.encode).map(lambda value: value.replace(b"\r", b"").replace(b"\n", b"")),
    st.sampled_from(
        [
            b"", b" ", b"\t", b"\xff", b"\xc3\xa9", b"a\tb", b"0", b"-1", b"1e9", b"9" * 30, b"true", b"main",
            b"main; require", b"prefer=main", b"none", b"int8;q=0", b"high", b"100-continue", b"gzip", b"br",
            b"identity", b"Bearer", b"Bearer ", b"Basic eDp5", b"bearer " + ADMIN.encode(), b"*", b"null",
            b"http://a", b"http://localhost:3000", b"close", b"keep-alive", b"upgrade", b"h2c", b"websocket",
            b"chunked", b"chunked, chunked", b"multipart/form-data", b"application/json; charset=utf-16",
            b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01", b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-00",
            b"a=b," * 50, b"x" * 9000, b"%00", b"../../etc/passwd", b"'; drop table keys;--", b"{}", b'"',
        ]
    ),
)  # fmt: skip
TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,20}"
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(NAMES) | st.from_regex(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,20}", fullmatch=True), VALUES
    ),
    max_size=6,
)
FRAMING = frozenset({"content-length", "transfer-encoding", "upgrade", "connection", "expect", "trailer"})
"""Headers that decide where the request ends: what comes back then is not the pipeline's."""


def request(target: str, headers: list[tuple[str, bytes]], *, key: bool) -> bytes:
    lines = [f"POST {target} HTTP/1.1".encode(), b"host: gateway", b"content-length: %d" % len(BODY)]
    lines += [b"authorization: Bearer " + ADMIN.encode()] if key else []
    lines += [name.encode() + b": " + value for name, value in headers]
    return b"\r\n".join([*lines, b"connection: close", b"", BODY])


@given(headers=HEADERS, key=st.booleans())
@fuzzing(2)
def test_any_headers(gateway: FuzzedGateway, headers: list[tuple[str, bytes]], key: bool) -> None:
    framed = {name.lower() for name, _ in headers} & FRAMING
    statuses = []
    for target in (PATH, f"{PATH}?way=asgi"):
        answers = exchange(gateway.port, [request(target, headers, key=key)], quiet_s=0.3 if framed else 15.0)
        for answer in answers:
            check(answer, PATH)
        statuses.append([answer.status for answer in answers])
    if not framed:
        assert len(statuses[0]) == 1
        assert statuses[0] == statuses[1]
    gateway.check_nothing_stays()


@pytest.mark.parametrize(
    "path", [PATH, "/v1/messages", "/v1/models", "/v1/files", "/admin/v1/keys", "/nowhere"]
)
@pytest.mark.parametrize("count", [50, 3_000])
def test_many_headers(gateway: FuzzedGateway, path: str, count: int) -> None:
    many = [(f"x-{number}", b"y" * 200) for number in range(count)]
    for answer in exchange(gateway.port, [request(path, many, key=True)]):
        check(answer, path)
    gateway.check_nothing_stays()


@pytest.mark.parametrize(
    "line",
    [
        b"x-folded: a\r\n b", b"x-folded: a\r\n\tb", b" x-space: a", b"x-space : a", b"no colon",
        b": no name",
        b"x-nul: a\0b", b"x-cr: a\rb", b"x-lf: a\nb", b"x-\xff: a", b"x y: a", b"x-bell: \x07",
        b"x-del: \x7f",
        b"transfer-encoding: chunked", b"transfer-encoding: gzip, chunked",
        b"transfer-encoding: xchunked",
        b"transfer-encoding: chunked\r\ntransfer-encoding: identity", b"content-length: 5",
        b"content-length: +57",
        b"content-length: 0x39", b"content-length: 57, 57", b"content-length: -1",
        b"content-length: 9" + b"9" * 30,
        b"transfer-encoding:\x0bchunked", b"transfer-encoding: chunked\x0b", b"content-length: 57 57",
    ],
)  # fmt: skip
def test_headers_that_could_smuggle_a_request(gateway: FuzzedGateway, line: bytes) -> None:
    """One answer at most: never does what follows the head become a request of its own."""
    smuggled = b"GET /health HTTP/1.1\r\nhost: gateway\r\n\r\n"
    for target in (PATH, f"{PATH}?way=asgi"):
        lines = [
            f"POST {target} HTTP/1.1".encode(),
            b"host: gateway",
            b"content-length: %d" % len(smuggled),
            line,
        ]
        answers = exchange(gateway.port, [b"\r\n".join([*lines, b"", smuggled])], quiet_s=0.2)
        assert len(answers) <= 1, answers
        for answer in answers:
            check(answer, PATH)
            assert answer.status >= 400
    gateway.check_nothing_stays()
