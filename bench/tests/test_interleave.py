"""One request at a time to several servers in turn."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from sluice_bench.gateway_lanes import latency_row
from sluice_bench.interleave import Leg, run_interleaved
from sluice_bench.processes import free_port, null_server_process
from sluice_bench.records import Failure
from sluice_bench.target import Target, WireRequest

Requests = Callable[..., list[WireRequest]]


def test_every_server_is_asked_once_a_round_and_never_two_at_a_time(
    tmp_path: Path, requests_to: Requests
) -> None:
    with null_server_process(tmp_path) as one, null_server_process(tmp_path) as two:
        targets = {"one": Target.parse(one.url), "two": Target.parse(two.url)}
        legs = [Leg(name, target, requests_to(target, 12)) for name, target in targets.items()]
        answers = run_interleaved(legs, 12, seed=1)
    assert {name: len(found) for name, found in answers.items()} == {"one": 12, "two": 12}
    spans = sorted(
        (exchange.written_ns or 0, exchange.end_ns or 0) for found in answers.values() for exchange in found
    )
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    first = [
        "one" if (a.written_ns or 0) < (b.written_ns or 0) else "two"
        for a, b in zip(answers["one"], answers["two"], strict=True)
    ]
    assert set(first) == {"one", "two"}


def test_a_server_that_is_not_there_fails_each_request_and_holds_nobody_up(
    tmp_path: Path, requests_to: Requests
) -> None:
    with null_server_process(tmp_path) as server:
        there, gone = Target.parse(server.url), Target(host="127.0.0.1", port=free_port())
        legs = [Leg("there", there, requests_to(there, 3)), Leg("gone", gone, requests_to(gone, 3))]
        answers = run_interleaved(legs, 3, seed=1)
    assert [exchange.failure for exchange in answers["gone"]] == [Failure.CONNECT_FAILED] * 3
    assert [exchange.failure for exchange in answers["there"]] == [None] * 3


def test_added_latency_is_of_the_differences_within_rounds() -> None:
    row = latency_row("gateway", 0, [300.0, 500.0, 420.0], [100.0, 400.0, 120.0], 0.0)
    assert (row.added_p50_us, row.added_p99_us) == (200.0, 300.0)
    assert (row.p50_us, row.direct_p50_us) == (420.0, 120.0)


def test_a_round_with_a_failure_counts_as_one_and_is_left_out() -> None:
    row = latency_row("gateway", 0, [300.0, None, 320.0], [100.0, 100.0, None], 0.0)
    assert (row.failures, row.rounds, row.added_p50_us) == (1, 1, 200.0)
