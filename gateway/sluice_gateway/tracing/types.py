"""What the pipeline asks of tracing, so that the SDK is imported only where traces are made."""

from __future__ import annotations

from typing import Protocol

from sluice_gateway.exchange import Exchange


class Trace(Protocol):
    """The spans of one sampled request."""

    def begin_attempt(self, model: str) -> bytes:
        """An attempt begins; returns the `traceparent` for its engine."""
        ...

    def end_attempt(self, failure: str | None) -> None:
        """The attempt is over; `failure` names what went wrong, `None` when nothing did."""
        ...

    def note_resumption(self, endpoint: str, tokens: int) -> None:
        """The endpoint died amid a stream, after so many tokens; another one is asked to go on."""
        ...

    def end(self) -> None:
        """The request is over."""
        ...


class TraceMaker(Protocol):
    """Decides which requests are traced."""

    def begin(self, header: bytes | None, exchange: Exchange) -> Trace | None:
        """The trace of a request with this `traceparent`; `None` when it is not sampled."""
        ...

    def close(self) -> None:
        """Export what is left."""
        ...
