"""Points in time as people write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_AGO = re.compile(r"(\d{1,6})([smhdw])")


class PeriodError(ValueError):
    """Not a point in time; the message is for the user."""


def parse_time(text: str, now_s: float) -> int:
    """Milliseconds since 1970 of `7d` (seven days ago; also s, m, h, w) or an ISO 8601 date or time.

    A time without a zone is UTC. Raises `PeriodError`.
    """
    ago = _AGO.fullmatch(text.strip())
    if ago is not None:
        return max(0, int(now_s * 1000) - int(ago[1]) * _UNITS_S[ago[2]] * 1000)
    try:
        moment = datetime.fromisoformat(text.strip())
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return max(0, int(moment.timestamp() * 1000))
    except (ValueError, OverflowError):
        raise PeriodError(f"'{text}' is no time; write 7d, 24h, 30m or 2026-01-31T12:00:00Z.") from None


def format_time(time_ms: int) -> str:
    """ISO 8601 in UTC, with milliseconds."""
    moment = datetime.fromtimestamp(time_ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def format_day(days: int) -> str:
    """The date of a number of days since 1970."""
    return datetime.fromtimestamp(days * 86400, UTC).date().isoformat()


def format_hour(hours: int) -> str:
    """The hour of a number of hours since 1970, e.g. `2026-01-31T12:00Z`."""
    return datetime.fromtimestamp(hours * 3600, UTC).strftime("%Y-%m-%dT%H:00Z")
