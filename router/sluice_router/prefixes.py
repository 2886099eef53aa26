"""What is known of prompts and caches, over all endpoints: the indexes, the owners, and what was just sent.

An endpoint has an index from its first computed prompt on. Its cap is an equal share of `BLOCKS`, at most
`BLOCKS_EACH`, and no more than the engine says that its KV cache holds: what would not fit there is not
believed to be there.
"""

from __future__ import annotations

from collections.abc import Sequence

from xxhash import xxh3_64_intdigest

from sluice_router.prefix_index import BlockTable
from sluice_router.prefix_owners import PrefixOwners
from sluice_router.speculation import Speculation
from sluice_router.types import RequestFacts

BLOCKS = 4 << 20
"""Of all endpoints together: 268 million tokens, 84 MB when there are so many."""
BLOCKS_EACH = 16_384
"""Of one endpoint: a million tokens, 330 kB."""


class Prefixes:
    """Of the endpoints with the numbers from 0 on."""

    def __init__(self, endpoints: int, blocks: int = BLOCKS) -> None:
        """`blocks`: in all indexes together, at most."""
        self._cap = max(1, min(BLOCKS_EACH, blocks // max(1, endpoints)))
        self._tables: list[BlockTable | None] = [None] * endpoints
        # What was sent is noted under an endpoint's salt; another salt forgets it.
        self._salts = [xxh3_64_intdigest(number.to_bytes(4, "little")) for number in range(endpoints)]
        self._owners = PrefixOwners()
        self._speculation = Speculation()

    def hit_tokens(self, number: int, facts: RequestFacts, prompt_tokens: int, now: float) -> int:
        """How many tokens of the prompt an endpoint probably has in its cache; never all of them, because
        the last one is always computed.

        `prompt_tokens`: what the prompt is known to have, where `facts` only estimate that by its bytes.
        """
        chain = facts.prefix
        table = self._tables[number]
        depth = table.depth(chain) if table is not None else 0
        if depth < len(chain):
            depth = max(depth, self._speculation.depth(chain, self._salts[number], now))
        return self.tokens(depth, facts, prompt_tokens)

    def tokens(self, blocks: int, facts: RequestFacts, prompt_tokens: int) -> int:
        """How many tokens the first blocks of a prompt are; less than all that it has."""
        known = blocks * facts.prefix_block_tokens
        estimate = facts.prompt_tokens_estimate
        if 0 < estimate != prompt_tokens:
            known = known * prompt_tokens // estimate
        return max(0, min(known, prompt_tokens - 1))

    def owners(self, chain: Sequence[int], key: int) -> list[int]:
        """The numbers of endpoints that computed the prompt's beginning lately, at most four: those that
        computed most of it first, then those of its key."""
        found, of_key = self._owners.find(chain), self._owners.of(key)
        if not of_key or found == of_key:
            return list(found)
        return list(dict.fromkeys((*found, *of_key)))[:4]

    def placed(self, number: int, chain: Sequence[int], key: int, now: float) -> None:
        """A prompt was sent to an endpoint."""
        self._speculation.note(chain, self._salts[number], now)
        self._owners.note(key, number)
        self._owners.note(chain[-1], number)

    def computed(self, number: int, chain: Sequence[int], capacity_blocks: int | None) -> None:
        """An endpoint has computed a prompt. `capacity_blocks`: what its KV cache holds, if that is known."""
        table = self._tables[number]
        if table is None:
            table = self._tables[number] = BlockTable(self._cap)
        table.insert(chain, capacity_blocks)

    def forget(self, number: int) -> None:
        """An endpoint was, or may have been, started anew: its cache is empty."""
        table = self._tables[number]
        if table is not None:
            table.clear()
        self._salts[number] = xxh3_64_intdigest(self._salts[number].to_bytes(8, "little"))

    def blocks(self) -> int:
        """In all indexes."""
        return sum(table.blocks for table in self._tables if table is not None)

    def size_bytes(self) -> int:
        """Memory that the indexes take."""
        return sum(table.size_bytes for table in self._tables if table is not None)
