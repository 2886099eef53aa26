"""The three runs in bench/data/runs: every figure derived again, bit for bit, wherever the tests run.

The digests below are of the figures as they were first derived, on x86-64. Whoever derives them on another
processor and gets other bits is told which figures differ; equal digests are the proof that none does.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from sluice_bench.metrics import stall_s
from sluice_bench.recording.digest import sha256
from sluice_bench.recording.run_file import read_run
from sluice_bench.recording.run_record import RunRecord
from sluice_bench.recording.verification import complaints, number_of_figures

RUNS = Path(__file__).parents[2] / "data" / "runs"
FIGURES_SHA256 = {
    "closed-streams": "0ff6d4e66fcf25966d28608c991935c9cbad6a6e1ac378f6a87e23daae93a058",
    "open-stall": "16e2badb485f487d541b42ab48308542b161d1b6821df183a3d8784cc6f16d03",
    "plain": "580b0603ff71ef3e2363906ca30a9c40b158e3dde92a8419b9be389354a2ec4d",
}
RECORDS_SHA256 = {
    "closed-streams": "6005cf85f0d67c2689541eac7c70fc8da300fe0930ae6cbd1e4f63d28f28d654",
    "open-stall": "469fe42f49851ddfa3c75afca22f89991ee4199945b485de106c48ee5002272c",
    "plain": "f27dcc81049696bbecf4c2982e7e6f70dce2aa9fa8be16f97df45346772ac101",
}
"""Of the requests: what the figures are derived from."""


def committed(name: str) -> RunRecord:
    return read_run(RUNS / f"{name}.parquet")


def test_there_is_a_digest_for_each_committed_run() -> None:
    assert {path.stem for path in RUNS.glob("*.parquet")} == set(FIGURES_SHA256)
    assert all(path.stat().st_size < 100_000 for path in RUNS.glob("*.parquet"))


@pytest.mark.parametrize("name", FIGURES_SHA256)
def test_every_figure_is_derived_again_bit_for_bit(name: str) -> None:
    run = committed(name)

    assert complaints(run) == []
    assert sha256(run.figures) == run.meta.figures_sha256 == FIGURES_SHA256[name]
    assert run.meta.records_sha256 == RECORDS_SHA256[name]
    assert number_of_figures(run) > 40


def test_the_streams_have_all_that_streams_have() -> None:
    run = committed("closed-streams")

    assert run.meta.load.loop == "closed"
    assert all(len(record.chunks) == 24 for record in run.requests)
    assert run.summary.tbt_ms is not None and run.summary.steady is not None


def test_the_open_loop_has_failures_and_a_stall() -> None:
    run = committed("open-stall")

    assert run.meta.load.loop == "open"
    assert run.summary.failures["timeout"] > 0
    stalls = [stall for record in run.requests if (stall := stall_s(record)) is not None]
    assert max(stalls) > 0.4


def test_the_plain_answers_have_no_first_token() -> None:
    run = committed("plain")

    assert run.summary.ttft_user_ms is None
    assert run.summary.e2e_ms is not None
