"""The load client on real sockets: every scheduled request ends as one record, whatever the server does."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Callable
from typing import Any

import pytest

from sluice_bench.answers import read_answers
from sluice_bench.load_run import LoadRun, frozen_gc
from sluice_bench.loops import ClosedLoop, LoadPlan, OpenLoop, SessionLoop
from sluice_bench.records import Failure, RequestRecord
from sluice_bench.target import Target, WireRequest

ANSWER = b'{"choices": [{"index": 0, "message": {"content": "hi"}}], "usage": {"completion_tokens": 1}}'
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(ANSWER),
    ANSWER,
)

Requests = Callable[..., list[WireRequest]]


async def carry_out(
    target: Target, requests: list[WireRequest], loop: Any, **settings: Any
) -> list[RequestRecord]:
    plan = LoadPlan(target=target, requests=requests, loop=loop, **settings)
    async with asyncio.timeout(60):
        return read_answers(await LoadRun(plan).run())


def failures(records: list[RequestRecord]) -> list[Failure | None]:
    return [record.failure for record in records]


async def test_a_closed_loop_keeps_its_concurrency_and_its_connections(
    scripted: Any, listen: Any, requests_to: Requests
) -> None:
    server = scripted([0.01, PLAIN])
    async with listen(server.handle) as target:
        records = await carry_out(target, requests_to(target, 12), ClosedLoop(3), warm_connections=3)
    assert failures(records) == [None] * 12
    assert [record.index for record in records] == list(range(12))
    assert (server.most_in_flight, server.connections) == (3, 3)
    assert all(record.reused_connection for record in records)


async def test_an_open_loop_starts_on_connections_that_are_open(
    scripted: Any, listen: Any, requests_to: Requests
) -> None:
    server = scripted([PLAIN], answer_from=40)
    async with listen(server.handle) as target:
        records = await carry_out(target, requests_to(target, 40), OpenLoop((0,) * 40), warm_connections=39)
    assert failures(records) == [None] * 40
    assert server.connections == 40
    assert [record.reused_connection for record in records].count(False) == 1


async def test_users_who_think_still_send_everything_one_after_another(
    scripted: Any, listen: Any, requests_to: Requests
) -> None:
    server = scripted([PLAIN])
    async with listen(server.handle) as target:
        records = await carry_out(target, requests_to(target, 5), ClosedLoop(2, think_s=0.02))
    assert failures(records) == [None] * 5
    spans = [(record.dispatched_ns or 0, record.end_ns or 0) for record in records]
    ends = sorted(end for _, end in spans)
    thinking_ns = 15_000_000  # timers are good to the millisecond
    assert all(start - ends[index - 2] >= thinking_ns for index, (start, _) in enumerate(spans) if index > 1)


async def test_an_open_loop_sends_on_time_though_nothing_is_answered(
    scripted: Any, listen: Any, requests_to: Requests
) -> None:
    """A client that waited for answers or for free connections would show fewer in flight."""
    server = scripted([PLAIN], answer_from=40)
    async with listen(server.handle) as target:
        records = await carry_out(
            target, requests_to(target, 40), OpenLoop(tuple(range(0, 40_000_000, 1_000_000)))
        )
    assert failures(records) == [None] * 40
    assert server.most_in_flight == 40
    start = records[0].scheduled_ns
    assert [record.scheduled_ns - start for record in records] == list(range(0, 40_000_000, 1_000_000))
    assert all((record.dispatched_ns or 0) >= record.scheduled_ns for record in records)


async def test_stamps_are_in_order(scripted: Any, listen: Any, requests_to: Requests) -> None:
    server = scripted([PLAIN[:20], 0.01, PLAIN[20:-5], 0.01, PLAIN[-5:]])
    async with listen(server.handle) as target:
        (record,) = await carry_out(target, requests_to(target, 1), ClosedLoop(1))
    stamps = [
        record.scheduled_ns,
        record.dispatched_ns,
        record.connected_ns,
        record.written_ns,
        record.first_byte_ns,
        record.headers_ns,
        record.end_ns,
    ]
    assert None not in stamps
    assert stamps == sorted(stamps, key=lambda stamp: stamp or 0)
    assert record.n_reads == 3
    assert not record.reused_connection


async def test_a_server_that_hangs_up_loses_that_request_only(
    scripted: Any, listen: Any, requests_to: Requests
) -> None:
    server = scripted([PLAIN[:-4]], hang_up=True)
    async with listen(server.handle) as target:
        records = await carry_out(target, requests_to(target, 3), ClosedLoop(1))
    assert failures(records) == [Failure.CONNECTION_LOST] * 3
    assert server.connections == 3


async def test_a_body_without_a_length_is_complete_when_the_server_closes(
    scripted: Any, listen: Any, requests_to: Requests
) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
    server = scripted([head + ANSWER], hang_up=True)
    async with listen(server.handle) as target:
        records = await carry_out(target, requests_to(target, 2), ClosedLoop(1))
    assert failures(records) == [None, None]
    assert server.connections == 2


async def test_a_silent_server_times_the_request_out_and_the_next_one_is_sent(
    scripted: Any, listen: Any, requests_to: Requests
) -> None:
    server = scripted([30.0])
    async with listen(server.handle) as target:
        records = await carry_out(target, requests_to(target, 2), ClosedLoop(1), request_timeout_s=0.05)
    assert failures(records) == [Failure.TIMEOUT] * 2
    assert len(server.requests) == 2


async def test_the_hard_stop_cuts_off_what_runs_and_names_what_was_never_sent(
    scripted: Any, listen: Any, requests_to: Requests
) -> None:
    server = scripted([30.0])
    async with listen(server.handle) as target:
        records = await carry_out(target, requests_to(target, 5), ClosedLoop(2), hard_stop_s=0.2)
    assert failures(records) == [Failure.CUT_OFF] * 2 + [Failure.NOT_SENT] * 3
    assert all(record.end_ns is not None for record in records)


async def test_unsent_requests_of_an_open_loop_keep_their_schedule(
    scripted: Any, listen: Any, requests_to: Requests
) -> None:
    server = scripted([PLAIN])
    hour_ns = 3_600_000_000_000
    async with listen(server.handle) as target:
        records = await carry_out(target, requests_to(target, 2), OpenLoop((0, hour_ns)), hard_stop_s=0.3)
    assert failures(records) == [None, Failure.NOT_SENT]
    assert records[1].scheduled_ns - records[0].scheduled_ns == hour_ns


async def test_no_server_is_a_failure_of_each_request(requests_to: Requests, unused_tcp_port: int) -> None:
    target = Target(host="127.0.0.1", port=unused_tcp_port)
    records = await carry_out(target, requests_to(target, 3), ClosedLoop(2))
    assert failures(records) == [Failure.CONNECT_FAILED] * 3


async def test_of_several_addresses_the_first_that_answers_is_asked(
    scripted: Any, listen: Any, requests_to: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with `localhost`, whose first address is often one that nobody listens on."""

    def two_addresses(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in ("127.0.0.2", "127.0.0.1")]

    async with listen(scripted([PLAIN]).handle) as target:
        monkeypatch.setattr(socket, "getaddrinfo", two_addresses)
        named = Target(host="server.example", port=target.port)
        records = await carry_out(named, requests_to(named, 2), ClosedLoop(1))
    assert failures(records) == [None, None]


