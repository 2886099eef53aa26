"""One row a request; what is unknown is empty."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import msgspec
import pytest

from sluice_bench import metrics
from sluice_bench.recording.run_record import recorded
from sluice_bench.reports.csv_table import COLUMNS, csv_text

from ..recording.invented_run import never_sent, plain_without_usage, run_of, small_run
from .invented_runs import closed_run


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_row_has_the_requests_own_figures() -> None:
    run = closed_run(3, 12)
    rows = rows_of(csv_text([("name", run)]))
    assert len(rows) == 12
    for row, record in zip(rows, run.requests, strict=True):
        assert (row["run"], row["index"], row["stream"]) == ("name", str(record.index), "true")
        assert float(row["ttft_user_ms"]) == (metrics.ttft_user_s(record) or 0) * 1000
        assert float(row["first_token_s"]) == pytest.approx(
            float(row["scheduled_s"]) + float(row["ttft_user_ms"]) / 1000
        )
        first, last = record.first_token_ns, record.last_token_ns
        assert first is not None and last is not None and record.output_tokens is not None
        assert float(row["tokens_per_s"]) == pytest.approx(
            (record.output_tokens - 1) / ((last - first) / 1e9)
        )
    assert rows[0]["scheduled_s"] == "0.0"


def test_unknown_is_empty_and_zero_is_zero() -> None:
    rows = rows_of(csv_text([("x", small_run())]))
    told, plain, unsent = rows[0], rows[4], rows[5]
    assert (told["cached_tokens"], told["finish_reason"]) == ("0", "length")
    empty = ("prompt_tokens", "output_tokens", "cached_tokens", "ttft_user_ms", "tpot_ms", "tokens_per_s")
    assert [plain[name] for name in empty] == [""] * len(empty)
    assert (unsent["failure"], unsent["dispatched_s"], unsent["e2e_ms"]) == ("not_sent", "", "")
    assert [row["good"] for row in rows] == ["true"] * 4 + ["false"] * 2  # an objective for TTFT


def test_without_an_objective_nothing_is_good_or_bad() -> None:
    run = small_run()
    meta = msgspec.structs.replace(run.meta, objective=metrics.Objective())
    assert {row["good"] for row in rows_of(csv_text([("x", recorded(meta, run.requests))]))} == {""}


@pytest.mark.parametrize("message", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1"])
def test_a_servers_text_is_no_formula(message: str) -> None:
    record = msgspec.structs.replace(never_sent(0), message=message)
    run = run_of(record, plain_without_usage(1))
    [row, _] = rows_of(csv_text([("x", run)]))
    assert row["message"] == "'" + message


def test_text_with_commas_quotes_and_lines_survives() -> None:
    message = 'a, "b"\nc'
    run = run_of(msgspec.structs.replace(never_sent(0), message=message), plain_without_usage(1))
    assert rows_of(csv_text([("x", run)]))[0]["message"] == message


def test_the_docs_name_every_column() -> None:
    page = (Path(__file__).parents[3] / "docs" / "bench.md").read_text()
    assert [name for name in ("run", *COLUMNS) if f"`{name}`" not in page] == []


@pytest.mark.parametrize(
    ("tokens", "choices", "expected"), [(5, 1, 4 / 2.0), (1, 1, None), (None, 1, None), (5, 2, None)]
)
def test_tokens_per_second_of_one_stream(tokens: int | None, choices: int, expected: float | None) -> None:
    record = msgspec.structs.replace(
        closed_run(1, 1).requests[0],
        first_token_ns=1_000_000_000,
        last_token_ns=3_000_000_000,
        output_tokens=tokens,
        n_choices=choices,
    )
    assert metrics.stream_tokens_per_s(record) == expected
    at_once = msgspec.structs.replace(record, last_token_ns=1_000_000_000)
    assert metrics.stream_tokens_per_s(at_once) is None
