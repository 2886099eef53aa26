"""Probes and what they are held against; then the command, against a server whose limit is known."""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from sluice_bench.arrivals import poisson
from sluice_bench.calibration import Calibration
from sluice_bench.cli import app
from sluice_bench.commands.search_command import conclusion, probe_line
from sluice_bench.processes import ServerProcess, free_port, null_server_process
from sluice_bench.records import Failure
from sluice_bench.runs.rate_probe import probe_schedule, probe_void
from sluice_bench.runs.rate_search import ProbePoint, RateSearch, point_of, run_search
from sluice_bench.stats.percentile import percentile_of
from sluice_bench.stats.saturation import SaturationSearch, Step
from sluice_bench.stats.slo_profiles import SloProfile

from ..recording.invented_run import small_run

runner = CliRunner()
PROFILE = SloProfile("test", 100.0, 25.0)


class Known:
    """A prober whose strain at a rate is known."""

    def __init__(
        self, strain: Callable[[float], float | None], void: Callable[[int], bool] = lambda _: False
    ):
        self._strain, self._void = strain, void
        self.steps: list[Step] = []

    def probe(self, step: Step) -> ProbePoint:
        self.steps.append(step)
        point = point_of(step, small_run().requests, PROFILE, void=self._void(len(self.steps)), settled=True)
        return msgspec.structs.replace(point, strain=self._strain(step.rate))


def searched(prober: Known) -> RateSearch:
    return run_search(PROFILE, SaturationSearch(1, 20), 1, 20, prober, lambda point: None)


def test_the_search_finds_the_rate_and_keeps_every_probe() -> None:
    found = searched(Known(lambda rate: rate / 7))
    assert found.rate == pytest.approx(7, rel=0.01)
    assert found.recovers is True and not found.void
    assert len(found.points) == 8
    assert found.points[-1].overload_rate == found.failed
    assert "Highest rate that meets the objective: 7.0" in conclusion(found)[0]


def test_probes_that_failed_are_infinitely_bad() -> None:
    found = searched(Known(lambda rate: 0.3 if rate < 7 else None))
    assert found.cliff and found.rate == found.met
    assert "cliff" in conclusion(found)[0]


def test_a_void_probe_is_repeated_once_on_an_idle_server() -> None:
    prober = Known(lambda rate: rate / 7, void=lambda probe: probe == 3)
    found = searched(prober)
    assert not found.void and len(found.points) == 9
    assert prober.steps[3].rate == prober.steps[2].rate and prober.steps[3].settle
    assert found.rate == pytest.approx(7, rel=0.01)


def test_two_void_probes_in_a_row_end_the_search() -> None:
    found = searched(Known(lambda rate: rate / 7, void=lambda probe: probe in (3, 4)))
    assert found.void and len(found.points) == 4
    assert conclusion(found)[0].startswith("VOID")


@pytest.mark.parametrize(
    ("strain", "sentence"), [(0.5, "raise --high"), (5.0, "lower --low"), (None, "lower --low")]
)
def test_a_range_without_the_answer_says_where_to_look(strain: float | None, sentence: str) -> None:
    assert sentence in conclusion(searched(Known(lambda _: strain)))[0]


def test_a_probe_is_held_against_its_percentile_over_all_requests() -> None:
    requests = small_run().requests[:4]  # TTFT 80 ms, TPOT about 20 ms
    met = point_of(Step(rate=1.0), requests, PROFILE, void=False, settled=True)
    assert met.met and met.strain == pytest.approx(0.8, rel=0.1)
    assert "meets it" in probe_line(met, PROFILE)
    failed = msgspec.structs.replace(requests[3], failure=Failure.HTTP_STATUS)
    lost = point_of(Step(rate=1.0), [*requests[:3], failed], PROFILE, void=False, settled=False)
    assert (lost.strain, lost.ttft_ms, lost.met) == (None, None, False)
    line = probe_line(lost, PROFILE)
    assert "1 of 4 failed" in line and "not idle" in line and "does not meet it" in line
    median = SloProfile("test", 100.0, 25.0, 0.5)
    assert point_of(Step(rate=1.0), [*requests[:3], failed], median, void=False, settled=True).met


def test_answers_of_one_arrival_have_no_pace_and_do_not_count_against_it() -> None:
    one = small_run().requests[0]
    single = msgspec.structs.replace(one, chunks=one.chunks[:1], output_tokens=1)
    points = [
        point_of(Step(rate=1.0), records, PROFILE, void=False, settled=True)
        for records in ([one, single], [single, single])
    ]
    assert points[0].met
    assert points[1].strain is None  # nothing shows that the cap was kept


