"""Which endpoint is a session's home: the first of those that hashing gives the session's key.

A session's name goes before what its prompts look like: it is a key of its own (`candidates.py`). So all
gateways agree with nothing shared, and when an endpoint goes or comes, only the sessions that were, or will
be, at home there move.
"""

from __future__ import annotations

from xxhash import xxh3_64_intdigest

from sluice_router.candidates import Pool
from sluice_router.replica import Replica


def session_key(tenant: str, session: str) -> int:
    """The key of a session.

    Sessions of different tenants have nothing to do with each other, even under one name.
    """
    return xxh3_64_intdigest(f"{tenant}\0{session}\0".encode("utf-8", "surrogatepass"))


def home(pool: Pool, key: int, excluded: frozenset[str] = frozenset()) -> Replica | None:
    """The endpoint of a session's key among the usable ones, be it full; `None` when none is usable.

    `excluded`: ids of endpoints that do not count.
    """
    found = pool.usable(key, 1, excluded)
    return found[0] if found else None
