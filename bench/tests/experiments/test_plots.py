"""Plots of an experiment: a line for each variant over the number of users."""

from __future__ import annotations

from xml.etree import ElementTree

from sluice_bench.experiments.measurement import LoadFacts
from sluice_bench.experiments.plots import drawn

from .invented_experiment import experiment, row

NONE, TEN = "none", {"load": "10 at a time"}


def test_each_variant_has_a_line_and_each_picture_is_xml() -> None:
    rows = [
        row("none", 10.0),
        row("none", 12.0, **TEN),
        row("continuous", 20.0),
        row("continuous", 90.0, **TEN),
    ]
    pictures = drawn(experiment(*rows))

    assert list(pictures) == ["batching-speed.svg", "batching-ttft.svg"]
    for title, svg in pictures.values():
        texts = [element.text for element in ElementTree.fromstring(svg).iter() if element.text]
        assert title in texts
        assert {"none", "continuous", "users at a time"} <= {
            text.removesuffix(", logarithmic") for text in texts
        }
    assert "continuous, 10 at a time: 90" in pictures["batching-speed.svg"][1]


def test_one_number_of_users_is_no_line() -> None:
    single = (LoadFacts(name="1 at a time", requests=2, concurrency=1, rate_per_s=None),)
    assert drawn(experiment(row("none", 10.0), loads=single)) == {}
