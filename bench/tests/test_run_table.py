"""What a terminal says of one run."""

from __future__ import annotations

import msgspec
import pytest

from sluice_bench.calibration import Calibration
from sluice_bench.metrics import Objective, summarise
from sluice_bench.records import RequestRecord
from sluice_bench.run_table import calibration_line, summary_lines


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
