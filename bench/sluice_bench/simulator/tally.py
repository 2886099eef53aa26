"""What became of each request: a row for every one, in columns, and sums that need no rows.

Invariant: a request has exactly one ending.
"""

from __future__ import annotations

from array import array
from math import nan

from sluice_bench.simulator.traffic import Client, Request
from sluice_router.types import PRIORITIES, Outcome, Reject

COMPLETE, BROKEN, LEFT = "complete", "broken", "left"
"""Endings beside those that the router's outcomes name."""


class Tally:
    """Columns by request number; seconds and tokens."""

    def __init__(self) -> None:
        self.arrived = array("d")
        self.ttft = array("d")
        """From the first arrival, waits between tries included; not a number without a first token."""
        self.itl = array("d")
        """Mean of the answer; not a number for answers of one token, and for those that did not end."""
        self.waited = array("d")
        """In a gateway's queue, in the last try."""
        self.ending: list[str] = []
        self.priority = array("b")
        self.tenant: list[str] = []
        self.prompt = array("l")
        self.shared = array("l")
        self.stream = array("l")
        self.output = array("l")
        self.made = array("l")
        """Output tokens that were delivered."""
        self.cached = array("l")
        self.open = 0
        self.obeyed = self.obeyed_admitted = 0
        """First tries after a `Retry-After` that was obeyed, and those that were not refused again."""
        self.refusals: dict[str, int] = {}
        """Of tries, by outcome."""
        self.hedged_tokens = 0
        """Prompt tokens that were computed for attempts which were given up because another answered."""
        self.served: dict[str, int] = {}
        """Tokens that each tenant got, output twice, what was cached not at all."""

    def serve(self, tenant: str, tokens: int) -> None:
        """A tenant got something."""
        self.served[tenant] = self.served.get(tenant, 0) + tokens

    def opened(self, request: Request) -> None:
        """It has arrived for the first time. Numbers come in order."""
        assert request.number == len(self.arrived)
        facts = request.facts
        self.arrived.append(request.arrived)
        for column in (self.ttft, self.itl, self.waited):
            column.append(nan)
        self.ending.append("")
        self.priority.append(PRIORITIES.index(facts.priority))
        self.tenant.append(facts.tenant)
        self.prompt.append(request.prompt)
        self.shared.append(facts.shared)
        self.stream.append(facts.stream_id)
        self.output.append(request.output)
        self.made.append(0)
        self.cached.append(0)
        self.open += 1

    def refused(self, request: Request, reject: Reject) -> None:
        """A try was."""
        outcome = reject.outcome.value
        self.refusals[outcome] = self.refusals.get(outcome, 0) + 1

    def tried(self, request: Request, admitted: bool) -> None:
        """How a try went. The second one of an obeying client is what `Retry-After` promised."""
        if request.client is Client.OBEY and request.tries == 2:
            self.obeyed += 1
            self.obeyed_admitted += admitted

    def closed(self, request: Request, ending: str) -> None:
        """It is over. Raises `RuntimeError` the second time."""
        if self.ending[request.number]:
            raise RuntimeError(f"request {request.number} ended twice")
        self.ending[request.number] = ending
        self.open -= 1


OUTPUT_WEIGHT = 2
"""Of an output token against one of prompt, as in VTC."""

REFUSED = tuple(outcome.value for outcome in Outcome if outcome is not Outcome.DISPATCHED)
"""Endings of requests that were never served."""
