"""Products of bfloat16, against double precision on operands that are rounded to it.

A machine without AVX512-BF16 runs these in ``test_bf16_emulated``.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pointwise.convolution.epilogue import finish
from pointwise.convolution.problem import describe
from pointwise.engine import choose
from pointwise.engine.cpu import pairs
from pointwise.engine.cpu.memory import empty_image
from pointwise.engine.cpu.weights import pack_pairs

pytestmark = pytest.mark.skipif(pairs.WHY_NOT is not None, reason=str(pairs.WHY_NOT))

EPS = torch.finfo(torch.float32).eps


def image(*shape: int, seed: int = 0) -> torch.Tensor:
    made = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return made.contiguous(memory_format=torch.channels_last)


def described(x, weight, stride=1, padding=(0, 0, 0, 0), dilation=1, groups=1, activation="none",
              bf16=True):  # fmt: skip
    found = describe(x.shape, weight.shape, (stride,) * 2, padding, (dilation,) * 2, groups,
                     x.dtype, activation)  # fmt: skip
    return found._replace(bf16=bf16)


def computed(x, weight, bias, residual=None, **geometry):
    """(the kernel's result, the one in double, a bound of the rounding of sums in float32)."""
    convolution = described(x, weight, **geometry)
    prepared = choose.prepare(convolution, weight, bias)
    assert prepared.choice.bf16
    out = empty_image(convolution.shape, x.dtype).fill_(torch.nan)
    choose.launch(x, (prepared,), out, residual).run()
    return out, *wanted(convolution, x, weight, bias, residual)


def wanted(convolution, x, weight, bias, residual):
    y, across = convolution.window.y, convolution.window.x
    top, left = y.padding, across.padding
    bottom = max(0, (y.points - 1) * y.stride + (y.taps - 1) * y.dilation + 1 - y.size - top)
    right = (across.points - 1) * across.stride + (across.taps - 1) * across.dilation + 1
    right = max(0, right - across.size - left)

    def convolved(x, weight, bias):
        x = F.pad(x, (left, right, top, bottom))
        steps = (y.stride, across.stride), 0, (y.dilation, across.dilation)
        return F.conv2d(x, weight, bias, *steps)[:, :, : y.points, : across.points]

    x, weight = x.bfloat16().double(), weight.bfloat16().double()
    bias = None if bias is None else bias.double()
    sums = convolved(x, weight, bias)
    size = convolved(x.abs(), weight.abs(), None if bias is None else bias.abs())
    if residual is not None:
        size = size + residual.abs()
    residual = None if residual is None else residual.double()
    steps = weight[0].numel() + 4
    return finish(sums, residual, convolution.activation), EPS * steps * size


def check(found):
    out, exact, bound = found
    assert not out.isnan().any()
    assert ((out.double() - exact).abs() <= bound).all()


# Of one step, odd and even depths, tiles whose rows are TILE_ROW apart; columns of a part of a
# register and of several; one, two and many rows.
@pytest.mark.parametrize(("inputs", "outputs", "height"), [
    (1, 1, 1), (2, 8, 1), (3, 5, 7), (16, 32, 9), (17, 24, 5), (33, 40, 3), (64, 19, 14),
    (700, 48, 7), (701, 9, 4), (1024, 64, 3), (64, 130, 1),
])  # fmt: skip
@pytest.mark.parametrize("images", [1, 2])
def test_pointwise(inputs, outputs, height, images):
    x, weight = image(images, inputs, height, height), image(outputs, inputs, 1, 1, seed=1)
    check(computed(x, weight, None))


def test_it_is_bfloat16_that_is_multiplied():
    x, weight = image(1, 64, 8, 8), image(32, 64, 1, 1, seed=1)
    _out, exact, bound = computed(x, weight, None)
    assert ((F.conv2d(x.double(), weight.double()) - exact).abs() > bound).float().mean() > 0.9


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), [
    (3, 1, (1, 1, 1, 1), 1), (3, 2, (0, 1, 0, 1), 1), (3, 1, (2, 2, 2, 2), 2), (5, 1, (2,) * 4, 1),
    (1, 2, (0, 0, 0, 0), 1), (7, 2, (3,) * 4, 1),
])  # fmt: skip
@pytest.mark.parametrize(("inputs", "outputs"), [(3, 16), (17, 21), (32, 64)])
def test_standard(kernel, stride, padding, dilation, inputs, outputs):
    x = image(2, inputs, 13, 11)
    weight, bias = image(outputs, inputs, kernel, kernel, seed=1), image(outputs, 1, 1, 1, seed=2)
    check(computed(x, weight, bias.flatten(), stride=stride, padding=padding, dilation=dilation))


