"""Which slot combinations belong to training and which are held out.

The decision is a hash of the slots alone (never of the seed or of the wording around them), so a held-out
combination is absent from every training document, whatever seed drew it and however much text is drawn.
"""

import hashlib
from collections.abc import Callable
from enum import StrEnum

from .exchange import Exchange

HELD_OUT_PERCENT = 12


class Split(StrEnum):
    """The two disjoint halves of every slot space."""

    TRAIN = "train"
    HELD_OUT = "held_out"


def is_held_out(*slots: object) -> bool:
    """Return whether this slot combination is reserved for evaluation."""
    digest = hashlib.blake2b("\x1f".join(map(str, slots)).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") % 100 < HELD_OUT_PERCENT


def draw(split: Split, make: Callable[[], Exchange]) -> Exchange:
    """Call `make` until it returns an exchange whose slots belong to `split`."""
    wanted = split is Split.HELD_OUT
    while True:
        exchange = make()
        if is_held_out(*exchange.slots) == wanted:
            return exchange
