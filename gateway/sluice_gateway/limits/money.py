"""Money as the limits count it: whole micro-units (a millionth of the price table's currency), rounded up.

Integers, so that what was reserved is given back to the last unit, in Python as in Redis. A price per million
tokens is the same number as micro-units per token.
"""

from __future__ import annotations

from sluice_gateway.limits.types import Price
from sluice_router.types import Usage

MICRO = 1_000_000
_NANO = 1000


def cost_micro(price: Price, usage: Usage) -> int:
    """What a request cost, in micro-units."""
    return micro(price.cost(usage))


def worst_case_micro(price: Price, prompt_tokens: int, output_tokens: int) -> int:
    """The most that a request can cost: nothing cached, all of its output bound used."""
    return micro((prompt_tokens * price.input + output_tokens * price.output) / MICRO)


def micro(amount: float) -> int:
    """Money in micro-units, rounded up; to a thousandth first, so that binary noise does not add one."""
    return -(-round(amount * MICRO * _NANO) // _NANO)
