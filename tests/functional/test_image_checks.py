"""What is wrong with a call on images is said in the words of the call, before any kernel runs."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

from pointwise import checks, functional
from pointwise.functional import (
    conv2d,
    depthwise_conv2d,
    depthwise_separable_conv2d,
    pointwise_conv2d,
)
from pointwise.functional.padding import resolve

X = torch.ones(2, 4, 5, 6)
W = torch.ones(6, 4, 3, 3)
OWN = torch.ones(8, 1, 3, 3)
MIX = torch.ones(6, 4)


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


# --- each check by itself, as the whole sentence --------------------------------------------------


def refuses(kind, message, check, *arguments):
    with pytest.raises(kind, match=f"^{re.escape(message)}$"):
        check("here", *arguments)


@pytest.mark.parametrize(("dimensions", "sizes"), [(1, "L"), (2, "H, W"), (3, "D, H, W")])
def test_image(dimensions, sizes):
    form = f"here: input must be a tensor [N, C, {sizes}] or [C, {sizes}], got "
    ones = [1] * dimensions
    refuses(ValueError, form + "list", checks.image, [[1.0]], dimensions)
    refuses(ValueError, form + "NoneType", checks.image, None, dimensions)
    refuses(ValueError, form + "ndarray", checks.image, np.ones((1, 1, *ones)), dimensions)
    for wrong in (ones, [1, 1, 1, *ones]):
        shown = f"{tuple(wrong)} float32 on cpu"
        refuses(ValueError, form + shown, checks.image, torch.ones(wrong), dimensions)
    for dtype in (torch.uint8, torch.int64, torch.bool, torch.complex64):
        given = torch.ones(2, 3, *ones, dtype=dtype)
        message = (
            f"here: input must be floating point, got {checks.describe(given)}; "
            "convert with input.float()"
        )
        refuses(TypeError, message, checks.image, given, dimensions)
    for dtype in checks.FLOATS:
        checks.image("here", torch.ones(2, 3, *ones, dtype=dtype), dimensions)
        checks.image("here", torch.ones(3, *ones, dtype=dtype), dimensions)


def test_groups():
    form = "here: groups must be a whole number that divides the 6 channels of the input, got "
    for wrong in (4, 0, -2, 7, 2.0, "2", None, (1, 2)):
        refuses(ValueError, form + repr(wrong), checks.groups, wrong, 6)
    for right in (1, 2, 3, 6):
        checks.groups("here", right, 6)


def test_per_dimension():
    given: Any
    for dimensions, wrong in (
        (2, (0, -1, 1.5, "1", None, (1,), (1, 2, 3), (1, 0), (1, 1.0), "ab", {1, 2}, [])),
        (1, (0, (1, 1), ())),
        (3, (0, (1, 1), (1, 1, 0))),
    ):
        for given in wrong:
            message = (
                f"here: stride must be a whole number from 1, or {dimensions} of them, "
                f"got {given!r}"
            )
            refuses(ValueError, message, checks.per_dimension, "stride", given, dimensions)
    assert checks.per_dimension("here", "stride", 3, 2) == [3, 3]
    assert checks.per_dimension("here", "stride", (3, 1), 2) == [3, 1]
    assert checks.per_dimension("here", "stride", [2], 1) == [2]
    assert checks.per_dimension("here", "stride", torch.Size([2, 3]), 2) == [2, 3]


def test_a_bool_is_no_number():
    with pytest.raises(ValueError, match="stride must be a whole number from 1"):
        checks.per_dimension("here", "stride", True, 2)
    with pytest.raises(ValueError, match="stride must be a whole number from 1"):
        checks.per_dimension("here", "stride", (True, 2), 2)
    with pytest.raises(ValueError, match="groups must be a whole number"):
        checks.groups("here", True, 6)
    with pytest.raises(ValueError, match="padding must be"):
        resolve("here", True, (5, 5), (3, 3), (1, 1), (1, 1))


def test_kernel_weight():
    form = "here: weight must be [C_out, C_in/groups=2, kh, kw], got "
    shown = "(6, 4, 3, 3) float32 on cpu"
    refuses(ValueError, form + shown, checks.kernel_weight, "weight", W, 4, 2, 2, "standard")
    refuses(ValueError, form + "list", checks.kernel_weight, "weight", [1], 4, 2, 2, "standard")
    form = "here: weight must be [C_out, C_in/groups=4] or the same with 1 1 behind, got "
    refuses(ValueError, form + shown, checks.kernel_weight, "weight", W, 4, 1, 2, "pointwise")
    form = "here: weight must be [C·m, 1, kh, kw] for C=4 channels and a depth multiplier m, got "
    refuses(ValueError, form + shown, checks.kernel_weight, "weight", W, 4, 4, 2, "depthwise")
    for channels, groups, dimensions, shape, kind, what in (
        (4, 2, 2, (5, 2, 3, 3), "standard", "groups=2"),
        (4, 1, 2, (0, 4, 3, 3), "standard", "groups=1"),
        (4, 1, 2, (6, 4, 0, 3), "standard", "groups=1"),
        (4, 2, 2, (3, 2, 1, 1), "pointwise", "groups=2"),
        (3, 3, 2, (7, 1, 3, 3), "depthwise", "the 3 channels"),
        (3, 3, 1, (7, 1, 3), "depthwise", "the 3 channels"),
        (3, 3, 3, (6, 1, 3, 3, 0), "depthwise", "the 3 channels"),
    ):
        message = (
            f"here: the first size of weight must be a multiple of {what} and no size may be 0, "
            f"got {shape} float32 on cpu"
        )
        given = torch.ones(shape)
        refuses(ValueError, message, checks.kernel_weight, "weight", given, channels, groups,
                dimensions, kind)  # fmt: skip


def test_output_sizes():
    def message(image, kernel, dilation, padding):
        return (
            f"here: an image of {image} pixels is too small for a kernel of {kernel} with dilation "
            f"{dilation} and padding {padding}; pad more, or use a larger image"
        )

    check = checks.output_sizes
    for sizes, kernel, edges, dilation, words in (
        ((2, 5), (3, 3), (0, 0, 0, 0), (1, 1), "2 × 5"),
        ((5, 2), (3, 3), (0, 0, 0, 0), (1, 1), "5 × 2"),
        ((4, 9), (3, 3), (0, 0, 0, 0), (2, 1), "4 × 9"),
        ((3, 3), (7, 7), (1, 2, 2, 2), (1, 1), "3 × 3"),
        ((0, 3), (1, 1), (1, 1, 1, 1), (1, 1), "0 × 3"),
        ((3, 0), (1, 1), (1, 1, 1, 1), (1, 1), "3 × 0"),
    ):
        text = message(words, f"{kernel[0]} × {kernel[1]}", list(dilation), list(edges))
        refuses(ValueError, text, check, sizes, kernel, (1, 1), edges, dilation)
    text = message("2", "3", [1], [0, 0])
    refuses(ValueError, text, check, (2,), (3,), (1,), (0, 0), (1,))
    assert check("here", (5, 6), (3, 3), (2, 1), (0, 0, 1, 1), (1, 1)) == [2, 6]
    assert check("here", (3, 3), (7, 7), (1, 1), (2, 2, 2, 2), (1, 1)) == [1, 1]


@pytest.mark.parametrize(
    "wrong",
    ["full", "", -1, 1.5, None, (1,), (1, 2, 3), (-1, 0), ((1, 2),), ((1, 2, 3), (1, 1)),
     ((1, -1), (0, 0)), ((1, 2), 3, 4), ("a", "b"), {1: 2}, ((True, 0), (0, 0))],
    ids=repr,
)  # fmt: skip
def test_padding(wrong):
    message = (
        'here: padding must be "same", "valid", a whole number from 0, 2 of them, or 2 pairs '
        f"(before, after), got {wrong!r}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        resolve("here", wrong, (5, 5), (3, 3), (1, 1), (1, 1))


@pytest.mark.parametrize("wrong", [(1, 1.5), (None, 1), ((1, 2), 1.5)], ids=repr)
def test_padding_that_is_no_number_and_no_pair(wrong):
    with pytest.raises(ValueError, match=r"^here: padding must be"):
        resolve("here", wrong, (5, 5), (3, 3), (1, 1), (1, 1))


@pytest.mark.parametrize(
    ("given", "edges"),
    [
        ("valid", [0, 0, 0, 0]),
        ("VALID", [0, 0, 0, 0]),
        ("Same", [1, 1, 1, 1]),
        (0, [0, 0, 0, 0]),
        (3, [3, 3, 3, 3]),
        ((1, 2), [1, 1, 2, 2]),
        ([1, 2], [1, 1, 2, 2]),
        (((1, 2), (3, 4)), [1, 2, 3, 4]),
        ([[0, 1], 2], [0, 1, 2, 2]),
    ],
)
def test_paddings_that_are_right(given, edges):
    assert resolve("here", given, (5, 5), (3, 3), (1, 1), (1, 1)) == edges


def test_same_at_the_end_by_one_more():
    # Size 4, kernel 3, stride 2: two outputs read pixels 0 … 4, so one zero behind.
    assert resolve("here", "same", (4, 5), (3, 3), (2, 2), (1, 1)) == [0, 1, 1, 1]
    # Kernel 1 with stride 3 reads nothing beyond, and kernel 2 needs one behind.
    assert resolve("here", "same", (7, 7), (1, 2), (3, 3), (1, 1)) == [0, 0, 0, 1]
    assert resolve("here", "same", (4, 6), (1, 2), (3, 1), (1, 1)) == [0, 0, 0, 1]


# --- through the functions ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "options", "kind", "message"),
    [
        # The input.
        ((X.tolist(), W), {}, ValueError, "input must be a tensor [N, C, H, W] or [C, H, W],"),
        ((X[0, 0], W), {}, ValueError, "input must be a tensor [N, C, H, W] or [C, H, W], got"),
        ((X[None], W), {}, ValueError, "input must be a tensor [N, C, H, W] or [C, H, W], got"),
        ((X.int(), W), {}, TypeError, "input must be floating point, got (2, 4, 5, 6) int32 on"),
        ((X.bool(), W), {}, TypeError, "input must be floating point, got (2, 4, 5, 6) bool"),
        ((X.byte(), W.byte()), {}, TypeError, "input must be floating point"),
        # The weight.
        ((X, W.tolist()), {}, ValueError, "weight must be [C_out, C_in/groups=4, kh, kw], got"),
        ((X, None), {}, ValueError, "weight must be [C_out, C_in/groups=4, kh, kw], got"),
        ((X, W[:, :3]), {}, ValueError, "weight must be [C_out, C_in/groups=4, kh, kw], got (6,"),
        ((X, W[:, :, 0]), {}, ValueError, "weight must be [C_out, C_in/groups=4, kh, kw], got"),
        ((X, W), {"groups": 2}, ValueError, "weight must be [C_out, C_in/groups=2, kh, kw], got"),
        ((X, W[:5, :2]), {"groups": 2}, ValueError, "the first size of weight must be a"),
        ((X, W[:0]), {}, ValueError, "the first size of weight must be a multiple of groups=1"),
        ((X, W[:, :, :0]), {}, ValueError, "the first size of weight must be a multiple of"),
        ((X, W.double()), {}, TypeError, "weight is (6, 4, 3, 3) float64 on cpu but input is"),
        ((X, W.int()), {}, TypeError, "weight is (6, 4, 3, 3) int32 on cpu but input is (2, 4,"),
        ((X, W.to("meta")), {}, ValueError, "weight is on meta but input is on cpu; move one"),
        # Bias and residual.
        ((X, W, torch.ones(5)), {}, ValueError, "bias must be [C_out=6], got (5,) float32 on"),
        ((X, W, torch.ones(6, 1)), {}, ValueError, "bias must be [C_out=6], got (6, 1)"),
        ((X, W, 1.0), {}, ValueError, "bias must be [C_out=6], got float"),
        ((X, W, torch.ones(6).half()), {}, TypeError, "bias is (6,) float16 on cpu but weight"),
        ((X, W), {"residual": X}, ValueError, "residual must be like the result, [2, 6, 3, 4],"),
        ((X, W), {"residual": 1}, ValueError, "residual must be like the result, [2, 6, 3, 4],"),
        ((X, W), {"residual": torch.ones(1, 6, 1, 1)}, ValueError, "residual must be like the"),
        ((X[0], W), {"residual": X}, ValueError, "residual must be like the result, [6, 3, 4],"),
        ((X, W), {"residual": torch.ones(2, 6, 3, 4).double()}, TypeError, "residual is (2, 6,"),
        # Numbers.
        ((X, W), {"stride": 0}, ValueError, "stride must be a whole number from 1, or 2 of"),
        ((X, W), {"stride": (1, 2, 3)}, ValueError, "stride must be a whole number from 1, or 2"),
        ((X, W), {"stride": 1.0}, ValueError, "stride must be a whole number from 1, or 2 of"),
        ((X, W), {"stride": torch.ones(2)}, ValueError, "stride must be a whole number from 1,"),
        ((X, W), {"dilation": -1}, ValueError, "dilation must be a whole number from 1, or 2 of"),
        ((X, W), {"dilation": "2"}, ValueError, "dilation must be a whole number from 1, or 2"),
        ((X, W), {"padding": -1}, ValueError, 'padding must be "same", "valid", a whole number'),
        ((X, W), {"padding": "causal"}, ValueError, 'padding must be "same", "valid", a whole'),
        ((X, W), {"padding": ((1, 1), (1, -1))}, ValueError, 'padding must be "same", "valid",'),
        ((X, W), {"groups": 3}, ValueError, "groups must be a whole number that divides the 4"),
        ((X, W), {"groups": 0}, ValueError, "groups must be a whole number that divides the 4"),
        ((X, W), {"activation": "swish"}, ValueError, "activation must be one of 'none', 'relu', "),
        ((X, W), {"activation": torch.relu}, ValueError, "activation must be one of 'none',"),
        # Sizes.
        ((X[:, :, :2], W), {}, ValueError, "an image of 2 × 6 pixels is too small for a kernel"),
        ((X[:, :, :, :2], W), {}, ValueError, "an image of 5 × 2 pixels is too small for a"),
        ((X, W), {"dilation": 3}, ValueError, "an image of 5 × 6 pixels is too small for a"),
        ((X[:, :, :0], W), {"padding": 1}, ValueError, "an image of 0 × 6 pixels is too small"),
        ((X[:, :, :, :0], W), {"padding": 9}, ValueError, "an image of 5 × 0 pixels is too"),
        ((X[:, :, :0], W), {"padding": "same"}, ValueError, "an image of 0 × 6 pixels is too"),
    ],
)  # fmt: skip
def test_conv2d(given, options, kind, message):
    with says(kind, "conv2d: " + message):
        conv2d(*given, **options)
    # And just as well where gradients are wanted.
    if isinstance(given[0], torch.Tensor) and given[0].is_floating_point():
        with says(kind, "conv2d: " + message):
            conv2d(given[0].detach().requires_grad_(), *given[1:], **options)


def test_an_image_without_channels():
    with says(ValueError, "conv2d: the first size of weight must be a multiple of groups=1 and no"):
        conv2d(torch.ones(1, 0, 5, 5), torch.ones(3, 0, 3, 3))
    with says(ValueError, "depthwise_conv2d: groups must be a whole number that divides the 0"):
        depthwise_conv2d(torch.ones(1, 0, 5, 5), torch.ones(3, 1, 3, 3))


@pytest.mark.parametrize(
    ("function", "given", "options", "kind", "message"),
    [
        (pointwise_conv2d, (X, W), {}, ValueError,
         "weight must be [C_out, C_in/groups=4] or the same with 1 1 behind, got (6, 4, 3, 3)"),
        (pointwise_conv2d, (X, MIX.t()), {}, ValueError,
         "weight must be [C_out, C_in/groups=4] or the same with 1 1 behind, got (4, 6, 1, 1)"),
        (pointwise_conv2d, (X, MIX), {"groups": 2}, ValueError, "weight must be [C_out,"),
        (pointwise_conv2d, (X, MIX[0]), {}, ValueError, "weight must be [C_out, C_in/groups=4]"),
        (pointwise_conv2d, (X, MIX.double()), {}, TypeError, "weight is (6, 4, 1, 1) float64 on"),
        (pointwise_conv2d, (X.long(), MIX), {}, TypeError, "input must be floating point"),
        (pointwise_conv2d, (X, MIX), {"stride": -2}, ValueError, "stride must be a whole"),
        (pointwise_conv2d, (X[:, :, :0], MIX), {}, ValueError, "an image of 0 × 6 pixels is too"),
        (depthwise_conv2d, (X, W), {}, ValueError,
         "weight must be [C·m, 1, kh, kw] for C=4 channels and a depth multiplier m, got (6, 4, 3"),
        (depthwise_conv2d, (X, OWN[:6]), {}, ValueError,
         "the first size of weight must be a multiple of the 4 channels and no size may be 0, got"),
        (depthwise_conv2d, (X, OWN[:0]), {}, ValueError, "the first size of weight must be a"),
        (depthwise_conv2d, (X, OWN, torch.ones(4)), {}, ValueError, "bias must be [C_out=8],"),
        (depthwise_conv2d, (X, OWN.half()), {}, TypeError, "weight is (8, 1, 3, 3) float16 on"),
        (depthwise_conv2d, (X[:, :, :1], OWN), {}, ValueError, "an image of 1 × 6 pixels is too"),
        (depthwise_conv2d, ([1], OWN), {}, ValueError, "input must be a tensor [N, C, H, W] or"),
        (functional.pointwise_conv1d, (X, MIX), {}, ValueError,
         "input must be a tensor [N, C, L] or [C, L], got (2, 4, 5, 6) float32 on cpu"),
        (functional.pointwise_conv1d, (X[0], W), {}, ValueError, "weight must be [C_out,"),
        (functional.depthwise_conv1d, (X[:, :, 0], OWN), {}, ValueError,
         "weight must be [C·m, 1, k] for C=4 channels and a depth multiplier m, got (8, 1, 3, 3)"),
        (functional.depthwise_conv1d, (X[:, :, 0], OWN[:, :, 0]), {"stride": (1, 1)}, ValueError,
         "stride must be a whole number from 1, or 1 of them, got (1, 1)"),
        (functional.depthwise_conv3d, (X[0, 0], OWN), {}, ValueError,
         "input must be a tensor [N, C, D, H, W] or [C, D, H, W], got (5, 6) float32 on cpu"),
        (functional.depthwise_conv3d, (X, OWN), {}, ValueError,
         "weight must be [C·m, 1, kd, kh, kw] for C=2 channels and a depth multiplier m, got (8, "),
        (functional.pointwise_conv3d, (X, MIX[:, :2]), {"padding": (1, 2)}, ValueError,
         'padding must be "same", "valid", a whole number from 0, 3 of them, or 3 pairs'),
    ],
)  # fmt: skip
def test_the_message_begins_with_the_function(function, given, options, kind, message):
    with says(kind, f"{function.__name__}: {message}"):
        function(*given, **options)


def test_separable_names_itself_too(monkeypatch):
    given: Any
    options: Any
    # Its second half can be checked only when the first has been run, or before it.
    name = "depthwise_separable_conv2d"
    for given, options, kind, message in (
        ((X.tolist(), OWN, MIX), {}, ValueError, "input must be a tensor [N, C, H, W]"),
        ((X.int(), OWN, MIX), {}, TypeError, "input must be floating point"),
        ((X, OWN[:7], MIX), {}, ValueError, "the first size of"),
        ((X, W, MIX), {}, ValueError, ""),
        ((X, OWN.double(), MIX), {}, TypeError, ""),
        ((X, OWN, MIX), {"stride": 0}, ValueError, "stride must be a whole number from 1"),
        ((X, OWN, MIX), {"padding": "full"}, ValueError, "padding must be"),
        ((X, OWN, MIX), {"depthwise_activation": "x"}, ValueError, ""),
        ((X[:, :, :2], OWN, MIX), {}, ValueError, "an image of 2 × 6 pixels is too small"),
    ):
        with says(kind, f"{name}: {message}"):
            depthwise_separable_conv2d(*given, **options)
    monkeypatch.undo()
    wide = torch.ones(6, 8)
    for given, options, kind in (
        ((X, OWN, MIX), {}, ValueError),
        ((X, OWN, wide.double()), {}, TypeError),
        ((X, OWN, wide, None, torch.ones(5)), {}, ValueError),
        ((X, OWN, wide, torch.ones(4)), {}, ValueError),
        ((X, OWN, wide), {"groups": 3}, ValueError),
        ((X, OWN, wide), {"activation": "x"}, ValueError),
        ((X, OWN, wide), {"residual": X}, ValueError),
    ):
        with says(kind, f"{name}: "):
            depthwise_separable_conv2d(*given, **options)


def test_separable_calls_its_weights_by_their_names(monkeypatch):
    monkeypatch.undo()
    name = "depthwise_separable_conv2d"
    with says(ValueError, f"{name}: the first size of depthwise must be a multiple"):
        depthwise_separable_conv2d(X, OWN[:7], MIX)
    with says(ValueError, f"{name}: pointwise must be [C_out, C_in/groups=8]"):
        depthwise_separable_conv2d(X, OWN, MIX)
    with says(ValueError, f"{name}: depthwise_bias must be [C_out=8]"):
        depthwise_separable_conv2d(X, OWN, torch.ones(6, 8), torch.ones(4))
