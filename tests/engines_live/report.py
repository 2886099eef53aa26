"""What a session saw, as a page: which engines, which tests with which outcome, which figures."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime

import pytest

_SYMBOLS = {"passed": "passed", "failed": "**failed**", "skipped": "skipped"}


class Report:
    """Collects while the tests run."""

    def __init__(self) -> None:
        self.figures: list[str] = []
        self._engines: list[tuple[str, str, str]] = []
        self._outcomes: dict[str, dict[str, str]] = {}

    def engine(self, name: str, title: str, origin: str) -> None:
        """One that was there, and where it came from."""
        self._engines.append((name, title, origin))

    def figure(self, what: str, value: str) -> None:
        """One that was measured."""
        self.figures.append(f"{what}: {value}")

    def outcome(self, report: pytest.TestReport) -> None:
        """One phase of a test; what counts is the test itself, and what kept it from running."""
        if report.when != "call" and report.outcome == "passed":
            return
        name, _, rest = report.nodeid.rpartition("::")[2].partition("[")
        engine = rest.rstrip("]").replace("<|", "(").replace("|>", ")") or "all"  # a table's cell has no bars
        why = f": {report.longrepr[2]}" if isinstance(report.longrepr, tuple) else ""
        text = _SYMBOLS[report.outcome] + (
            why if report.outcome == "skipped" else f", {report.duration:.1f} s"
        )
        self._outcomes.setdefault(name, {})[engine] = text

    def text(self) -> str:
        """The page."""
        lines = ["# Real engines behind the gateway", ""]
        lines += [
            f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, {platform.machine()}. Written by",
            "",
        ]
        lines += ["```bash", "make test-engines REPORT=docs/reports/engines-live.md", "```", ""]
        lines += [
            "All engines run at once on these cores, started and watched by `sluice serve`, on the model",
        ]
        lines += [
            "`sluice-tiny`; the tests are in `tests/engines_live/`. Times are those of a shared machine.",
            "",
        ]
        lines += ["| backend | engine says | from |", "|---|---|---|"]
        lines += [f"| `{name}` | {title} | {origin} |" for name, title, origin in self._engines]
        lines += ["", "| test | engine | outcome |", "|---|---|---|"]
        for test, outcomes in self._outcomes.items():
            words = test.removeprefix("test_").replace("_", " ")
            lines += [f"| {words} | {engine} | {text} |" for engine, text in outcomes.items()]
        if self.figures:
            lines += ["", "What was seen on the way:", "", *(f"- {line}" for line in self.figures)]
        return "\n".join(lines) + "\n"
