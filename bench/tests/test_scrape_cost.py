"""What watching a fleet costs: measured for real, in small, and told without making it up."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sluice_bench.environment import describe
from sluice_bench.idle_engines import metrics_page
from sluice_bench.scrape_cost import (
    QUICK_SCRAPE,
    ScrapeCost,
    ScrapeLoad,
    ScrapeRow,
    measure_scrape_cost,
    number_of_steps,
)
from sluice_bench.scrape_cost_report import ScrapeReport, figures, render


def row(watching: str, repeat: int, cores: float, pages: int) -> ScrapeRow:
    return ScrapeRow(
        watching=watching,  # type: ignore[arg-type]
        repeat=repeat,
        wall_s=10.0,
        cpu_s=cores * 10.0,
        pages=pages,
        probes=1000,
        foreign_cores=0.0,
    )


def cost(**changes: object) -> ScrapeCost:
    values = {
        "load": ScrapeLoad(),
        "page_bytes": 50_000,
        "rows": [row("load", 0, 0.12, 5000), row("health", 0, 0.02, 0)],
        "parse_us": [50.0],
        "prometheus_us": [9000.0],
        "compiled": True,
        **changes,
    }
    return ScrapeCost(**values)  # type: ignore[arg-type]


def test_the_page_is_one_of_prometheus_and_as_large_as_a_real_one() -> None:
    page = metrics_page().replace("@", "000001")

    names = {family.name for family in text_string_to_metric_families(page)}
    assert {"vllm:num_requests_running", "vllm:time_to_first_token_seconds"} <= names
    assert len(page) > 30_000


def test_a_page_costs_the_difference_of_the_two_settings_over_the_pages_read() -> None:
    assert cost().page_us() == [pytest.approx((0.12 - 0.02) * 10 / 5000 * 1e6)]


def test_pairs_are_of_the_same_repeat() -> None:
    rows = [
        row("load", 0, 0.1, 1000),
        row("health", 0, 0.0, 0),
        row("load", 1, 0.3, 1000),
        row("health", 1, 0.1, 0),
    ]

    assert cost(rows=rows).page_us() == [pytest.approx(1000.0), pytest.approx(2000.0)]


def test_figures_are_held_against_their_bars() -> None:
    good = [met for *_, met in figures(cost())]
    bad = [met for *_, met in figures(cost(rows=[row("load", 0, 0.16, 5000)], parse_us=[80.0]))]

    assert (good, bad) == ([True, True], [False, False])


def test_the_parsing_bar_is_for_forty_kilobytes_whatever_the_page() -> None:
    assert figures(cost(page_bytes=80_000, parse_us=[100.0]))[1][2] == "50.0 µs"


def test_a_small_fleet_is_watched_and_reported(tmp_path: Path) -> None:
    steps: list[str] = []

    measured = measure_scrape_cost(QUICK_SCRAPE, tmp_path, steps.append)

    loaded, bare = measured.rows
    assert (loaded.watching, bare.watching) == ("load", "health")
    assert loaded.pages > bare.pages == 0
    assert loaded.probes > 0
    assert loaded.cpu_s > 0
    assert min(measured.prometheus_us) > min(measured.parse_us) > 0
    assert len(steps) == number_of_steps(QUICK_SCRAPE)
    report = ScrapeReport(
        command="sluice-bench scrape-cost --quick", measured_at="now", environment=describe(), cost=measured
    )
    assert "| load | 1 |" in render(report)
