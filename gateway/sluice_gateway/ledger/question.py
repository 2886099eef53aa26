"""A question to the ledger in a person's words, as the command line and the admin API take it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import msgspec

from sluice_gateway.ledger.period import PeriodError, parse_time
from sluice_gateway.ledger.report import DIMENSIONS, Dimension, Selection


class QuestionError(ValueError):
    """The question cannot be asked like this; the message is for the user."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """Which requests, added up by what."""

    by: tuple[Dimension, ...]
    selection: Selection


def read_question(
    by: str, since: str, until: str | None, names: Mapping[str, str | None], now_s: float
) -> Question:
    """From words. `names` are those of `Selection`. Raises `QuestionError`."""
    wanted = tuple(part.strip() for part in by.split(",") if part.strip())
    if set(wanted) - set(DIMENSIONS) or len(set(wanted)) < len(wanted):
        raise QuestionError(f"'{by}': choose any of {', '.join(DIMENSIONS)}, each once, with commas")
    try:
        since_ms = parse_time(since, now_s)
        until_ms = int(now_s * 1000) + 1 if until is None else parse_time(until, now_s)
    except PeriodError as error:
        raise QuestionError(str(error)) from None
    selection = Selection(since_ms=since_ms, until_ms=until_ms, **names)
    return Question(by=cast("tuple[Dimension, ...]", wanted), selection=selection)
