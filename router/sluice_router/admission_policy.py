"""The numbers of admission: how long a first token may take, and what is sent to an engine at most.

None of them needs to be set. The budgets say what a class of urgency is for; the rest bounds what an engine
is given ahead of time. Whatever was not measured yet, or is not said by an engine, is bounded by none of it.
Sources: the 0.92 leaves room for what requests grow beyond their estimate; the shares of the budget by the
age of a reading are those of the fleet simulation in the design notes.
"""

from __future__ import annotations

import msgspec

from sluice_router.types import RequestFacts

STRETCH = 2.0
"""A prompt that takes longer than its class's whole budget, even on an idle engine, may take this many times
what it needs: no refusal would make it shorter."""
_FRESH_S, _AGED_S = 0.2, 1.0


class AdmissionPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How requests are let in."""

    interactive_ttft_s: float = 2.0
    """Seconds to the first token within which a request of the class is worth serving."""
    default_ttft_s: float = 10.0
    bulk_ttft_s: float = 300.0
    queued_prefill_s: float = 1.0
    """Seconds of prompts that an engine may have queued when it is given one more. It keeps the waiting where
    the order is kept: in the router."""
    kv_share: float = 0.92
    """Share of an engine's KV cache that requests may be expected to fill."""
    max_queue_tokens: int | None = None
    """Prompt tokens that may wait; `None`: any number."""
    max_queue_bytes: int | None = None
    """Bytes of request bodies that may wait; `None`: any number."""

    @property
    def deadlines_s(self) -> dict[str, float]:
        """The budgets by class."""
        return {
            "interactive": self.interactive_ttft_s,
            "default": self.default_ttft_s,
            "bulk": self.bulk_ttft_s,
        }

    def ttft_budget_s(self, facts: RequestFacts) -> float:
        """Seconds to the first token: what the client said, or what its class has."""
        if facts.ttft_budget_s is not None:
            return facts.ttft_budget_s
        if facts.priority == "interactive":
            return self.interactive_ttft_s
        return self.bulk_ttft_s if facts.priority == "bulk" else self.default_ttft_s


def slack(reading_age_s: float | None) -> float:
    """Share of a budget that a prediction may fill, by the age of the engine's reading. Where there never
    was one, the router's own ledger is what is predicted from, and it has no age."""
    if reading_age_s is None or reading_age_s <= _FRESH_S:
        return 1.0
    return 0.8 if reading_age_s <= _AGED_S else 0.6
