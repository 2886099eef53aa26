"""Which endpoint is a session's home: rendezvous hashing.

Every endpoint gets a score from a hash of session and endpoint id, and the highest wins. So all gateways
agree with nothing shared, and when an endpoint goes or comes, only the sessions that were, or will be, at
home there move. The hash is BLAKE2b: the same in every process, unlike Python's own. Source: Thaler and
Ravishankar, *Using name-based mappings to increase hit rates*, 1998.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

from sluice_router.replica import Replica


def home(replicas: Iterable[Replica], tenant: str, session: str) -> Replica | None:
    """The session's endpoint among the usable ones, be it full; `None` when none is usable.

    Sessions of different tenants have nothing to do with each other, even under one name.
    """
    key = f"{tenant}\0{session}\0".encode("utf-8", "surrogatepass")
    usable = (r for r in replicas if r.usable)
    return max(usable, key=lambda r: _score(key, r.endpoint.id), default=None)


def _score(key: bytes, endpoint_id: str) -> bytes:
    return blake2b(key + endpoint_id.encode(), digest_size=8).digest()
