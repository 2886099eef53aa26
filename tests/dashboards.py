"""Grafana's dashboards as the tests read them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from repository import ROOT

DASHBOARDS = sorted((ROOT / "ops/grafana/dashboards").glob("*.json"))


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Everything that shows something."""
    yield from (panel for panel in dashboard["panels"] if panel["type"] != "row")


def expressions(file: Path) -> list[str]:
    """Every PromQL expression of a dashboard, as Grafana would send it with everything selected."""
    found = [t["expr"] for panel in panels(json.loads(file.read_text())) for t in panel["targets"]]
    return [text.replace("$backend", ".*").replace("$__rate_interval", "1m") for text in found]
