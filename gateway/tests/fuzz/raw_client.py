"""Sends bytes as they are and reads what comes back with a strict parser."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import httptools

from ..torture.visitor import is_error
from .fuzzed_gateway import ADMIN

PATIENCE_S = 15.0
AUTHORIZATION = f"authorization: Bearer {ADMIN}".encode()


@dataclass
class Answer:
    """One answer."""

    status: int
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    whole: bool = False

    @property
    def kind(self) -> bytes:
        return dict(self.headers).get(b"content-type", b"")


class Answers:
    """Reads answers, one after the other. Raises `HttpParserError` at what is none."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._headers: list[tuple[bytes, bytes]] = []
        self.found: list[Answer] = []

    def feed(self, data: bytes) -> None:
        self._parser.feed_data(data)

    @property
    def complete(self) -> int:
        return sum(answer.whole for answer in self.found)

    def on_message_begin(self) -> None:
        self._headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self._parser.get_status_code() >= 200:
            self.found.append(Answer(self._parser.get_status_code(), self._headers))

    def on_body(self, body: bytes) -> None:
        self.found[-1].body += body

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() >= 200:
            self.found[-1].whole = True


def exchange(
    port: int, pieces: Sequence[bytes], *, expected: int | None = None, quiet_s: float = PATIENCE_S
) -> list[Answer]:
    """The answers to what was sent: until the connection is closed, `expected` ones are there, or nothing has
    come for `quiet_s`."""
    answers = Answers()
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for number, piece in enumerate(pieces):
                if number:
                    time.sleep(0.0005)
                connection.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it was refused before its end; the answer may be there all the same
        connection.settimeout(quiet_s)
        try:
            while (expected is None or answers.complete < expected) and (data := connection.recv(65536)):
                answers.feed(data)
        except ConnectionResetError:
            pass
        except TimeoutError:
            assert quiet_s < PATIENCE_S, f"no end of the answer, got {answers.found}"
    return answers.found


def check(answer: Answer, path: str) -> None:
    """An answer that a gateway before sound engines may give."""
    assert answer.status < 500, answer
    assert b"Traceback" not in answer.body
    if answer.status >= 400:
        assert answer.whole, answer
        assert answer.kind == b"application/json", answer
        # What never became a request is refused in OpenAI's shape, whoever sent it.
        assert is_error(answer.body, path) or (answer.status == 431 and is_error(answer.body, "/")), answer
    elif answer.kind == b"application/json" and answer.body:
        json.loads(answer.body)


def post(target: str, body: bytes, *headers: bytes, close: bool = True) -> bytes:
    """A well-formed request."""
    lines = [b"POST %b HTTP/1.1" % target.encode(), b"host: gateway", AUTHORIZATION, *headers]
    lines += [b"connection: close"] if close else []
    return b"\r\n".join([*lines, b"content-length: %d" % len(body), b"", body])
