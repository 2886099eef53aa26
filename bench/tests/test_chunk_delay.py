"""How late chunks arrive, from the stamps in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sluice_bench.chunk_delay import (
    StampedChunk,
    StampedStream,
    due_delays_ms,
    read_stream,
    sent_delays_ms,
    while_all_ran,
)
from sluice_bench.connection import Exchange
from sluice_bench.gateway_lanes import LaneContext, measure_streams
from sluice_bench.gateway_rows import StreamsLoad
from sluice_bench.gateway_targets import DIRECT
from sluice_bench.records import Failure

Exchanges = Callable[..., Exchange]

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def framed(*events: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events)


def stamped(due_ns: int, sent_ns: int) -> bytes:
    return b'data: {"choices":[{"delta":{"content":"%d %d"}}]}\n\n' % (due_ns, sent_ns)


def test_each_chunk_carries_when_it_was_due_sent_and_arrived(exchange_of: Exchanges) -> None:
    first, second = framed(stamped(100, 110)), framed(stamped(200, 230))
    exchange = exchange_of(
        [
            (150, HEAD + first + second[:20]),
            (260, second[20:]),
            (300, framed(b"data: [DONE]\n\n") + b"0\r\n\r\n"),
        ]
    )
    stream = read_stream(exchange)
    assert stream == StampedStream([StampedChunk(100, 110, 150), StampedChunk(200, 230, 260)], "")
    assert due_delays_ms(stream.chunks) == [50e-6, 60e-6]
    assert sent_delays_ms(stream.chunks) == [40e-6, 30e-6]


def test_a_cut_stream_is_a_failure_and_keeps_its_chunks(exchange_of: Exchanges) -> None:
    exchange = exchange_of([(150, HEAD + framed(stamped(100, 110)))])
    exchange.failure = Failure.CONNECTION_LOST
    stream = read_stream(exchange)
    assert "connection_lost" in stream.failure
    assert len(stream.chunks) == 1


def test_a_stream_that_ends_without_done_is_a_failure(exchange_of: Exchanges) -> None:
    exchange = exchange_of([(150, HEAD + framed(stamped(100, 110)) + b"0\r\n\r\n")])
    assert "cut off" in read_stream(exchange).failure


def test_a_refusal_is_a_failure_with_its_status(exchange_of: Exchanges) -> None:
    refusal = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 4\r\n\r\nlate"
    assert "429" in read_stream(exchange_of([(10, refusal)])).failure
    assert "no answer" in read_stream(exchange_of([])).failure


def test_only_chunks_due_while_every_stream_ran_count() -> None:
    def stream(*due: int) -> StampedStream:
        return StampedStream([StampedChunk(at, at, at + 1) for at in due], "")

    counted = while_all_ran([stream(0, 10, 20, 30), stream(5, 15, 25)])
    assert [chunk.due_ns for chunk in counted] == [10, 20, 5, 15, 25]
    assert while_all_ran([stream(0, 10), stream(20, 30)]) == []
    assert while_all_ran([]) == []


def test_many_streams_of_the_null_server_all_arrive_with_their_stamps(tmp_path: Path) -> None:
    load = StreamsLoad(targets=(DIRECT,), streams=20, chunks_per_s=50, ramp_s=0.05, window_s=0.1, repeats=1)
    context = LaneContext(folder=tmp_path, programs={}, on_step=lambda step: None, cores=None)
    (row,), missing = measure_streams(context, load)
    assert (row.failures, row.first_failure, missing) == (0, "", [])
    assert row.chunks > 20
    assert row.delay_max_ms >= row.delay_p99_ms >= row.delay_p50_ms
    assert row.sent_delay_p99_ms > 0
