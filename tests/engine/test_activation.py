"""Activations in kernels: what they are made of, their formulas and slopes, and the table."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pointwise.convolution.epilogue import ACTIVATIONS, CLAMP_ONLY, finish, kernel_form, why_not
from pointwise.engine.cpu.activation import activate, activation_function, exponential, slope
from pointwise.engine.cpu.by_dtype import by_dtype
from pointwise.engine.cpu.device import device
from pointwise.engine.cpu.launch import launch
from pointwise.engine.cpu.layout import Layout
from pointwise.engine.cpu.vector import bytes_of, lanes_of, load_first, store_first

# --- exponential ----------------------------------------------------------------------------------


RUN = 4096
NUMBERS = Layout("Numbers", "*x count kind")


@device
def _exponentials(arguments, program, thread, like):
    """Of ``RUN`` numbers, in place."""
    own = NUMBERS(arguments)
    size, width = bytes_of(like), lanes_of(like)
    here = own.x + program * RUN * size
    count = min(RUN, own.count - program * RUN)
    for k in range(0, count, width):
        value = load_first(here + k * size, count - k, like)
        store_first(here + k * size, exponential(value), count - k)


EXPONENTIALS = by_dtype(_exponentials, "exponentials")


def exponentials(x: np.ndarray) -> np.ndarray:
    out = torch.from_numpy(x.copy())
    arguments = NUMBERS(x=out, count=len(out), kind=CLAMP_ONLY)
    launch(EXPONENTIALS[out.dtype], arguments, -(-len(out) // RUN))
    return out.numpy()


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


# --- formulas and slopes --------------------------------------------------------------------------

EACH = pytest.mark.parametrize(
    ("activation", "dtype"),
    [(row.name, dtype) for row in ACTIVATIONS.values() for dtype in (torch.float32, torch.float64)
     if row.bounds is None and why_not(row.name, dtype) is None],
)  # fmt: skip
ROWS = Layout("Rows", "*x row_bytes count columns activation")


@device
def _activate(arguments, program, thread, like):
    own = ROWS(arguments)
    activate(own.activation, own.x, own.row_bytes, own.count, own.columns)


@device
def _slopes(arguments, program, thread, like):
    own = NUMBERS(arguments)
    for k in range(0, own.count, lanes_of(like)):
        here, left = own.x + k * bytes_of(like), own.count - k
        store_first(here, slope(load_first(here, left, like), own.kind, like), left)


ACTIVATE, SLOPES = by_dtype(_activate, "test_activate"), by_dtype(_slopes, "test_slopes")


def activated(x: Tensor, activation: str, columns: int) -> Tensor:
    """``x [rows, ...]`` with its first columns activated by the kernel."""
    out = x.clone()
    function = activation_function(kernel_form(activation, x.dtype)[2], x.dtype)
    arguments = ROWS(x=out, row_bytes=out.stride(0) * out.element_size(), count=len(out),
                     columns=columns, activation=function)  # fmt: skip
    launch(ACTIVATE[x.dtype], arguments, 1)
    return out


def slopes(x: Tensor, activation: str) -> Tensor:
    out = x.clone()
    arguments = NUMBERS(x=out, count=len(out), kind=kernel_form(activation, x.dtype)[2])
    launch(SLOPES[x.dtype], arguments, 1)
    return out


@EACH
@pytest.mark.parametrize("columns", [1, 7, 8, 15, 16, 17, 40])
def test_in_place(columns, activation, dtype):
    given = torch.from_numpy(np.random.default_rng(columns).normal(0, 4, (5, columns + 3)))
    given = given.to(dtype)
    given[0, 0], given[1, 0] = 300, -300  # far beyond where exponentials end
    found = activated(given, activation, columns)
    assert torch.equal(found[:, columns:], given[:, columns:])
    exact = finish(given[:, :columns].double(), None, activation)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(found[:, :columns].double(), exact, rtol=6 * eps, atol=6 * eps)


def numbers(dtype: torch.dtype) -> Tensor:
    """From far below to far above, close to zero, and around the corners of all activations."""
    large = torch.logspace(1, 30, 59, dtype=torch.float64)
    small = torch.logspace(-30, 0, 61, dtype=torch.float64)
    even = torch.linspace(-12, 12, 4001, dtype=torch.float64)  # without 0, 3 and such
    return torch.cat((-large, -small, even + 1e-3, small, large)).to(dtype)


@EACH
def test_formulas_are_pytorchs(activation, dtype):
    x = numbers(dtype)
    found = activated(x[None], activation, len(x))[0]
    exact = finish(x.double(), None, activation)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(found.double(), exact, rtol=6 * eps, atol=6 * eps)


@EACH
def test_slopes_are_those_of_autograd(activation, dtype):
    x = numbers(dtype)
    wide = x.double().requires_grad_()
    # PyTorch's own gradient in float64 multiplies with float32's sixth.
    if activation == "hardsigmoid":
        exact = (wide + 3).clamp(0, 6) / 6
    else:
        exact = finish(wide, None, activation)
    (wanted,) = torch.autograd.grad(exact.sum(), wide)
    eps = torch.finfo(dtype).eps
    # At x, a slope is as far off as the formula's rounding at numbers of that size.
    limit = 6 * eps * (1 + x.double().abs().clamp(max=12))
    assert bool(((slopes(x, activation).double() - wanted).abs() <= limit).all())


@EACH
def test_slopes_at_zero_and_at_the_corners(activation, dtype):
    x = torch.tensor([-3.0, 0.0, 3.0], requires_grad=True)
    (wanted,) = torch.autograd.grad(finish(x, None, activation).sum(), x)
    found = slopes(x.detach().to(dtype), activation)
    torch.testing.assert_close(found.float(), wanted, rtol=5e-7, atol=5e-7)


@EACH
def test_nan_stays_nan(activation, dtype):
    x = torch.full((1, 3), float("nan"), dtype=dtype)
    assert bool(activated(x, activation, 3).isnan().all())


def test_kernels_know_clamps_by_their_bounds():
    infinity = float("inf")
    assert kernel_form("none", torch.float32) == (-infinity, infinity, CLAMP_ONLY)
    assert kernel_form("relu6", torch.float64) == (0, 6, CLAMP_ONLY)
    x = torch.tensor([-7.0, 0.0, 7.0])
    assert torch.equal(activated(x[None], "relu", 3)[0], x)  # whoever clamps has done so
    assert torch.equal(slopes(x, "relu"), torch.ones(3))


# --- the table ------------------------------------------------------------------------------------

SAMPLES = {
    "none": -1.0, "relu": 0.0, "relu6": 0.0, "hardswish": -1 / 3, "hardsigmoid": 1 / 3,
    "silu": -0.2689414213699951, "sigmoid": 0.2689414213699951, "gelu": -0.15865525393145707,
    "mish": -0.30340146137410895, "tanh": -0.7615941559557649, "elu": -0.6321205588285577,
    "leaky_relu": -0.01, "leaky_relu_0.1": -0.1, "leaky_relu_0.2": -0.2,
}  # fmt: skip
"""Of -1."""


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_row_says_one_thing_in_all_its_columns(name):
    row = ACTIVATIONS[name]
    x = torch.linspace(-8, 8, 101, dtype=torch.float64)
    wanted = finish(x, None, name)
    assert row.name == name
    assert torch.equal(row.module()(x), wanted)
    if name != "none" and name.isidentifier():  # or PyTorch's function takes a number besides
        assert torch.equal(getattr(F, name)(x), wanted)
        assert torch.equal(getattr(torch.ops.aten, name)(x), wanted)
    if row.bounds is not None:
        assert torch.equal(x.clamp(*row.bounds), wanted)
    assert row.is_gate == bool(((wanted >= 0) & (wanted <= 1)).all())
    residual = torch.full_like(x, 0.5)
    assert torch.equal(finish(x, residual, name), finish(x + residual, None, name))
    assert finish(-x.new_ones(()), None, name).item() == pytest.approx(SAMPLES[name], abs=1e-14)


def test_where_a_kernel_is_not_exact_enough():
    assert why_not("gelu", torch.float64) == "gelu in float64"
    assert why_not("gelu", torch.float32) is None
    assert why_not("silu", torch.float64) is None
