"""Kernels on bytes give the bits that plain PyTorch gives: whole numbers are exact."""

from __future__ import annotations

import pytest
import torch

from pointwise.acceleration.vocabulary_int8 import conv_int8
from pointwise.convolution.window import window
from pointwise.engine.cpu import dots
from pointwise.engine.cpu.loops.depthwise import depthwise_launch
from pointwise.engine.cpu.loops.mixed import mixed_int8_launch
from pointwise.engine.cpu.loops.separable import separable_int8_launch
from pointwise.engine.cpu.weights import pack_stencil_int8, pack_weight_int8

pytestmark = pytest.mark.skipif(dots.WHY_NOT is not None, reason=str(dots.WHY_NOT))


def images(*shape, seed=0):
    """Bytes over their whole range, channels_last."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return x.contiguous(memory_format=torch.channels_last)


def weights(*shape, seed=1):
    """An int8 weight, and factors and shifts that leave most results within a byte."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randint(-128, 128, shape, generator=generator, dtype=torch.int8)
    depth = shape[1] * shape[2] * shape[3]
    scale = (100 * 74 * depth**0.5) / 60
    factor = (torch.rand(shape[0], generator=generator) + 0.5) / scale
    return weight, factor, torch.rand(shape[0], generator=generator) * 200


def window_of(x, weight, stride, padding, dilation):
    return window(x.shape[0], x.shape[2:], weight.shape[2:], stride, padding, dilation)


def room(field, channels, dtype):
    """Memory for a result, full of what must be written over."""
    shape = (field.images, channels, field.y.points, field.x.points)
    out = torch.full(shape, 77 if dtype == torch.uint8 else float("nan"), dtype=dtype)
    return out.contiguous(memory_format=torch.channels_last)


MIXES = [  # images, channels in and out, height, width, kernel, stride, padding, dilation
    (1, 4, 1, 1, 1, (1, 1), 1, 0, 1),
    (2, 8, 33, 5, 7, (1, 1), 1, 0, 1),
    (1, 7, 16, 9, 3, (1, 1), 1, 0, 1),  # depth no multiple of four
    (1, 64, 200, 13, 14, (1, 1), 1, 0, 1),
    (3, 100, 65, 2, 1, (1, 1), 1, 0, 1),
    (2, 12, 17, 9, 8, (1, 1), 2, 0, 1),  # every other pixel
    (1, 3, 32, 15, 17, (3, 3), 2, 1, 1),
    (2, 5, 18, 9, 11, (3, 5), 1, 2, 2),
    (1, 40, 24, 6, 6, (2, 3), (2, 1), (0, 1), 1),
    (1, 130, 47, 30, 30, (1, 1), 1, 0, 1),
]


@pytest.mark.parametrize("case", MIXES)
@pytest.mark.parametrize("zero", [0, 93])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("with_residual", [False, True])
def test_mixes_give_the_same_bits(case, zero, dtype, with_residual):
    many, inputs, outputs, height, width, kernel, stride, pad, dilation = case
    x = images(many, inputs, height, width)
    weight, factor, shift = weights(outputs, inputs, *kernel)
    stride, pad, dilation = ((v, v) if isinstance(v, int) else v for v in (stride, pad, dilation))
    edges = (pad[0], pad[0], pad[1], pad[1])
    field = window_of(x, weight, stride, edges, dilation)
    out = room(field, outputs, dtype)
    residual = images(*out.shape, seed=5) if with_residual else None
    packed = pack_weight_int8(weight, factor, shift, zero)
    mixed_int8_launch(x, packed, field, out, residual, 0.37, 10.0, 150.0).run()
    expected = conv_int8(x, weight, factor, shift, residual, stride, edges, dilation, 1, zero,
                         0.37, 10.0, 150.0, dtype == torch.uint8)  # fmt: skip
    assert torch.equal(out, expected)
    if dtype == torch.uint8 and out.numel() > 100:  # there is something to compare
        assert len(expected.unique()) > 50


