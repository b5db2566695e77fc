"""Both gradients of a pointwise convolution in one walk: those of plain PyTorch, one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pointwise.convolution.window import window
from pointwise.engine.cpu.gathers.prologue import Correction
from pointwise.engine.cpu.loops import normed_images
from pointwise.engine.cpu.loops.normed_images import NormalisedImage
from pointwise.engine.cpu.loops.pointwise_backward import is_better, pointwise_backward

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
SHAPES = pytest.mark.parametrize(
    ("images", "height", "width", "inputs", "outputs"),
    [(1, 1, 1, 1, 1), (1, 3, 5, 3, 2), (2, 9, 7, 17, 31), (1, 23, 45, 33, 14), (3, 20, 20, 16, 65),
     (1, 50, 41, 130, 15)],
)  # fmt: skip
INFINITY = float("inf")


def drawn(seed: int, *shape: int, dtype) -> Tensor:
    made = torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).to(dtype)
    return made.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else made


def operands(images, height, width, inputs, outputs, dtype):
    """(z, its norm's mean, scale and shift, weight, correction)."""
    z = drawn(1, images, inputs, height, width, dtype=dtype)
    grad, out = (drawn(seed, images, outputs, height, width, dtype=dtype) for seed in (2, 3))
    norm = drawn(4, 3, inputs, dtype=dtype)
    weight = drawn(5, outputs, inputs, 1, 1, dtype=dtype)
    return z, *norm, weight, Correction(grad, out, *drawn(6, 2, outputs, dtype=dtype))


def found(z, mean, scale, shift, weight, correction, bounds):
    """(gradient of z, that of the weight, the sums of the norm)."""
    seen = window(z.shape[0], z.shape[2:], (1, 1), (1, 1), (0, 0, 0, 0), (1, 1))
    if bounds is None:
        given = NormalisedImage(z, None, None, None, -INFINITY, INFINITY)
    else:
        given = NormalisedImage(z, mean, scale, shift, *bounds)
    reduction = given.gradient()
    d_z, d_weight = pointwise_backward(z, weight, seen, correction, given.prologue(), reduction)
    return d_z, d_weight, *(() if reduction is None else reduction.result())


@DTYPES
@SHAPES
@pytest.mark.parametrize("bounds", [None, (0.0, 6.0), (-INFINITY, INFINITY)], ids=str)
def test_it_is_both_gradients(images, height, width, inputs, outputs, bounds, dtype, poisoned):
    z, mean, scale, shift, weight, correction = operands(
        images, height, width, inputs, outputs, dtype
    )
    d_z, d_weight, *sums = found(z, mean, scale, shift, weight, correction, bounds)
    assert d_z.is_contiguous(memory_format=torch.channels_last)

    column = (-1, 1, 1)
    z, mean, scale, shift, weight = (each.double() for each in (z, mean, scale, shift, weight))
    grad = correction.grad.double() + correction.out.double() * correction.scale.double().view(
        column
    )
    grad = grad + correction.shift.double().view(column)
    away = z - mean.view(column)
    x = z if bounds is None else (away * scale.view(column) + shift.view(column)).clamp(*bounds)
    matrix = weight.flatten(1)
    before = torch.einsum("nohw,oi->nihw", grad, matrix)
    tolerance = max(8, (images * height * width) ** 0.5) * torch.finfo(dtype).eps
    longest = float((grad.abs().mean() * matrix.abs().mean()) * outputs**0.5) + 1
    expected = torch.einsum("nohw,nihw->oi", grad, x)
    # What is added up on the way may be larger than what comes out.
    terms = correction.grad.abs(), (correction.out * correction.scale.view(column)).abs()
    of_grad = sum(terms).double() + correction.shift.double().abs().view(column)
    of_x = z.abs()
    if bounds is not None:
        of_x = (z.abs() + mean.abs().view(column)) * scale.abs().view(column)
        of_x = of_x + shift.abs().view(column)
    sized = torch.einsum("nohw,nihw->oi", of_grad, of_x).view_as(weight)
    apart = (d_weight.double() - expected.view_as(weight)).abs()
    assert bool((apart <= tolerance * (1 + sized)).all())
    if bounds is not None:
        inside = (x > bounds[0]) & (x < bounds[1])
        d = before * inside
        for a, b in zip(sums, ((d * away).sum((0, 2, 3)), d.sum((0, 2, 3))), strict=True):
            many = tolerance * longest * images * height * width * outputs**0.5
            torch.testing.assert_close(a.double(), b, rtol=0, atol=many)
        before = d * scale.view(column)
    size = 1 + float(before.abs().max()) * outputs**0.5
    torch.testing.assert_close(d_z.double() / size, before / size, rtol=0, atol=tolerance)


@DTYPES
def test_the_same_bits_at_any_number_of_threads(dtype, threads):
    given = operands(2, 30, 30, 33, 20, dtype)
    threads(1)
    alone = found(*given, (0.0, 6.0))
    for count in (2, 3):
        threads(count)
        assert all(map(torch.equal, alone, found(*given, (0.0, 6.0))))


def test_it_is_taken_where_images_are_large(monkeypatch):
    seen = window(2, (32, 32), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1))
    assert is_better(seen, torch.empty(32, 16, 1, 1), 1)
    assert not is_better(seen, torch.empty(32, 16, 1, 1), 2)
    assert not is_better(seen, torch.empty(1024, 1024, 1, 1), 1)
    assert not is_better(
        window(1, (8, 8), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1)), torch.empty(32, 16, 1, 1), 1
    )
    strided = window(2, (64, 64), (1, 1), (2, 2), (0, 0, 0, 0), (1, 1))
    assert not is_better(strided, torch.empty(32, 16, 1, 1), 1)


@DTYPES
def test_what_is_corrected_first_gives_the_same(dtype, monkeypatch, poisoned):
    z, mean, scale, shift, weight, correction = operands(2, 9, 7, 40, 33, dtype)
    wide = correction.scale.double().view(-1, 1, 1), correction.shift.double().view(-1, 1, 1)
    expected = correction.grad.double() + correction.out.double() * wide[0] + wide[1]
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(correction.corrected().double(), expected, rtol=0, atol=16 * eps)
    seen = window(2, (9, 7), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1))
    image = NormalisedImage(z, mean, scale, shift, 0.0, 6.0)
    results = []
    for small in (0, 1 << 30):
        monkeypatch.setattr(normed_images, "_SMALL", small)
        results.append(normed_images.gradients(image, weight, seen, 1, correction, True))
    for a, b in zip(*results, strict=True):
        if a.shape[0] == b.shape[0]:
            torch.testing.assert_close(a, b, rtol=0, atol=float(64 * eps * (1 + a.abs().max())))
