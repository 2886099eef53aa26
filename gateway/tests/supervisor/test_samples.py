"""Many processes' metrics as one page: what is counted adds up, and looks as if one had counted it."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from sluice_gateway.gateway import Gateway
from sluice_gateway.metrics_names import PREFIX
from sluice_gateway.supervisor.samples import (
    Family,
    Sample,
    collect,
    lasting,
    merge,
    render,
)
from sluice_gateway.tally import CounterFamily, HistogramFamily

from ..serving import ECHO, chat, serving, settings_of

GAUGES = {"requests_in_flight", "queue_depth", "endpoint_in_flight", "ledger_journal_bytes"}
"""Those that are quantities, and so add up."""


class Process:
    """A counter and a histogram, as a worker has them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = CounterFamily("requests", "Requests.", ("outcome",))
        self.duration = HistogramFamily("duration", "Seconds.", ("kind",), (0.1, 1.0))
        self.registry.register(self.requests)
        self.registry.register(self.duration)

    def count(self, outcome: str, seconds: float) -> None:
        self.requests.labels(outcome).value += 1
        self.duration.labels("chat").observe(seconds)


requests = st.tuples(
    st.integers(0, 3),
    st.sampled_from(["ok", "failed", 'a "quoted"\nname']),
    st.sampled_from([0.0625, 0.5, 4.0]),
)


@given(st.lists(requests, max_size=40))
def test_counting_in_several_processes_is_counting_in_one(counted: list[tuple[int, str, float]]) -> None:
    processes, lone = [Process() for _ in range(4)], Process()
    for index, outcome, seconds in counted:
        processes[index].count(outcome, seconds)
        lone.count(outcome, seconds)
    merged = render(merge([collect(process.registry) for process in processes]))
    assert sorted(merged.splitlines()) == sorted(generate_latest(lone.registry).splitlines())


async def test_one_report_is_rendered_as_prometheus_own_client_does() -> None:
    async with serving(settings_of(backends=[ECHO])) as served:
        await served.http.post("/v1/chat/completions", json=chat("echo"))
        await served.until_idle()
        registry = served.gateway.metrics.registry
        assert render(collect(registry)) == generate_latest(registry)


def test_a_process_that_is_gone_leaves_its_counts_and_not_its_state() -> None:
    gone = [
        Family("served", "counter", "", [Sample("served_total", (), 5.0)]),
        Family("waiting", "gauge", "", [Sample("waiting", (), 3.0)]),
    ]
    living = [
        Family("served", "counter", "", [Sample("served_total", (), 2.0)]),
        Family("waiting", "gauge", "", [Sample("waiting", (), 1.0)]),
    ]
    page = render(merge([lasting(gone), living]))
    assert b"served_total 7.0" in page
    assert b"waiting 1.0" in page


def test_an_engine_is_healthy_when_every_process_finds_it_healthy() -> None:
    def report(healthy: float, degraded: float) -> list[Family]:
        return [
            Family(f"{PREFIX}endpoint_healthy", "gauge", "", [Sample("healthy", (), healthy)]),
            Family(f"{PREFIX}limiter_mode", "gauge", "", [Sample("mode", (), degraded)]),
        ]

    page = render(merge([report(1.0, 0.0), report(0.0, 1.0), report(1.0, 0.0)]))
    assert b"\nhealthy 0.0" in page
    assert b"\nmode 1.0" in page


def test_it_was_decided_for_every_gauge_how_it_adds_up() -> None:
    gateway = Gateway(settings_of(backends=[ECHO]), {}, io.StringIO())
    gauges = {f.name.removeprefix(PREFIX) for f in collect(gateway.metrics.registry) if f.kind == "gauge"}
    assert gauges == {*GAUGES, "endpoint_healthy", "limiter_mode"}
