"""Batch norm, residual and activation in one pass, and backwards in one pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pointwise.convolution.epilogue import ACTIVATIONS, kernel_form, why_not
from pointwise.engine.cpu.loops import norm_act

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
PLAIN = {name: row.plain for name, row in ACTIVATIONS.items()}
# PyTorch's own gradient in float64 multiplies with float32's sixth.
PLAIN["hardsigmoid"] = lambda x: (x + 3).clamp(0, 6) / 6
EACH = pytest.mark.parametrize(
    ("activation", "dtype"),
    [(name, dtype) for name in PLAIN for dtype in (torch.float32, torch.float64)
     if why_not(name, dtype) is None],
)  # fmt: skip


# --- norm, residual, activation -------------------------------------------------------------------


def operands(rows: int, channels: int, dtype, spread=2.0) -> list[Tensor]:
    """(z, mean, scale, shift, residual, grad)."""
    generator = np.random.default_rng(rows * 1000 + channels)

    def image():
        values = spread * generator.standard_normal((1, rows, 1, channels))
        return torch.from_numpy(values).to(dtype).permute(0, 3, 1, 2)

    parameters = torch.from_numpy(generator.standard_normal((3, channels))).to(dtype)
    return [image(), *parameters, image(), image()]


def plain(z, mean, scale, shift, residual, activation) -> Tensor:
    z, mean, scale, shift = z, mean.view(-1, 1, 1), scale.view(-1, 1, 1), shift.view(-1, 1, 1)
    x = (z - mean) * scale + shift
    return PLAIN[activation](x if residual is None else x + residual)


@EACH
@pytest.mark.parametrize("rows", [1, 255, 256, 257, 600])
def test_forward_and_backward(rows, activation, dtype, poisoned):
    eps = torch.finfo(dtype).eps
    for channels in (1, 3, 16, 17, 33, 130):
        z, mean, scale, shift, residual, grad = operands(rows, channels, dtype)
        for added in (None, residual):
            given = (z, mean, scale, shift, added, kernel_form(activation, dtype))
            out = norm_act.forward(*given)
            asked = [None if t is None else t.detach().double().requires_grad_()
                     for t in (z, mean, scale, shift, added)]  # fmt: skip
            expected = plain(*asked, activation)
            size = 1 + abs(z) * abs(scale).view(-1, 1, 1) + abs(mean * scale).view(-1, 1, 1)
            largest = float(size.max())
            assert out.is_contiguous(memory_format=torch.channels_last)
            assert bool(((out - expected).abs() <= 8 * eps * (size + abs(residual))).all())

            *found, d_residual = norm_act.backward(grad, *given)
            wanted = [t for t in (asked[0], *asked[2:]) if t is not None]
            exact = torch.autograd.grad(expected, wanted, grad.double())
            far = ((z - mean.view(-1, 1, 1)) * grad).abs().sum((0, 2, 3))
            limits = [
                # Where the slope rises, it is as far off as the number it is taken at.
                12 * eps * (size + abs(residual)) * abs(grad) * abs(scale).view(-1, 1, 1),
                12 * eps * rows**0.5 * far * (1 + largest),
                12 * eps * rows**0.5 * grad.abs().sum((0, 2, 3)) * (1 + largest),
                12 * eps * (size + abs(residual)) * abs(grad),
            ]
            if added is None:
                assert d_residual is None
            else:
                found.append(d_residual)
            for a, b, limit in zip(found, exact, limits, strict=False):
                assert a.dtype == dtype
                assert bool(((a - b).abs() <= limit).all())


@EACH
def test_numbers_without_a_value_and_without_end(activation, dtype):
    # What PyTorch makes of them in float64, forward and backward, and no other number is touched by
    # it. In float32 its gelu of infinity is NaN on AVX-512.
    z = torch.linspace(-8, 8, 21, dtype=dtype)
    z[3], z[7], z[11] = float("nan"), float("inf"), -float("inf")
    z[0], z[20] = 1e30, -1e30
    z = z.view(1, 1, -1, 1)
    one, zero = torch.ones(1, dtype=dtype), torch.zeros(1, dtype=dtype)
    out = norm_act.forward(z, zero, one, zero, None, kernel_form(activation, dtype))
    x = z.double().requires_grad_()
    expected = PLAIN[activation](x)
    close = {"rtol": 1e-5, "atol": 1e-5, "equal_nan": True}
    torch.testing.assert_close(out, expected.detach().to(dtype), **close)
    grad = torch.ones_like(z)
    slope = torch.autograd.grad(expected, x, grad.double())[0].to(dtype)
    found = norm_act.backward(grad, z, zero, one, zero, None, kernel_form(activation, dtype))[0]
    ordinary = z.isfinite()
    torch.testing.assert_close(found[ordinary], slope[ordinary], **close)
    if activation in ("relu", "relu6"):  # NaN passes it on
        assert float(found[0, 0, 3, 0]) == 1


@DTYPES
@pytest.mark.parametrize("activation", ["relu", "relu6", "hardswish", "hardsigmoid"])
def test_gradients_at_the_corners_are_pytorchs(activation, dtype):
    z = torch.tensor([-3.0, 0.0, 3.0, 6.0], dtype=dtype).view(1, 1, -1, 1)
    one, zero = torch.ones(1, dtype=dtype), torch.zeros(1, dtype=dtype)
    given = (zero, one, zero, None, kernel_form(activation, dtype))
    x = z.clone().requires_grad_()
    expected = getattr(F, activation)(x)
    assert torch.equal(norm_act.forward(z, *given), expected.detach())
    (slope,) = torch.autograd.grad(expected, x, torch.ones_like(z))
    torch.testing.assert_close(norm_act.backward(torch.ones_like(z), z, *given)[0], slope)


@DTYPES
def test_an_empty_image(dtype):
    z, mean, scale, shift, residual, grad = (t[..., :0, :] if t.dim() == 4 else t
                                             for t in operands(4, 5, dtype))  # fmt: skip
    given = (z, mean, scale, shift, residual, kernel_form("relu", dtype))
    assert norm_act.forward(*given).shape == z.shape
    d_z, d_scale, d_shift, d_residual = norm_act.backward(grad, *given)
    assert d_z.shape == d_residual.shape == z.shape
    assert not d_scale.any()
    assert not d_shift.any()


@EACH
def test_the_same_bits_at_any_number_of_threads(activation, dtype, threads):
    z, mean, scale, shift, residual, grad = operands(3000, 37, dtype)
    given = (z, mean, scale, shift, residual, kernel_form(activation, dtype))

    def everything():
        return [norm_act.forward(*given), *norm_act.backward(grad, *given)]

    threads(1)
    alone = everything()
    for count in (2, 3):
        threads(count)
        for a, b in zip(alone, everything(), strict=True):
            assert torch.equal(a, b)
