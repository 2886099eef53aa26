"""What a terminal says of one run."""

from __future__ import annotations

import random

import msgspec
import pytest
from rich.console import Console

from sluice_bench.calibration import Calibration
from sluice_bench.metrics import Objective, summarise
from sluice_bench.recording.run_record import Stopping
from sluice_bench.records import RequestRecord
from sluice_bench.run_table import (
    calibration_line,
    steady_line,
    stopping_line,
    summary_lines,
    summary_table,
    table_note,
)
from sluice_bench.runs.run_estimates import SteadyPart, estimate_run
from sluice_bench.stats.estimate import Estimate
from sluice_bench.stats.warm_up import WarmUp

from .recording.invented_run import streamed


@pytest.mark.parametrize(("null_ms", "word"), [(1.0, "valid"), (50.0, "VOID")])
def test_the_verdict_on_the_client_is_in_words(null_ms: float, word: str) -> None:
    calibration = Calibration(
        probes=40, null_p50_ms=0.1, null_p99_ms=null_ms, dispatch_lag_p99_ms=0.1, reference_p99_ms=200.0
    )
    assert word in calibration_line(calibration)


def plain(prompt: int | None, output: int | None, cached: int | None) -> RequestRecord:
    return RequestRecord(
        index=0,
        stream=False,
        scheduled_ns=0,
        last_token_ns=10**9,
        end_ns=10**9,
        prompt_tokens=prompt,
        output_tokens=output,
        cached_tokens=cached,
    )


def test_unknown_counts_are_called_unknown_with_how_many_answers_told_nothing() -> None:
    silent = [plain(None, None, None), plain(4, 8, None), plain(4, 8, 0)]
    lines = summary_lines(summarise(silent, Objective()))
    assert "unknown output tokens/s over 1.00 s." in lines
    page = "\n".join(lines)
    assert "Prompt tokens: unknown (cached: unknown), output tokens: unknown;" in page
    assert "Answers without usage: 1 of 3." in page
    assert "Answers with usage that do not tell cached tokens: 1 of 3." in lines


def test_fresh_connections_are_counted_with_what_to_do_about_them() -> None:
    warm = msgspec.structs.replace(plain(4, 8, 0), connected_ns=1, reused_connection=True)
    cold = msgspec.structs.replace(warm, reused_connection=False)
    assert "Open connections were used by 100.0% of requests." in summary_lines(
        summarise([warm], Objective())
    )
    [line] = [line for line in summary_lines(summarise([warm, cold], Objective())) if "connections" in line]
    assert "by 50.0% of requests; the handshakes of 1 are" in line and "--warm-connections" in line


def test_answers_of_another_length_are_named() -> None:
    short = msgspec.structs.replace(plain(4, 8, 0), asked_tokens=64)
    page = "\n".join(summary_lines(summarise([short, plain(4, 8, 0)], Objective())))
    assert "Answers shorter than asked: 1 of 2;" in page
    assert "longer than asked" not in page


def test_known_counts_are_shown_a_zero_among_them() -> None:
    lines = summary_lines(summarise([plain(4, 8, 0)], Objective()))
    assert "Prompt tokens: 4 (cached: 0), output tokens: 8; counted by none." in lines
    assert not any("unknown" in line or "without usage" in line for line in lines)


def slow_streams(count: int) -> list[RequestRecord]:
    """TTFT of 80 s and more, to fill the columns."""
    source = random.Random(4)
    records = []
    for index in range(count):
        record = streamed(index, 9, source)
        late = 79_920_000_000 + source.randrange(9_000_000_000)
        chunks = tuple(msgspec.structs.replace(c, arrived_ns=c.arrived_ns + late) for c in record.chunks)
        first, last = chunks[0].arrived_ns, chunks[-1].arrived_ns
        records.append(
            msgspec.structs.replace(
                record, chunks=chunks, first_token_ns=first, last_token_ns=last, end_ns=last
            )
        )
    return records


def page_of(records: list[RequestRecord]) -> str:
    console = Console(width=100, record=True, quiet=False)
    estimates = estimate_run(records, Objective())
    with console.capture() as shown:
        console.print(summary_table(summarise(records, Objective()), estimates))
        console.print(table_note(estimates), soft_wrap=True)
    return shown.get()


def test_the_table_fits_a_hundred_columns_with_intervals_of_long_waits() -> None:
    records = slow_streams(700)
    page = page_of(records)
    assert "…" not in page and "*" not in page
    table = page.partition("Below a percentile")[0]
    assert max(map(len, table.splitlines())) <= 100
    [row] = [line for line in table.splitlines() if "TTFT, user" in line]
    assert len(row.split()) == 9  # metric in two words, then seven figures
    assert table.count("–") >= 4 * 5 and "84.2–85.0 s" in table


def test_percentiles_of_too_few_are_shown_marked_without_a_claim() -> None:
    page = page_of(slow_streams(40))
    [row] = [line for line in page.splitlines() if "TTFT, user" in line]
    assert row.count("*") == 2 and row.count("–") == 1  # p90 and p95 marked, p99 not even shown
    assert "p50 11, p90 64, p95 130, p99 662" in page.replace("\n", " ")


@pytest.mark.parametrize(
    ("warm_up", "words"),
    [
        (WarmUp(0, 40, settled=False), "40 of 50"),
        (WarmUp(100, 200, settled=False), "No steady part"),
        (WarmUp(0, 200, settled=True), "Steady from the first answer"),
        (WarmUp(35, 200, settled=True), "Steady from answer 36 of 200 on"),
    ],
)
def test_where_the_steady_part_begins_is_a_sentence(warm_up: WarmUp, words: str) -> None:
    found = SteadyPart(metric="user TTFT", warm_up=warm_up, last_left_out=34, p50_ms=41.0)
    assert words in steady_line(found)


def test_goodput_has_bounds() -> None:
    page = "\n".join(summary_lines(summarise([plain(4, 8, 0)] * 10, Objective())))
    assert "Goodput: 100.0% (69.2%–100.0%) of scheduled requests" in page


@pytest.mark.parametrize(
    ("reached", "low", "words"),
    [
        (True, 0.039, "Stopped after 300 of 900 requests, ttft-p50 known to 5%: ttft-p50 41.0 ms (39.0–43.0"),
        (False, 0.030, "Not stopped early: ttft-p50 was not known to 5% after 280 answers"),
        (False, None, "after 280 answers: ttft-p50 41.0 ms."),
    ],
)
def test_what_became_of_a_stopping_rule_is_a_sentence(reached: bool, low: float | None, words: str) -> None:
    estimate = Estimate(value=0.041, low=low, high=0.043, n=280)
    stopping = Stopping(rule="ttft-p50:5%", reached=reached, planned=900, estimate=estimate)
    assert words in stopping_line(stopping, 300)
    unknown = msgspec.structs.replace(stopping, estimate=None)
    assert "no request has such a figure" in stopping_line(unknown, 300)
