"""A key's candidates are the same everywhere, few, and move as little as possible."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from xxhash import xxh3_64_intdigest

from sluice_router.breaker import Breaker
from sluice_router.candidates import POINTS, WIDEST, Pool, demand
from sluice_router.key_traffic import FEW, WINDOW_S, KeyTraffic
from sluice_router.replica import Replica
from sluice_router.types import Endpoint

NAMES = [f"engine-{number}" for number in range(40)]
KEYS = [Random(seed).getrandbits(64) for seed in range(4000)]


def replica(name: str, number: int = 0) -> Replica:
    endpoint = Endpoint(id=name, backend="b", url=f"http://{name}")
    return Replica(endpoint, Breaker(5, 5.0, 60.0, lambda: 0.5), number=number)


def pool(names: list[str]) -> Pool:
    return Pool(replica(name, number) for number, name in enumerate(names))


def names(found) -> list[str]:
    return [r.endpoint.id for r in found]


def usable(of: Pool, key: int, width: int = 2, **options) -> list[str]:
    return names(of.usable(key, width, frozenset(), **options))


def pairs(of: Pool) -> dict[int, list[str]]:
    return {key: usable(of, key) for key in KEYS}


def test_a_keys_place_leads_to_the_next_endpoint_on_the_ring():
    ring = {xxh3_64_intdigest(name.encode(), point): name for name in NAMES for point in range(POINTS)}
    for key in KEYS[:100]:
        place = xxh3_64_intdigest(key.to_bytes(8, "little"), 0)
        following = min(ring, key=lambda point: (point - place) % 2**64)
        assert usable(pool(NAMES), key)[0] == ring[following]


def test_gateways_agree_whatever_the_order_of_their_configuration():
    shuffled = list(NAMES)
    Random(3).shuffle(shuffled)

    assert pairs(pool(NAMES)) == pairs(pool(shuffled))


def test_when_an_endpoint_comes_or_goes_only_its_own_keys_move():
    with_it, without = pairs(pool(NAMES)), pairs(pool(NAMES[:-1]))

    moved = [key for key in KEYS if with_it[key] != without[key]]
    for key in moved:
        assert NAMES[-1] in with_it[key]
        kept = [name for name in with_it[key] if name != NAMES[-1]]
        assert kept == [name for name in without[key] if name in kept]
    assert 0.5 < len(moved) / (2 * len(KEYS) / len(NAMES)) < 1.6


def test_when_an_endpoint_falls_ill_its_keys_go_where_they_would_without_it():
    found = pool(NAMES)
    found.members[-1].healthy = False

    assert pairs(found) == pairs(pool(NAMES[:-1]))


def test_of_a_key_whose_endpoints_are_all_ill_others_are_candidates():
    found = pool(NAMES)
    eight = found.usable(KEYS[0], WIDEST, frozenset())
    for ill in eight:
        ill.healthy = False
    others = usable(found, KEYS[0])

    assert len(set(others)) == 2
    assert not set(others) & set(names(eight))
    assert names(found.usable(KEYS[0], 1, frozenset(others[:1]))) != others[:1]
    for ill in found.members:
        ill.healthy = False
    assert usable(found, KEYS[0]) == []


def test_keys_spread_evenly_over_endpoints_and_pairs():
    found = pairs(pool(NAMES))
    load = Counter(name for pair in found.values() for name in pair)
    seconds = Counter(second for first, second in found.values() if first == NAMES[0])

    assert max(load.values()) < 1.5 * 2 * len(KEYS) / len(NAMES)
    assert min(load.values()) > 0.6 * 2 * len(KEYS) / len(NAMES)
    assert len(seconds) > 15, "the load of one is not inherited by one other"


def test_a_few_endpoints_are_all_candidates():
    assert sorted(usable(pool(NAMES[:3]), 1, 8)) == sorted(NAMES[:3])


# How many candidates

CHAIN = tuple(Random(n).getrandbits(64) for n in range(200))


def wanted(share: float, endpoints: int, chain: tuple[int, ...] = CHAIN[:1], others: int = 400):
    """After a time in which prompts with this chain were a part of many."""
    traffic, random = KeyTraffic(), Random(1)
    for _ in range(others):
        hot = random.random() < share
        demand(chain if hot else (random.getrandbits(64),), traffic, endpoints, 1.0)
    return demand(chain, traffic, endpoints, 1.0)


@pytest.mark.parametrize(
    ("share", "spread", "hot"),
    [(0.0, 2, 0), (0.05, 2, 0), (0.15, 4, 1), (0.25, 8, 1), (0.42, 8, 1), (0.9, 10, 1)],
)
def test_the_more_traffic_a_key_has_the_more_candidates_it_gets(share, spread, hot):
    found = wanted(share, 10, others=1000)

    assert (found.key, found.spread, found.hot_blocks) == (CHAIN[0], spread, hot)


def test_a_key_with_more_traffic_than_eight_can_bear_has_more_of_which_each_prompt_has_eight():
    found, members = wanted(0.1, 100, others=1000), pool(NAMES + [f"other-{n}" for n in range(60)])
    seen = [names(members.some_usable(found.key, found.spread, n / 97, frozenset())) for n in range(97)]

    assert 16 < found.spread < 24
    assert {len(set(some)) for some in seen} == {WIDEST}
    assert found.spread - 6 < len({name for some in seen for name in some}) < found.spread + WIDEST


def test_a_key_that_needs_half_of_all_may_have_any():
    members = pool(NAMES)
    members.members[7].healthy = False
    seen = [names(members.some_usable(KEYS[0], 30, n / 97, frozenset({NAMES[3]}))) for n in range(97)]

    load = Counter(name for some in seen for name in some)
    assert set(load) == set(NAMES) - {NAMES[3], NAMES[7]}
    assert max(load.values()) < 2 * min(load.values())


def test_or_replaced_by_a_later_block_where_prompts_differ():
    traffic, random = KeyTraffic(), Random(1)
    system = CHAIN[:94]
    for _ in range(1500):
        user = tuple(random.getrandbits(64) for _ in range(40))
        found = demand(system + user, traffic, 100, 1.0)

    assert found.key in user
    assert (found.spread, found.hot_blocks) == (2, 93), "of 94 blocks, not all of which are looked at"


def test_the_key_does_not_change_from_turn_to_turn():
    traffic = KeyTraffic()
    assert {demand(CHAIN[:n], traffic, 10, float(n)).key for n in range(1, 31)} == {CHAIN[0]}


def test_where_all_can_be_candidates_of_each_key_none_is_divided():
    found = wanted(1.0, 3)

    assert (found.key, found.spread) == (CHAIN[0], 8)


def test_traffic_is_that_of_the_last_seconds():
    traffic = KeyTraffic()
    for _ in range(FEW):
        traffic.request(0.0)
        traffic.note(1)
    assert traffic.share(1) == 1.0
    for _ in range(FEW):
        traffic.request(WINDOW_S)
    assert traffic.share(1) == 0.5
    traffic.request(2 * WINDOW_S)
    assert traffic.share(1) == 0.0

    traffic.request(10 * WINDOW_S)
    assert traffic._requests_before == 0, "a pause forgets all"


def test_of_little_traffic_nothing_is_hot_and_of_many_keys_not_all_are_counted():
    traffic = KeyTraffic(limit=5)
    for key in range(10):
        for _ in range(FEW - 1):
            traffic.request(0.0)
            traffic.note(key)
        assert traffic.share(key) == 0.0
    assert len(traffic._present) == 5
