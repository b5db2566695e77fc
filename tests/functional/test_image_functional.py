"""The convolutions on images as functions: against the oracle, against PyTorch, and by their laws.

All inputs lie in the midst of NaN and infinities (``image_cases.laid_out``), so that a number read
beyond them shows itself; outputs start as NaN (``poisoned``).
"""

from __future__ import annotations

import warnings
from typing import Any

import image_oracle
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from image_calls import by_every_function
from image_cases import (
    CASES,
    F32,
    F64,
    LAYOUTS,
    SHAPES,
    ImageCase,
    each,
    laid_out,
    named,
)

from pointwise.convolution import epilogue
from pointwise.functional import (
    conv2d,
    depthwise_conv2d,
    depthwise_separable_conv2d,
    pointwise_conv2d,
)

# Of functions that differ in a number alone, one.
ACTIVATIONS = tuple(name for name in epilogue.ACTIVATIONS if name.isidentifier() and name != "none")
HALVES = pytest.mark.parametrize("half", [torch.float16, torch.bfloat16], ids=str)


def is_channels_last(tensor: torch.Tensor) -> bool:
    batched = tensor if tensor.dim() == 4 else tensor.unsqueeze(0)
    return batched.numel() == 0 or batched.is_contiguous(memory_format=torch.channels_last)


# --- the whole table ------------------------------------------------------------------------------


@each()
def test_every_function_is_the_oracle(case, poisoned):
    found = list(by_every_function(case))
    assert len(found) == 1 + case.is_depthwise + 2 * case.is_pointwise
    for name, out in found:
        assert out.dtype == case.dtype
        assert is_channels_last(out), name
        case.check(out, name)


@each([case for case in CASES if case.stride == 1 and case.padding == "same"])
def test_same_is_pytorchs_where_the_stride_is_1(case):
    x, weight, bias = case.tensors(F64)
    warnings.filterwarnings("ignore", "Using padding='same' with even kernel")
    expected = F.conv2d(x, weight, bias, 1, "same", case.dilation, case.groups)
    case.check(expected, "PyTorch against the oracle")
    case.check(conv2d(x, weight, bias, **case.geometry, groups=case.groups))


# One of each kind, and what a kernel might take for something else, or write into.
FEW = [*SHAPES, *named("one image, no batch", "batch of 0", "1 × 1 pixels", "pointwise, 15 pixels",
                       "depthwise, 33 channels", "depthwise, 1 × 17 pixels")]  # fmt: skip


@each([*FEW, *(case for case in CASES if case.layout != "contiguous")])
def test_inputs_stay_as_they_are(case):
    given: list[Any] = [case.tensor(role) for role in ("input", "weight", "bias", "residual")]
    before: list[Any] = [None if tensor is None else tensor.clone() for tensor in given]
    x, weight, bias, residual = given
    out = conv2d(x, weight, bias, **case.geometry, groups=case.groups, activation="relu",
                 residual=residual)  # fmt: skip
    out.fill_(7.0)  # neither is the result a view of one of them
    for tensor, old in zip(given, before, strict=True):
        assert tensor is None or torch.equal(tensor, old)


# --- layouts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@each(SHAPES)
def test_every_layout_of_every_tensor(case, layout, poisoned):
    for role in ("input", "weight", "residual"):
        layouts = {"input": "contiguous", "weight": "contiguous", "residual": "contiguous"}
        layouts[role] = layout
        x, weight, residual = (case.tensor(r, layout=how) for r, how in layouts.items())
        bias = torch.from_numpy(case.arrays["bias"]).to(case.dtype)
        bias = laid_out(bias, "sliced" if layout == "sliced" else "contiguous")
        out = conv2d(x, weight, bias, **case.geometry, groups=case.groups, residual=residual)
        expected, magnitude = case.expected
        added = case.arrays["residual"]
        image_oracle.assert_close(
            out.numpy(), expected + added, magnitude + abs(added), case.terms, what=role
        )
        assert is_channels_last(out)


@each(SHAPES)
def test_tensors_that_are_one_number_many_times(case):
    # Strides of 0, as of expand().
    arguments = {
        role: torch.full((), 0.5, dtype=case.dtype).expand(case.arrays[role].shape)
        for role in ("input", "weight", "bias", "residual")
    }
    x, weight, bias, residual = arguments.values()
    out = conv2d(x, weight, bias, **case.geometry, groups=case.groups, residual=residual)
    x, weight, bias, residual = (tensor.contiguous() for tensor in arguments.values())
    again = conv2d(x, weight, bias, **case.geometry, groups=case.groups, residual=residual)
    assert torch.equal(out, again)


@each(SHAPES)
def test_without_a_batch_it_is_a_batch_of_one(case):
    x, weight, bias = case.tensors()
    residual = case.tensor("residual")
    options = {**case.geometry, "groups": case.groups, "activation": "relu"}
    alone = conv2d(x[1], weight, bias, residual=residual[1], **options)
    batch = conv2d(x[1:], weight, bias, residual=residual[1:], **options)
    assert torch.equal(alone, batch[0])
    assert is_channels_last(alone)