def test_recovery_is_judged_on_the_last_half_after_the_overload() -> None:
    schedule, leading = probe_schedule(Step(rate=10.0, overload_rate=40.0), 30, seed=2)
    assert (len(schedule.offsets_ns), leading) == (90, 60)
    assert schedule.offsets_ns[:30] == poisson(40.0, 30, 2)
    gaps = [
        after - before
        for before, after in zip(schedule.offsets_ns[29:], schedule.offsets_ns[30:], strict=False)
    ]
    assert sum(gaps) / 60e9 == pytest.approx(0.1, rel=0.4)
    assert list(schedule.offsets_ns) == sorted(schedule.offsets_ns)
    plain, none = probe_schedule(Step(rate=10.0), 30, seed=2)
    assert (len(plain.offsets_ns), none) == (30, 0)


@pytest.mark.parametrize(
    ("error_ms", "reference_ms", "void"),
    [(1.9, 20.0, False), (2.1, 20.0, True), (2.1, 500.0, False), (11.0, 500.0, True), (50.0, None, False)],
)
def test_a_client_whose_error_cannot_decide_is_good_enough(
    error_ms: float, reference_ms: float | None, void: bool
) -> None:
    calibration = Calibration(
        probes=20,
        null_p50_ms=0.1,
        null_p99_ms=error_ms,
        dispatch_lag_p99_ms=0.1,
        reference_p99_ms=reference_ms,
    )
    assert probe_void(calibration, PROFILE) is void  # whose cap is 100 ms


CAPACITY, SERVICE_S, CAP_MS = 3, 0.030, 90.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Answers three at once, each in 30 ms: 100 a second at most."""
    limits = ["--first-ms", str(SERVICE_S * 1000), "--capacity", str(CAPACITY)]
    with null_server_process(tmp_path_factory.mktemp("null"), more=limits) as process:
        yield process


def waits(rate: float, requests: int, seed: int) -> list[float]:
    """The same queue in virtual time, milliseconds to the first token."""
    free, found = [0.0] * CAPACITY, []
    for due_ns in poisson(rate, requests, seed):
        start = max(due_ns / 1e9, free[0])
        heapq.heapreplace(free, start + SERVICE_S)
        found.append((start + SERVICE_S - due_ns / 1e9) * 1000)
    return found


def theory(share: float, requests: int) -> float:
    """Where probes of so many requests meet the cap half the time."""
    low, high = 10.0, 200.0
    for _ in range(20):
        middle = (low + high) / 2
        met = [percentile_of(waits(middle, requests, seed), share) <= CAP_MS for seed in range(41)]
        low, high = (middle, high) if sum(met) > 20 else (low, middle)
    return low


def test_the_rate_of_a_server_with_a_known_limit(
    server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few_probes: None
) -> None:
    monkeypatch.setattr("sluice_bench.runs.rate_probe.probe_void", lambda calibration, profile: False)
    output = tmp_path / "search.json"
    bounds = ["--low", "40", "--high", "240", "--probes", "5", "--requests", "80"]
    caps = ["--ttft-ms", f"{CAP_MS:g}", "--percentile", "90"]
    result = runner.invoke(app, ["search", "--url", server.url, *bounds, *caps, "--output", str(output)])
    assert result.exit_code == 0, result.output
    found = json.loads(output.read_text())
    assert msgspec.json.decode(output.read_bytes(), type=RateSearch).rate == found["rate"]
    expected = theory(0.9, 80)
    assert 80 < expected < 130  # about the capacity: short probes end before their queue is long
    assert 0.7 * expected < found["rate"] < 1.35 * expected
    assert found["met"] < found["failed"]
    assert len(found["points"]) == 5
    assert result.output.count("meets it") + result.output.count("does not meet it") >= 5
    for point in found["points"]:
        assert point["scheduled"] == 80
        assert point["ttft_ms"] >= SERVICE_S * 1000


def test_named_objectives_are_listed() -> None:
    result = runner.invoke(app, ["search", "--list-slo"])
    assert result.exit_code == 0
    assert "llama-3.1-8b-interactive" in result.output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "either --slo NAME"),
        (["--slo", "llama-3.1-8b-server", "--ttft-ms", "1"], "either --slo NAME"),
        (["--slo", "fast"], "There is no SLO profile 'fast'"),
        (["--ttft-ms", "100", "--high", "1"], "low < high"),
        (["--ttft-ms", "100", "--model", "m"], "cannot be reached"),
    ],
)
def test_wrong_arguments_get_a_sentence(arguments: list[str], sentence: str) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    result = runner.invoke(app, ["search", "--url", url, "--low", "1", "--high", "9", *arguments])
    assert result.exit_code == 1
    assert sentence in result.output
    assert "Traceback" not in result.output
