"""The kernels between convolutions, against PyTorch, on awkward sizes, with memory poisoned."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from both_ways import assert_same, exported
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pointwise.acceleration import steps
from pointwise.acceleration.values import Buffer, arrange
from pointwise.engine.cpu import combine

DTYPES = (torch.float32, torch.float64)


def image(*shape, dtype=torch.float32):
    torch.manual_seed(sum(shape))
    return (2 * torch.randn(shape, dtype=dtype)).contiguous(memory_format=torch.channels_last)


def close(given, wanted):
    eps = torch.finfo(wanted.dtype).eps
    torch.testing.assert_close(given, wanted, rtol=64 * eps, atol=64 * eps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 7, 3, 5), (1, 33, 9, 4), (3, 64, 40, 17)])
def test_sums_products_and_factors(shape, dtype, poisoned):
    x, y = image(*shape, dtype=dtype), image(*shape, dtype=dtype).flip(0)
    y = y.contiguous(memory_format=torch.channels_last)
    n, c, h, w = shape
    for how, wanted in ((combine.ADD, x + y), (combine.MULTIPLY, x * y)):
        out = torch.empty_like(x)
        close(steps.dense(how, x, out, y, "relu6").run(), F.relu6(wanted))
    out, row = torch.empty_like(x), c * x.element_size()
    factor = torch.randn(n, c, 1, 1, dtype=dtype)
    step = steps.by_rows(combine.SCALE, x, out, factor, None, "relu", n * h * w, c, row, h * w)
    close(step.run(), F.relu(x * factor))
    times, plus = torch.randn(c, dtype=dtype), torch.randn(c, dtype=dtype)
    out = torch.empty_like(x)
    step = steps.by_rows(combine.AFFINE, x, out, times, plus, "none", n * h * w, c, row)
    close(step.run(), x * times.view(1, -1, 1, 1) + plus.view(1, -1, 1, 1))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["relu", "relu6", "hardswish", "hardsigmoid", "silu", "sigmoid"])
def test_activations(name, dtype, poisoned):
    x = torch.cat((torch.linspace(-30, 30, 5001), torch.tensor([float("nan"), 1e30, -1e30])))
    x = x.to(dtype)
    out = torch.empty_like(x)
    wanted = getattr(F, name)(x)
    given = steps.dense(combine.COPY, x, out, None, name).run()
    torch.testing.assert_close(given, wanted, rtol=2e-6, atol=1e-6, equal_nan=True)


def test_gelu():
    x = torch.linspace(-12, 12, 20001)
    given = steps.dense(combine.COPY, x, torch.empty_like(x), None, "gelu").run()
    wanted = F.gelu(x.double())
    assert (given.double() - wanted).abs().max() < 1e-6
    close_to_zero = x.abs() < 1
    torch.testing.assert_close(given[close_to_zero].double(), wanted[close_to_zero],
                               rtol=3e-6, atol=1e-9)  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 7, 3, 5), (1, 130, 20, 17), (3, 48, 9, 30)])
def test_means(shape, dtype, poisoned):
    x = image(*shape, dtype=dtype) + 100
    x = x.contiguous(memory_format=torch.channels_last)
    out = torch.empty(shape[:2], dtype=dtype)
    wanted = x.double().mean((2, 3)).to(dtype)
    torch.testing.assert_close(steps.mean(x, out).run(), wanted,
                               rtol=8 * torch.finfo(dtype).eps, atol=0)  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (5, 7), (300, 96), (9, 1000)])
@pytest.mark.parametrize("affine", [False, True])
def test_layer_norms(rows, columns, affine, dtype, poisoned):
    torch.manual_seed(rows)
    x = torch.randn(rows, columns, dtype=dtype) + 3
    weight, bias = torch.randn(2, columns, dtype=dtype) if affine else (None, None)
    out = torch.empty_like(x)
    given = steps.normed(x, out, rows, columns, weight, bias, 1e-6).run()
    wanted = F.layer_norm(x, (columns,), weight, bias, 1e-6)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(given, wanted, rtol=256 * eps, atol=256 * eps)


POOLS = [
    nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(2, ceil_mode=True), nn.MaxPool2d(3, 1, 1, dilation=2),
    nn.MaxPool2d((3, 1), (1, 2)), nn.AvgPool2d(3, 2, 1), nn.AvgPool2d(3, 2, 1, ceil_mode=True),
    nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.AvgPool2d(2, 2, ceil_mode=True),
    nn.AvgPool2d(3, 2, 1, True, False), nn.AvgPool2d(2, divisor_override=3),
    nn.AvgPool2d((2, 5), 1, (1, 2)),
]  # fmt: skip


@pytest.mark.parametrize("pool", POOLS, ids=str)
def test_pools(pool):
    faster = exported(pool.eval(), torch.rand(2, 5, 11, 14))
    x = torch.randn(3, 5, 12, 9)
    assert_same(faster(x), pool(x))
    x[0, 1, 5, 5], x[1, :, 3] = float("nan"), -float("inf")
    assert_same(faster(x), pool(x))


@given(
    st.lists(st.tuples(st.integers(1, 5000), st.integers(0, 30), st.integers(0, 9)), max_size=40)
)
def test_buffers_in_use_at_the_same_time_do_not_overlap(drawn):
    buffers = [Buffer(size, None, born, born + lives) for size, born, lives in drawn]
    total = arrange(buffers)
    for i, a in enumerate(buffers):
        assert a.place % 64 == 0
        assert a.place + a.size <= total
        for b in buffers[:i]:
            together = a.born <= b.dies and b.born <= a.dies
            apart = a.place + a.size <= b.place or b.place + b.size <= a.place
            assert apart or not together
    assert total <= sum(-(-b.size // 64) * 64 for b in buffers)
