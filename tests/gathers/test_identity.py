"""The pointwise gather: a point's own channels, on their own and mixed."""

from __future__ import annotations

import oracle
import pytest
import torch
from cases import each

from pointwise.engine.cpu.gathers.points import IDENTITY, Gather
from pointwise.engine.cpu.loops.points import mixed_points
from pointwise.operators import cells as operators


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("channels", [1, 3, 16, 17, 70])
@pytest.mark.parametrize("rows", [0, 1, 111, 112, 113])
def test_gather_alone_copies(rows, channels, dtype, poisoned):
    features = torch.rand(rows, channels, dtype=dtype)
    assert torch.equal(mixed_points(Gather(IDENTITY, features, rows), None, None), features)


@each()
def test_mixed_is_the_oracle(case, poisoned):
    features, weight, bias = case.features(), case.pointwise_weight(), case.bias_values()
    found = operators._pointwise_cpu(features, weight, bias)
    expected = oracle.pointwise(
        features.numpy(), weight.numpy(), None if bias is None else bias.numpy()
    )
    oracle.assert_close(found.numpy(), expected, case.channels[0] + 1)


@each()
def test_weight_gradient_is_the_oracle(case, poisoned):
    grad = case.random("gradient", len(case.points), case.channels[1])
    d_weight, d_bias = operators._pointwise_grad_weight_cpu(grad, case.features())
    exact = grad.double()
    expected = exact.t() @ case.features().double()
    oracle.assert_close(d_weight.numpy(), expected.numpy(), len(grad) + 1, what="weight gradient")
    oracle.assert_close(d_bias.numpy(), exact.sum(0).numpy(), len(grad) + 1, what="bias gradient")
