"""The gradients of the convolutions on images are exact, to any order: gradcheck in float64."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from image_cases import F64, ImageCase, each
from torch.autograd import gradcheck, gradgradcheck

from pointwise.functional import (
    conv2d,
    depthwise_conv2d,
    depthwise_separable_conv2d,
    pointwise_conv2d,
)

ROLES = ("input", "weight", "bias")


def wanting(*tensors):
    return [None if t is None else t.detach().clone().requires_grad_() for t in tensors]


SMALL = [
    ImageCase("standard", (3, 4), (2, 3), batch=2),
    ImageCase("stride 2, same", (5, 4), (2, 2), stride=2, padding="same", batch=1),
    ImageCase("stride 3, pixels that nobody sees", (5, 6), (1, 2), (2, 2), 3, 0, batch=1),
    ImageCase("groups, uneven", (3, 2), (4, 2), (3, 2), padding=((2, 0), (0, 1)), groups=2,
              batch=1),
    ImageCase("dilated", (4, 3), (1, 2), padding=2, dilation=2, batch=1),
    ImageCase("depthwise", (3, 4), (3, 3), groups=3, batch=2),
    ImageCase("depthwise, times 2, stride 2", (4, 3), (2, 4), stride=2, groups=2, batch=1),
    ImageCase("pointwise", (2, 2), (9, 2), (1, 1), padding=0, batch=2),
    ImageCase("pointwise, stride 2, no batch", (3, 3), (2, 3), (1, 1), 2, 0, batch=None),
    ImageCase("one pixel", (1, 1), (2, 2), batch=1),
    ImageCase("sliced", (3, 3), (2, 2), (2, 2), layout="sliced", weight_layout="transposed",
              batch=1),
]  # fmt: skip


@each(SMALL)
def test_exact_to_the_second_derivative(case):
    tensors = wanting(*case.tensors(F64))

    def function(x, weight, bias):
        return conv2d(x, weight, bias, **case.geometry, groups=case.groups)

    assert gradcheck(function, tensors)
    assert gradgradcheck(function, tensors)


@each(SMALL)
def test_each_gradient_operator_is_exact(case):
    for name in ("conv2d_grad_input", "conv2d_grad_weight"):
        x, weight, grad = (case.tensor(role, F64) for role in ("input", "weight", "grad"))
        if case.batch is None:
            x, grad = x.unsqueeze(0), grad.unsqueeze(0)
        other, like = (weight, x) if name == "conv2d_grad_input" else (x, weight)
        rest = (list(like.shape), *case.numbers)
        operator = getattr(torch.ops.pointwise, name)
        tensors = wanting(grad, other)
        assert gradcheck(lambda a, b: operator(a, b, *rest), tensors)  # noqa: B023
        if case in SMALL[::3]:
            assert gradgradcheck(lambda a, b: operator(a, b, *rest), tensors)  # noqa: B023


@pytest.mark.parametrize("asked", [
    asked for n in (1, 2, 3) for asked in itertools.combinations(range(4), n)
], ids=str)  # fmt: skip
def test_second_derivatives_of_only_some(asked):
    case = ImageCase("some", (3, 2), (2, 2), (2, 2), batch=1)
    tensors = [case.tensor(role, F64) for role in (*ROLES, "residual")]

    def function(*some):
        given = list(tensors)
        for i, tensor in zip(asked, some, strict=True):
            given[i] = tensor
        x, weight, bias, residual = given
        # Squared, so that the second derivative by one tensor alone is not zero.
        return conv2d(x, weight, bias, padding=1, residual=residual).square()

    wanted = wanting(*(tensors[i] for i in asked))
    assert gradcheck(function, wanted)
    assert gradgradcheck(function, wanted)


def test_third_derivatives():
    x = torch.randn(1, 2, 3, 3, dtype=F64, requires_grad=True)
    weight = torch.randn(2, 2, 2, 2, dtype=F64, requires_grad=True)
    slopes = []
    for function in (conv2d, F.conv2d):
        out = function(x, weight).pow(3).sum()
        for _ in range(3):
            (out,) = torch.autograd.grad(out, weight, create_graph=True)
            (out,) = torch.autograd.grad((out**2).sum(), x, create_graph=True)
            out = (out**2).sum()
        slopes.append(out.detach())
    torch.testing.assert_close(*slopes)


@pytest.mark.parametrize("activation", ["silu", "gelu", "sigmoid", "hardswish"])
@pytest.mark.parametrize("name", ["depthwise", "pointwise", "separable"])
def test_every_function_is_exact_with_its_epilogue(name, activation):
    case = ImageCase(name, (3, 2), (2, 2), batch=1)
    x, residual = case.tensor("input", F64), case.tensor("residual", F64)
    own = torch.from_numpy(case.values("own", (2, 1, 3, 3)))
    mix, bias = torch.from_numpy(case.values("mix", (2, 2))), case.tensor("bias", F64)
    how = {"activation": activation}
    forms: dict[str, Any] = {
        "depthwise": (lambda x, b, r, w: depthwise_conv2d(x, w, b, 1, 1, residual=r, **how), [own]),
        "pointwise": (lambda x, b, r, w: pointwise_conv2d(x, w, b, residual=r, **how), [mix]),
        "separable": (
            lambda x, b, r, d, p: depthwise_separable_conv2d(
                x, d, p, b, b, padding=1, depthwise_activation="silu", residual=r, **how
            ),
            [own, mix],
        ),
    }
    function, weights = forms[name]
    wanted = wanting(x, bias, residual, *weights)
    assert gradcheck(function, wanted)
    assert gradgradcheck(function, wanted)
