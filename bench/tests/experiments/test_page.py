"""The page of an experiment: medians, ratios repeat by repeat, and what speaks against them."""

from __future__ import annotations

import msgspec
import pytest

from sluice_bench.experiments.page import render

from .invented_experiment import SOUND, experiment, row

FAST, SLOW = "continuous", "none"


def test_a_table_holds_medians_ranges_and_ratios_within_each_repeat() -> None:
    rows = [row(SLOW, speed, repeat=repeat) for repeat, speed in enumerate((10.0, 20.0, 40.0))]
    rows += [row(FAST, speed, repeat=repeat) for repeat, speed in enumerate((30.0, 60.0, 80.0))]

    page = render(experiment(*rows), "raw.json")

    assert "| none | 20.0 (10.0–40.0) | 1.00? | 2.00? | 20.0 (20.0–20.0) | 1.00 | 2.50 (2.50–2.50) |" in page
    assert "| continuous | 60.0 (30.0–80.0) | 1.00? | 2.00? | 20.0 (20.0–20.0) | 3.00 |" in page
    assert "| 75% | 1 | 0 of 6 |" in page
    assert "All variants made the same number of tokens" in page
    assert "No request failed." in page
    assert "Left out: vllm, because it is not installed." in page


def test_a_percentile_of_enough_requests_has_no_question_mark() -> None:
    waits = [float(i + 1) for i in range(130)]
    page = render(experiment(row(SLOW, 10.0, ttft_ms=waits)), "raw.json")

    assert "| 65.0 | 124 |" in page


def test_the_ratio_of_waits_is_of_their_medians() -> None:
    rows = [row(SLOW, None, ttft_ms=[4.0, 4.0, 9.0]), row(FAST, None, ttft_ms=[5.0, 6.0, 7.0])]
    page = render(experiment(*rows, headline="ttft_ms"), "raw.json")

    assert "TTFT over none" in page
    assert "| continuous | – | 6.00? | 7.00? | 20.0 (20.0–20.0) | 1.50 |" in page


def test_unequal_work_failures_wrong_engines_and_caches_are_said() -> None:
    rows = [
        row(SLOW, 10.0),
        row(FAST, 20.0, output_tokens=99, cached_tokens=7, misrouted=2),
        row(FAST, 20.0, repeat=1, failures=1, first_failure="timeout: late", cached_tokens=None),
    ]
    page = render(experiment(*rows), "raw.json")

    assert "different numbers of tokens: 1 at a time." in page
    assert "1 requests failed, the first of continuous with timeout: late." in page
    assert "2 requests were served by another engine" in page
    assert "from a prefix cache: 7, and 1 runs whose engine does not tell." in page


def test_disturbed_and_void_runs_are_counted() -> None:
    slow_client = msgspec.structs.replace(SOUND, null_p99_ms=5.0)
    rows = [row(SLOW, 10.0, foreign_cores=0.5), row(FAST, 20.0, calibration=slow_client)]
    page = render(experiment(*rows), "raw.json")

    assert "at most 0.50; 1 of 2 runs had more than 0.2" in page
    assert "at most 5.0 ms" in page
    assert "p99 TTFT: 1 of 2 runs;" in page
    assert "| continuous | 20.0 (20.0–20.0) | 1.00? ‡ | 2.00? ‡ |" in page
    assert "| none | 10.0 (10.0–10.0) | 1.00? | 2.00? |" in page


@pytest.mark.parametrize(
    ("given", "sentence"),
    [({"quick": True}, "Its figures mean nothing."), ({"repeats": 1}, "A first look: 1 repeat(s) only.")],
)
def test_a_page_of_little_says_so(given: dict[str, object], sentence: str) -> None:
    assert sentence in render(experiment(row(SLOW, 1.0), **given), "raw.json")


def test_a_load_that_was_not_measured_and_pictures_do_no_harm() -> None:
    page = render(experiment(row(SLOW, 1.0)), "raw.json", [("a.svg", "what it shows")])

    assert "![what it shows](a.svg)" in page
    assert "## 10 at a time" in page
