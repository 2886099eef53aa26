"""What a report shows is what the run's summary and the statistics say, to the last bit."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import pytest

from sluice_bench import metrics
from sluice_bench.engine_load import LoadSample
from sluice_bench.recording.run_record import RunRecord
from sluice_bench.records import Chunk
from sluice_bench.reports import sections
from sluice_bench.reports.cost import (
    BadPrices,
    Price,
    cost_of,
    price_named,
    read_prices,
    usd_per_million,
)
from sluice_bench.reports.distributions import MOST_POINTS, cumulative
from sluice_bench.reports.frontier import (
    BadQualityFile,
    frontier_section,
    pareto,
    read_quality,
)
from sluice_bench.reports.lanes import MOST_LANES, lanes_picture, sampled
from sluice_bench.reports.latency_curves import curve_pictures
from sluice_bench.reports.page import NOTHING, interval, known
from sluice_bench.reports.run_figures import E2E, METRICS, TTFT, RunFigures, figures_of
from sluice_bench.reports.scene import Line
from sluice_bench.reports.timeline_plot import MOST_WINDOWS, moments_of, run_windows, timeline_picture
from sluice_bench.stats.estimate import Estimate
from sluice_bench.stats.intervals import percentile_interval

from ..recording.invented_run import MS, START_NS, never_sent, plain_without_usage, run_of
from .invented_runs import closed_run


def only(**settings: object) -> RunFigures:
    [found] = figures_of([("run", closed_run(**settings))])  # type: ignore[arg-type]
    return found


def test_percentiles_are_the_summarys_and_bounds_those_of_the_statistics() -> None:
    run = only(users=4, requests=700)
    for metric in METRICS:
        distribution = metric.found(run.summary)
        assert distribution is not None
        for share in (0.5, 0.9, 0.95, 0.99):
            estimate = run.percentile(metric, share)
            assert estimate is not None
            assert repr(estimate.value) == repr(getattr(distribution, f"p{share * 100:.0f}"))
            assert estimate == percentile_interval(run.values_ms(metric), share)
            assert estimate.claimed


def test_what_the_summary_does_not_give_the_report_does_not_either() -> None:
    run = only(requests=40)
    assert run.summary.ttft_user_ms is not None and run.summary.ttft_user_ms.p99 is None
    assert run.percentile(TTFT, 0.99) is None
    below = run.percentile(TTFT, 0.95)
    assert below is not None and not below.claimed
    assert "no interval" in interval(below)


def test_throughput_is_the_summarys_with_bounds_once_there_are_ten_seconds() -> None:
    short, long = only(requests=10), only(requests=200)
    for run in (short, long):
        assert run.throughput is not None and run.summary.whole is not None
        assert run.throughput.value == run.summary.whole.tokens_per_s
    assert short.throughput is not None and not short.throughput.claimed
    found = long.throughput
    assert found is not None and found.low is not None and found.high is not None
    assert found.low <= found.value <= found.high


def test_a_run_of_which_little_is_known_is_shown_as_such() -> None:
    runs = figures_of([("x", run_of(plain_without_usage(0), never_sent(1)))])
    table = sections.summary_table(runs)
    cells = {row[0]: row[1] for row in table.rows}
    assert cells["output tokens"] == "unknown" and cells["output tokens/s, whole run"] == "unknown"
    assert cells["output tokens/s, most in a second"] == NOTHING
    assert cells["requests complete"] == "1 of 2"
    assert known(0) == "0.00" and known(None) == "unknown"
    assert sections.page_of(sections.Findings(runs=runs)).sections


def test_runs_that_asked_something_else_are_told_apart_from_longer_ones() -> None:
    def asked(count: int, **changes: object) -> RunRecord:
        run = closed_run(1, count)
        return msgspec.structs.replace(run, meta=msgspec.structs.replace(run.meta, **changes))

    def same(*runs: RunRecord) -> bool:
        return sections.asked_the_same(figures_of([(str(place), run) for place, run in enumerate(runs)]))

    base = asked(10, workload_sha256="a")
    assert same(base, asked(20, workload_sha256="b"), asked(10, workload_sha256="a"))
    assert not same(base, asked(10, workload_sha256="c"))
    assert not same(base, asked(20, workload="long", workload_sha256="b"))
    seeded = msgspec.structs.replace(base.meta.load, seed=7)
    assert not same(base, asked(10, workload_sha256="a", load=seeded))


def test_runs_have_names_that_differ() -> None:
    labels = [
        run.label for run in figures_of([("a", closed_run(2)), ("b", closed_run(2)), ("c", closed_run(3))])
    ]
    assert labels == ["test, 2 users (a)", "test, 2 users (b)", "test, 3 users"]


def test_the_drawn_distribution_is_the_whole_one_thinned() -> None:
    values = [((number * 7919) % 5_000) / 7 for number in range(5_000)]
    points = cumulative(values)
    assert len(points) <= 2 * MOST_POINTS + 1
    assert (points[0].x, points[-1].x, points[-1].y) == (min(values), max(values), 1.0)
    for point in points[2::2]:
        assert point.y == sum(value <= point.x for value in values) / len(values)
    assert [point.y for point in cumulative([3.0, 1.0])] == [0.0, 0.0, 0.5, 0.5, 1.0]


def test_a_timeline_adds_up_and_marks_its_partial_end() -> None:
    run = only(users=3, requests=120)
    windows = run_windows(run)
    assert 1 < len(windows) <= MOST_WINDOWS and windows[-1].partial
    assert sum(window.count or 0 for window in windows) == run.summary.output_tokens
    moments = moments_of(run, windows)
    seconds = sum(
        ((record.end_ns or 0) - (record.dispatched_ns or 0)) * metrics.NS for record in run.run.requests
    )
    assert sum(moment.in_flight * (moment.end_s - moment.start_s) for moment in moments) == pytest.approx(
        seconds
    )
    assert max(moment.in_flight for moment in moments) <= 3
    picture = timeline_picture(run)
    assert picture is not None
    assert "(partial)" in picture.table.rows[-1][0] and "partial" in picture.notes[0]
    rates = [moment.tokens_per_s or 0 for moment in moments[:-1]]
    assert f"{max(rates):.0f} at most" in picture.notes[0].replace(",", "")


def test_a_line_of_a_timeline_is_broken_where_nothing_is_known() -> None:
    """Two requests with seconds between them: no TTFT there, and no line either."""
    first, second = closed_run(1, 2).requests
    later = {
        field: (getattr(second, field) or 0) + 20_000_000_000
        for field in ("scheduled_ns", "dispatched_ns", "first_token_ns", "last_token_ns", "end_ns")
    }
    chunks = tuple(Chunk(chunk.arrived_ns + 20_000_000_000, 1, 1) for chunk in second.chunks)
    run = run_of(first, msgspec.structs.replace(second, **later, chunks=chunks))
    picture = timeline_picture(figures_of([("x", run)])[0])
    assert picture is not None
    lines = [shape for shape in picture.wide.shapes if isinstance(shape, Line) and shape.ink == "series1"]
    assert len(lines) == 1 + 1 + 2  # in flight, tokens/s, and TTFT in two pieces
    assert all("–" in row[0] for row in picture.table.rows)
    assert NOTHING in {row[-1] for row in picture.table.rows}


def test_what_the_engine_said_of_its_load_stands_in_the_timeline() -> None:
    run = closed_run(3, 120)
    samples = (
        LoadSample(START_NS - 1, 9.0, 9.0, 0.9),  # before the run
        LoadSample(START_NS + 500 * MS, 2.0, 1.0, None),
        LoadSample(START_NS + 1_500 * MS, 3.0, None, None),
    )
    server = msgspec.structs.replace(run.meta.server, samples=samples)
    sampled = msgspec.structs.replace(run, meta=msgspec.structs.replace(run.meta, server=server))
    picture = timeline_picture(figures_of([("x", sampled)])[0])
    assert picture is not None
    told = [row[4:] for row in picture.table.rows if row[4] != NOTHING]
    assert told == [("2.00", "1.00", NOTHING), ("3.00", NOTHING, NOTHING)]
    texts = {getattr(shape, "text", "") for shape in picture.wide.shapes}
    assert {"by the client", "running, by the engine", "waiting, by the engine"} <= texts
    assert "KV cache used, by the engine" not in texts  # it said nothing of it
    silent = timeline_picture(figures_of([("x", run)])[0])
    assert silent is not None and len(silent.table.columns) == 4


def test_lanes_of_a_long_run_are_some_of_it_evenly() -> None:
    run = only(users=5, requests=500)
    chosen = sampled(run.requests)
    assert [record.index for record in chosen] == list(range(0, 500, 500 // MOST_LANES))
    picture = lanes_picture(run)
    assert picture is not None and picture.notes[0].startswith(f"{MOST_LANES} of 500")
    few = lanes_picture(only(requests=8))
    assert few is not None and few.notes == () and len(few.table.rows) == 8


def test_failed_lanes_are_marked_in_words() -> None:
    picture = lanes_picture(only(requests=8, failing=2))
    assert picture is not None
    assert any(getattr(shape, "text", "") == "✕ timeout" for shape in picture.wide.shapes)
    assert [row[-1] for row in picture.table.rows].count("timeout") == 1


def test_curves_need_two_loads_and_keep_the_loops_apart() -> None:
    one = figures_of([("a", closed_run(2, 130))])
    assert curve_pictures(one) == ()
    pictures = curve_pictures(
        figures_of([("a", closed_run(2, 130)), ("b", closed_run(8, 130)), ("c", closed_run(4, 130))])
    )
    assert [picture.name for picture in pictures] == [
        "load-ttft-closed",
        "load-tpot-closed",
        "load-throughput-closed",
        "latency-throughput-closed",
    ]
    assert [row[1] for row in pictures[0].table.rows] == ["2", "4", "8"]


def test_curves_are_named_by_what_differs() -> None:
    runs = figures_of(
        [
            (f"{model}-{variant}-{users}", closed_run(users, 60, variant=variant, model=model))
            for model, variant in (("m", "int4"), ("n", "int4"), ("n", ""))
            for users in (2, 4)
        ]
    )
    texts = [getattr(shape, "text", "") for shape in curve_pictures(runs)[2].wide.shapes]
    assert {"int4, m", "int4, n", "n"} <= set(texts)


# --- cost -------------------------------------------------------------------------------------------------


def test_cost_is_price_over_tokens() -> None:
    assert usd_per_million(3.6, 1000.0) == pytest.approx(1.0)
    assert usd_per_million(3.6, 1000.0, utilisation=0.5) == pytest.approx(2.0)


def test_however_it_is_split_the_hour_costs_what_it_costs() -> None:
    run = only(users=4, requests=300)
    cost = cost_of(run, Price(hardware="h", usd_per_hour=5.0))
    prompt, output = run.summary.prompt_tokens, run.summary.output_tokens
    assert cost is not None and prompt and output and run.summary.whole is not None
    paid = 5.0 * run.summary.whole.seconds / 3600 * 1e6
    assert cost.output_bears_all.value * output == pytest.approx(paid)
    assert cost.all_alike is not None and cost.prompt is not None and cost.output is not None
    assert cost.all_alike * (prompt + output) == pytest.approx(paid)
    assert cost.prompt * prompt + cost.output * output == pytest.approx(paid)
    bounds = cost.output_bears_all
    assert bounds.low is not None and bounds.high is not None
    assert bounds.low <= bounds.value <= bounds.high


def test_cost_of_unknown_tokens_is_unknown() -> None:
    [run] = figures_of([("x", run_of(plain_without_usage(0)))])
    assert cost_of(run, Price(hardware="h", usd_per_hour=5.0)) is None


def test_prices_have_a_source_and_a_day(tmp_path: Path) -> None:
    prices = read_prices()
    assert len(prices) >= 5
    for price in prices.values():
        assert price.source and price.what and price.usd_per_hour > 0
        assert price.as_of.count("-") == 2
    assert price_named("h100-sxm", prices).usd_per_hour == prices["h100-sxm"].usd_per_hour
    assert price_named("2.5", prices).usd_per_hour == 2.5
    own = tmp_path / "prices.json"
    own.write_text('[{"hardware": "mine", "usd_per_hour": 1.5}]')
    assert price_named("mine", read_prices(own)).usd_per_hour == 1.5


@pytest.mark.parametrize("text", ["h1000", "-1", "0", "nan", "inf", ""])
def test_what_is_no_price_is_refused_with_what_there_is(text: str) -> None:
    with pytest.raises(BadPrices, match="h100-sxm"):
        price_named(text, read_prices())


# --- frontier ---------------------------------------------------------------------------------------------


def test_the_frontier_has_those_whom_nobody_beats() -> None:
    points = [(1.0, 9.0), (2.0, 5.0), (3.0, 6.0), (2.5, 5.0), (2.5, 5.0)]
    assert pareto(points, more_is_better=False) == [3, 4, 2]
    assert pareto(points, more_is_better=True) == [0, 2]


def quality_file(path: Path) -> Path:
    def estimate(value: float) -> dict[str, float]:
        return {"value": value, "low": value * 0.9, "high": value * 1.1, "n": 64}

    record = {
        "schema": 1,
        "backend": {"variant": "int4", "model": "m", "url": "u", "perplexity": estimate(9.0)},
        "reference": {"variant": "bf16", "model": "m", "url": "u", "perplexity": estimate(8.0)},
        "divergence": {"kl_lower_bound": estimate(0.02), "remainder": 0.1},
        "agreement": {"same_answers": estimate(0.7), "common_share": estimate(0.9), "bleu": estimate(80)},
    }
    path.write_bytes(msgspec.json.encode(record))
    return path


def test_quality_stands_beside_the_speed_of_its_variant(tmp_path: Path) -> None:
    found = read_quality(quality_file(tmp_path / "q.json"))
    runs = figures_of([("a", closed_run(4, 300, variant="int4")), ("b", closed_run(2, 300, variant="bf16"))])
    section = frontier_section(runs, found)
    assert [picture.name for picture in section.pictures] == [
        "frontier-perplexity",
        "frontier-kl",
        "frontier-greedy",
        "frontier-same-answers",
    ]
    rows = section.pictures[0].table.rows
    assert [row[0] for row in rows] == ["int4, 4 users", "bf16, 2 users"]
    assert [row[2] for row in rows] == ["9.0 (8.1–9.9)", "8.0 (7.2–8.8)"]
    assert [row[3] for row in rows] == ["yes", "yes"]
    assert section.pictures[1].table.rows[1][2].startswith("0.00")
    assert section.closing == ()


def test_quality_without_a_run_is_named(tmp_path: Path) -> None:
    found = read_quality(quality_file(tmp_path / "q.json"))
    section = frontier_section(figures_of([("a", closed_run(4, 300, variant="int4"))]), found)
    assert section.closing == ("No run for the quality of bf16: give the run the same --variant.",)


@pytest.mark.parametrize("content", [b"[", b"{}", b'{"backend": {"perplexity": 3}}'])
def test_what_is_no_quality_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "q.json"
    path.write_bytes(content)
    with pytest.raises(BadQualityFile, match=r"q\.json is not what"):
        read_quality(path)


def test_values_and_estimates_agree_on_what_is_counted() -> None:
    run = only(requests=60, failing=3)
    assert len(run.values_ms(E2E)) == run.summary.complete == 59
    assert interval(Estimate(value=math.pi, low=3.0, high=3.5, n=9)) == "3.14 (3.00–3.50)"
