"""Ranks for an error, and the best ones for a budget: compared with trying everything."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pointwise.separation.ranks import Choice, choices, for_error, within


def test_the_smallest_rank_that_is_good_enough():
    errors = [0.5, 0.3, 0.1, 0.02]
    assert for_error(errors, 0.3) == 2
    assert for_error(errors, 0.29) == 3
    assert for_error(errors, 0.9) == 1
    assert for_error(errors, 0.01) is None
    assert for_error([], 0.5) is None


def test_what_lies_above_the_hull_is_left_out():
    found = choices([0.9, 0.89, 0.1, 0.05], once=10, standard=100)
    assert [choice.rank for choice in found] == [1, 3, 4, None]
    assert found[0] == Choice(10, pytest.approx(0.81), 1)
    assert found[-1] == Choice(100, 0.0, None)
    gains = [(a.error - b.error) / (b.cost - a.cost) for a, b in itertools.pairwise(found)]
    assert gains == sorted(gains, reverse=True)


def test_what_costs_as_much_as_the_convolution_is_never_chosen():
    assert [choice.rank for choice in choices([0.5, 0.2, 0.0], 40, 80)] == [1, None]
    assert [choice.rank for choice in choices([0.5], 80, 80)] == [None]


def test_an_error_that_rises_again_is_left_out():
    # Fitted to some images and measured on others, a higher rank may do worse.
    assert [choice.rank for choice in choices([0.5, 0.2, 0.3], 10, 100)] == [1, 2, None]
    assert [choice.rank for choice in choices([0.0, 0.0], 10, 100)] == [1]


def layers(seed):
    rng = np.random.default_rng(seed)
    found = {}
    for name in "abcd":
        errors = np.sort(rng.uniform(0, 1, 5))[::-1]
        once = int(rng.integers(3, 30))
        found[name] = choices(list(errors), once, int(once * rng.uniform(4, 8)))
    return found


@pytest.mark.parametrize("seed", range(8))
def test_the_budget_is_kept_and_no_cheaper_choice_is_better(seed):
    options = layers(seed)
    least = sum(each[0].cost for each in options.values())
    most = sum(each[-1].cost for each in options.values())
    every = list(itertools.product(*options.values()))
    for budget in np.linspace(least, most, 9).astype(int):
        found = within(options, int(budget))
        cost = sum(choice.cost for choice in found.values())
        error = sum(choice.error for choice in found.values())
        assert cost <= budget
        best = min(sum(c.error for c in row) for row in every if sum(c.cost for c in row) <= budget)
        # A greedy choice may waste what is left at the end: at most one step of one layer.
        step = max(a.error - b.error for row in options.values()
                   for a, b in itertools.pairwise(row)) if cost < most else 0.0  # fmt: skip
        assert best - 1e-12 <= error <= best + step
    assert all(choice.rank is None for choice in within(options, most).values())
    assert [c.cost for c in within(options, least).values()] == [
        each[0].cost for each in options.values()
    ]
