"""The block pool: eviction order, sharing, and what a digest stands for."""

from __future__ import annotations

import pytest

from sluice_worker.block_pool import BlockPool, block_digest, root_digest
from sluice_worker.errors import IntegrityError


def chain(salt: str, *blocks: list[int]) -> list[bytes]:
    """Digests of consecutive blocks."""
    digests = [root_digest(salt)]
    for tokens in blocks:
        digests.append(block_digest(digests[-1], tokens))
    return digests[1:]


def cached_chain(pool: BlockPool, *blocks: list[int]) -> list[bytes]:
    """Fill blocks, register them and free them: what a finished request leaves behind."""
    digests = chain("", *blocks)
    indices = pool.allocate(len(blocks))
    for index, digest in zip(indices, digests, strict=True):
        pool.register(index, digest)
    pool.free(indices)
    return digests


def test_allocated_blocks_are_used_and_freed_blocks_are_free() -> None:
    pool = BlockPool(4, block_size=2)
    indices = pool.allocate(3)
    assert (len(set(indices)), pool.num_used, pool.num_free) == (3, 3, 1)
    pool.free(indices)
    assert (pool.num_used, pool.num_free, pool.num_cached) == (0, 4, 0)
    pool.check_integrity()


def test_a_registered_block_is_found_until_it_is_given_away() -> None:
    pool = BlockPool(2, block_size=2)
    digests = cached_chain(pool, [1, 2])
    assert len(pool.match(digests)) == pool.num_cached == 1
    pool.allocate(2)
    assert pool.match(digests) == []
    assert pool.num_cached == 0


def test_the_tail_of_a_chain_is_evicted_before_its_head() -> None:
    pool = BlockPool(3, block_size=1)
    digests = cached_chain(pool, [1], [2], [3])
    for left in (2, 1, 0):
        pool.allocate(1)
        assert len(pool.match(digests)) == left


def test_the_least_recently_used_chain_is_evicted_first() -> None:
    pool = BlockPool(2, block_size=1)
    first, second = cached_chain(pool, [1]), cached_chain(pool, [2])
    hit = pool.match(first)
    pool.share(hit)
    pool.free(hit)
    pool.allocate(1)
    assert pool.match(first)
    assert not pool.match(second)


def test_empty_blocks_are_given_out_before_cached_ones() -> None:
    pool = BlockPool(3, block_size=1)
    digests = cached_chain(pool, [1])
    scratch = pool.allocate(2)
    pool.free(scratch)
    pool.allocate(2)
    assert pool.match(digests)


def test_a_shared_block_is_free_only_when_all_let_go() -> None:
    pool = BlockPool(2, block_size=1)
    hit = pool.match(cached_chain(pool, [1]))
    assert pool.count_free(hit) == 1
    pool.share(hit)
    assert pool.count_free(hit) == 0
    pool.share(hit)
    pool.free(hit)
    assert pool.num_used == 1
    pool.free(hit)
    assert pool.num_used == 0
    pool.check_integrity()


def test_the_first_block_with_the_same_tokens_stays_the_known_one() -> None:
    pool = BlockPool(2, block_size=1)
    digest = chain("", [1])[0]
    first, second = pool.allocate(2)
    pool.register(first, digest)
    pool.register(second, digest)
    assert pool.match([digest]) == [first]
    pool.free([second])
    assert pool.num_cached == 0
    pool.check_integrity()


def test_a_digest_depends_on_tokens_on_what_came_before_and_on_the_salt() -> None:
    digests = {
        *chain("", [1, 2], [3, 4]),
        *chain("", [2, 1], [3, 4]),
        *chain("tenant", [1, 2], [3, 4]),
        *chain("", [3, 4]),
    }
    assert len(digests) == 7


def test_matching_stops_at_the_first_unknown_block() -> None:
    pool = BlockPool(3, block_size=1)
    digests = cached_chain(pool, [1], [2], [3])
    assert len(pool.match([digests[0], b"unknown", digests[2]])) == 1


def test_blocks_for_rounds_up() -> None:
    pool = BlockPool(1, block_size=16)
    assert [pool.blocks_for(n) for n in (1, 16, 17)] == [1, 1, 2]


def test_freeing_twice_is_noticed() -> None:
    pool = BlockPool(2, block_size=1)
    indices = pool.allocate(1)
    pool.free(indices)
    pool.free(indices)
    with pytest.raises(IntegrityError):
        pool.check_integrity()