async def test_a_failed_tls_handshake_is_a_failed_connection(listen: Any, requests_to: Requests) -> None:
    async def without_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with listen(without_tls) as target:
        secure = Target(host="127.0.0.1", port=target.port, tls=True)
        records = await carry_out(secure, requests_to(secure, 1), ClosedLoop(1))
    assert failures(records) == [Failure.CONNECT_FAILED]


async def test_bytes_that_are_not_http_are_a_protocol_failure(
    scripted: Any, listen: Any, requests_to: Requests
) -> None:
    server = scripted([b"220 mail.example.com ESMTP\r\n\r\n"])
    async with listen(server.handle) as target:
        records = await carry_out(target, requests_to(target, 2), ClosedLoop(1))
    assert failures(records) == [Failure.PROTOCOL] * 2
    assert server.connections == 2


async def test_nothing_is_left_open_after_a_run(scripted: Any, listen: Any, requests_to: Requests) -> None:
    server = scripted([30.0])
    before = asyncio.all_tasks()
    async with listen(server.handle) as target:
        await carry_out(target, requests_to(target, 4), OpenLoop((0, 0, 0, 10**12)), hard_stop_s=0.1)
        for _ in range(200):
            if asyncio.all_tasks() == before:
                break
            await asyncio.sleep(0.01)
        assert asyncio.all_tasks() == before


async def test_a_run_of_no_requests_ends_at_once(scripted: Any, listen: Any) -> None:
    async with listen(scripted([]).handle) as target:
        assert await carry_out(target, [], ClosedLoop(1)) == []


def test_the_collector_rests_while_frozen_and_works_afterwards() -> None:
    with frozen_gc():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with frozen_gc():
            assert not gc.isenabled()
        assert not gc.isenabled()
    finally:
        gc.enable()


async def test_a_turn_is_due_its_thinking_time_after_the_one_before(
    scripted: Any, listen: Any, requests_to: Requests
) -> None:
    """Two users, three conversations; the first two are of turns 0, 2, 4 and 1, 3, the last of turn 5."""
    think_ms = (0, 0, 30, 10, 0, 0)
    loop = SessionLoop(
        concurrency=2,
        sessions=((0, 2, 4), (1, 3), (5,)),
        think_ns=tuple(ms * 1_000_000 for ms in think_ms),
    )
    server = scripted([0.02, PLAIN])
    async with listen(server.handle) as target:
        records = await carry_out(target, requests_to(target, 6), loop, warm_connections=2)
    assert failures(records) == [None] * 6
    assert [record.index for record in records] == list(range(6))
    assert server.most_in_flight == 2
    for before, after in ((0, 2), (2, 4), (1, 3)):
        due = (records[before].end_ns or 0) + loop.think_ns[after]
        assert records[after].scheduled_ns == due <= (records[after].dispatched_ns or 0)
    assert records[5].scheduled_ns == min(records[3].end_ns or 0, records[4].end_ns or 0)
    assert records[0].scheduled_ns == records[1].scheduled_ns


async def test_a_conversation_goes_on_after_a_turn_that_failed(
    scripted: Any, listen: Any, requests_to: Requests
) -> None:
    server = scripted([PLAIN[:-4]], hang_up=True)
    async with listen(server.handle) as target:
        records = await carry_out(target, requests_to(target, 3), SessionLoop(1, ((0, 1, 2),), (0, 0, 0)))
    assert failures(records) == [Failure.CONNECTION_LOST] * 3


async def test_turns_that_were_not_reached_at_the_hard_stop_are_named(
    scripted: Any, listen: Any, requests_to: Requests
) -> None:
    loop = SessionLoop(2, ((0, 2), (1, 3)), (0, 0, 3_600_000_000_000, 0))
    async with listen(scripted([PLAIN]).handle) as target:
        records = await carry_out(target, requests_to(target, 4), loop, hard_stop_s=0.3)
    assert failures(records) == [None, None, Failure.NOT_SENT, None]
