"""The convolutions on lines and on volumes: against the oracle and against PyTorch."""

from __future__ import annotations

import image_oracle
import pytest
import torch
import torch.nn.functional as F
from image_cases import F64, LINES, VOLUMES, ImageCase, each

from pointwise import functional

PLAIN = {1: F.conv1d, 3: F.conv3d}
SEPARABLE = {
    1: functional.depthwise_separable_conv1d,
    3: functional.depthwise_separable_conv3d,
}


def arguments(case: ImageCase):
    """(function, its arguments by name) for the case."""
    d = case.dimensions
    if case.is_pointwise:
        function = {1: functional.pointwise_conv1d, 3: functional.pointwise_conv3d}[d]
        return function, {"stride": case.stride, "padding": case.padding, "groups": case.groups}
    return {1: functional.depthwise_conv1d, 3: functional.depthwise_conv3d}[d], case.geometry


@each([*LINES, *VOLUMES])
def test_it_is_the_oracle_with_every_epilogue(case, poisoned):
    function, options = arguments(case)
    x, weight, bias = case.tensors()
    case.check(function(x, weight, bias, **options))
    expected, magnitude = case.expected
    for residual in (None, case.tensor("residual")):
        added = 0 if residual is None else case.arrays["residual"]
        for activation in ("none", "relu", "hardswish", "gelu"):
            exact = image_oracle.activate(expected + added, activation)
            allowed = 1.2 * magnitude + abs(added) + abs(exact) + abs(expected + added)
            exact, allowed = (a[0] if case.batch is None else a for a in (exact, allowed))
            for wanted in (False, True):
                x, weight, bias = case.tensors()
                out = function(x.requires_grad_(wanted), weight, bias, **options,
                               activation=activation, residual=residual)  # fmt: skip
                assert out.dtype == case.dtype
                # A volume is added up layer by layer: one more rounding for each.
                image_oracle.assert_close(
                    out.detach().numpy(), exact, allowed, case.terms + case.kernel[0],
                    what=f"{activation}, gradients {wanted}, residual {residual is not None}",
                )  # fmt: skip


@each([*LINES, *VOLUMES])
def test_it_is_pytorchs(case):
    function, options = arguments(case)
    x, weight, bias = case.tensors(F64)
    stride, edges, dilation = case.places
    padded = F.pad(x, [n for pair in reversed(edges) for n in pair])
    expected = PLAIN[case.dimensions](padded, weight, bias, stride, 0, dilation, case.groups)
    torch.testing.assert_close(function(x, weight, bias, **options), expected)


@each([*LINES, *VOLUMES])
def test_gradients_are_the_oracles(case, poisoned):
    function, options = arguments(case)
    x, weight, bias = (t if t is None else t.requires_grad_() for t in case.tensors())
    residual = case.tensor("residual").requires_grad_()
    grad = case.tensor("grad")
    function(x, weight, bias, **options, residual=residual).backward(grad)
    for role, tensor in (("input", x), ("weight", weight), ("bias", bias)):
        if tensor is not None:
            case.check_gradient(role, tensor.grad)
    assert torch.equal(residual.grad, grad)


def test_exact_to_the_second_derivative():
    for case in (
        ImageCase("line", (5,), (2, 4), (3,), 2, "same", groups=2, batch=1),
        ImageCase("volume", (3, 2, 3), (2, 2), (2, 1, 3), (1, 1, 2), "same", groups=2, batch=1),
        ImageCase("volume, mixed", (2, 1, 2), (2, 3), (1, 1, 1), padding=0, batch=2),
    ):
        function, options = arguments(case)
        wanted = [t.requires_grad_() for t in case.tensors(F64)]
        assert torch.autograd.gradcheck(lambda *a: function(*a, **options), wanted)  # noqa: B023
        assert torch.autograd.gradgradcheck(lambda *a: function(*a, **options), wanted)  # noqa: B023


@pytest.mark.parametrize("between", [None, "relu6"])
@pytest.mark.parametrize("groups", [1, 2])
@each([case for case in [*LINES, *VOLUMES] if case.is_depthwise])
def test_separable_is_both_halves(case, groups, between, poisoned):
    inner = case.channels[1]
    if inner % groups:
        groups = inner
    middle, size = case.expected
    middle = image_oracle.activate(middle, between or "none")
    batch = case.batch
    mix = ImageCase(case.name + " mixed", middle.shape[2:], (inner, 2 * inner),
                    (1,) * case.dimensions, padding=0, groups=groups, batch=batch,
                    dtype=case.dtype)  # fmt: skip
    weight, bias, added = (mix.arrays[role] for role in ("weight", "bias", "residual"))
    before = image_oracle.conv(middle, weight, bias, *mix.placing) + added
    exact = image_oracle.activate(before, "silu")
    spread = image_oracle.conv(size + abs(middle), abs(weight), abs(bias), *mix.placing)
    allowed = 1.2 * spread + abs(added) + abs(before) + abs(exact)
    x, depthwise, depthwise_bias = case.tensors()
    pointwise = mix.tensor("weight")
    for given in (pointwise, pointwise.reshape(pointwise.shape[:2])):
        out = SEPARABLE[case.dimensions](
            x, depthwise, given, depthwise_bias, mix.tensor("bias"), **case.geometry,
            groups=groups, depthwise_activation=between, activation="silu",
            residual=mix.tensor("residual"),
        )  # fmt: skip
        found = out.unsqueeze(0) if batch is None else out
        image_oracle.assert_close(found.numpy(), exact, allowed, case.terms + mix.terms)