# --- activation, residual, bias -------------------------------------------------------------------


@pytest.mark.parametrize("activation", ACTIVATIONS)
@each(FEW)
def test_what_follows_a_convolution(case, activation, poisoned):
    """In the kernel, and afterwards in plain PyTorch where gradients are wanted."""
    expected, magnitude = case.expected
    added = case.arrays["residual"]
    for residual in (False, True):
        more = {"residual": case.tensor("residual")} if residual else {}
        before = expected + added if residual else expected
        exact = image_oracle.activate(before, activation)
        # An activation stretches errors by 1.13 at most (gelu), and rounds once or twice itself.
        allowed = 1.2 * magnitude + (abs(added) if residual else 0) + abs(exact) + abs(before)
        exact, allowed = (a[0] if case.batch is None else a for a in (exact, allowed))
        for name, out in by_every_function(case, activation=activation, **more):
            what = f"{name}, residual {residual}"
            image_oracle.assert_close(out.numpy(), exact, allowed, case.terms, what=what)
            assert is_channels_last(out)
        x, weight, bias = case.tensors()
        out = conv2d(x.requires_grad_(), weight, bias, **case.geometry, groups=case.groups,
                     activation=activation, **more)  # fmt: skip
        what = f"with gradients, residual {residual}"
        image_oracle.assert_close(out.detach().numpy(), exact, allowed, case.terms, what=what)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@each(named("pointwise, 113 pixels", "depthwise, 33 channels"))
def test_activations_far_from_zero(case, activation):
    # What saturates does so exactly; exp() of large numbers must not become NaN.
    x, weight, bias = case.tensors(F32)
    for scale in (1e-6, 10.0, 100.0, 1e4, 1e30):
        found = conv2d(x * scale, weight, bias, **case.geometry, groups=case.groups,
                       activation=activation).double()  # fmt: skip
        before = conv2d(x * scale, weight, bias, **case.geometry, groups=case.groups).double()
        exact = torch.from_numpy(_activated(before.numpy(), activation))
        error = (found - exact).abs() / (1e-30 + before.abs() + exact.abs())
        assert float(error.max()) <= 4 * torch.finfo(F32).eps


def _activated(x: np.ndarray, name: str) -> np.ndarray:
    with np.errstate(over="ignore"):  # 1 / (1 + inf) is the 0 that is meant
        return image_oracle.activate(x, name)


@pytest.mark.parametrize("activation", ["none", *ACTIVATIONS])
def test_nan_and_infinity_come_out_as_in_pytorch(activation):
    special = [float("nan"), float("inf"), float("-inf"), 0.0, -0.0, 1e38, -1e38, 1e-40, 5.9, 6.1]
    if activation == "gelu":  # of infinity PyTorch makes inf or NaN, as the tensor lies in memory
        special[1:3] = [1e30, -1e30]
    values = torch.tensor(special * 5)
    function = epilogue.ACTIVATIONS[activation].plain
    image = values.view(1, 1, 5, 10)
    one = torch.ones(1, 1, 1, 1)
    wide = image.expand(1, 20, 5, 10)
    many = torch.ones(20, 1, 1, 1)
    for found in (
        pointwise_conv2d(image, one, activation=activation),
        depthwise_conv2d(wide, many, activation=activation)[:, 7:8],
        conv2d(image, one.expand(18, 1, 1, 1), activation=activation)[:, 17:],
        conv2d(image, one.requires_grad_(), activation=activation).detach(),
    ):
        expected = function(image)
        torch.testing.assert_close(found, expected, equal_nan=True, rtol=1e-6, atol=1e-37)
        assert torch.equal(found.isnan(), expected.isnan())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@each([*SHAPES, *named("stride 3, 3", "dilation 2", "depthwise, dilation 2", "kernel 4 × 4",
                       "depthwise, kernel 7 × 7", "pointwise, 7 groups", "2 groups")])  # fmt: skip
