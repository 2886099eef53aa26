"""Several client processes are one client: the same requests, the same instant, nobody waits for another."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import msgspec
import psutil
import pytest

from sluice_bench import arrivals
from sluice_bench.calibration import calibrate, calibrate_shards
from sluice_bench.loops import ClosedLoop, LoadPlan, OpenLoop, SessionLoop
from sluice_bench.processes import ServerProcess, free_port, null_server_process
from sluice_bench.records import Failure, RequestRecord
from sluice_bench.runs.live import LiveCounts
from sluice_bench.runs.shards import MODULE, ShardedRun, deal, run_sharded, share_of
from sluice_bench.target import Target
from sluice_bench.workload import Asking, Shape, chat_requests

PROBES = 2


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with null_server_process(tmp_path_factory.mktemp("null"), chunks=5, pace_ms=1) as process:
        yield process


def plan_of(url: str, loop: ClosedLoop | OpenLoop, count: int, **more: object) -> LoadPlan:
    target = Target.parse(url)
    requests = chat_requests(target, Shape(prompt_words=14, output_tokens=5), Asking(model="null"), count, 1)
    requests = [
        msgspec.structs.replace(request, item=f"item-{place}") for place, request in enumerate(requests)
    ]
    settings = {"warm_connections": 4, "hard_stop_s": 60.0, **more}
    return LoadPlan(target=target, requests=requests, loop=loop, **settings)


def run(plan: LoadPlan, processes: int, url: str, **more: object) -> ShardedRun:
    return run_sharded(plan, processes, Target.parse(url), enough_probes=PROBES, **more)


def the_same_in_every_run(records: list[RequestRecord]) -> list[object]:
    """What does not depend on time."""
    return [
        (record.index, record.item, record.failure, record.output_tokens, record.text_sha256)
        for record in records
    ]


@pytest.mark.parametrize("loop", [OpenLoop(arrivals.constant(200, 23)), ClosedLoop(4)])
def test_several_processes_record_what_one_does(server: ServerProcess, loop: ClosedLoop | OpenLoop) -> None:
    plan = plan_of(server.url, loop, 23)
    alone, together = (run(plan, processes, server.url) for processes in (1, 3))
    assert the_same_in_every_run(together.records) == the_same_in_every_run(alone.records)
    assert {record.shard for record in alone.records} == {0}
    assert {record.shard for record in together.records} == {0, 1, 2}
    assert len(together.calibration.shards) == 3
    assert together.calibration.probes == sum(shard.probes for shard in together.calibration.shards)


def test_all_processes_keep_one_schedule_from_one_instant(server: ServerProcess) -> None:
    offsets = arrivals.poisson(300, 60, seed=4)
    found = run(plan_of(server.url, OpenLoop(offsets), 60), 2, server.url)
    start = found.records[0].scheduled_ns - offsets[0]
    assert [record.scheduled_ns - start for record in found.records] == list(offsets)
    assert all((record.dispatched_ns or 0) >= record.scheduled_ns for record in found.records)
    assert [record.shard for record in found.records] == [0, 1] * 30


def children() -> list[psutil.Process]:
    """The client processes, by the order of their start."""
    mine = psutil.Process().children()
    return sorted((child for child in mine if MODULE in child.cmdline()), key=lambda child: child.pid)


def test_a_process_that_is_lost_takes_no_request_with_it(server: ServerProcess) -> None:
    plan = plan_of(server.url, OpenLoop(arrivals.constant(20, 60)), 60)
    killed: list[int] = []

    def kill_one(counts: LiveCounts) -> None:
        if not killed:
            killed.append(children()[0].pid)
            os.kill(killed[0], signal.SIGKILL)

    found = run(plan, 2, server.url, on_counts=kill_one)
    lost = [record for record in found.records if record.failure is not None]
    assert len(found.records) == 60 and len(lost) == 30
    assert {record.failure for record in lost} == {Failure.CLIENT_LOST}
    assert "ended with signal 9" in lost[0].message
    assert len({record.shard for record in lost}) == 1
    offsets = arrivals.constant(20, 60)
    start = found.records[0].scheduled_ns
    assert [record.scheduled_ns - start for record in found.records] == list(offsets)
    assert found.calibration.void


def test_no_process_is_left_behind(server: ServerProcess) -> None:
    run(plan_of(server.url, ClosedLoop(2), 4), 2, server.url)
    assert children() == []


def test_a_server_that_is_not_there_is_one_error(server: ServerProcess) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(OSError, match=r"Connect call failed|Connection refused|Errno 111"):
        run(plan_of(nobody, ClosedLoop(2), 4), 2, server.url)
    assert children() == []


def test_counts_of_all_processes_are_told_together(server: ServerProcess) -> None:
    told: list[LiveCounts] = []
    run(plan_of(server.url, OpenLoop(arrivals.constant(100, 40)), 40), 2, server.url, on_counts=told.append)
    assert (told[-1].sent, told[-1].finished, told[-1].failed, told[-1].in_flight) == (40, 40, 0, 0)
    assert sum(len(counts.first_byte_ms) for counts in told) == 40


@pytest.mark.parametrize(
    ("loop", "count", "processes", "sizes"),
    [
        (OpenLoop((0,) * 10), 10, 3, [4, 3, 3]),
        (OpenLoop((0, 0)), 2, 3, [1, 1]),
        (ClosedLoop(5), 100, 2, [60, 40]),
        (ClosedLoop(2), 10, 4, [5, 5]),
        (ClosedLoop(8), 3, 4, [1, 1, 1]),
        (SessionLoop(2, ((0, 2, 3), (1,), (4, 5)), (0, 0, 1, 2, 3, 4)), 6, 3, [5, 1]),
    ],
)
def test_every_request_is_dealt_to_exactly_one_process(
    loop: ClosedLoop | OpenLoop, count: int, processes: int, sizes: list[int]
) -> None:
    plan = plan_of("http://127.0.0.1:1", loop, count)
    shares = deal(plan, processes)
    assert sorted(place for share in shares for place in share) == list(range(count))
    assert [len(share) for share in shares] == sizes
    parts = [share_of(plan, share, shard, len(shares)) for shard, share in enumerate(shares)]
    if isinstance(loop, ClosedLoop):
        assert sum(part.loop.concurrency for part in parts) == loop.concurrency
    if isinstance(loop, SessionLoop):
        assert parts[0].loop == SessionLoop(1, ((0, 1, 2), (3, 4)), (0, 1, 2, 3, 4))
        assert parts[1].loop == SessionLoop(1, ((0,),), (0,))
    assert sum(part.warm_connections for part in parts) == plan.warm_connections


def timed(ttft_ms: float) -> RequestRecord:
    stamp = round(ttft_ms * 1e6)
    return RequestRecord(
        index=0,
        stream=True,
        scheduled_ns=0,
        dispatched_ns=0,
        written_ns=0,
        first_token_ns=stamp,
        last_token_ns=stamp,
    )


def test_a_percentile_of_several_processes_is_that_of_all_requests() -> None:
    """One process saw the slow tenth: the mean of the two p99 would be 505 ms, and no one waited so long."""
    fast, slow = [timed(10.0)] * 500, [timed(1000.0)] * 4
    probes = [timed(0.1)] * 20
    pooled = calibrate_shards([(fast, probes), (slow, probes)])
    means = sum(calibrate(part, probes).reference_p99_ms or 0 for part in (fast, slow)) / 2
    assert means == pytest.approx(505.0)
    assert pooled.reference_p99_ms == pytest.approx(10.0)
    assert pooled.probes == 40


def test_one_process_that_was_slow_voids_the_run() -> None:
    good, bad = [timed(0.1)] * 20, [timed(50.0)] * 20
    latencies = [timed(100.0)] * 200
    assert not calibrate_shards([(latencies, good), (latencies, good)]).void
    assert calibrate_shards([(latencies * 20, good * 200), (latencies, bad)]).void


def test_a_process_ends_with_its_run() -> None:
    """Nobody is left to hand in to when the run's end of the pipe closes."""
    process = subprocess.Popen([sys.executable, "-m", MODULE], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.communicate(b"", timeout=30)
    assert process.returncode == 1
