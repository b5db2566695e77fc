"""The convolutions on images as modules: equal to PyTorch's, alone and depthwise separable."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from image_modules import CLOSE, PLAIN, by_turns, copied, picture
from torch import nn

from pointwise import functional
from pointwise.layers import (
    Conv2d,
    ConvNormAct,
    DepthwiseConv2d,
    DepthwiseSeparableConv2d,
    PointwiseConv2d,
)

# --- the convolutions alone -----------------------------------------------------------------------

CONVS = {
    "Conv2d": (lambda **k: Conv2d(6, 10, 3, 2, 1, **k), lambda: nn.Conv2d(6, 10, 3, 2, 1)),
    "Conv2d, groups, dilated": (
        lambda **k: Conv2d(6, 10, (3, 2), (1, 2), (2, 1), 2, 2, **k),
        lambda: nn.Conv2d(6, 10, (3, 2), (1, 2), (2, 1), 2, 2),
    ),
    "Conv2d, same": (
        lambda **k: Conv2d(6, 10, 5, padding="same", **k),
        lambda: nn.Conv2d(6, 10, 5, padding="same"),
    ),
    "PointwiseConv2d": (lambda **k: PointwiseConv2d(6, 10, **k), lambda: nn.Conv2d(6, 10, 1)),
    "PointwiseConv2d, stride, groups": (
        lambda **k: PointwiseConv2d(6, 10, 2, 0, 2, **k),
        lambda: nn.Conv2d(6, 10, 1, 2, groups=2),
    ),
    "DepthwiseConv2d": (
        lambda **k: DepthwiseConv2d(6, 3, 1, 1, **k),
        lambda: nn.Conv2d(6, 6, 3, 1, 1, groups=6),
    ),
    "DepthwiseConv2d, times 3": (
        lambda **k: DepthwiseConv2d(6, 5, 2, 2, 1, 3, **k),
        lambda: nn.Conv2d(6, 18, 5, 2, 2, groups=6),
    ),
}
EVERY = pytest.mark.parametrize("name", CONVS)


@pytest.mark.parametrize(("activation", "dtype"), by_turns(PLAIN))
@EVERY
def test_a_layer_is_pytorchs_and_its_state_interchanges(name, activation, dtype):
    ours, theirs = CONVS[name][0](activation=activation).to(dtype), CONVS[name][1]().to(dtype)
    ours.load_state_dict(theirs.state_dict())
    x = picture(2, 6, 9, 8, dtype=dtype).requires_grad_()
    expected = PLAIN[activation](theirs(x))
    out = ours(x)
    torch.testing.assert_close(out, expected, **CLOSE[dtype])
    grad = picture(*out.shape, dtype=dtype, seed=1)
    slopes = torch.autograd.grad(out, [x, *ours.parameters()], grad)
    for a, b in zip(
        slopes, torch.autograd.grad(expected, [x, *theirs.parameters()], grad), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=20 * CLOSE[dtype]["rtol"], atol=20e-5)
    residual = picture(*out.shape, dtype=dtype, seed=2)
    with torch.no_grad():
        expected = PLAIN[activation](theirs(x) + residual)
        torch.testing.assert_close(ours(x, residual), expected, **CLOSE[dtype])
    theirs.load_state_dict(ours.state_dict())
    assert isinstance(ours, nn.Conv2d)


def test_same_padding_with_a_stride_and_pairs():
    layer = Conv2d(3, 4, 3, stride=2, padding="same")
    x = picture(2, 3, 8, 9)
    padded = F.pad(x, (1, 1, 0, 1))  # 8 → 4 needs one row, behind; 9 → 5 needs a column each side
    expected = F.conv2d(padded, layer.weight, layer.bias, 2)
    torch.testing.assert_close(layer(x), expected, **CLOSE[torch.float32])
    layer = DepthwiseConv2d(3, (2, 3), padding=((2, 0), (0, 1)))
    expected = F.conv2d(F.pad(x, (0, 1, 2, 0)), layer.weight, layer.bias, groups=3)
    torch.testing.assert_close(layer(x), expected, **CLOSE[torch.float32])


def test_initialised_as_pytorch_does():
    for ours, theirs in (
        (lambda: Conv2d(8, 16, 3), lambda: nn.Conv2d(8, 16, 3)),
        (lambda: DepthwiseConv2d(32, 5), lambda: nn.Conv2d(32, 32, 5, groups=32)),
        (lambda: PointwiseConv2d(8, 16), lambda: nn.Conv2d(8, 16, 1)),
    ):
        states = []
        for make in (ours, theirs):
            torch.manual_seed(3)
            states.append(make().state_dict())
        for key, value in states[1].items():
            assert torch.equal(states[0][key], value)
    bound = 1 / math.sqrt(25)
    weight = DepthwiseConv2d(512, 5).weight.detach()
    assert 0.95 * bound < float(weight.abs().max()) <= bound


@EVERY
@pytest.mark.parametrize("way", ["deepcopy", "pickle", "torch.save", "state_dict"])
def test_copies_compute_the_same_and_are_their_own(name, way):
    layer = CONVS[name][0](activation="relu").eval()
    x = picture(2, 6, 9, 8)
    with torch.no_grad():
        before = layer(x)  # whatever is kept from a call is copied or not, but never wrong
    other = copied(layer, way, lambda: CONVS[name][0](activation="relu").eval())
    with torch.no_grad():
        assert torch.equal(other(x), before)
        layer.weight.mul_(-1)
        assert torch.equal(other(x), before)
        assert not torch.equal(layer(x), before)


def test_described():
    assert repr(Conv2d(3, 16, 3, 2, "same", activation="relu")) == (
        "Conv2d(3, 16, kernel_size=(3, 3), stride=(2, 2), padding=same, activation=relu)"
    )
    assert "activation=relu" in repr(ConvNormAct(3, 16))


def test_described_with_one_number_for_padding():
    assert repr(Conv2d(3, 16, 3, padding=1)).startswith("Conv2d(3, 16, kernel_size=(3, 3), stride")
    assert repr(PointwiseConv2d(3, 16, bias=False)).startswith("PointwiseConv2d(3, 16, kernel")
    assert "groups=4" in repr(DepthwiseConv2d(4))


# --- depthwise separable --------------------------------------------------------------------------

NORMS = {"none": None, "BatchNorm2d": nn.BatchNorm2d, "GroupNorm": lambda c: nn.GroupNorm(2, c)}


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("between", [True, False])
@pytest.mark.parametrize(("norm", "dtype"), by_turns(["none", "BatchNorm2d", "GroupNorm"]))
def test_separable_is_its_modules_one_behind_the_other(norm, between, training, dtype):
    for options in (
        {"stride": 2, "activation": "relu6"},
        {"kernel_size": 5, "depth_multiplier": 2, "activation": "hardswish"},
        {"groups": 2, "activation": None, "padding": "same", "bias": True},
    ):
        torch.manual_seed(3)
        ours = DepthwiseSeparableConv2d(6, 10, norm=NORMS[norm], between=between, **options)
        ours = ours.to(dtype).train(training)
        theirs = copy.deepcopy(ours)
        x = picture(3, 6, 9, 8, dtype=dtype)

        def separate(x, module=theirs):
            for part in (module.depthwise, module.pointwise):
                conv = part.conv
                if conv.padding == "same":
                    padding = [(k - 1) // 2 for k in conv.kernel_size]
                else:
                    padding = list(conv.padding)
                x = F.conv2d(x, conv.weight, conv.bias, conv.stride, padding, 1, conv.groups)
                x = x if part.norm is None else part.norm(x)
                x = PLAIN[part.activation](x)
            return x

        assert (theirs.depthwise.norm is None) == (norm == "none" or not between)
        close = CLOSE[dtype]
        for gradients in (True, False):
            with torch.set_grad_enabled(gradients):
                found, expected = ours(x), separate(x)
            torch.testing.assert_close(found, expected, **close)
            if gradients:
                slopes = torch.autograd.grad(found.square().sum(), list(ours.parameters()))
                exact = torch.autograd.grad(expected.square().sum(), list(theirs.parameters()))
                # All add up the same numbers; of a bias before a batch norm they cancel out.
                scale = 1 + max(float(slope.abs().max()) for slope in exact)
                for a, b in zip(slopes, exact, strict=True):
                    limit = 20 * close["atol"]
                    torch.testing.assert_close(a / scale, b / scale, rtol=0, atol=limit)
        for a, b in zip(ours.buffers(), theirs.buffers(), strict=True):
            torch.testing.assert_close(a, b, **close)


def test_separable_is_its_function_with_a_residual():
    layer = DepthwiseSeparableConv2d(6, 6, activation="relu6")
    x = picture(2, 6, 7, 8)
    first, second = layer.depthwise.conv, layer.pointwise.conv
    expected = functional.depthwise_separable_conv2d(
        x, first.weight, second.weight, first.bias, second.bias, padding=1,
        depthwise_activation="relu6", activation="relu6", residual=x,
    )  # fmt: skip
    torch.testing.assert_close(layer(x, x), expected)


def test_the_kind_of_layer_follows_from_kernel_and_groups():
    assert type(ConvNormAct(8, 16, 1).conv) is PointwiseConv2d
    assert type(ConvNormAct(8, 16, 3, groups=8).conv) is DepthwiseConv2d
    assert type(ConvNormAct(8, 16, 3, groups=4).conv) is Conv2d
    assert ConvNormAct(8, 16, 3, groups=8).conv.weight.shape == (16, 1, 3, 3)
    assert tuple(ConvNormAct(8, 16, (3, 5), dilation=2).conv.padding) == (2, 4)
    assert ConvNormAct(8, 16).conv.bias is None
    assert ConvNormAct(8, 16, norm=None).conv.bias is not None
