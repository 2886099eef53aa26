"""The histogram against a list of everything that was seen."""

from __future__ import annotations

from math import log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice_router.token_histogram import BUCKETS, TokenHistogram, bucket_of

HALF_LIFE_S = 600.0
SEEN = st.lists(st.tuples(st.integers(0, 30_000), st.floats(0.0, 5000.0)), min_size=1, max_size=60)


class Everything:
    """The slow, obvious twin: remembers each answer and weighs it when asked."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, float]] = []

    def weights(self, now: float) -> list[tuple[int, float]]:
        return sorted((tokens, 0.5 ** ((now - at) / HALF_LIFE_S)) for tokens, at in self.seen)

    def quantile(self, share: float, now: float) -> int:
        weights = self.weights(now)
        wanted, passed = share * sum(w for _, w in weights), 0.0
        for tokens, weight in weights:
            passed += weight
            if passed >= wanted:
                return tokens
        return weights[-1][0]


@given(seen=SEEN, share=st.sampled_from([0.1, 0.5, 0.75, 0.9, 1.0]))
def test_a_quantile_is_in_the_bucket_of_the_exact_one(seen, share):
    histogram, twin, now = TokenHistogram(HALF_LIFE_S, 0.0), Everything(), 0.0
    for tokens, pause_s in seen:
        now += pause_s
        histogram.observe(tokens, now)
        twin.seen.append((tokens, now))

    found = histogram.quantile(share)
    # Where the share ends exactly between two answers, rounding may take either.
    below, above = (bucket_of(twin.quantile(share + by, now)) for by in (-1e-6, 1e-6))
    assert below == 0 or found >= 2.0 ** ((below - 1) / 2) * (1 - 1e-9)
    assert found <= 2.0 ** (above / 2) * (1 + 1e-9)


@given(seen=SEEN)
def test_the_number_of_observations_is_the_sum_of_their_weights(seen):
    histogram, twin, now = TokenHistogram(HALF_LIFE_S, 0.0), Everything(), 0.0
    for tokens, pause_s in seen:
        now += pause_s
        histogram.observe(tokens, now)
        twin.seen.append((tokens, now))

    later = now + 300.0
    assert histogram.observations(later) == pytest.approx(sum(w for _, w in twin.weights(later)))


@pytest.mark.parametrize(
    ("tokens", "bucket"),
    [
        (0, 0),
        (1, 0),
        (2, 2),
        (3, 4),
        (4, 4),
        (5, 5),
        (6, 6),
        (8, 6),
        (9, 7),
        (1024, 20),
        (10**9, BUCKETS - 1),
    ],
)
def test_the_edges_of_the_buckets(tokens, bucket):
    assert bucket_of(tokens) == bucket
    assert tokens <= 2 ** (bucket / 2) + 1e-9 or bucket == BUCKETS - 1
    assert bucket == 0 or bucket == BUCKETS - 1 or log2(tokens) > (bucket - 1) / 2


def test_what_was_long_ago_is_outvoted_by_a_few_new_ones():
    histogram = TokenHistogram(HALF_LIFE_S, 0.0)
    for _ in range(100):
        histogram.observe(1000, 0.0)
    for _ in range(10):
        histogram.observe(10, 10 * HALF_LIFE_S)

    assert histogram.quantile(0.75) < 12
    assert histogram.observations(10 * HALF_LIFE_S) == pytest.approx(10 + 100 / 1024)


def test_it_goes_on_after_a_pause_of_years():
    histogram = TokenHistogram(HALF_LIFE_S, 0.0)
    histogram.observe(1000, 0.0)
    histogram.observe(10, 1e8)

    assert 0 < histogram.quantile(0.75) < 12
    assert histogram.observations(2e9) < 1e-200


def test_nothing_seen_is_nothing():
    histogram = TokenHistogram(HALF_LIFE_S, 0.0)

    assert histogram.quantile(0.75) == 0.0
    assert histogram.observations(5.0) == 0.0
