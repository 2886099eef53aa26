"""The page of the router's report: a section for each question, speed, traffic, how far to trust it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

from sluice_bench.figure import figures_section
from sluice_bench.formatting import number
from sluice_bench.reports.chart import WIDE, Plot, PlotPoint, Series, draw
from sluice_bench.reports.svg import svg_file
from sluice_bench.simulator.fit_report import fit_section
from sluice_bench.simulator.router_figures import figures
from sluice_bench.simulator.sim_figures import ClassFigures, SimFigures
from sluice_bench.simulator.sim_plan import LOAD_PRESETS, Question
from sluice_bench.simulator.sim_report import Result, SimReport

Column = tuple[str, Callable[[SimFigures], float | None], str]
"""Title, value, and how it is shown: `%`, `ms`, `s` or nothing."""


def _first(found: SimFigures) -> ClassFigures:
    return next(iter(found.classes.values()))


def _ms(value: float | None) -> float | None:
    return None if value is None else 1e3 * value


def _refused(found: SimFigures) -> float:
    served = sum(count for ending, count in found.endings.items() if ending in ("complete", "broken", "left"))
    return 1 - served / sum(found.endings.values())


COLUMNS: tuple[Column, ...] = (
    ("goodput", lambda found: found.goodput, "%"),
    ("of ideal", lambda found: found.of_ideal, "%"),
    ("TTFT p50 s", lambda found: _first(found).ttft_p50_s, ""),
    ("p90", lambda found: _first(found).ttft_p90_s, ""),
    ("p99", lambda found: _first(found).ttft_p99_s, ""),
    ("ITL p99 ms", lambda found: _ms(found.itl_p99_s), ""),
    ("hit", lambda found: found.hit_rate, "%"),
    ("refused", _refused, "%"),
    ("load CV", lambda found: found.load_cv, ""),
    ("wasted prefill", lambda found: found.wasted_prefill, "%"),
    ("decision µs p50", lambda found: found.admit_p50_us, ""),
)
BRIEF: Mapping[str, str] = {
    "goodput": "good",
    "of ideal": "ideal",
    "TTFT p50 s": "TTFT p50",
    "p99": "p99",
    "hit": "hit",
    "refused": "shed",
    "decision µs p50": "µs",
}
"""What a terminal has room for, and under which title."""
EXTRA: Mapping[str, tuple[Column, ...]] = {
    "clients": (
        ("honesty", lambda found: found.honesty, "%"),
        ("obeyed", lambda found: found.obeyed, ""),
        ("refusals", lambda found: sum(found.refusals.values()), ""),
    ),
    "tenants": (
        ("Jain", lambda found: found.jain, ""),
        ("max gap, tokens", lambda found: found.max_gap_tokens, ""),
        ("others' TTFT p95 s", lambda found: found.others_ttft_p95_s, ""),
    ),
    "pauses": (
        ("p99.9", lambda found: _first(found).ttft_p999_s, ""),
        ("hedged", lambda found: found.hedged, "%"),
        ("for nothing", lambda found: found.hedged_work, "%"),
    ),
    "faults": (("broken", lambda found: found.endings.get("broken", 0), ""),),
}


def render(report: SimReport, asked: Sequence[Question], raw_name: str, plots: Mapping[str, Plot]) -> str:
    """The Markdown page."""
    sections = [_section(report, question, plots) for question in asked]
    parts = [
        _opening(report, raw_name),
        figures_section(figures(report)),
        *(section for section in sections if section),
        _speed(report),
        fit_section(report.fits),
        _traffic(report),
        _trust(report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _opening(report: SimReport, raw_name: str) -> str:
    quick = (
        "\n\n**This was a `--quick` run: it shows that everything works. Its figures mean nothing.**"
        if report.quick
        else ""
    )
    return (
        "# Router: policies in simulated fleets\n\n"
        f"Simulated {report.measured_at} at commit `{report.environment.commit}` with\n\n"
        f"```\n{report.command}\n```\n\n"
        f"Every simulation is a row in [{raw_name}]({raw_name}). A figure is the median of {report.seeds} "
        "seeds, with the smallest and the largest in brackets. `sluice` is the router of this repository, "
        "the very objects that the gateway runs; the others are published rules without admission, written "
        "anew. What is simulated, and what each column means: [simulator.md](../simulator.md)." + quick
    )


def _section(report: SimReport, question: Question, plots: Mapping[str, Plot]) -> str:
    results = [result for result in report.results if result.question == question.name]
    if not results:
        return ""
    lines = [f"## {question.title}", "", question.text, ""]
    lines += [f"![{plot.title}]({name})\n" for name, plot in plots.items() if name == plot_name(question)]
    columns = (*COLUMNS, *EXTRA.get(question.name, ()))
    titles = [question.varied, "policy", *(title for title, _, _ in columns)]
    lines += [_line(titles), "|---|---|" + "--:|" * len(columns)]
    for value, _ in question.scenarios:
        for policy in question.policies:
            found = _found(results, value, policy)
            if found:
                lines.append(_line([value, policy, *(cell(found, column) for column in columns)]))
    if question.name == "classes":
        lines += ["", *_class_table(results, question)]
    return "\n".join(lines)


def _found(results: Sequence[Result], value: str, policy: str) -> list[SimFigures]:
    return [result.figures for result in results if (result.value, result.figures.policy) == (value, policy)]


def cell(found: Sequence[SimFigures], column: Column) -> str:
    """A column's value of all seeds."""
    _, value_of, unit = column
    values = [value for figures in found if (value := value_of(figures)) is not None]
    return shown(values, unit)


