"""One line a request, without what must not be in it."""

from __future__ import annotations

import io
import json
import logging

import pytest

from sluice_gateway import logs
from sluice_gateway.auth import digest
from sluice_gateway.exchange import Exchange
from sluice_gateway.logs import RequestLog

from .serving import ECHO, chat, serving, settings_of


async def test_a_request_leaves_one_line_without_secret_or_prompt() -> None:
    keys = [{"id": "alice", "sha256": digest("sk-secret-1"), "tenant": "blue"}]
    async with serving(settings_of(backends=[ECHO], keys=keys, logs={"format": "json"})) as served:
        for secret in ("sk-secret-1", "sk-secret-wrong"):
            headers = {"authorization": f"Bearer {secret}", "x-request-id": f"id-{secret[-5:]}"}
            body = chat("echo", text="private words", stream=True)
            await served.http.post("/v1/chat/completions", json=body, headers=headers)
        await served.until_idle()
    lines = [json.loads(line) for line in served.log.getvalue().splitlines()]
    requests = [line for line in lines if line["event"] == "request"]
    assert [line["status"] for line in requests] == [200, 401]
    assert requests[0]["key"] == "alice"
    assert requests[0]["tenant"] == "blue"
    assert requests[0]["completion_tokens"] == 2
    assert requests[0]["ttft_ms"] >= 0
    assert requests[1]["outcome"] == "invalid_api_key"
    assert "sk-" not in served.log.getvalue().replace("id-et-", "")
    assert "private" not in served.log.getvalue()


async def test_request_lines_can_be_switched_off() -> None:
    settings = settings_of(backends=[ECHO], logs={"format": "json", "requests": False})
    async with serving(settings) as served:
        await served.http.post("/v1/chat/completions", json=chat("echo"))
        await served.until_idle()
    assert '"event":"request"' not in served.log.getvalue()


def test_people_get_text() -> None:
    stream = io.StringIO()
    exchange = Exchange("req_1", "chat", "/v1/chat/completions", 0.0)
    exchange.status, exchange.backend, exchange.endpoint = 200, "main", "main-1"
    exchange.model, exchange.duration_s = "a\nb", 0.25
    RequestLog(stream, "text", lambda: 0.0).write(exchange)
    assert stream.getvalue() == "00:00:00  200  /v1/chat/completions  250 ms  'a\\nb' on main-1  req_1\n"


def test_auto_is_json_unless_a_terminal_reads() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert logs.wants_text(Terminal(), "auto")
    assert not logs.wants_text(io.StringIO(), "auto")


@pytest.fixture
def logger() -> logging.Logger:
    return logging.getLogger(logs.LOGGER)


def test_other_lines_are_json_too(logger: logging.Logger) -> None:
    stream = io.StringIO()
    logs.configure(stream, "json")
    try:
        raise ValueError("x")
    except ValueError:
        logger.exception("it broke")
    line = json.loads(stream.getvalue())
    logger.handlers.clear()
    assert (line["level"], line["message"]) == ("error", "it broke")
    assert "ValueError" in line["traceback"]
