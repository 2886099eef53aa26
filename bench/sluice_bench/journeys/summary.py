"""What a Locust run says at its end: journeys, what was skipped and why, the objectives and their fate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sluice_bench.journeys.capabilities import Findings
from sluice_bench.journeys.verdict import Check, Row
from sluice_bench.journeys.visitor import NEEDS


def served(findings: Findings, asked: Sequence[str]) -> tuple[str, ...]:
    """Those of the journeys asked for whose capability is there."""
    return tuple(journey for journey in asked if NEEDS[journey] not in findings.missing)


def skipped(findings: Findings, asked: Sequence[str]) -> Mapping[str, str]:
    """The others, and why."""
    return {
        journey: f"needs {NEEDS[journey]}: {findings.missing[NEEDS[journey]]}"
        for journey in asked
        if NEEDS[journey] in findings.missing
    }


def summary_lines(
    url: str, findings: Findings, asked: Sequence[str], rows: Sequence[Row], verdict: Sequence[Check]
) -> Iterator[str]:
    """Lines for a terminal."""
    yield f"Journeys at {url}, model {findings.model or 'none that chats'}"
    begun = dict.fromkeys(served(findings, asked), 0)
    for row in rows:
        if row.kind in ("e2e", "left") and row.name in begun:
            begun[row.name] += row.count
    for journey, count in begun.items():
        yield f"  {journey:<12} {count} requests" if count else f"  {journey:<12} NOT REACHED; run longer"
    for journey, why in skipped(findings, asked).items():
        yield f"  {journey:<12} SKIPPED, {why}"
    if "toggle" in begun:
        yield f"  toggled: {', '.join(f'{c.header}: {c.value}' for c in findings.choices)}"
        if findings.absent:
            yield f"  known to the gateway, but served by nobody: {', '.join(findings.absent)}"
    yield "Objectives"
    yield from (f"  {'ok' if check.good else 'MISSED':<6} {check.line}" for check in verdict)