def shown(values: Sequence[float], unit: str = "") -> str:
    """Median, with the smallest and the largest where they differ."""
    if not values:
        return "–"
    written = [f"{value:.1%}" if unit == "%" else number(value) for value in (min(values), max(values))]
    middle = statistics.median(values)
    text = f"{middle:.1%}" if unit == "%" else number(middle)
    return text if written[0] == written[1] else f"{text} ({written[0]}–{written[1]})"


def brief(found: Sequence[SimFigures]) -> list[str]:
    """Cells for a terminal: spread of the goodput, medians of all else."""
    cells = []
    for column in COLUMNS:
        if column[0] in BRIEF:
            text = cell(found, column)
            cells.append(text if column[0] == "goodput" else text.partition(" ")[0])
    return cells


def _class_table(results: Sequence[Result], question: Question) -> list[str]:
    lines = [
        "| load | policy | class | goodput | TTFT p50 s | p99 | longest wait s |",
        "|---|---|---|--:|--:|--:|--:|",
    ]
    for value, _ in question.scenarios:
        for policy in question.policies:
            found = _found(results, value, policy)
            for name in found[0].classes if found else ():
                rows = [figures.classes[name] for figures in found if name in figures.classes]
                cells = [
                    shown([row.goodput for row in rows], "%"),
                    shown([row.ttft_p50_s for row in rows if row.ttft_p50_s is not None]),
                    shown([row.ttft_p99_s for row in rows if row.ttft_p99_s is not None]),
                    shown([row.max_wait_s for row in rows]),
                ]
                lines.append(_line([value, policy, name, *cells]))
    return lines


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _speed(report: SimReport) -> str:
    speed = report.speed
    if speed is None:
        return ""
    total, real_s = sum(speed.endings.values()), speed.decisions_s + speed.engine_s
    served_from = "compiled" if report.speed_compiled else "Python sources"
    return (
        "## What simulating costs\n\n"
        f"{report.speed_replicas:,} replicas, {total:,} requests of chat-azure24, one core: {real_s:.1f} s, "
        f"of which {speed.decisions_s:.1f} s in the router ({served_from}); {speed.requests_per_s:,.0f} "
        f"requests/s with its decisions and {total / speed.engine_s:,.0f} without. One admission: "
        f"{speed.admit_p50_us:.0f} µs (p50), {speed.admit_p99_us:.0f} µs (p99)."
    )


def _traffic(report: SimReport) -> str:
    if not report.statistics:
        return ""
    lines = [
        "## The traffic",
        "",
        "Synthetic, by the published statistics of each trace; never the trace. Lengths in tokens; *reused* "
        "is the share of prompt tokens that an endless cache would save; IDC is the index of dispersion of "
        "counts.",
        "",
        "| preset | statistic | published | achieved |",
        "|---|---|--:|--:|",
    ]
    lines += [
        _line([one.preset, one.name, number(one.published), number(one.achieved)])
        for one in report.statistics
    ]
    return "\n".join(lines)


def _trust(report: SimReport) -> str:
    env = report.environment
    return (
        "## How far to trust these figures\n\n"
        "- They rank policies on a model of an engine; they are no measurements of one. How near the model "
        "comes to real engines is a question of calibration.\n"
        f"- Fleets of {report.replicas} replicas where nothing else is said, {report.seconds:g} s of "
        "arrivals after a minute at a load of 0.6 at most, which is in no figure. An overload that lasts "
        "longer is worse for "
        "whoever queues.\n"
        "- *Ideal* takes an endless prefix cache that is everywhere, full batches, and the cheapest requests "
        "first, and no notice of when they come. In a short run goodput can exceed it: what is in flight at "
        "the end is done later.\n"
        f"- Decision times are real: {env.cpu}, {env.cores} cores, {env.system}, Python {env.python}, load "
        f"average before {env.load_average:.2f}. All else depends on nothing but the seed."
    )


# --- the plot --------------------------------------------------------------------------------------------


def plot_name(question: Question) -> str:
    """Of a question's picture."""
    return f"router-{question.name}.svg"


def plots(report: SimReport, asked: Sequence[Question]) -> dict[str, Plot]:
    """Goodput over load, by file name."""
    wanted = {f"load-{preset}" for preset in LOAD_PRESETS}
    return {
        plot_name(question): _plot(report, question)
        for question in asked
        if question.name in wanted and any(result.question == question.name for result in report.results)
    }


def drawn(plot: Plot) -> str:
    """As SVG."""
    return svg_file(draw(plot, WIDE))


def _plot(report: SimReport, question: Question) -> Plot:
    results = [result for result in report.results if result.question == question.name]
    series = [
        Series(
            name=policy, number=place, points=tuple(_points(results, question, policy, lambda f: f.goodput))
        )
        for place, policy in enumerate(question.policies)
    ]
    first = question.policies[0]
    ideal = tuple(_points(results, question, first, lambda found: found.ideal))
    series.append(Series(name="ideal", number=len(series), points=ideal, markers=False))
    return Plot(
        title=question.title,
        description=f"{question.text} Medians of {report.seeds} seeds, bars from the smallest to the "
        f"largest: {', '.join(question.policies)}, and what there was capacity for.",
        x_label="offered load over capacity",
        y_label="goodput, share of requests",
        series=tuple(series),
        height=380.0,
    )


def _points(
    results: Sequence[Result], question: Question, policy: str, value_of: Callable[[SimFigures], float]
) -> list[PlotPoint]:
    points = []
    for value, scenario in question.scenarios:
        values = [value_of(found) for found in _found(results, value, policy)]
        if values:
            middle = statistics.median(values)
            points.append(
                PlotPoint(
                    x=scenario.load, y=middle, y_low=min(values), y_high=max(values),
                    tip=f"{policy}, load {scenario.load:g}: {middle:.1%}",
                )
            )  # fmt: skip
    return points
