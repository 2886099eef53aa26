"""What a run keeps beside its requests: warm-up, processes, and the server's own word on its load."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sluice_bench.metrics import ttft_service_s, ttft_user_s
from sluice_bench.omission_warning import omission_line
from sluice_bench.processes import ServerProcess, null_server_process
from sluice_bench.recording.run_file import read_run, write_run
from sluice_bench.recording.run_record import RunRecord
from sluice_bench.recording.verification import complaints
from sluice_bench.run_load import LoadOptions, RunLoad, choose_load
from sluice_bench.runs.load_sampling import read_samples, sampling
from sluice_bench.runs.measured_run import RunSettings, load_plan, measure
from sluice_bench.schedule_options import ScheduleOptions
from sluice_bench.stats.omission import stalled_waits
from sluice_bench.stats.percentile import percentile_of
from sluice_bench.target import Target
from sluice_bench.workload import Asking
from sluice_bench.workloads.items import Workload

pytestmark = pytest.mark.usefixtures("few_probes")


@pytest.fixture(scope="module")
def null(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with null_server_process(tmp_path_factory.mktemp("null"), chunks=5) as process:
        yield process


def load_of(**given: Any) -> RunLoad:
    options: dict[str, Any] = {
        "requests": 12,
        "seed": 1,
        "concurrency": None,
        "arrivals": ScheduleOptions(),
        "suite": "short",
        "preset": None,
        "fit": None,
    }
    return choose_load(LoadOptions(**options | given))


def settings_of(url: str, load: RunLoad, **given: Any) -> RunSettings:
    return RunSettings(target=Target.parse(url), asking=Asking(model="null"), load=load, **given)


def run(url: str, null_url: str, load: RunLoad, **given: Any) -> RunRecord:
    return measure(settings_of(url, load, **given), Target.parse(null_url))


def open_loop(rate: float = 200.0, arrival: str = "constant") -> ScheduleOptions:
    return ScheduleOptions(rate=rate, arrival=arrival)  # type: ignore[arg-type]


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("how", [{"concurrency": 3}, {"arrivals": open_loop()}])
def test_a_warm_up_is_kept_and_is_in_no_figure(
    null: ServerProcess, tmp_path: Path, how: dict[str, Any], processes: int
) -> None:
    load = load_of(warm_up=5, **how)
    found = run(null.url, null.url, load, concurrency=how.get("concurrency"), processes=processes, seed=1)
    assert [record.phase for record in found.requests] == ["warm_up"] * 5 + ["measured"] * 12
    assert len(found.measured) == found.summary.scheduled == 12
    assert found.summary.output_tokens == 60
    assert (found.meta.load.warm_up_requests, found.meta.load.processes) == (5, processes)
    assert found.meta.start_ns == min(record.scheduled_ns for record in found.measured)
    path = tmp_path / "run.parquet"
    write_run(found, path)
    assert read_run(path).requests == found.requests
    assert complaints(read_run(path)) == []


def test_what_is_measured_is_the_same_with_and_without_a_warm_up() -> None:
    for how in ({"concurrency": 3}, {"arrivals": open_loop(arrival="poisson")}):
        cold, warm = load_of(**how), load_of(warm_up=7, **how)
        assert (cold.workload, cold.schedule) == (warm.workload, warm.schedule)
    plans = [load_plan(settings_of("http://h:1", load)) for load in (cold, warm)]
    assert plans[1].requests[7:] == plans[0].requests
    gaps = [
        [later - earlier for earlier, later in pairwise(offsets)]
        for offsets in (plans[0].loop.offsets_ns, plans[1].loop.offsets_ns[7:])  # type: ignore[union-attr]
    ]
    assert gaps[0] == gaps[1]


def test_a_warm_up_goes_on_at_the_pace_of_the_load() -> None:
    plan = load_plan(settings_of("http://h:1", load_of(requests=3, warm_up=2, arrivals=open_loop(10))))
    assert plan.loop.offsets_ns == tuple(index * 100_000_000 for index in range(5))  # type: ignore[union-attr]


def test_users_of_a_closed_loop_converse(null: ServerProcess) -> None:
    """Thinking times of the corpus are seconds; here they are none."""
    load = load_of(requests=20, concurrency=3, suite="multi-turn", warm_up=3)
    items = [msgspec.structs.replace(item, think_ns=0) for item in load.workload.items]
    load = msgspec.structs.replace(load, workload=Workload.of("multi-turn", items))
    found = run(null.url, null.url, load, concurrency=3, sessions=True)
    ends = {record.item: record.end_ns or 0 for record in found.measured}
    waited = [
        record.scheduled_ns == ends[item.after]
        for record, item in zip(found.measured, items, strict=True)
        if item.after is not None
    ]
    assert len(waited) >= 10 and all(waited)
    assert found.meta.load.sessions and found.summary.complete == 20


def page_of(running: int) -> bytes:
    body = b"vllm:num_requests_running %d\nvllm:num_requests_waiting 1\n" % running
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


async def test_the_servers_own_load_is_asked_while_the_run_lasts(scripted: Any, listen: Any) -> None:
    server = scripted([page_of(3)])
    async with listen(server.handle) as target, sampling(target, hard_stop_s=60) as pages:
        while len(server.requests) < 2:  # noqa: ASYNC110  a server that others script sets no event
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.05)
    samples = read_samples(pages)
    assert [(sample.running, sample.waiting) for sample in samples] == [(3.0, 1.0)] * 2
    assert samples[0].at_ns < samples[1].at_ns
    assert all(head.startswith(b"GET /metrics ") for head in server.requests)


async def test_a_server_that_leaves_costs_samples_and_nothing_else(unused_tcp_port: int) -> None:
    async with sampling(Target(host="127.0.0.1", port=unused_tcp_port), hard_stop_s=60) as pages:
        await asyncio.sleep(0.05)
    assert read_samples(pages) == ()


def stalling(folder: Path, *more: str) -> ServerProcess:
    return null_server_process(folder, more=["--stall-at-s", "1", "--stall-s", "2", *more])


def test_a_stall_is_reported_as_an_open_service_would_have_felt_it(
    null: ServerProcess, tmp_path: Path
) -> None:
    """Theory: whoever was due while the server stood still waits for its end, and for an answer."""
    with stalling(tmp_path) as server:
        load = load_of(requests=400, arrivals=open_loop(100))
        found = run(server.url, null.url, load)
        log = next(tmp_path.glob("null-*.log")).read_text()
    told = re.search(r"Stood still from (\d+) to (\d+) ns", log)
    assert told is not None
    due = [float(record.scheduled_ns) for record in found.measured]
    service = percentile_of([ttft_service_s(record) or 0.0 for record in found.measured[:50]], 0.5) * 1e9
    theory = stalled_waits(due, float(told[1]), float(told[2]), service)
    waits = [(ttft_user_s(record) or 0.0) * 1000 for record in found.measured]
    assert found.summary.ttft_user_ms is not None
    assert percentile_of(waits, 0.99) == found.summary.ttft_user_ms.p99
    assert found.summary.ttft_user_ms.p99 == pytest.approx(percentile_of(theory, 0.99) / 1e6, rel=0.01)
    assert sum(wait > 500 for wait in waits) > 100
    assert omission_line(found.requests, closed_loop=False) == ""


def test_the_same_stall_in_a_closed_loop_is_a_warning(null: ServerProcess, tmp_path: Path) -> None:
    with stalling(tmp_path, "--first-ms", "10") as server:
        found = run(server.url, null.url, load_of(requests=600, concurrency=4), concurrency=4)
    assert found.summary.ttft_user_ms is not None
    assert "Measure latency with --rate." in omission_line(found.requests, closed_loop=True)
