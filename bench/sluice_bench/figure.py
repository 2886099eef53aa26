"""A figure against its bar and its aim: a report's first table. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec
from rich.table import Table

from sluice_bench.formatting import DISTURBED_CORES, number

Verdict = Literal["aim", "bar", "no", "not measured", "no bar"]

_HEAD = ("figure", "bar", "aim", "measured", "met?")
_VERDICTS = {
    "aim": "yes, the aim too",
    "bar": "yes",
    "no": "**no**",
    "not measured": "not measured",
    "no bar": "",
}


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table."""

    name: str
    unit: str
    bar: float | None
    aim: float | None
    value: float | None
    spread: tuple[float, float] | None = None
    higher_is_better: bool = False
    note: str = ""
    disturbed: bool = False

    @property
    def verdict(self) -> Verdict:
        """The best of bar and aim that the value reaches."""
        if self.value is None:
            return "not measured"
        if self.bar is None and self.aim is None:
            return "no bar"
        if self.aim is not None and self._reaches(self.value, self.aim):
            return "aim"
        return "bar" if self.bar is not None and self._reaches(self.value, self.bar) else "no"

    def _reaches(self, value: float, limit: float) -> bool:
        return value >= limit if self.higher_is_better else value <= limit


def disturbed(foreign_cores: Iterable[float]) -> bool:
    """Whether more than half of the repeats were."""
    found = [cores > DISTURBED_CORES for cores in foreign_cores]
    return sum(found) * 2 > len(found)


def figures_section(figures: Sequence[Figure]) -> str:
    """The table of a page, measured or not."""
    lines = ["## Figures", "", "| " + " | ".join(_HEAD) + " |", "|---|--:|--:|--:|---|"]
    lines += ["| " + " | ".join(_cells(figure)) + " |" for figure in figures]
    if any(figure.disturbed for figure in figures):
        lines += [
            "",
            f"† More than half of the repeats were disturbed (over {DISTURBED_CORES:g} foreign cores).",
        ]
    return "\n".join(lines)


def terminal_table(figures: Sequence[Figure]) -> Table:
    """The measured ones, for a terminal."""
    table = Table()
    for column in _HEAD:
        table.add_column(column, justify="right" if column in ("bar", "aim", "measured") else "left")
    for figure in figures:
        if figure.value is not None:
            table.add_row(*(text.replace("**", "") for text in _cells(figure)))
    return table


def _cells(figure: Figure) -> list[str]:
    sign = "≥" if figure.higher_is_better else "≤"
    measured = "–"
    if figure.value is not None:
        measured = _quantity(figure.value, figure.unit)
        if figure.spread is not None:
            measured += f" ({number(figure.spread[0])}–{number(figure.spread[1])})"
        measured += " †" if figure.disturbed else ""
    note = f" ({figure.note})" if figure.note and figure.value is not None else ""
    limits = [
        "" if limit is None else f"{sign if limit else ''} {limit:g} {figure.unit}".strip()
        for limit in (figure.bar, figure.aim)
    ]
    return [figure.name + note, *limits, measured, _VERDICTS[figure.verdict]]


def _quantity(value: float, unit: str) -> str:
    shown = f"{value:g}" if unit == "" else number(value)
    return f"{shown} {unit}".strip()
