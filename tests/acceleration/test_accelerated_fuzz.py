"""Networks put together at random give what eager PyTorch gives, whichever way they are made."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from both_ways import assert_as_eager, compiled, exported
from random_networks import random_network
from torch import Tensor, nn


def _check(seeds: Sequence[int], way) -> Counter[str]:
    """Every network runs, and is right; how often it was so for images of other sizes as well."""
    found: Counter[str] = Counter()
    for seed in seeds:
        print("seed", seed)  # shown where one fails
        model, x = random_network(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            faster = way(model, x)
            assert_as_eager(model, faster, x)
            for other in (torch.cat((x, x.flip(0))), x[:, :, :-1], x[:1]):
                found[_for_another_size(model, faster, other)] += 1
    return found


def _for_another_size(model: nn.Module, faster, x: Tensor) -> str:
    """A traced model may say that it was traced for other sizes; never give something else."""
    try:
        with torch.no_grad():
            model(x.clone())
    except RuntimeError:
        return "too small for eager PyTorch"
    try:
        assert_as_eager(model, faster, x)
    except ValueError as error:
        assert "Accelerate it again with such an example" in str(error)  # noqa: PT017
        return "refused"
    return "right"


def test_exported():
    found = _check(range(8), exported)
    assert found["right"] >= 20, found  # of 24 sizes


def test_compiled():
    found = _check(range(100, 104), compiled)
    assert found["refused"] == 0, found  # torch.compile traces again
    assert found["right"] >= 11, found  # of 12


@pytest.mark.rare
@pytest.mark.parametrize("first", range(1000, 1100, 25))
def test_many_exported(first):
    found = _check(range(first, first + 25), exported)
    assert found["right"] >= 60, found  # of 75


@pytest.mark.rare
@pytest.mark.parametrize("first", range(2000, 2040, 20))
def test_many_compiled(first):
    found = _check(range(first, first + 20), compiled)
    assert found["right"] >= 50, found  # of 60
