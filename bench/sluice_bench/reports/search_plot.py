"""A search for the highest rate that meets an objective: its probes, and what they came to."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import msgspec

from sluice_bench.reports.chart import Plot, PlotPoint, Series, draw
from sluice_bench.reports.page import NOTHING, Section, Table, figure, known, picture

_MOST_STRAIN, _LEAST_STRAIN = 100.0, 0.01
"""What lies beyond is drawn there; the table has the numbers."""


class SearchPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One probe."""

    rate: float
    """Offered, requests per second."""
    strain: float | None = None
    """Percentile by its cap: the objective is met up to 1; `None` is infinite."""
    ttft_ms: float | None = None
    """The objective's percentile, as the next."""
    tpot_ms: float | None = None
    tokens_per_s: float | None = None
    void: bool = False
    overload_rate: float | None = None
    """Offered straight before, to see whether the server recovers."""

    @property
    def verdict(self) -> str:
        """In words."""
        if self.void:
            return "void"
        met = "met" if self.strain is not None and self.strain <= 1 else "not met"
        return met if self.overload_rate is None else f"{met}, after {self.overload_rate:.4g}/s"


class SearchFound(msgspec.Struct, frozen=True, kw_only=True):
    """What `sluice-bench search --output` wrote, as far as a report needs it."""

    rate: float | None
    met: float | None
    failed: float | None
    cliff: bool
    recovers: bool | None
    points: tuple[SearchPoint, ...]
    void: bool = False


class BadSearchFile(Exception):
    """The message says what is wrong with it."""


def read_search(path: Path) -> SearchFound:
    """Raises `BadSearchFile`, `OSError`."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=SearchFound)
    except msgspec.DecodeError as error:
        raise BadSearchFile(f"{path} is not what `search --output` writes: {error}") from error


def search_section(found: SearchFound) -> Section:
    """The answer, and how it was come by."""
    tried = tuple(
        PlotPoint(
            x=point.rate,
            y=min(max(_strain(point), _LEAST_STRAIN), _MOST_STRAIN),
            label=str(number),
            tip=f"probe {number}: {point.rate:.3g}/s, {point.verdict}",
        )
        for number, point in enumerate(found.points, start=1)
        if not point.void
    )
    plot = Plot(
        title="Strain by offered rate",
        description="Each probe's percentile over its cap, by the rate that was offered; up to 1 the "
        "objective is met. The numbers are in the table below.",
        x_label="requests per second offered",
        y_label="percentile ÷ its cap",
        series=(Series(name="", number=0, points=tried, line=False),),
        limits=((1.0, "objective"),),
        y_log=True,
        y_from_zero=False,
        height=240,
    )
    return Section(
        title="The highest rate that meets the objective",
        paragraphs=(sentence(found),),
        pictures=(picture("search", partial(draw, plot), _table(found), _notes(found)),),
    )


def _strain(point: SearchPoint) -> float:
    return _MOST_STRAIN if point.strain is None else point.strain


def _notes(found: SearchFound) -> tuple[str, ...]:
    beyond = sum(_strain(point) >= _MOST_STRAIN for point in found.points)
    return (f"Probes of a strain over {_MOST_STRAIN:g} are drawn at it: {beyond}.",) if beyond else ()


def _table(found: SearchFound) -> Table:
    rows = tuple(
        (
            str(number),
            f"{point.rate:.4g}",
            "infinite" if point.strain is None else figure(point.strain),
            figure(point.ttft_ms),
            figure(point.tpot_ms),
            known(point.tokens_per_s),
            point.verdict,
        )
        for number, point in enumerate(found.points, start=1)
    )
    columns = ("probe", "requests/s", "strain", "TTFT, ms", "TPOT, ms", "output tokens/s", "objective")
    return Table(caption="Probes, in their order", columns=columns, rows=rows)


def sentence(found: SearchFound) -> str:
    """What the search came to, in words."""
    recovers = {
        None: "whether the server recovers from overload was not tried",
        True: "after an overload the server recovers",
        False: "after an overload the server does not recover at a rate that it bore before",
    }[found.recovers]
    return f"{_answer(found)}; {recovers}."


def _answer(found: SearchFound) -> str:
    if found.void:
        return "No answer: the load client was too slow for two probes in a row"
    if found.rate is None:
        return "No rate that was tried meets the objective"
    if found.failed is None:
        return f"Every rate that was tried meets it; it is at least {found.rate:.4g} requests/s"
    met = NOTHING if found.met is None else f"{found.met:.4g}"
    words = (
        f"{found.rate:.4g} requests/s: {met} was the highest that met it, {found.failed:.4g} the lowest that "
        "did not"
    )
    return words + (", and between them is a cliff" if found.cliff else "")
