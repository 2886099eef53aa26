"""A prompt as a chain of hashes: two prompts share a beginning exactly as far as their chains do.

The bytes that the client sent are cut into blocks, and each block's number is the hash of its bytes with the
number before it as the seed. So a number stands for everything up to it: two chains that are equal at one
place are equal everywhere before. The first seed is made of the tenant and the model, whose caches have
nothing to do with each other.

What is hashed is the prompt in the order in which an engine reads it: first what is complete (tools, system
prompt), then what grows (the messages, with their roles and all else that is written there). From what grows
the closing bracket or quote is cut, and its last, incomplete block is left out, because the next turn goes on
there: the chain of a conversation's next turn begins with the whole chain of the turn before. A complete part
ends with its own last byte; its last block, being short, has no number and goes into the next seed.

Clients that write the same messages with other spaces or escapes get another chain, and lose nothing but the
hint. The hash is XXH3 (64 bits): the same in every process. It is no secret and no signature; who makes two
prompts collide on purpose sends his own requests to the wrong cache.

Does not know tokens, beyond `BLOCK_TOKENS`, nor endpoints.
"""

from __future__ import annotations

from collections.abc import Sequence

from xxhash import xxh3_64_intdigest

BLOCK_TOKENS = 64
"""About how many tokens a block is, which is also the block of the best known routers."""
BLOCK_BYTES = 4 * BLOCK_TOKENS
MAX_BLOCKS = 2048
"""Of one chain: 131,072 tokens. What comes after them is not looked at."""

_ARRAY = ord("[")
_OPEN = frozenset(b'["')
_CLOSED = frozenset(b']"')
_SPACES = b" \t\r\n"


def chain(tenant: str, model: str, complete: Sequence[bytes], growing: bytes) -> tuple[int, ...]:
    """The numbers of a prompt, one for each full block; empty for one shorter than that.

    `complete` and `growing` are JSON values as the client wrote them. `growing` is an array, or a string.
    """
    if len(growing) + sum(map(len, complete)) < BLOCK_BYTES:
        return ()
    numbers: list[int] = []
    state = salt(tenant, model)
    for part in complete:
        state = _extend(numbers, state, part, len(part))
        rest = part[len(part) - len(part) % BLOCK_BYTES :]
        state = xxh3_64_intdigest(rest, state)
    _extend(numbers, state, growing, _end(growing))
    return tuple(numbers)


def salt(tenant: str, model: str) -> int:
    """The seed of all chains of one tenant's prompts for one model."""
    return xxh3_64_intdigest(f"{tenant}\0{model}".encode("utf-8", "surrogatepass"))


def _extend(numbers: list[int], state: int, part: bytes, end: int) -> int:
    """Append the numbers of the full blocks before `end`. Returns the last one."""
    room = MAX_BLOCKS - len(numbers)
    for start in range(0, min(end // BLOCK_BYTES, room) * BLOCK_BYTES, BLOCK_BYTES):
        state = xxh3_64_intdigest(part[start : start + BLOCK_BYTES], state)
        numbers.append(state)
    return state


def _end(growing: bytes) -> int:
    """Where the next turn would go on."""
    end = len(growing)
    if end < 2 or growing[0] not in _OPEN or growing[end - 1] not in _CLOSED:
        return end
    end -= 1
    if growing[0] == _ARRAY:
        while growing[end - 1] in _SPACES:
            end -= 1
    return end
