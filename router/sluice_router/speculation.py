"""Prompts that have just been sent: what an engine's cache will hold as soon as it has computed them.

Of several requests with one beginning that arrive together, only the first finds no cache. Where it was sent
the others should follow, though nothing is computed yet: so a chain is noted here when it is placed, for
`TTL_S` to twice that, and in the index of the endpoint (`prefix_index.py`) when its first token has come. A
request that fails is never noted there. Other routers do the same, for two seconds (llm-d) or on demand
(Dynamo's `predict-on-route`).

One table for all endpoints, with a bound of its own. Does not know whether a request was answered: its chain
is forgotten here in any case.
"""

from __future__ import annotations

from collections.abc import Sequence

from sluice_router.prefix_index import BlockTable

TTL_S = 2.5
BLOCKS = 32_768
"""Of all endpoints together: 2 million tokens, 660 kB."""


class Speculation:
    """The chains placed lately."""

    def __init__(self, blocks: int = BLOCKS) -> None:
        self._blocks = blocks
        self._table: BlockTable | None = None
        self._begun_at = 0.0
        self._generation = 0

    def depth(self, chain: Sequence[int], endpoint_salt: int, now: float) -> int:
        """How many blocks of the chain an endpoint was sent lately, from its beginning on."""
        if self._table is None or not chain:
            return 0
        self._pass(self._table, now)
        return self._table.depth(chain, endpoint_salt) if self._table.blocks else 0

    def note(self, chain: Sequence[int], endpoint_salt: int, now: float) -> None:
        """A prompt with this chain was sent to an endpoint."""
        if self._table is None:
            self._table = BlockTable(self._blocks, self._blocks)
            self._begun_at = now
        self._pass(self._table, now)
        self._table.insert(chain, salt=endpoint_salt)

    def _pass(self, table: BlockTable, now: float) -> None:
        """Forget what is older than twice the time to live."""
        age_s = now - self._begun_at
        if age_s < TTL_S:
            return
        if age_s < 2 * TTL_S:
            table.forget_before(self._generation)
        else:
            table.clear()
        self._generation = table.begin_generation()
        self._begun_at = now
