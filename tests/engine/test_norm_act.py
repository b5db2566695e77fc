"""Batch norm, residual and activation in one pass, and what activations are made of."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pointwise.engine.cpu.activation import activate, exponential
from pointwise.engine.cpu.launch import device, kernel, launch, slot
from pointwise.engine.cpu.loops import images as conv_images
from pointwise.engine.cpu.loops import norm_act
from pointwise.engine.cpu.vector import bytes_of, lanes_of, load_first, store_first

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
PLAIN = {
    "none": lambda x: x, "relu": F.relu, "relu6": F.relu6, "hardswish": F.hardswish,
    "silu": F.silu, "sigmoid": torch.sigmoid,
}  # fmt: skip
EACH = pytest.mark.parametrize("activation", PLAIN)
SLOPED = ("hardswish", "silu", "sigmoid")


# --- exponential ----------------------------------------------------------------------------------


@device
def _exponentials(arguments, program, like):
    """Of 4096 numbers, in place."""
    size, width = bytes_of(like), lanes_of(like)
    here = slot(arguments, 0) + program * 4096 * size
    count = min(4096, slot(arguments, 1) - program * 4096)
    for k in range(0, count, width):
        value = load_first(here + k * size, count - k, like)
        store_first(here + k * size, exponential(value), count - k)


@kernel
def _exponentials_float32(arguments, program, thread):
    _exponentials(arguments, program, np.float32(0))


@kernel
def _exponentials_float64(arguments, program, thread):
    _exponentials(arguments, program, np.float64(0))


def exponentials(x: np.ndarray) -> np.ndarray:
    out = x.copy()
    compiled = _exponentials_float32 if x.dtype == np.float32 else _exponentials_float64
    launch(compiled, [out.ctypes.data, len(out)], -(-len(out) // 4096))
    return out


def units_off(found: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Errors in units in the last place of the exact result, which has more precision."""
    rounded = np.abs(exact).astype(found.dtype)
    # Beside infinity there is no next number: the unit of the largest one.
    unit = np.spacing(np.minimum(rounded, np.finfo(found.dtype).max)).astype(exact.dtype)
    return np.abs(found.astype(exact.dtype) - exact) / unit


def assert_exponential(x, exact):
    """To two units, but for what is not normal, and for the last half power of two."""
    found, info = exponentials(x), np.finfo(x.dtype)
    last = exact.dtype.type(2) ** (info.maxexp - 0.5)
    assert (np.isnan(found) == np.isnan(x)).all()
    assert np.isinf(found[exact > last * (1 + 1e-6)]).all()
    normal = (exact < last * (1 - 1e-6)) & (exact > info.tiny * 1.001)
    assert units_off(found[normal], exact[normal]).max(initial=0) <= 2
    np.testing.assert_allclose(found[exact <= info.tiny * 1.001], info.tiny, rtol=2e-3)


def test_exponential_over_all_of_float32():
    # Every 997th bit pattern: all magnitudes, both signs, subnormals, infinities and NaN.
    x = np.arange(0, 2**32, 997, dtype=np.uint32).view(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        assert_exponential(x, np.exp(x.astype(np.float64)))


def test_exponential_near_the_ends_of_float32():
    for middle in (-103.97, -87.34, -0.3466, 0.0, 0.3466, 88.38, 88.72):
        x = np.linspace(middle - 0.1, middle + 0.1, 200_001).astype(np.float32)
        assert_exponential(x, np.exp(x.astype(np.float64)))


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 60, reason="nothing more precise at hand")
def test_exponential_over_all_of_float64():
    generator = np.random.default_rng(0)
    signs = generator.choice([-1.0, 1.0], 400_000)
    powers = signs * 2.0 ** generator.uniform(-60, 9.6, 400_000)
    x = np.concatenate([powers, generator.uniform(-746, 710, 600_000)])
    with np.errstate(over="ignore", under="ignore"):
        assert_exponential(x, np.exp(x.astype(np.longdouble)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exponential_of_special_numbers(dtype):
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e30, -1e30, 1e-30, 80.0, -745.0], dtype)
    with np.errstate(over="ignore", under="ignore"):
        expected = np.exp(x)
    found = exponentials(x)
    assert found[0] == found[1] == 1  # exactly: sigmoid(0) has to be one half
    np.testing.assert_allclose(found, expected, rtol=2 * np.finfo(dtype).eps, atol=2e-38)


# --- activations in place -------------------------------------------------------------------------


@device
def _activate(arguments, like):
    activate(slot(arguments, 0), slot(arguments, 1), slot(arguments, 2), slot(arguments, 3),
             slot(arguments, 4), like)  # fmt: skip


@kernel
def _activate_float32(arguments, program, thread):
    _activate(arguments, np.float32(0))


