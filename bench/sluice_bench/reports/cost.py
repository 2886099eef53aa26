"""What a million tokens cost on hardware that is paid by the hour.

    USD per million = price per hour / (tokens/s * 3600 * utilisation) * 1,000,000

at the run's own throughput, over the whole run. *Utilisation* is the share of the paid time in which the
load is like the run's; the rest of the time costs as much and makes nothing. The run's prompt and output
tokens come out of the same hours, so how the price is split between them is a convention, and three are
shown. Prices are data, each with its source and its date; they age, so use your own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import msgspec

from sluice_bench.reports.chart import Plot, PlotPoint, Series, draw
from sluice_bench.reports.page import Picture, Section, Table, figure, interval, picture
from sluice_bench.reports.run_figures import RunFigures
from sluice_bench.stats.estimate import Estimate

PRICES_FILE = Path(__file__).with_name("hardware_prices.json")
UTILISATIONS = (1.0, 0.7, 0.5, 0.3, 0.1)
PRICE_FACTORS = (0.75, 1.0, 1.25)
OUTPUT_WEIGHT = 4.0
"""In the third split an output token costs so many times a prompt token, as in many price lists."""


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """Of one unit of hardware, by the hour."""

    hardware: str
    usd_per_hour: float
    what: str = ""
    source: str = ""
    as_of: str = ""
    """Day on which the source said so."""


class BadPrices(Exception):
    """No price table, or no such hardware in it; the message says what to do."""


def read_prices(path: Path = PRICES_FILE) -> dict[str, Price]:
    """By hardware. Raises `BadPrices`, `OSError`."""
    try:
        listed = msgspec.json.decode(path.read_bytes(), type=tuple[Price, ...])
    except msgspec.DecodeError as error:
        raise BadPrices(f"{path} is no price table, a list of hardware and usd_per_hour: {error}") from error
    return {price.hardware: price for price in listed}


def price_named(text: str, prices: dict[str, Price]) -> Price:
    """Hardware of the table, or USD per hour. Raises `BadPrices`."""
    if text in prices:
        return prices[text]
    try:
        usd_per_hour = float(text)
    except ValueError:
        usd_per_hour = math.nan
    if not 0 < usd_per_hour < math.inf:
        known = ", ".join(sorted(prices)) or "empty"
        raise BadPrices(
            f"--price takes USD per hour, or hardware of the price table ({known}), not {text!r}; "
            "--prices FILE reads another table"
        )
    return Price(hardware=f"{usd_per_hour:g} USD/h", usd_per_hour=usd_per_hour, what="as given", source="you")


def usd_per_million(usd_per_hour: float, tokens_per_s: float, utilisation: float = 1.0) -> float:
    """Raises `ZeroDivisionError` without throughput."""
    return usd_per_hour / (tokens_per_s * 3600 * utilisation) * 1_000_000


class TokenCost(msgspec.Struct, frozen=True, kw_only=True):
    """USD per million tokens of one run, at full utilisation."""

    output_bears_all: Estimate
    all_alike: float | None
    """Of a prompt or output token alike; `None` when the prompt's are unknown, as below."""
    prompt: float | None
    """With an output token that costs `OUTPUT_WEIGHT` times as much."""
    output: float | None
    prompt_per_output: float | None
    """The run's own split: prompt tokens for each output token."""


def cost_of(run: RunFigures, price: Price) -> TokenCost | None:
    """`None` when the run's throughput is unknown or nothing."""
    rate, summary = run.throughput, run.summary
    if rate is None or rate.value <= 0:
        return None
    bears_all = Estimate(
        value=usd_per_million(price.usd_per_hour, rate.value),
        low=None if not rate.high else usd_per_million(price.usd_per_hour, rate.high),
        high=None if not rate.low else usd_per_million(price.usd_per_hour, rate.low),
        n=rate.n,
        confidence=rate.confidence,
    )
    if summary.prompt_tokens is None or not summary.output_tokens:
        return TokenCost(
            output_bears_all=bears_all, all_alike=None, prompt=None, output=None, prompt_per_output=None
        )
    prompts = summary.prompt_tokens / summary.output_tokens
    prompt = bears_all.value / (prompts + OUTPUT_WEIGHT)
    return TokenCost(
        output_bears_all=bears_all,
        all_alike=bears_all.value / (prompts + 1),
        prompt=prompt,
        output=prompt * OUTPUT_WEIGHT,
        prompt_per_output=prompts,
    )


