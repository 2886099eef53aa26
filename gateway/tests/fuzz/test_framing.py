"""However a conversation is cut into pieces, broken off, or followed by nonsense: well-formed answers or a
closed connection, and nothing stays."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from .fuzzed_gateway import ADMIN, FuzzedGateway, fuzzing
from .raw_client import check, exchange

PATHS = ("/v1/chat/completions", "/v1/chat/completions?way=asgi", "/v1/embeddings", "/v1/models", "/health")


def sound(path: str, number: int, *, stream: bool, chunked: bool) -> bytes:
    """A request, whose answer holds its number."""
    head = [b"host: gateway", b"authorization: Bearer " + ADMIN.encode(), b"x-echo-id: %d" % number]
    if path in ("/v1/models", "/health"):
        return b"\r\n".join([f"GET {path} HTTP/1.1".encode(), *head, b"", b""])
    fields = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "input": "Hi"}
    if stream and path.startswith("/v1/chat"):
        fields["stream"] = True  # type: ignore[assignment]
        head.append(b"x-echo-stream: 1")
    body = json.dumps(fields).encode()
    if chunked:
        framing = b"transfer-encoding: chunked"
        body = (
            b"".join(b"%x;x=y\r\n%b\r\n" % (1, body[i : i + 1]) for i in range(len(body)))
            + b"0\r\nt: 1\r\n\r\n"
        )
    else:
        framing = b"content-length: %d" % len(body)
    return b"\r\n".join([f"POST {path} HTTP/1.1".encode(), *head, framing, b"", body])


@st.composite
def pipelines(draw: st.DrawFn) -> list[tuple[str, bytes]]:
    count = draw(st.integers(1, 5))
    paths = [draw(st.sampled_from(PATHS)) for _ in range(count)]
    return [
        (path, sound(path, number, stream=draw(st.booleans()), chunked=draw(st.booleans())))
        for number, path in enumerate(paths, start=1)
    ]


@st.composite
def split(draw: st.DrawFn, data: bytes) -> list[bytes]:
    places = sorted(draw(st.lists(st.integers(0, len(data)), max_size=6)))
    ends = [*places, len(data)]
    return [data[start:end] for start, end in zip([0, *places], ends, strict=True)]


@given(data=st.data(), requests=pipelines())
@fuzzing()
def test_pipelines_are_answered_in_order_however_they_are_cut(
    gateway: FuzzedGateway, data: st.DataObject, requests: list[tuple[str, bytes]]
) -> None:
    pieces = data.draw(split(b"".join(request for _, request in requests)))
    answers = exchange(gateway.port, pieces, expected=len(requests))
    assert [answer.status for answer in answers] == [200] * len(requests)
    for number, ((path, _), answer) in enumerate(zip(requests, answers, strict=True), start=1):
        assert answer.whole
        if "chat" in path or "embeddings" in path:
            assert b"<%d>" % number in answer.body
    gateway.check_nothing_stays()


GARBAGE = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [
            b"\r\n\r\n\r\n", b"\0", b"GET", b"GET / HTTP/9.9\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"0\r\n\r\n",
            b"POST /v1/chat/completions HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            b"POST /v1/chat/completions HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
            b"POST /v1/chat/completions HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n-1\r\n",
            b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 10\r\n\r\nabc",
            b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 999999999999\r\n\r\nabc",
            b"OPTIONS * HTTP/1.1\r\n\r\n", b"GET http://a/health HTTP/1.1\r\n\r\n",
            b"GET //health HTTP/1.1\r\n\r\n",
            b"GET /%ff%00 HTTP/1.1\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n", b"GET  /health HTTP/1.1\r\n\r\n",
            b"GET /health\r\n\r\n", b"GET /v1/models/%2e%2e%2f HTTP/1.1\r\n\r\n", b"GET ? HTTP/1.1\r\n\r\n",
            b"GET /v1/files/" + b"a" * 5000 + b" HTTP/1.1\r\n\r\n", b"HEAD /health HTTP/1.1\r\n\r\n",
            b"TRACE / HTTP/1.1\r\n\r\n", b"DELETE /v1/responses/%F0%9F HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01\x02\x00",
        ]
    ),
)  # fmt: skip


@given(data=st.data(), requests=pipelines(), garbage=GARBAGE)
@fuzzing(0.5)
def test_nonsense_after_requests_spoils_no_answer(
    gateway: FuzzedGateway, data: st.DataObject, requests: list[tuple[str, bytes]], garbage: bytes
) -> None:
    """What was asked before is answered or cut off; nothing that is no answer comes after it."""
    pieces = data.draw(split(b"".join(request for _, request in requests) + garbage))
    answers = exchange(gateway.port, pieces, quiet_s=0.05)
    for answer, (path, _) in zip(answers, requests, strict=False):
        check(answer, path)
    for answer in answers[len(requests) :]:
        assert answer.status < 500
    gateway.check_nothing_stays()


@given(data=st.data(), requests=pipelines())
@fuzzing()
def test_a_client_may_leave_after_any_byte(
    gateway: FuzzedGateway, data: st.DataObject, requests: list[tuple[str, bytes]]
) -> None:
    whole = b"".join(request for _, request in requests)
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    exchange(gateway.port, data.draw(split(cut)), quiet_s=0.001)
    gateway.check_nothing_stays()


@given(data=st.data(), requests=pipelines())
@fuzzing(0.5)
def test_bytes_may_be_wrong_anywhere(
    gateway: FuzzedGateway, data: st.DataObject, requests: list[tuple[str, bytes]]
) -> None:
    whole = bytearray(b"".join(request for _, request in requests))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    for answer in exchange(gateway.port, [bytes(whole)], quiet_s=0.05):
        assert answer.status < 500, answer
        assert b"Traceback" not in answer.body
    gateway.check_nothing_stays()