STENCILS = [  # images, channels, height, width, kernel, stride, padding
    (1, 1, 3, 3, (3, 3), 1, 1),
    (2, 16, 5, 9, (3, 3), 1, 1),
    (1, 32, 8, 8, (3, 3), 2, 1),
    (1, 33, 7, 7, (3, 3), 1, 1),
    (2, 64, 11, 6, (3, 3), 2, 0),
    (1, 100, 4, 14, (5, 5), 1, 2),
    (1, 160, 9, 9, (5, 5), 2, 2),
    (1, 96, 9, 10, (7, 7), 1, 3),
    (1, 72, 10, 2, (3, 3), 1, 1),
    (2, 24, 6, 12, (1, 3), 1, (0, 1)),
]


@pytest.mark.parametrize("case", STENCILS)
@pytest.mark.parametrize("zero", [0, 93])
def test_stencils_give_the_same_bits(case, zero):
    many, channels, height, width, kernel, stride, pad = case
    x = images(many, channels, height, width)
    weight, factor, shift = weights(channels, 1, *kernel)
    pad = (pad, pad) if isinstance(pad, int) else pad
    edges = (pad[0], pad[0], pad[1], pad[1])
    field = window_of(x, weight, (stride, stride), edges, (1, 1))
    out = room(field, channels, torch.uint8)
    depthwise_launch(x, pack_stencil_int8(weight, factor, shift, zero), field, out).run()
    expected = conv_int8(x, weight, factor, shift, None, (stride, stride), edges, (1, 1), channels,
                         zero, 0.0, 0.0, 255.0, True)  # fmt: skip
    assert torch.equal(out, expected)


@pytest.mark.parametrize("case", STENCILS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_pairs_in_one_loop_give_the_same_bits(case, dtype):
    many, channels, height, width, kernel, stride, pad = case
    x = images(many, channels, height, width)
    first, then = weights(channels, 1, *kernel), weights(37, channels, 1, 1, seed=3)
    pad = (pad, pad) if isinstance(pad, int) else pad
    edges = (pad[0], pad[0], pad[1], pad[1])
    field = window_of(x, first[0], (stride, stride), edges, (1, 1))
    out = room(field, 37, dtype)
    residual = images(*out.shape, seed=5)
    stencil, mix = pack_stencil_int8(*first, 93), pack_weight_int8(*then, 11)
    separable_int8_launch(x, stencil, mix, field, out, residual, 0.2, 1.0, 200.0).run()
    between = conv_int8(x, *first, None, (stride, stride), edges, (1, 1), channels, 93, 0.0, 0.0,
                        255.0, True)  # fmt: skip
    expected = conv_int8(between, *then, residual, (1, 1), (0, 0, 0, 0), (1, 1), 1, 11, 0.2, 1.0,
                         200.0, dtype == torch.uint8)  # fmt: skip
    assert torch.equal(out, expected)


def test_results_do_not_depend_on_the_number_of_threads(threads):
    x = images(2, 64, 20, 20)
    weight, factor, shift = weights(96, 64, 3, 3)
    field = window_of(x, weight, (1, 1), (1, 1, 1, 1), (1, 1))
    found = []
    for team in (1, 2, 3):
        threads(team)
        out = room(field, 96, torch.uint8)
        mixed_int8_launch(x, pack_weight_int8(weight, factor, shift, 7), field, out).run()
        found.append(out)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_the_largest_numbers_do_not_wrap_around():
    x = torch.full((1, 2048, 1, 3), 255, dtype=torch.uint8)
    x = x.contiguous(memory_format=torch.channels_last)
    for value in (127, -128):
        weight = torch.full((16, 2048, 1, 1), value, dtype=torch.int8)
        factor, shift = torch.ones(16), torch.zeros(16)
        field = window_of(x, weight, (1, 1), (0, 0, 0, 0), (1, 1))
        out = room(field, 16, torch.float32)
        mixed_int8_launch(x, pack_weight_int8(weight, factor, shift, 0), field, out).run()
        assert torch.equal(out, torch.full_like(out, 255.0 * value * 2048))
