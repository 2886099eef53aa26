"""What would satisfy a request: one target, or several, best first, where it leaves a choice.

An alias has an ordered list of choices; a wish (`prefer`) may be left out where it cannot be had. What the
client wishes goes before the operator's order of an alias: first every choice as wished, then with a part of
the wish, then without. What the operator wrote into an alias, and what a key is held to, is never relaxed;
and a choice that contradicts the headers is left out.

Knows nothing of endpoints.
"""

from __future__ import annotations

import msgspec

from sluice_router.types import Choice, RequestFacts


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One way to satisfy a request."""

    facts: RequestFacts
    """The request with this model, backend and quantization, without alias and wish."""
    choice: int = 0
    """Index of the alias's choice; 0 without an alias."""
    relaxed: bool = False
    """Something that the client wished is left out."""


_Demand = tuple[str, str | None, str | None]
"""Model, backend, quantization."""


def targets(facts: RequestFacts) -> tuple[Target, ...]:
    """All of them, best first; empty when the headers exclude every choice of an alias."""
    if not facts.choices and not facts.prefer:
        return (Target(facts=facts),)
    choices = facts.choices or (Choice(model=facts.model),)
    found: dict[_Demand, Target] = {}
    for backend, quant in _wishes(facts):
        relaxed = (backend, quant) != (facts.backend, facts.quant)
        for index, choice in enumerate(choices):
            if _agree(choice.backend, backend) and _agree(choice.quant, quant):
                demand = (choice.model, choice.backend or backend, choice.quant or quant)
                target = Target(facts=_plain(facts, demand), choice=index, relaxed=relaxed)
                found.setdefault(demand, target)
    return tuple(found.values())


def _wishes(facts: RequestFacts) -> tuple[tuple[str | None, str | None], ...]:
    """(backend, quantization) as asked for, then less and less of it if it was only a wish."""
    whole = (facts.backend, facts.quant)
    if not facts.prefer:
        return (whole,)
    return (whole, (facts.backend, None), (None, facts.quant), (None, None))


def _agree(one: str | None, other: str | None) -> bool:
    return one is None or other is None or one == other


def _plain(facts: RequestFacts, demand: _Demand) -> RequestFacts:
    model, backend, quant = demand
    return msgspec.structs.replace(facts, model=model, backend=backend, quant=quant, prefer=False, choices=())