@pytest.mark.parametrize("activation", ["none", "relu", "relu6", "silu"])
def test_the_epilogue_is_that_of_float32(activation):
    x, weight, bias = image(2, 19, 6, 6), image(27, 19, 1, 1, seed=1), image(27, 1, 1, 1, seed=2)
    residual = image(2, 27, 6, 6, seed=3)
    out, exact, bound = computed(x, weight, bias.flatten(), residual, activation=activation)
    # No slope of these is above 1.1; silu's own rounding is a few steps of its result.
    assert ((out - exact).abs() <= 1.1 * bound + 8 * EPS * (exact.abs() + 1)).all()


@pytest.mark.parametrize(("channels", "outputs", "kernel", "stride"), [
    (16, 24, 3, 1), (33, 40, 3, 2), (24, 16, 5, 1), (700, 16, 3, 1),
])  # fmt: skip
def test_separable_rounds_what_the_stencil_makes(channels, outputs, kernel, stride):
    x = image(2, channels, 9, 9)
    depthwise, pointwise = (
        image(channels, 1, kernel, kernel, seed=1),
        image(outputs, channels, 1, 1),
    )
    padding = (kernel // 2,) * 4
    first = described(x, depthwise, stride, padding, groups=channels, activation="relu", bf16=False)
    made = choose.prepare(first, depthwise, None)
    between = empty_image(first.shape, x.dtype)
    choose.launch(x, (made,), between).run()
    second = described(between, pointwise)
    then = choose.prepare(second, pointwise, None)
    assert choose.fused(made, then) == 2
    out = empty_image(second.shape, x.dtype).fill_(torch.nan)
    choose.launch(x, (made, then), out).run()
    check((out, *wanted(second, between, pointwise, None, None)))


def test_numbers_that_are_not_finite_stay_so():
    x, weight = image(1, 5, 3, 3), image(4, 5, 1, 1, seed=1)
    x[0, 2, 1, 1], x[0, 4, 0, 2] = torch.nan, torch.inf
    prepared = choose.prepare(described(x, weight), weight, None)
    out = empty_image((1, 4, 3, 3), x.dtype)
    choose.launch(x, (prepared,), out).run()
    assert out[0, :, 1, 1].isnan().all()
    assert out[0, :, 0, 2].isinf().all()
    assert out.isfinite().sum() == 4 * 7


def test_what_lies_behind_an_odd_depth_is_not_read(poisoned):
    # A tile has room behind a row; whatever is there would be multiplied with zero.
    weight = image(8, 3, 1, 1)
    packed = pack_pairs(weight, None).packed
    assert packed.shape[2] == 2
    assert not packed[:, :, 1, :, 1].any()
    check(computed(image(1, 3, 40, 40), weight, None))


def test_the_same_bits_for_any_number_of_threads(threads):
    x, weight = image(2, 65, 17, 17), image(48, 65, 3, 3, seed=1)
    results = []
    for count in (1, 2, 3):
        threads(count)
        results.append(computed(x, weight, None, padding=(1, 1, 1, 1))[0])
    assert all(torch.equal(results[0], other) for other in results[1:])
