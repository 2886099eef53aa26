"""What the slots of an A/B ask for, and which figures are taken from their runs."""

from __future__ import annotations

import msgspec
import pytest

from sluice_bench.calibration import Calibration
from sluice_bench.metrics import Objective
from sluice_bench.runs.ab_record import described
from sluice_bench.runs.ab_slots import SlotLoad, Variant, slot_figures, slot_load, slot_void
from sluice_bench.target import Target
from sluice_bench.workload import Asking
from sluice_bench.workloads.corpus import load_corpus

from ..recording.invented_run import run_of, small_run

LOAD = SlotLoad(
    suite="short",
    requests=5,
    concurrency=None,
    rate=10.0,
    objective=Objective(),
    seed=1,
    request_timeout_s=60.0,
    command="sluice-bench ab",
)


def test_a_stretch_is_the_same_each_time_and_shares_no_prompt_with_another() -> None:
    corpus = load_corpus()
    stretches = [slot_load(LOAD, corpus, stretch) for stretch in range(4)]
    assert slot_load(LOAD, corpus, 2) == stretches[2]
    bodies = [str(item.body) for stretch in stretches for item in stretch.workload.items]
    assert len(bodies) == len(set(bodies)) == 20
    digests = {stretch.schedule.sha256 for stretch in stretches if stretch.schedule}
    assert len(digests) == 4


def test_a_closed_loop_has_no_schedule() -> None:
    closed = msgspec.structs.replace(LOAD, rate=None, concurrency=2)
    assert slot_load(closed, load_corpus(), 0).schedule is None


def test_figures_are_those_of_complete_requests_and_goodput_needs_an_objective() -> None:
    run = small_run()
    figures = slot_figures(run, Objective())
    assert figures["ttft-p50"] == figures["ttft-mean"] == pytest.approx(80.0)
    assert figures["tpot-p50"] == pytest.approx(20.0, rel=0.05)
    assert figures["tokens-per-s"] is None  # an answer did not tell
    assert "goodput" not in figures
    assert slot_figures(run, Objective(ttft_ms=100))["goodput"] == run.summary.goodput_share


def test_what_nothing_has_is_unknown() -> None:
    figures = slot_figures(run_of(small_run().requests[4]), Objective())
    assert figures["ttft-p50"] is None
    assert figures["e2e-p50"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("null_p50_ms", "figures", "void"),
    [
        (1.9, {"ttft-p50": 20.0, "e2e-p50": 90.0}, False),
        (2.1, {"ttft-p50": 20.0, "e2e-p50": 90.0}, True),
        (2.1, {"ttft-p50": None, "e2e-p50": 90.0}, False),
        (None, {"ttft-p50": 20.0, "e2e-p50": 90.0}, True),
        (0.5, {"ttft-p50": None, "e2e-p50": None}, False),
    ],
)
def test_a_slot_is_void_by_the_clients_median(
    null_p50_ms: float | None, figures: dict[str, float | None], void: bool
) -> None:
    calibration = Calibration(
        probes=9, null_p50_ms=null_p50_ms, null_p99_ms=9.0, dispatch_lag_p99_ms=9.0, reference_p99_ms=30.0
    )
    assert slot_void(calibration, figures) is void


def test_a_record_keeps_routing_headers_and_no_secret() -> None:
    asking = Asking(model="m", api_key="sk-1", headers=(("X-Quant", "int8"), ("Authorization", "Bearer x")))
    side = described(Variant(target=Target(host="h", port=80), asking=asking))
    assert side.headers == ("X-Quant: int8", "Authorization")
    assert "sk-1" not in str(side) and "Bearer" not in side.words
