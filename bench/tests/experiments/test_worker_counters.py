"""The worker's counters around a load, as figures."""

from __future__ import annotations

import pytest

from sluice_bench.experiments.worker_counters import counters, worker_figures


def test_counters_are_read_without_labels_and_gauges() -> None:
    page = (
        "# HELP sluice_worker_steps_total Engine steps.\n"
        "sluice_worker_steps_total 12.0\n"
        'sluice_worker_requests_total{endpoint="chat",outcome="completed"} 3.0\n'
        "sluice_worker_requests_running 1.0\n"
    )
    assert counters(page) == {"steps": 12.0}


def test_figures_are_of_what_was_counted_meanwhile() -> None:
    before = {"steps": 10.0, "sequence_steps": 10.0, "preemptions": 1.0}
    before |= {"kv_reserved_steps": 100.0, "kv_held_steps": 100.0}
    after = {"steps": 14.0, "sequence_steps": 20.0, "preemptions": 3.0}
    after |= {"kv_reserved_steps": 500.0, "kv_held_steps": 300.0}

    assert worker_figures(before, after, kv_bytes_per_token=1000) == pytest.approx(
        {"mean_batch": 2.5, "preemptions": 2.0, "kv_utilisation": 0.5, "kv_bytes_a_token": 2000.0}
    )


def test_an_engine_without_such_counters_has_no_figures() -> None:
    assert worker_figures({}, counters("other_metric_total 3\n"), 1000) == {}