def cost_section(runs: Sequence[RunFigures], prices: Iterable[Price]) -> Section:
    """Every run on each hardware: what its tokens would cost if that is what it ran on."""
    found = [
        (price, [(run, cost) for run in runs if (cost := cost_of(run, price)) is not None])
        for price in prices
    ]
    found = [(price, costs) for price, costs in found if costs]
    return Section(
        title="Cost per million tokens",
        paragraphs=(
            "Price per hour over tokens per hour, at each run's own throughput over the whole run: what it "
            "costs if the hardware named is what the run had, and if it is as busy all the time. The split "
            "between prompt and output tokens is a convention: either the output bears all, or every token "
            f"costs the same, or an output token {OUTPUT_WEIGHT:g} times a prompt token.",
        ),
        tables=tuple(_table(price, costs) for price, costs in found),
        pictures=tuple(
            _picture(number, price, costs) for number, (price, costs) in enumerate(found, start=1)
        ),
    )


def _table(price: Price, costs: Sequence[tuple[RunFigures, TokenCost]]) -> Table:
    rows = tuple(
        (
            run.label,
            figure(cost.prompt_per_output),
            interval(cost.output_bears_all),
            figure(cost.all_alike),
            figure(cost.prompt),
            figure(cost.output),
        )
        for run, cost in costs
    )
    columns = (
        "run",
        "prompt per output token",
        "output bears all",
        "each token alike",
        f"prompt (output {OUTPUT_WEIGHT:g} times)",
        f"output ({OUTPUT_WEIGHT:g} times prompt)",
    )
    return Table(caption=f"USD per million tokens: {price_text(price)}", columns=columns, rows=rows)


def price_text(price: Price) -> str:
    """With what it is, whose word it is, and from when."""
    words = [f"{price.hardware} at {price.usd_per_hour:g} USD/h", price.what]
    if price.source:
        words.append(f"source: {price.source}" + (f", {price.as_of}" if price.as_of else ""))
    return "; ".join(word for word in words if word)


def _sensitivity(price: Price, costs: Sequence[tuple[RunFigures, TokenCost]]) -> Table:
    rows = tuple(
        (
            f"{run.label}, utilisation {utilisation:.0%}",
            *(figure(cost.output_bears_all.value * factor / utilisation) for factor in PRICE_FACTORS),
        )
        for run, cost in costs
        for utilisation in UTILISATIONS
    )
    columns = ("run and utilisation", *(f"price {factor - 1:+.0%}" for factor in PRICE_FACTORS))
    return Table(
        caption=f"Sensitivity on {price.hardware}: USD per million output tokens, output bears all",
        columns=tuple(column.replace("+0%", "as given") for column in columns),
        rows=rows,
    )


def _picture(number: int, price: Price, costs: Sequence[tuple[RunFigures, TokenCost]]) -> Picture:
    shares = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    series = tuple(
        Series(
            name=run.label,
            number=run.number,
            points=tuple(PlotPoint(x=share * 100, y=cost.output_bears_all.value / share) for share in shares),
            markers=False,
        )
        for run, cost in costs
    )
    plot = Plot(
        title=f"Cost by utilisation, {price.hardware}",
        description="USD per million output tokens by the share of paid time that is used; the numbers are "
        "in the table below.",
        x_label="utilisation, %",
        y_label="USD per million output tokens",
        series=series,
        y_log=None,
        y_from_zero=False,
        height=240,
    )
    return picture(f"cost-{number}", partial(draw, plot), _sensitivity(price, costs))
