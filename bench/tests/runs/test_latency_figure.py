"""Figures by name."""

from __future__ import annotations

import msgspec
import pytest

from sluice_bench.records import Failure
from sluice_bench.runs.latency_figure import LatencyFigure

from ..recording.invented_run import small_run


@pytest.mark.parametrize("name", ["ttft-p50", "tpot-p99", "ntpot-mean", "e2e-p95"])
def test_a_name_is_read_and_written(name: str) -> None:
    assert LatencyFigure.parse(name).name == name


@pytest.mark.parametrize("text", ["", "ttft", "p50", "ttft-p51", "joy-p50", "ttft-", "TTFT-p50"])
def test_other_names_are_refused_with_those_there_are(text: str) -> None:
    with pytest.raises(ValueError, match="ttft, tpot, ntpot, e2e"):
        LatencyFigure.parse(text)


def test_a_figure_is_of_complete_requests_that_have_it() -> None:
    requests = small_run().requests
    assert [LatencyFigure.parse("ttft-p50").of(request) is None for request in requests[3:]] == [
        False, True, True,
    ]  # fmt: skip
    assert LatencyFigure.parse("ttft-mean").over(requests) == pytest.approx(0.08)
    failed = msgspec.structs.replace(requests[0], failure=Failure.TRUNCATED)
    assert LatencyFigure.parse("ttft-p50").of(failed) is None
    assert LatencyFigure.parse("ttft-p50").over([failed]) is None
