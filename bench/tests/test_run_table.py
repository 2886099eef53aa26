"""What a terminal says of one run."""

from __future__ import annotations

import pytest

from sluice_bench.calibration import Calibration
from sluice_bench.run_table import calibration_line


@pytest.mark.parametrize(("null_ms", "word"), [(1.0, "valid"), (50.0, "VOID")])
def test_the_verdict_on_the_client_is_in_words(null_ms: float, word: str) -> None:
    calibration = Calibration(
        probes=40, null_p50_ms=0.1, null_p99_ms=null_ms, dispatch_lag_p99_ms=0.1, reference_p99_ms=200.0
    )
    assert word in calibration_line(calibration)
