"""Plots of an experiment: a line for each variant over the number of users."""

from __future__ import annotations

from xml.etree import ElementTree

from sluice_bench.experiments.measurement import LoadFacts
from sluice_bench.experiments.plots import drawn, plots

from .invented_experiment import experiment, row

TEN = {"load": "10 at a time"}


def test_each_variant_has_a_line_of_medians_with_their_ranges() -> None:
    rows = [row("none", speed, repeat=repeat, **TEN) for repeat, speed in enumerate((12.0, 30.0, 18.0))]
    rows += [row("none", 10.0), row("continuous", 20.0), row("continuous", None, **TEN)]
    found = plots(experiment(*rows))

    assert list(found) == ["batching-speed.svg", "batching-ttft.svg"]
    none, continuous = found["batching-speed.svg"].series
    assert [(p.x, p.y, p.y_low, p.y_high) for p in none.points] == [(1, 10, 10, 10), (10, 18, 12, 30)]
    assert [(p.x, p.y) for p in continuous.points] == [(1, 20)]
    assert [(p.x, p.y) for p in found["batching-ttft.svg"].series[0].points] == [(1, 1.0), (10, 1.0)]


def test_a_picture_is_xml_with_its_names_and_values() -> None:
    rows = [row("none", 10.0), row("none", 12.0, **TEN), row("continuous", 90.0)]
    plot = plots(experiment(*rows))["batching-speed.svg"]
    svg = drawn(plot)

    texts = {element.text for element in ElementTree.fromstring(svg).iter()}
    assert {plot.title, "none", "continuous", "output tokens/s"} <= texts
    assert "continuous, 1 at a time: 90" in svg


def test_one_number_of_users_is_no_line() -> None:
    single = (LoadFacts(name="1 at a time", requests=2, concurrency=1, rate_per_s=None),)
    assert plots(experiment(row("none", 10.0), loads=single)) == {}
