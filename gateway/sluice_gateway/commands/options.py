"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="Configuration file; default: SLUICE_CONFIG, or ./sluice.yaml."),
]
Json = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]
RequestsPerMin = Annotated[int | None, typer.Option(min=1, help="Requests a minute.")]
TokensPerMin = Annotated[int | None, typer.Option(min=1, help="Tokens a minute, prompt and completion.")]
Concurrent = Annotated[int | None, typer.Option(min=1, help="Requests at once.")]
BudgetPerDay = Annotated[float | None, typer.Option(min=0, help="Money a day (UTC).")]
BudgetPerMonth = Annotated[float | None, typer.Option(min=0, help="Money a calendar month (UTC).")]

_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_IN_SCOPES = {"model": "models", "backend": "backends", "quant": "quants", "endpoint": "endpoints"}
_LIMITS = ("requests_per_min", "tokens_per_min", "concurrent", "budget_per_day", "budget_per_month")


def limits_of(
    requests_per_min: int | None,
    tokens_per_min: int | None,
    concurrent: int | None,
    budget_per_day: float | None,
    budget_per_month: float | None,
) -> dict[str, Any]:
    """The bounds that were given."""
    values = (requests_per_min, tokens_per_min, concurrent, budget_per_day, budget_per_month)
    return {name: value for name, value in zip(_LIMITS, values, strict=True) if value is not None}


def without(patch: dict[str, Any], unset: list[str]) -> dict[str, Any]:
    """The same, and what is unset is set to "no bound". A name that is no option is a wrong command line."""
    scopes, limits = dict(patch.get("scopes", {})), dict(patch.get("limits", {}))
    result = dict(patch)
    for option in unset:
        name = option.removeprefix("--").replace("-", "_")
        if name in _IN_SCOPES and "scopes" in patch:
            scopes[_IN_SCOPES[name]] = None
        elif name in _LIMITS:
            limits[name] = None
        elif name == "expires" and "scopes" in patch:
            result["expires_at"] = None
        else:
            raise typer.BadParameter(f"'{option}' is no option that can be taken back", param_hint="--unset")
    return {**result, "limits": limits, **({"scopes": scopes} if "scopes" in patch else {})}


def seconds(duration: str) -> float:
    """`90s`, `30m`, `24h`, `30d` or `2w`. Anything else is a wrong command line."""
    match = _DURATION.fullmatch(duration)
    if match is None:
        raise typer.BadParameter(f"'{duration}' is no duration; write 90s, 30m, 24h, 30d or 2w")
    return float(match[1]) * _UNITS[match[2]]


def moment(text: str, now: float) -> float:
    """A duration from now, or an ISO 8601 time (UTC if it does not say), in seconds since 1970."""
    if _DURATION.fullmatch(text):
        return now + seconds(text)
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"'{text}' is no time; write 30d, 12h or an ISO 8601 time such as 2031-01-31"
        ) from None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
