"""From rows of the gateway bench to figures, verdicts and the page."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from sluice_bench.figure import figures_section
from sluice_bench.gateway_bench import BenchSettings, GatewayBench, LaneName, LaneResult, number_of_steps
from sluice_bench.gateway_figures import Figure, added_delays_ms, client_bound, figures
from sluice_bench.gateway_overhead import Kind, OverheadRow
from sluice_bench.gateway_report import figures_table, render_gateway
from sluice_bench.gateway_rows import LatencyRow, MemoryRow, StreamsRow
from sluice_bench.gateway_targets import Missing

from .invented_machine import TEST_MACHINE

SETTINGS = BenchSettings(command="sluice-bench gateway", peers_folder=Path("peers"))


def cost(
    target: str, us: float, *, kind: Kind = "plain", busy: float = 1.0, repeat: int = 0, foreign: float = 0.0
) -> OverheadRow:
    """A second of work at `us` per request on `busy` cores."""
    return OverheadRow(
        target=target,
        kind=kind,
        repeat=repeat,
        requests=10,
        failures=0,
        units=round(busy * 1e6 / us),
        reads=10,
        server_cpu_us_per_unit=us,
        client_cpu_us_per_unit=5.0,
        server_resident_mib=50.0,
        wall_s=1.0,
        e2e_p50_ms=1.0,
        foreign_cores=foreign,
    )


def streams(target: str, p99_ms: float, repeat: int = 0, failures: int = 0, chunks: int = 100) -> StreamsRow:
    return StreamsRow(
        target=target,
        repeat=repeat,
        streams=2000,
        chunks_per_s=10,
        failures=failures,
        first_failure="status 503: b'busy | full'" if failures else "",
        chunks=chunks,
        delay_p50_ms=1.0,
        delay_p99_ms=p99_ms,
        delay_max_ms=20.0,
        sent_delay_p99_ms=1.0,
        server_cpu_us_per_chunk=20.0,
        server_cores=0.4,
        client_cores=0.3,
        server_resident_mb=90.0,
        foreign_cores=0.0,
    )


def latency(target: str, p50_us: float, p99_us: float) -> LatencyRow:
    return LatencyRow(
        target=target,
        repeat=0,
        rounds=100,
        failures=0,
        p50_us=p50_us + 80,
        p99_us=p99_us + 90,
        direct_p50_us=80,
        direct_p99_us=100,
        added_p50_us=p50_us,
        added_p99_us=p99_us,
        foreign_cores=0.0,
    )


def lane(rows: list, missing: list[Missing] | None = None) -> LaneResult:  # type: ignore[type-arg]
    return LaneResult(
        measured_at="2026-01-01T00:00+00:00",
        commit="abc1234",
        seconds=10.0,
        rows=rows,
        missing=missing or [],
    )


def bench(**lanes: LaneResult) -> GatewayBench:  # type: ignore[type-arg]
    return GatewayBench(
        command="sluice-bench gateway",
        quick=False,
        environment=TEST_MACHINE,
        plan=SETTINGS.plan,
        pinned=True,
        foreign_before=0.0,
        **lanes,
    )


def figure(result: GatewayBench, words: str) -> Figure:
    (found,) = (each for each in figures(result) if words in each.name)
    return found


@pytest.mark.parametrize(("us", "verdict"), [(80.0, "aim"), (120.0, "bar"), (121.0, "no")])
def test_a_cost_is_held_against_bar_and_aim(us: float, verdict: str) -> None:
    rows = [cost("sluice", us + delta, repeat=index) for index, delta in enumerate((-5, 0, 50))]
    found = figure(bench(plain=lane(rows)), "plain request, one")
    assert (found.value, found.verdict) == (us, verdict)
    assert found.spread == (us - 5, us + 50)


def test_the_cost_of_an_event_says_how_alone_it_travelled() -> None:
    row = msgspec.structs.replace(cost("sluice", 20.0, kind="stream"), units=150, reads=100)
    assert figure(bench(stream=lane([row])), "relayed alone").note == "1.50 events per read"


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    assert {each.verdict for each in figures(bench())} == {"not measured"}
    assert figures_table(bench()).row_count == 0


def test_two_busy_cores_are_compared_by_the_clock() -> None:
    rows = [cost("sluice", 100.0, busy=0.95), cost("litellm", 10_000.0, busy=1.0)]
    found = figure(bench(throughput=lane(rows)), "requests/s per core ÷ LiteLLM")
    assert found.note == "by the clock"
    assert found.value == pytest.approx(95.0)
    assert found.verdict == "aim"


def test_one_gateway_that_was_held_back_has_both_compared_by_cpu_time() -> None:
    """Its throughput by the clock would be the client's."""
    rows = [cost("sluice", 100.0, busy=1.0), cost("sglang-router", 50.0, busy=0.5)]
    found = figure(bench(throughput=lane(rows)), "sglang")
    assert found.note == "per second of server CPU"
    assert found.value == pytest.approx(0.5)
    assert found.verdict == "bar"


