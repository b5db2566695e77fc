"""A batch norm's rows: what PyTorch's own says of an image, and autograd of its gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pointwise.engine.cpu.moments import Moments, NormGradient, pass_over
from pointwise.engine.cpu.norm_rows import Parameters, Rows, gradients_of, rows_of

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
POINTS = pytest.mark.parametrize("points", [2, 255, 256, 257, 1000])
EPS, SHARE = 1e-3, 0.3


def image(points: int, channels: int, dtype, seed: int, mean: float = 0.0) -> Tensor:
    values = np.random.default_rng(seed).standard_normal((1, points, 1, channels)) + mean
    return torch.from_numpy(values).to(dtype).permute(0, 3, 1, 2)


def row(channels: int, dtype, seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(channels)).to(dtype)


def rows_after(z: Tensor, norm: Parameters) -> Tensor:
    moments = Moments()
    pass_over(z, moments)
    return rows_of(moments, z.shape[2], norm)


@DTYPES
@POINTS
@pytest.mark.parametrize("affine", [True, False])
def test_forward_is_pytorchs(points, affine, dtype, poisoned):
    for channels in (1, 16, 63, 65, 130):
        z = image(points, channels, dtype, 1, mean=5)
        weight, bias = (row(channels, dtype, seed) if affine else None for seed in (2, 3))
        running = row(channels, dtype, 4), row(channels, dtype, 5).abs()
        moved = [each.clone() for each in running]
        rows = rows_after(z, Parameters(weight, bias, *moved, EPS, SHARE))
        rows_after(z, Parameters(weight, bias, None, None, EPS, SHARE))  # moves nothing

        wide = [None if each is None else each.double() for each in (weight, bias, *running)]
        expected = F.batch_norm(z.double(), wide[2], wide[3], wide[0], wide[1], True, SHARE, EPS)
        eps = torch.finfo(dtype).eps  # float64 is compared with what is rounded as often
        tight = {"rtol": 64 * eps, "atol": 64 * eps}
        torch.testing.assert_close(moved[0].double(), wide[2], **tight)
        torch.testing.assert_close(moved[1].double(), wide[3], **tight)
        mean, scale, shift, term, inverse = (each.double().view(-1, 1, 1) for each in Rows(*rows))
        variance = z.double().var((2, 3), unbiased=False).view(-1, 1, 1)
        torch.testing.assert_close(inverse, (variance + EPS).rsqrt(), **tight)
        size = 1 + float((z.double() * scale).abs().max())
        for found in ((z.double() - mean) * scale + shift, z.double() * scale + term):
            torch.testing.assert_close(found / size, expected / size, **tight)


@DTYPES
@POINTS
def test_backward_is_that_of_autograd(points, dtype, poisoned):
    for channels in (1, 16, 63, 65, 130):
        z, d = image(points, channels, dtype, 1, mean=2), image(points, channels, dtype, 6)
        weight, bias = row(channels, dtype, 2), row(channels, dtype, 3)
        rows = rows_after(z, Parameters(weight, bias, None, None, EPS, SHARE))
        mean, scale, shift, *_ = rows
        out = d.clone(memory_format=torch.preserve_format)
        reduction = NormGradient(z, mean, scale, shift, -float("inf"), float("inf"))
        pass_over(out, reduction)
        found = gradients_of(reduction.sums, rows, points)

        asked = [each.double().requires_grad_() for each in (z, weight, bias)]
        normed = F.batch_norm(asked[0], None, None, asked[1], asked[2], True, 0.1, EPS)
        expected = torch.autograd.grad(normed, asked, d.double())
        of_z = out + z * found.scale.view(-1, 1, 1) + found.shift.view(-1, 1, 1)
        eps = torch.finfo(dtype).eps
        size = 1 + float((d.double() * scale.double().view(-1, 1, 1)).abs().max())
        if points == 2:  # all of it cancels
            size *= 1 + float(rows[4].max()) ** 2
        torch.testing.assert_close(of_z.double() / size, expected[0] / size, rtol=0, atol=64 * eps)
        for a, b in zip((found.weight, found.bias), expected[1:], strict=True):
            torch.testing.assert_close(a.double(), b, rtol=0, atol=64 * eps * points**0.5)


@DTYPES
def test_the_same_bits_at_any_number_of_threads(dtype, threads):
    def everything():
        z, d = image(3000, 130, dtype, 1), image(3000, 130, dtype, 2)
        moved = torch.zeros(130, dtype=dtype), torch.ones(130, dtype=dtype)
        rows = rows_after(z, Parameters(None, None, *moved, EPS, SHARE))
        reduction = NormGradient(z, *rows[:3], 0.0, 6.0)
        pass_over(d, reduction)
        return [rows, *moved, *gradients_of(reduction.sums, rows, 3000)]

    threads(1)
    alone = everything()
    for count in (2, 3):
        threads(count)
        assert all(map(torch.equal, alone, everything()))
