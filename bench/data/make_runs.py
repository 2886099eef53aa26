"""Makes the runs in bench/data/runs, whose figures tests derive again: `python bench/data/make_runs.py`.

Three loads on the null server of this machine: streams in a closed loop; an open loop while the server stands
still twice, the second time for longer than clients wait; plain answers. Making them anew changes their
digests, which the test then has to be told.
"""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

from sluice_bench.metrics import Objective
from sluice_bench.processes import ServerProcess, null_server_process
from sluice_bench.recording.run_file import write_run
from sluice_bench.run_load import RunLoad
from sluice_bench.runs.measured_run import RunSettings, measure
from sluice_bench.schedule_options import ScheduleOptions, make_schedule
from sluice_bench.target import Target
from sluice_bench.workload import Asking
from sluice_bench.workloads import suites
from sluice_bench.workloads.corpus import load_corpus

FOLDER = Path(__file__).parent / "runs"
SEED = 1
STALLS_S = ((0.8, 0.5), (2.0, 1.2))
"""When after the start, and for how long."""
PATIENCE_S = 0.9


def main() -> None:
    """Make all three."""
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as name:
        folder = Path(name)
        with null_server_process(folder) as probes:
            for make in (closed_streams, open_stall, plain):
                with _server(folder) as server:
                    make(server, Target.parse(probes.url))


def closed_streams(server: ServerProcess, probes: Target) -> None:
    """Four users, answers of 24 tokens."""
    workload = suites.build(load_corpus(), "short", 48, SEED)
    settings = RunSettings(
        target=Target.parse(server.url),
        asking=Asking(model="null"),
        load=RunLoad(workload=workload, schedule=None),
        concurrency=4,
        objective=Objective(ttft_ms=70.0, tpot_ms=6.0),
        variant="closed-streams",
        command="python bench/data/make_runs.py",
    )
    write_run(measure(settings, probes), FOLDER / "closed-streams.parquet")


def open_stall(server: ServerProcess, probes: Target) -> None:
    """Thirty a second; the server is stopped twice, and clients wait out the first time only."""
    count = 90
    schedule = make_schedule(
        ScheduleOptions(rate=30.0, arrival="poisson", cv=None, ramp=None, trace=None), count, SEED
    )
    settings = RunSettings(
        target=Target.parse(server.url),
        asking=Asking(model="null"),
        load=RunLoad(workload=suites.build(load_corpus(), "short", count, SEED), schedule=schedule),
        objective=Objective(ttft_ms=100.0),
        warm_connections=16,
        request_timeout_s=PATIENCE_S,
        variant="open-stall",
        command="python bench/data/make_runs.py",
    )
    timers = [threading.Timer(begin_s, server.pause) for begin_s, _ in STALLS_S]
    timers += [threading.Timer(begin_s + long_s, server.resume) for begin_s, long_s in STALLS_S]
    for timer in timers:
        timer.start()
    write_run(measure(settings, probes), FOLDER / "open-stall.parquet")
    for timer in timers:
        timer.join()


def plain(server: ServerProcess, probes: Target) -> None:
    """Whole answers, of which only the end is known."""
    settings = RunSettings(
        target=Target.parse(server.url),
        asking=Asking(model="null", stream=False),
        load=RunLoad(workload=suites.build(load_corpus(), "short", 32, SEED), schedule=None),
        concurrency=2,
        objective=Objective(e2e_ms=70.0),
        variant="plain",
        command="python bench/data/make_runs.py",
    )
    write_run(measure(settings, probes), FOLDER / "plain.parquet")


def _server(folder: Path) -> ServerProcess:
    return null_server_process(folder, chunks=24, pace_ms=5, more=["--first-ms", "60"])


if __name__ == "__main__":
    main()
