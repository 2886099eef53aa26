"""What an attempt told the client, and what the next one has to go on with."""

from __future__ import annotations

from dataclasses import dataclass

from sluice_gateway.dialects.translation import Translation
from sluice_gateway.errors import Problem
from sluice_gateway.resumption.splice import Splice
from sluice_gateway.resumption.transcript import Transcript
from sluice_router.types import Usage


@dataclass(slots=True)
class Told:
    """A stream of chat or text completions that has gone to the client, maybe through a translation."""

    kind: str
    """What the engine was asked for."""
    path: str
    original: bytes
    """What the first engine was asked, but for the model's name and the wish for a usage."""
    translation: Translation | None
    transcript: Transcript
    usage: Usage | None = None
    """What the engines said it was so far; `None` when they did not."""


@dataclass(slots=True)
class Rest:
    """What another engine is asked for after a cut."""

    told: Told
    body: bytes
    splice: Splice
    left_s: float
    """Seconds that the whole answer may still take."""
    cause: Problem
    """Why the stream was cut: what the client is told if nobody goes on."""
