from __future__ import annotations

from collections import Counter

import pytest

from sluice_bench.journeys.dealer import Dealer
from sluice_bench.journeys.visitor import NEEDS, WEIGHTS


@pytest.mark.parametrize("begin", [0, 7, 20])
def test_any_round_of_the_mix_has_each_journey_as_often_as_it_weighs(begin):
    dealer = Dealer(WEIGHTS)
    dealt = [dealer.next() for _ in range(60)]

    assert Counter(dealt[begin : begin + sum(WEIGHTS.values())]) == Counter(WEIGHTS)


def test_equal_weights_take_turns():
    dealer = Dealer({"a": 1, "b": 1})

    assert [dealer.next() for _ in range(4)] == ["a", "b", "a", "b"]


def test_a_heavy_name_does_not_come_in_one_lump():
    dealer = Dealer({"often": 4, "seldom": 1, "rarely": 1})
    dealt = "".join(dealer.next()[0] for _ in range(6))

    assert "oooo" not in dealt


@pytest.mark.parametrize("weights", [{}, {"a": 0}, {"a": 1, "b": -1}])
def test_nothing_to_deal_is_an_error(weights):
    with pytest.raises(ValueError):
        Dealer(weights)


def test_every_journey_has_a_weight():
    assert WEIGHTS.keys() == NEEDS.keys()
