"""The sums that batch norm needs, over a result's rows: mean and variance, gradients, splits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pointwise.engine.cpu import moments
from pointwise.engine.cpu.moments import Moments, NormGradient, pass_over
from pointwise.engine.cpu.partial_sums import total_of

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
CHANNELS = (1, 3, 5, 8, 16, 17, 33, 64, 65, 130)
ROWS = (1, 2, 255, 256, 257, 1000)


def images(rows: int, channels: int, dtype, seed=0, mean=0.0, deviation=1.0) -> Tensor:
    """``[1, channels, rows, 1]``, channels_last."""
    values = np.random.default_rng(seed).standard_normal((1, rows, 1, channels))
    return torch.from_numpy(mean + deviation * values).to(dtype).permute(0, 3, 1, 2)


def exact(x: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, biased variance and greatest distance from the mean of each channel, in numbers of more
    precision where the machine has them."""
    values = x.detach().numpy().astype(np.longdouble)
    mean = values.mean((0, 2, 3), keepdims=True)
    apart = np.abs(values - mean)
    return mean.ravel(), (apart**2).mean((0, 2, 3)), apart.max((0, 2, 3))


def check(x: Tensor, found: tuple[Tensor, Tensor]) -> None:
    """What is summed up are distances from a value of the channel: the tolerance is that of such a
    sum, and of adding the means of some splits."""
    eps, terms = torch.finfo(x.dtype).eps, (x.numel() // x.shape[1]) ** 0.5
    mean, variance, far = exact(x)
    for what, a, b, limit in (
        ("mean", found[0], mean, 2 * eps * terms * far + 4 * eps * abs(mean)),
        ("variance", found[1], variance, 4 * eps * terms * far**2),
    ):
        assert a.dtype == x.dtype
        assert a.shape == (x.shape[1],)
        wrong = ~(np.abs(a.numpy() - b) <= limit)
        assert not wrong.any(), f"{what}: {a.numpy()[wrong]}, expected {b[wrong]}"


def measured(x: Tensor) -> tuple[Tensor, Tensor]:
    reduction = Moments()
    pass_over(x, reduction)
    return reduction.result()


@DTYPES
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("channels", CHANNELS)
def test_mean_and_variance(channels, rows, dtype, poisoned):
    x = images(rows, channels, dtype)
    check(x, measured(x))


@DTYPES
def test_nothing_cancels_around_a_large_mean(dtype, poisoned):
    for mean in (1e4, -1e4, 1e5):
        x = images(3000, 33, dtype, mean=mean)
        found = measured(x)
        check(x, found)
        np.testing.assert_allclose(found[1].numpy(), exact(x)[1].astype(float), rtol=1e-4)
    if dtype == torch.float32:  # where E[x²] - E[x]² would lose everything
        naive = x.square().mean((0, 2, 3)) - x.mean((0, 2, 3)).square()
        with pytest.raises(AssertionError, match="variance"):
            check(x, (x.double().mean((0, 2, 3)).float(), naive))


@DTYPES
def test_means_that_drift_from_split_to_split(dtype):
    # Each split has a pivot of its own: what lies between their means has to be added.
    x = images(2000, 17, dtype) + torch.linspace(-300, 300, 2000, dtype=dtype).view(1, 1, -1, 1)
    x = x.contiguous(memory_format=torch.channels_last)
    check(x, measured(x))


@DTYPES
@pytest.mark.parametrize("value", [0.0, 1.0, -3.7, 1e4])
def test_constant_channels_have_no_variance(value, dtype):
    x = torch.full((2, 30, 20, 19), value, dtype=dtype).permute(0, 3, 1, 2)
    mean, variance = measured(x)
    assert torch.equal(variance, torch.zeros(19, dtype=dtype))
    torch.testing.assert_close(mean, x[0, :, 0, 0], rtol=torch.finfo(dtype).eps, atol=0)


@DTYPES
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_shows_in_its_channel_alone(bad, dtype):
    for row in (0, 1, 299, 300):  # in the first split and the second, first and last rows
        x = images(301, 19, dtype)
        x[0, 5, row] = bad
        for found in measured(x):
            assert not bool(found[5].isfinite())
            others = torch.cat((found[:5], found[6:]))
            assert bool(others.isfinite().all())


@DTYPES
def test_splits_of_any_length(dtype):
    """``begin`` is told how results are cut: a long split, a short one, one of a single row."""
    x = images(100, 20, dtype, mean=50)
    counts = np.array([60, 39, 1], dtype=np.int64)
    reduction = Moments()
    reduction.begin(x, counts)
    rows = x[0, :, :, 0].t()
    for split, part in enumerate(rows.split(counts.tolist())):
        apart = part - part[0]
        sums = torch.stack([part[0], apart.sum(0), apart.square().sum(0)])
        reduction.sums[split, :60] = sums.flatten()
    check(x, reduction.result())


@DTYPES
def test_the_same_bits_at_any_number_of_threads(dtype, threads):
    x = images(5000, 70, dtype, mean=7)
    norm = {"mean": 0.1, "scale": 1.3, "shift": 0.2}
    rows = {name: torch.full((70,), value, dtype=dtype) for name, value in norm.items()}

    def everything():
        z = images(5000, 70, dtype, seed=3)
        out = images(5000, 70, dtype, seed=4)
        reduction = NormGradient(z, *rows.values(), 0.0, 6.0)
        pass_over(out, reduction)
        return [*measured(x), *reduction.result(), out]

    threads(1)
    alone = everything()
    for count in (2, 3):
        threads(count)
        for a, b in zip(alone, everything(), strict=True):
            assert torch.equal(a, b)


# --- what comes back to a norm and its bounds -----------------------------------------------------


@DTYPES
@pytest.mark.parametrize("bounds", [(0.0, float("inf")), (0.0, 6.0), (-float("inf"), float("inf"))])
@pytest.mark.parametrize("channels", CHANNELS)
def test_the_gradient_of_a_norm_and_its_bounds(channels, bounds, dtype, poisoned):
    for rows in (1, 256, 300):
        z, d = images(rows, channels, dtype, 1), images(rows, channels, dtype, 2)
        parameters = np.random.default_rng(3).standard_normal((3, channels))
        mean, scale, shift = torch.from_numpy(parameters).to(dtype)
        out = d.clone(memory_format=torch.preserve_format)
        reduction = NormGradient(z, mean, scale, shift, *bounds)
        pass_over(out, reduction)

        asked = [t.detach().double().requires_grad_() for t in (z, scale, shift)]
        column = (-1, 1, 1)
        away = asked[0] - mean.double().view(column)
        x = away * asked[1].view(column) + asked[2].view(column)
        # Within rounding of a bound, either is right: no number of these is that near.
        assert all(float((x.detach() - bound).abs().min()) > 1e-6 for bound in bounds)
        expected = torch.autograd.grad(x.clamp(*bounds), asked, d.double())
        eps = torch.finfo(dtype).eps
        torch.testing.assert_close(out.double(), expected[0], rtol=2 * eps, atol=0)
        sizes = ((d.double() * away).abs().sum((0, 2, 3)), d.double().abs().sum((0, 2, 3)))
        for a, b, size in zip(reduction.result(), expected[1:], sizes, strict=True):
            assert bool(((a.double() - b).abs() <= 2 * eps * rows**0.5 * size.detach()).all())


@DTYPES
def test_gradients_at_the_bounds_and_beyond_numbers(dtype):
    # Nothing comes back at a bound, as from PyTorch's relu and relu6; through NaN everything does.
    # (PyTorch's relu6 has it now so, now otherwise, by where the number stands.)
    z = torch.tensor([-1.0, 0.0, 3.0, 6.0, 7.0, float("nan")]).to(dtype).view(1, 1, -1, 1)
    one, zero = torch.ones(1, dtype=dtype), torch.zeros(1, dtype=dtype)
    for high, function in ((float("inf"), F.relu), (6.0, F.relu6)):
        out = torch.full_like(z, 2.0)
        pass_over(out, NormGradient(z, zero, one, zero, 0.0, high))
        x = z.clone().requires_grad_()
        (expected,) = torch.autograd.grad(function(x), x, torch.full_like(z, 2.0))
        assert torch.equal(out[:, :, :5], expected[:, :, :5])
        assert float(out[0, 0, 5, 0]) == 2


# --- totals of partial sums -----------------------------------------------------------------------


@DTYPES
@pytest.mark.parametrize("numbers", [16, 1024, 1040, 3072])
@pytest.mark.parametrize("count", [1, 2, 17])
def test_splits_are_added_in_order(count, numbers, dtype, threads):
    generator = torch.Generator().manual_seed(0)
    splits = torch.randn(count, numbers, generator=generator, dtype=dtype)
    expected = splits[0].clone()
    for split in splits[1:]:
        expected += split
    for team in (1, 2, 3):
        threads(team)
        assert torch.equal(total_of(splits.clone()), expected)


# --- would these tests notice? --------------------------------------------------------------------


def test_a_row_that_is_left_out_is_noticed(monkeypatch, poisoned):
    launch = moments.launch

    def short(compiled, arguments, programs):
        launch(compiled, arguments, programs - (arguments.layout.name == "Pass"))

    x = images(600, 17, torch.float32)
    check(x, measured(x))
    monkeypatch.setattr(moments, "launch", short)
    with pytest.raises(AssertionError, match="mean"):
        check(x, measured(x))
