"""Ratios are paired by rounds, and claim no more than their rounds can show."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pointwise.timing import UNKNOWN, Ratio, Times, ratio


def times(values):
    return Times(tuple(float(value) for value in values))


def test_what_slows_a_round_down_slows_both_sides():
    """A machine that is twice, or ten times, as slow in some rounds changes nothing."""
    slow = np.array([1, 10, 1, 1, 2, 1, 1, 3, 1, 1])
    found = ratio(times(6 * slow), times(3 * slow))
    assert (found.value, found.low, found.high) == pytest.approx((2, 2, 2))
    assert found.is_above
    assert found.is_decided
    assert not found.is_below


def test_the_interval_is_the_sign_test_s():
    values = range(1, 21)
    found = ratio(times(values), times([1] * 20))
    # Of 20, five on each side: 2 · P(X ≤ 5) = 0.041, and 0.115 with six.
    assert (found.value, found.low, found.high) == (10.5, 6, 15)
    assert ratio(times(values[:9]), times([1] * 9)) == Ratio(5, 2, 8)
    assert ratio(times(values[:6]), times([1] * 6)) == Ratio(3.5, 1, 6)


@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_few_rounds_decide_nothing(rounds):
    found = ratio(times([9] * rounds), times([1] * rounds))
    assert (found.value, found.low, found.high) == (9, 0, math.inf)
    assert not found.is_decided
    assert str(found) == "9.0"
    assert found.record() == {"ratio": 9, "low": None, "high": None}


def test_how_often_an_interval_excludes_the_truth():
    """Of the same thing timed twice, one of twenty comparisons may be decided, and not more."""
    draw = np.random.default_rng(0)
    wrong = sum(
        ratio(times(one), times(two)).is_decided
        for one, two in draw.lognormal(0, 0.3, (1000, 2, 10))
    )
    assert 5 < wrong < 50


def test_rounds_that_one_side_missed_do_not_count():
    found = ratio(Times((2.0, 2.0) * 6, turns=(2,) * 6), times([1, 1, 1, 1, 1, 1, 5, 5]))
    assert (found.value, found.low, found.high) == (2, 2, 2)
    assert ratio(times([]), times([1])) is UNKNOWN
    assert ratio(times([1]), times([0])) is UNKNOWN
    assert not UNKNOWN.is_decided


def test_the_other_way_round():
    found = Ratio(2.0, 1.6, 4.0).inverse()
    assert (found.value, found.low, found.high) == (0.5, 0.25, 0.625)
    assert found.is_below
    assert Ratio(2.0, 0, math.inf).inverse() == Ratio(0.5, 0, math.inf)


def test_words_and_json():
    assert str(Ratio(1.904, 1.66, 2.31)) == "1.90 (1.66 to 2.3)"
    assert str(Ratio(120.4, 99.2, 151.0)) == "120 (99.2 to 151)"
    assert Ratio(2, 1.5, 3).record() == {"ratio": 2, "low": 1.5, "high": 3}
