"""Ending a run as soon as one figure is known well enough: `--stop-when ttft-p50:5%`.

The figure's interval is one that may be looked at at any time (`stats/sequential.py`), so stopping because of
it does not spoil it. Observations are taken in the order of the requests, each only when all before it have
ended: otherwise quick answers would be seen before slow ones, and the run would stop on them.

Answers are read in another process (`answer_reader.py`); the event loop that stamps the load only hands it
one ended request after another, once a second. When the figure is known, nothing more is sent,
and what is in flight is waited for: what remains is a run of fewer requests, in which nothing failed by it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import msgspec

from sluice_bench.connection import Exchange
from sluice_bench.load_run import LoadRun
from sluice_bench.recording.run_record import Stopping
from sluice_bench.records import RequestRecord
from sluice_bench.runs.answer_reader import answer_reader, figure_of
from sluice_bench.runs.latency_figure import LatencyFigure
from sluice_bench.stats.estimate import Estimate
from sluice_bench.stats.sequential import LatencyMeanSequence, QuantileSequence

LOOK_EVERY_S = 1.0


class StopRule(msgspec.Struct, frozen=True, kw_only=True):
    """Enough is known when the interval reaches at most `relative` of the figure to either side."""

    figure: LatencyFigure
    relative: float

    @classmethod
    def parse(cls, text: str) -> StopRule:
        """From `ttft-p50:5%`. Raises `ValueError` with what to write."""
        figure, _, width = text.partition(":")
        return cls(figure=LatencyFigure.parse(figure), relative=share_of(width))

    @property
    def name(self) -> str:
        """As `parse` takes it."""
        return f"{self.figure.name}:{self.relative * 100:g}%"


def share_of(text: str) -> float:
    """From `5%` or `0.05`. Raises `ValueError` unless it is over 0 and under 1."""
    number, percent = text.strip().removesuffix("%"), text.strip().endswith("%")
    try:
        share = float(number) / (100 if percent else 1)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise ValueError(f"{text!r} is no share; write for example 5%")
    return share


class Precision:
    """What is known of a rule's figure."""

    def __init__(self, rule: StopRule, planned: int) -> None:
        """`planned`: requests of the run, at most."""
        share = rule.figure.share
        self._relative = rule.relative
        self._sequence = (
            LatencyMeanSequence(planned=planned)
            if share is None
            else QuantileSequence(share, planned=planned)
        )
        self._taken = 0

    def add(self, value_s: float | None) -> None:
        """What the next request came to; `None` when it has no such figure."""
        if value_s is not None:
            self._sequence.add(value_s)
            self._taken += 1

    def estimate(self) -> Estimate | None:
        """As of now; `None` when no request had the figure."""
        return self._sequence.estimate() if self._taken else None

    @property
    def reached(self) -> bool:
        """Whether that is enough."""
        found = self.estimate()
        return found is not None and found.within(self._relative)


class Reader(Protocol):
    """Who reads answers."""

    async def seconds(self, exchange: Exchange) -> float | None:
        """The rule's figure of an exchange that has ended; `None` when it has none."""


class EarlyStop:
    """Watches one run for a rule."""

    def __init__(self, rule: StopRule, planned: int, reader: Reader) -> None:
        self._rule, self._planned, self._reader = rule, planned, reader
        self._precision = Precision(rule, planned)
        self._seen = 0
        self._known: Estimate | None = None

    async def watch(self, run: LoadRun) -> None:
        """Look once a second until enough is known, then end the sending."""
        while self._known is None:
            await asyncio.sleep(LOOK_EVERY_S)
            await self._look(run.exchanges)
        run.stop_sending()

    async def _look(self, exchanges: Sequence[Exchange]) -> None:
        """At what has ended since, up to the first request that has not."""
        upto = len(exchanges)
        while self._seen < upto and exchanges[self._seen].end_ns is not None:
            exchange = exchanges[self._seen]
            self._seen += 1
            self._precision.add(await self._reader.seconds(exchange))
        if self._precision.reached:
            self._known = self._precision.estimate()

    def outcome(self, records: Sequence[RequestRecord]) -> Stopping:
        """After the run, of which these are the records."""
        return Stopping(
            rule=self._rule.name,
            reached=self._known is not None,
            planned=self._planned,
            estimate=self._known or self._at_the_end(records),
        )

    def _at_the_end(self, records: Sequence[RequestRecord]) -> Estimate | None:
        precision = Precision(self._rule, self._planned)
        for record in records:
            precision.add(figure_of(self._rule.figure, record))
        return precision.estimate()


@contextmanager
def early_stop(rule: StopRule | None, planned: int) -> Iterator[EarlyStop | None]:
    """One for a run of `planned` requests; `None` without a rule. The process is up before the run begins."""
    if rule is None:
        yield None
        return
    with answer_reader(rule.figure) as reader:
        yield EarlyStop(rule, planned, reader)