def test_a_throughput_near_the_ceiling_is_the_clients() -> None:
    direct = [cost("direct", 50.0)]
    assert client_bound([cost("sluice", 55.0)], direct)
    assert not client_bound([cost("sluice", 60.0)], direct)
    page = render_gateway(bench(throughput=lane([*direct, cost("sluice", 55.0)])), "gateway.json")
    assert "clock, client-bound (≥ 90% of the ceiling)" in page


def test_added_delay_pairs_the_repeats_and_leaves_out_those_that_never_ran_all_at_once() -> None:
    ours = [streams("sluice", 5.0, 0), streams("sluice", 9.0, 1), streams("sluice", 0.0, 2, chunks=0)]
    direct = [streams("direct", 2.0, 0), streams("direct", 3.0, 1), streams("direct", 3.0, 2)]
    assert added_delays_ms(ours, direct) == [3.0, 6.0]


def test_one_failed_stream_misses_the_bar() -> None:
    rows = [streams("direct", 1.0), streams("sluice", 2.0), streams("sluice", 2.0, 1, failures=1)]
    found = figure(bench(streams=lane(rows)), "2,000 streams at 10 chunks/s each: failed")
    assert (found.value, found.verdict) == (1.0, "no")
    page = render_gateway(bench(streams=lane(rows)), "gateway.json")
    assert "First failure on sluice: `status 503: b'busy / full'`." in page


def test_latency_and_memory_have_their_figures() -> None:
    memory = MemoryRow(
        target="sluice",
        idle_process_mb=40.0,
        loaded_process_mb=48.0,
        idle_tree_mb=40.0,
        loaded_tree_mb=60.0,
        requests=10,
        failures=0,
        foreign_cores=0.0,
    )
    result = bench(latency=lane([latency("sluice", 140.0, 520.0)]), memory=lane([memory]))
    assert figure(result, "concurrency 1, p50").verdict == "aim"
    assert figure(result, "concurrency 1, p99").verdict == "no"
    assert figure(result, "RSS").value == 48.0


def test_a_missing_peer_has_a_row_with_its_reason() -> None:
    rows = [cost("direct", 10.0), cost("sluice", 90.0)]
    page = render_gateway(
        bench(plain=lane(rows, [Missing("vllm-router", "no wheel | here")])), "gateway.json"
    )
    assert "| vllm-router 0.1.17 | not measured: no wheel / here |" in page


def test_a_lane_that_failed_says_why() -> None:
    result = msgspec.structs.replace(bench(), failed={"plain": "sluice: did not start"})
    assert "Lane `plain` could not be measured: sluice: did not start" in render_gateway(
        result, "gateway.json"
    )


def test_disturbed_figures_are_marked() -> None:
    rows = [cost("sluice", 100.0, repeat=index, foreign=0.5) for index in range(3)]
    page = render_gateway(bench(plain=lane(rows)), "gateway.json")
    assert "100 µs (100–100) † |" in page
    assert "3 of 3 repeats had more than 0.2" in page


def test_a_machine_that_was_not_quiet_is_named() -> None:
    loaded = msgspec.structs.replace(bench(), foreign_before=1.5)
    assert "not quiet: others kept 1.50 cores busy" in render_gateway(loaded, "gateway.json")
    assert "not quiet" not in render_gateway(bench(), "gateway.json")


def test_raw_rows_survive_a_round_trip() -> None:
    result = bench(plain=lane([cost("sluice", 90.0)]), streams=lane([streams("sluice", 2.0)]))
    assert msgspec.json.decode(msgspec.json.encode(result), type=GatewayBench) == result


def test_a_part_has_fewer_steps_than_the_whole() -> None:
    parts = [number_of_steps(msgspec.structs.replace(SETTINGS, lanes=(lane,))) for lane in LaneName]
    installs = 3
    assert number_of_steps(SETTINGS) == sum(part - installs for part in parts) + installs


def test_a_figure_without_bar_and_aim_is_not_judged() -> None:
    plain = Figure(name="warm start", unit="s", bar=None, aim=None, value=1.6)
    assert plain.verdict == "no bar"
    assert "no**" not in figures_section([plain])