@kernel
def _activate_float64(arguments, program, thread):
    _activate(arguments, np.float64(0))


@DTYPES
@pytest.mark.parametrize("activation", SLOPED)
@pytest.mark.parametrize("columns", [1, 7, 8, 15, 16, 17, 40])
def test_activations_in_place(columns, activation, dtype):
    given = torch.from_numpy(np.random.default_rng(columns).normal(0, 4, (5, columns + 3)))
    given = given.to(dtype)
    given[0, 0], given[1, 0] = 300, -300  # far beyond where exponentials end
    found = given.clone()
    row, kind = found.stride(0) * found.element_size(), conv_images.EPILOGUES[activation][2]
    compiled = _activate_float32 if dtype == torch.float32 else _activate_float64
    launch(compiled, [found.data_ptr(), row, 5, columns, kind], 1)
    assert torch.equal(found[:, columns:], given[:, columns:])
    exact = PLAIN[activation](given[:, :columns].double())
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(found[:, :columns].double(), exact, rtol=6 * eps, atol=6 * eps)


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


@DTYPES
@EACH
@pytest.mark.parametrize("rows", [1, 255, 256, 257, 600])
def test_forward_and_backward(rows, activation, dtype, poisoned):
    eps = torch.finfo(dtype).eps
    for channels in (1, 3, 16, 17, 33, 130):
        z, mean, scale, shift, residual, grad = operands(rows, channels, dtype)
        for added in (None, residual):
            given = (z, mean, scale, shift, added, conv_images.EPILOGUES[activation])
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


@DTYPES
@EACH
def test_numbers_without_a_value_and_without_end(activation, dtype):
    # What PyTorch makes of them, forward and backward, and no other number is touched by it.
    z = torch.linspace(-8, 8, 21, dtype=dtype)
    z[3], z[7], z[11] = float("nan"), float("inf"), -float("inf")
    z[0], z[20] = 1e30, -1e30
    z = z.view(1, 1, -1, 1)
    one, zero = torch.ones(1, dtype=dtype), torch.zeros(1, dtype=dtype)
    out = norm_act.forward(z, zero, one, zero, None, conv_images.EPILOGUES[activation])
    x = z.clone().requires_grad_()
    expected = PLAIN[activation](x)
    close = {"rtol": 1e-5, "atol": 1e-5, "equal_nan": True}
    torch.testing.assert_close(out, expected.detach(), **close)
    grad = torch.ones_like(z)
    (slope,) = torch.autograd.grad(expected, x, grad)
    found = norm_act.backward(grad, z, zero, one, zero, None, conv_images.EPILOGUES[activation])[0]
    ordinary = z.isfinite()
    torch.testing.assert_close(found[ordinary], slope[ordinary], **close)
    if activation in ("relu", "relu6"):  # NaN passes it on
        assert float(found[0, 0, 3, 0]) == 1


@DTYPES
@pytest.mark.parametrize("activation", ["relu", "relu6", "hardswish"])
def test_gradients_at_the_corners_are_pytorchs(activation, dtype):
    z = torch.tensor([-3.0, 0.0, 3.0, 6.0], dtype=dtype).view(1, 1, -1, 1)
    one, zero = torch.ones(1, dtype=dtype), torch.zeros(1, dtype=dtype)
    given = (zero, one, zero, None, conv_images.EPILOGUES[activation])
    x = z.clone().requires_grad_()
    expected = PLAIN[activation](x)
    assert torch.equal(norm_act.forward(z, *given), expected.detach())
    (slope,) = torch.autograd.grad(expected, x, torch.ones_like(z))
    torch.testing.assert_close(norm_act.backward(torch.ones_like(z), z, *given)[0], slope)


@DTYPES
def test_an_empty_image(dtype):
    z, mean, scale, shift, residual, grad = (t[..., :0, :] if t.dim() == 4 else t
                                             for t in operands(4, 5, dtype))  # fmt: skip
    given = (z, mean, scale, shift, residual, conv_images.EPILOGUES["relu"])
    assert norm_act.forward(*given).shape == z.shape
    d_z, d_scale, d_shift, d_residual = norm_act.backward(grad, *given)
    assert d_z.shape == d_residual.shape == z.shape
    assert not d_scale.any()
    assert not d_shift.any()


@DTYPES
@EACH
def test_the_same_bits_at_any_number_of_threads(activation, dtype, threads):
    z, mean, scale, shift, residual, grad = operands(3000, 37, dtype)
    given = (z, mean, scale, shift, residual, conv_images.EPILOGUES[activation])

    def everything():
        return [norm_act.forward(*given), *norm_act.backward(grad, *given)]

    threads(1)
    alone = everything()
    for count in (2, 3):
        threads(count)
        for a, b in zip(alone, everything(), strict=True):
            assert torch.equal(a, b)
