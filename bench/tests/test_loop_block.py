"""How long an event loop stands still: the probes and the histogram."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sluice_bench.loop_block import answer_times_ms, longest_lag_s, parse_lag_histogram, run_probed
from sluice_bench.loops import ClosedLoop, LoadPlan
from sluice_bench.processes import null_server_process
from sluice_bench.target import Target, WireRequest

PAGE = """# HELP sluice_gateway_event_loop_lag_seconds How late the event loop ran a timer.
sluice_gateway_event_loop_lag_seconds_bucket{le="0.001"} 10.0
sluice_gateway_event_loop_lag_seconds_bucket{le="0.005"} 12.0
sluice_gateway_event_loop_lag_seconds_bucket{le="+Inf"} 12.0
sluice_gateway_event_loop_lag_seconds_count 12.0
"""


def test_probes_run_as_long_as_the_load(
    tmp_path: Path, requests_to: Callable[..., list[WireRequest]]
) -> None:
    with null_server_process(tmp_path, chunks=20, pace_ms=2) as loaded, null_server_process(tmp_path) as idle:
        target = Target.parse(loaded.url)
        body = b'{"stream":true}'
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        plan = LoadPlan(target=target, requests=[WireRequest(head + body, True)] * 2, loop=ClosedLoop(1))
        probed = run_probed(plan, Target.parse(idle.url))
    assert [exchange.failure for exchange in probed.load] == [None, None]
    assert len(answer_times_ms(probed.probes)) > 5
    assert len(answer_times_ms(probed.own)) > 5


def test_the_histogram_is_read_from_the_metrics_page() -> None:
    assert parse_lag_histogram(PAGE) == {0.001: 10.0, 0.005: 12.0, float("inf"): 12.0}
    assert parse_lag_histogram("# nothing here\n") is None


def test_only_what_was_sampled_meanwhile_counts() -> None:
    before = parse_lag_histogram(PAGE)
    after = {0.001: 14.0, 0.005: 16.0, float("inf"): 16.0}
    assert longest_lag_s(before, after) == 0.001
    assert longest_lag_s(before, {**after, 0.005: 17.0, float("inf"): 17.0}) == 0.005
    assert longest_lag_s(before, before) is None
    assert longest_lag_s(None, after) is None
