from __future__ import annotations

import pytest

from sluice_bench.journeys.capabilities import Choice, Findings
from sluice_bench.journeys.summary import summary_lines
from sluice_bench.journeys.verdict import Limits, Row, checks

LIMITS = Limits(failed_share=0.1, ttft_p95_ms=100.0, e2e_p95_ms=1000.0)
GOOD = [
    Row(kind="ttft", name="chat", count=20, failed=0, times_ms={50: 18, 90: 1, 900: 1}),
    Row(kind="e2e", name="chat", count=20, failed=0, times_ms={500: 20}),
    Row(kind="left", name="cancel", count=5, failed=0, times_ms={7: 5}),
]


def broken(rows, limits=LIMITS, troubles=()):
    return [check.line.partition(":")[0] for check in checks(rows, limits, troubles) if not check.good]


def test_a_run_within_its_limits_is_good():
    assert broken(GOOD) == []


@pytest.mark.parametrize(
    ("rows", "missed"),
    [
        ([], ["failed"]),
        (
            [Row(kind="ttft", name="chat", count=20, failed=0, times_ms={50: 18, 101: 2}), *GOOD[1:]],
            ["TTFT, p95"],
        ),
        ([GOOD[0], Row(kind="e2e", name="chat", count=20, failed=0, times_ms={1100: 20})], ["E2E, p95"]),
        ([*GOOD, Row(kind="e2e", name="tools", count=3, failed=3, times_ms={})], ["failed"]),
        ([Row(kind="e2e", name="chat", count=4, failed=4, times_ms={})], ["failed", "TTFT, p95", "E2E, p95"]),
    ],
)
def test_what_is_missed_is_named(rows, missed):
    assert broken(rows) == missed


def test_the_percentile_is_of_all_journeys_together():
    slow = Row(kind="ttft", name="multi-turn", count=2, failed=0, times_ms={5000: 2})

    assert broken([*GOOD, slow]) == ["TTFT, p95"]
    assert checks([*GOOD, slow], LIMITS, [])[1].line == "TTFT, p95: 5000 ms of 22 requests (at most 100 ms)"


def test_requests_that_were_left_count_as_begun():
    failed = Row(kind="e2e", name="chat", count=2, failed=2, times_ms={})
    left = Row(kind="left", name="cancel", count=18, failed=0, times_ms={7: 18})

    assert checks([failed, left], LIMITS, [])[0].good
    assert checks([failed, left], LIMITS, [])[0].line.startswith("failed: 2 of 20 requests (10.0%")


def test_only_embeddings_have_no_ttft_and_need_none():
    assert broken([Row(kind="e2e", name="embeddings", count=9, failed=0, times_ms={3: 9})]) == []


def test_only_clients_that_leave_need_no_times():
    assert broken([GOOD[2]]) == []


def test_troubles_of_the_tool_itself_are_never_good():
    assert broken(GOOD, troubles=["Locust used too much CPU"]) == ["Locust used too much CPU"]


def test_the_summary_hides_nothing():
    findings = Findings(
        model="small",
        choices=(Choice(header="X-Backend", value="gpu", model="small"),),
        absent=("X-Quant: awq",),
        missing={"tools": "No engine has 'tools'. (status 400)"},
    )
    asked = ["chat", "tools", "toggle"]
    lines = "\n".join(summary_lines("http://h:1", findings, asked, GOOD, checks(GOOD, LIMITS, ["broke"])))

    for part in (
        "http://h:1, model small",
        "chat         20 requests",
        "tools        SKIPPED, needs tools: No engine has 'tools'. (status 400)",
        "toggle       NOT REACHED",
        "X-Backend: gpu",
        "X-Quant: awq",
        "ok     TTFT, p95: 90 ms of 20 requests (at most 100 ms)",
        "MISSED broke",
    ):
        assert part in lines
