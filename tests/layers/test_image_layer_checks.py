"""Wrong image layers, wrong inputs of image layers, and operators that are called directly."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from pointwise.layers import (
    Conv2d,
    ConvNormAct,
    DepthwiseConv2d,
    DepthwiseSeparableConv2d,
    PointwiseConv2d,
)

X = torch.ones(2, 4, 5, 6)
W = torch.ones(6, 4, 3, 3)


@pytest.fixture(autouse=True)
def no_kernel(monkeypatch):
    """A call that is refused must not have started to compute."""

    def never(*arguments):
        raise AssertionError("an operator was called")

    class Operators:
        conv2d = conv2d_grad_input = conv2d_grad_weight = separable_conv2d = never

    monkeypatch.setattr(torch.ops, "pointwise", Operators, raising=False)


def says(kind, message):
    return pytest.raises(kind, match="^" + re.escape(message))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Conv2d(4, 6, 0), "Conv2d: kernel_size must be a whole number from 1, or 2 of"),
        (lambda: Conv2d(4, 6, (3, 3, 3)), "Conv2d: kernel_size must be a whole number from 1,"),
        (lambda: Conv2d(4, 6, 3, stride=0), "Conv2d: stride must be a whole number from 1"),
        (lambda: Conv2d(4, 6, 3, dilation=-1), "Conv2d: dilation must be a whole number from"),
        (lambda: Conv2d(4, 6, 3, groups=3), "Conv2d: groups must be a whole number that"),
        (lambda: Conv2d(4, 6, 3, activation="swish"), "Conv2d: activation must be one of 'none', "),
        (lambda: PointwiseConv2d(4, 6, stride=1.5), "PointwiseConv2d: stride must be a whole"),
        (lambda: PointwiseConv2d(4, 6, groups=0), "PointwiseConv2d: groups must be a whole"),
        (lambda: DepthwiseConv2d(4, "3"), "DepthwiseConv2d: kernel_size must be a whole"),
        (lambda: DepthwiseConv2d(4, activation=1), "DepthwiseConv2d: activation must be one"),
        (lambda: ConvNormAct(4, 6, groups=3), "ConvNormAct: groups must be a whole number that"),
        (lambda: ConvNormAct(4, 6, kernel_size=-3), "ConvNormAct: kernel_size must be a whole"),
        (lambda: ConvNormAct(4, 6, dilation=0), "ConvNormAct: dilation must be a whole number"),
        (lambda: ConvNormAct(4, 6, activation="swish"), "ConvNormAct: activation must be one"),
    ],
)  # fmt: skip
def test_wrong_layers_are_refused_by_name(make, message):
    with says(ValueError, message):
        make()


LAYERS = {
    "Conv2d": lambda: Conv2d(4, 6, 3),
    "PointwiseConv2d": lambda: PointwiseConv2d(4, 6),
    "DepthwiseConv2d": lambda: DepthwiseConv2d(4),
    "ConvNormAct": lambda: ConvNormAct(4, 6),
    "DepthwiseSeparableConv2d": lambda: DepthwiseSeparableConv2d(4, 6, norm=nn.BatchNorm2d),
}


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", LAYERS)
def test_wrong_inputs_never_reach_a_kernel(name, training):
    layer = LAYERS[name]().train(training)
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            for given, kind, message in (
                (X.tolist(), ValueError, r"input must be a tensor \[N, C, H, W\] or"),
                (X[0, 0], ValueError, r"input must be a tensor .* got \(5, 6\) float32"),
                (X.int(), TypeError, "input must be floating point"),
                (X.double(), TypeError, "float32 on cpu but input is .* float64"),
                (X.half(), TypeError, "float32 on cpu but input is .* float16"),
                (X[:, :3], ValueError, "must be|divides the 3 channels"),
                (torch.ones(2, 8, 5, 6), ValueError, "must be|multiple of the 8 channels"),
                (X[:, :, :0], ValueError, "an image of 0 × 6 pixels is too small"),
            ):
                with pytest.raises(kind, match=message):
                    layer(given)


def test_a_residual_of_another_shape():
    with says(ValueError, "Conv2d: residual must be like the result, [2, 6, 3, 4], got"):
        LAYERS["Conv2d"]()(X, X)


def test_padding_of_a_layer_is_checked_at_the_latest_when_it_runs():
    for wrong in (-1, "full", (1, 2, 3)):
        with says(ValueError, 'Conv2d: padding must be "same", "valid"'):
            Conv2d(4, 6, 3, padding=wrong)(X)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Conv2d(4, 6, 3, padding=-1), "Conv2d: padding must be"),
        (lambda: Conv2d(4, 6, 3, groups=4), "Conv2d: out_channels must be a multiple of"),
        # 6 // 4 is 1: this makes a layer of 4 outputs under a norm for 6.
        (lambda: ConvNormAct(4, 6, groups=4), "ConvNormAct: out_channels must be a multiple of"),
        (lambda: DepthwiseConv2d(4, depth_multiplier=0), "DepthwiseConv2d: depth_multiplier must"),
    ],
    ids=["padding", "groups", "depthwise", "multiplier"],
)
def test_wrong_layers_that_are_made_all_the_same(make, message):
    with says(ValueError, message):
        make()


# --- and through the operators, which anyone can call ---------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X, W[:, :3], None, None, [1, 1], [0] * 4, [1, 1], 1, "none"), "does not fit input"),
        ((X, W, torch.ones(5), None, [1, 1], [0] * 4, [1, 1], 1, "none"), "bias must be .C_out=6."),
        ((X, W, None, X, [1, 1], [0] * 4, [1, 1], 1, "none"), "residual must be like the result"),
        ((X, W, None, None, [0, 1], [0] * 4, [1, 1], 1, "none"), "stride must be a whole number"),
        ((X, W, None, None, [1, 1], [-3] * 4, [1, 1], 1, "none"), "padding must be four whole"),
        ((X, W, None, None, [1, 1], [0] * 4, [9, 9], 1, "none"), "too small for a kernel of 3 × 3"),
        ((X, W, None, None, [1, 1], [0] * 4, [1, 1], 3, "none"), "groups must be a whole number"),
        ((X, W.double(), None, None, [1, 1], [0] * 4, [1, 1], 1, "none"), "weight is .* float64"),
        ((X, W, None, None, [1, 1], [0] * 4, [1, 1], 1, "swish"), "activation must be one of"),
    ],
    ids=["weight", "bias", "residual", "stride", "padding", "dilation", "groups", "dtype", "name"],
)
def test_operators_called_directly(arguments, message, monkeypatch):
    monkeypatch.undo()
    with pytest.raises((ValueError, TypeError), match=f"conv2d: .*{message}"):
        torch.ops.pointwise.conv2d(*arguments)


@pytest.mark.parametrize("channels", [2**62, 2**63])
@pytest.mark.parametrize("layer", [PointwiseConv2d, lambda i, o: Conv2d(i, o, 3)])
def test_channels_that_no_memory_has(layer, channels):
    with pytest.raises(ValueError, match=r"out_channels must be at most 2,147,483,647, got"):
        layer(4, channels)