def test_one_bad_pixel_reaches_what_sees_it_and_nothing_else(case, value):
    array = case.arrays["input"].copy()
    places = [(0, 0, 0, 0), (1, case.channels[0] // 2, case.sizes[0] - 1, case.sizes[1] // 2),
              (1, case.channels[0] - 1, case.sizes[0] // 2, case.sizes[1] - 1)]  # fmt: skip
    for place in places:
        array[place] = value
    _, weight, bias = case.tensors()
    x = laid_out(torch.from_numpy(array).to(case.dtype), case.layout)
    out = conv2d(x, weight, bias, **case.geometry, groups=case.groups).numpy()
    with np.errstate(invalid="ignore"):  # inf - inf
        expected = image_oracle.conv(
            array, case.arrays["weight"], case.arrays["bias"], *case.placing
        )
    assert not np.isfinite(expected).all()
    np.testing.assert_array_equal(np.isnan(out), np.isnan(expected))
    infinite = np.isinf(expected)
    np.testing.assert_array_equal(out[infinite], expected[infinite])
    assert np.isfinite(out).sum() == np.isfinite(expected).sum()


# --- depthwise separable --------------------------------------------------------------------------


@pytest.mark.parametrize("multiplier", [1, 2, 3])
@pytest.mark.parametrize(
    ("channels", "outputs", "groups", "between", "after", "biases", "residual", "dtype"),
    [
        (5, 18, 1, None, None, (True, True), False, F64),
        (17, 33, 1, "relu6", "relu6", (True, True), False, F32),
        (17, 33, 1, "relu6", "relu6", (True, True), False, F64),
        (16, 8, 1, "relu", None, (False, True), True, F32),
        (6, 9, 3, None, "hardswish", (True, False), True, F64),
        (1, 1, 1, "silu", "gelu", (False, False), False, F32),
        (33, 64, 1, "hardswish", "sigmoid", (True, True), True, F32),
    ],
)
@pytest.mark.parametrize(
    "geometry",
    [
        {"sizes": (6, 7), "kernel": (3, 3), "padding": 1},
        {"sizes": (8, 7), "kernel": (5, 3), "padding": "same", "stride": 2},
        {"sizes": (3, 5), "kernel": (3, 3), "padding": ((0, 2), (3, 1)), "dilation": (1, 2)},
        {"sizes": (4, 1), "kernel": (1, 1), "padding": 0, "batch": None},
        {"sizes": (1, 113), "kernel": (3, 3), "padding": "same", "batch": 1},
        {"sizes": (2, 3), "kernel": (3, 3), "padding": 1, "batch": 0},
    ],
    ids=lambda geometry: str(geometry["sizes"]),
)
def test_separable_is_both_halves(
    geometry, channels, outputs, groups, between, after, biases, residual, dtype, multiplier,
    poisoned,
):  # fmt: skip
    inner = channels * multiplier
    name = f"separable {geometry} {channels} {outputs} {groups}"
    first = ImageCase(name, channels=(channels, inner), groups=channels, bias=biases[0],
                      layout="cropped", dtype=dtype, **geometry)  # fmt: skip
    middle, size = first.expected
    middle = image_oracle.activate(middle, between or "none")
    second = ImageCase(name + "b", middle.shape[2:], (inner, outputs), (1, 1), padding=0,
                       groups=groups, batch=geometry.get("batch", 2), bias=biases[1],
                       dtype=dtype)  # fmt: skip
    weight, bias = second.arrays["weight"], second.arrays["bias"] if biases[1] else None
    place = ((1, 1), ((0, 0), (0, 0)), (1, 1), groups)
    before = image_oracle.conv(middle, weight, bias, *place)
    magnitude = image_oracle.conv(
        1.2 * size + abs(middle), abs(weight), None if bias is None else abs(bias), *place
    )
    if residual:
        before = before + second.arrays["residual"]
        magnitude = magnitude + abs(second.arrays["residual"])
    exact = image_oracle.activate(before, after or "none")
    allowed = 1.2 * magnitude + abs(before) + abs(exact)
    terms = first.terms + second.terms
    x, depthwise, depthwise_bias = first.tensors()
    _, pointwise, bias = second.tensors()
    for weights in ((depthwise, pointwise), (depthwise, pointwise[:, :, 0, 0]),
                    (depthwise.clone().requires_grad_(), pointwise)):  # fmt: skip
        out = depthwise_separable_conv2d(
            x, *weights, depthwise_bias, bias, **first.geometry, groups=groups,
            depthwise_activation=between, activation=after,
            residual=second.tensor("residual") if residual else None,
        )  # fmt: skip
        assert is_channels_last(out)
        found = out.detach().unsqueeze(0) if first.batch is None else out.detach()
        image_oracle.assert_close(found.numpy(), exact, allowed, terms)


# --- half precision -------------------------------------------------------------------------------


@HALVES
@each(SHAPES)
def test_half_precision_rounds_the_result_once(case, half):
    # The numbers of the case rounded to half; the exact result of those, rounded to half again.
    x, weight, bias = (tensor.to(half) for tensor in case.tensors(F32))
    arrays = [tensor.double().numpy() for tensor in (x, weight, bias)]
    exact = image_oracle.conv(*arrays, *case.placing)
    magnitude = image_oracle.conv(*map(abs, arrays), *case.placing)
    out = conv2d(x, weight, bias, **case.geometry, groups=case.groups)
    assert out.dtype == half
    eps = torch.finfo(half).eps
    allowed = eps * abs(exact) + 4 * np.finfo(np.float32).eps * case.terms**0.5 * magnitude
    tiny = torch.finfo(half).smallest_normal * eps  # what lies below is rounded to steps of this
    assert (abs(out.double().numpy() - exact) <= allowed + tiny).all()
    for gradients in (False, True):
        x.requires_grad_(gradients)
        out = conv2d(x, weight, bias, **case.geometry, groups=case.groups, activation="relu")
        assert out.dtype == half
        error = abs(out.detach().double().numpy() - np.maximum(exact, 0))
        assert (error <= 2 * allowed + tiny).all()
