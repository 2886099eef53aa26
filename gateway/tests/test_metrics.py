"""The counters agree with what happened, and nobody outside can add a series."""

from __future__ import annotations

import asyncio
import time

from sluice_gateway.loop_lag import sample_loop_lag

from .serving import ECHO, chat, serving, settings_of

CHAT = "/v1/chat/completions"


async def test_every_request_is_counted_once_by_how_it_ended() -> None:
    async with serving(settings_of(backends=[ECHO])) as served:
        for _ in range(3):
            await served.http.post(CHAT, json=chat("echo", text="one two"))
        await served.http.post(CHAT, json=chat("echo", stream=True))
        await served.http.post(CHAT, json=chat("nope"))
        await served.http.post(CHAT, json=chat("echo"), headers={"x-echo-status": "503"})
        await served.until_idle()
        by = {"kind": "chat", "backend": "echo"}
        assert served.metric("requests_total", **by, outcome="ok") == 4
        assert served.metric("requests_total", **by, outcome="upstream_unavailable") == 1
        assert served.metric("requests_total", kind="chat", backend="none", outcome="model_not_found") == 1
        assert served.metric("request_duration_seconds_count", **by) == 5
        assert served.metric("time_to_first_token_seconds_count", **by) == 1
        assert served.metric("queue_wait_seconds_count", backend="echo") == 5
        assert served.metric("upstream_failures_total", backend="echo", failure="upstream_unavailable") == 1
        assert served.metric("tokens_total", backend="echo", direction="completion") == 3 * 2 + 2
        assert served.metric("requests_in_flight") == 0


async def test_the_page_shows_the_router_and_its_type() -> None:
    async with serving(settings_of(backends=[ECHO])) as served:
        answer = await served.http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'sluice_gateway_endpoint_healthy{backend="echo",endpoint="echo"} 1.0' in answer.text
    assert "sluice_gateway_queue_depth 0.0" in answer.text


async def test_a_scanner_adds_no_series() -> None:
    async with serving(settings_of(backends=[ECHO])) as served:
        await served.http.post(CHAT, json=chat("model-0"), headers={"x-backend": "b-0"})
        before = len(served.gateway.metrics.page().splitlines())
        for number in range(1, 20):
            await served.http.get(f"/scan-{number}")
            headers = {"x-backend": f"b-{number}", "x-api-key": f"k-{number}"}
            await served.http.post(CHAT, json=chat(f"model-{number}"), headers=headers)
        await served.until_idle()
        assert len(served.gateway.metrics.page().splitlines()) == before


async def test_twenty_thousand_paths_models_and_headers_add_no_series() -> None:
    """Pipelined over a few raw connections, since a client library would take longer than the gateway."""
    async with serving(settings_of(backends=[ECHO], logs={"requests": False})) as served:
        port = int(served.url.rpartition(":")[2])
        await _pipelined(port, range(4))
        before = len(served.gateway.metrics.page().splitlines())
        await asyncio.gather(
            *(_pipelined(port, range(start, start + 5_000)) for start in range(4, 20_004, 5_000))
        )
        await served.until_idle()
        assert len(served.gateway.metrics.page().splitlines()) == before
        counted = [
            sample.value
            for family in served.gateway.metrics.registry.collect()
            for sample in family.samples
            if sample.name == "sluice_gateway_requests_total"
        ]
        assert sum(counted) == 15_003


async def _pipelined(port: int, numbers: range) -> None:
    """One request in four to a path that is not there, the others to models and backends that are not."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for first in range(numbers.start, numbers.stop, 50):
        some = range(first, min(first + 50, numbers.stop))
        writer.write(b"".join(_strange(number) for number in some))
        for _ in some:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert b" 40" in head.partition(b"\r\n")[0], head
            await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
    writer.close()
    await writer.wait_closed()


def _strange(number: int) -> bytes:
    if number % 4 == 0:
        return f"GET /scan-{number} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()
    body = b'{"model": "model-%d", "messages": []}' % number
    header = f"x-backend: b-{number}" if number % 4 == 1 else f"x-api-key: k-{number}"
    head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\n{header}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def test_a_blocked_loop_shows_as_lag() -> None:
    lags: list[float] = []
    enough = asyncio.Event()

    def observe(lag: float) -> None:
        lags.append(lag)
        enough.set()

    task = asyncio.create_task(sample_loop_lag(observe, interval_s=0.001))
    await asyncio.sleep(0)
    time.sleep(0.05)  # noqa: ASYNC251 - the very thing to be seen
    await enough.wait()
    task.cancel()
    assert lags[0] >= 0.04
