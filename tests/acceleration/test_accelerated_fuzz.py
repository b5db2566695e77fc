"""Networks put together at random give what eager PyTorch gives, whichever way they are made."""

from __future__ import annotations

import warnings

import pytest
import torch
from both_ways import assert_as_eager, compiled, exported
from random_networks import random_network
from torch import Tensor, nn


def _check(seed: int, way) -> None:
    model, x = random_network(seed)
    try:
        with torch.no_grad():
            model(x.clone())
    except RuntimeError:
        return  # a kernel that is larger than what is left of the image
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        faster = way(model, x)
        assert_as_eager(model, faster, x)
        for other in (torch.cat((x, x.flip(0))), x[:, :, :-1], x[:1]):
            if _runs(model, other):
                _assert_as_eager_or_refused(model, faster, other)


def _runs(model: nn.Module, x: Tensor) -> bool:
    try:
        with torch.no_grad():
            model(x.clone())
    except RuntimeError:
        return False
    return True


def _assert_as_eager_or_refused(model, faster, x: Tensor) -> None:
    """A traced model may say that it was traced for other sizes; never give something else."""
    try:
        assert_as_eager(model, faster, x)
    except ValueError as error:
        assert "Accelerate it again with such an example" in str(error)  # noqa: PT017


@pytest.mark.parametrize("seed", range(24))
def test_exported(seed):
    _check(seed, exported)


@pytest.mark.parametrize("seed", range(100, 110))
def test_compiled(seed):
    _check(seed, compiled)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 1400, 50))
def test_many_exported(first):
    for seed in range(first, first + 50):
        _check(seed, exported)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(2000, 2200, 20))
def test_many_compiled(first):
    for seed in range(first, first + 20):
        _check(seed, compiled)
