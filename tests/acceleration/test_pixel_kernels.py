"""The kernels between convolutions, against PyTorch, on awkward sizes, with memory poisoned."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from both_ways import assert_same, exported
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pointwise.acceleration import vocabulary
from pointwise.acceleration.values import Buffer, arrange
from pointwise.convolution.epilogue import ACTIVATIONS, finish, why_not
from pointwise.engine.cpu.loops import combine, excite, layer_norm, pool

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
        close(combine.dense(how, x, out, y, "relu6").run(), F.relu6(wanted))
    out = torch.empty_like(x)
    factor = torch.randn(n, c, 1, 1, dtype=dtype)
    close(combine.scale(x, out, factor, "relu").run(), F.relu(x * factor))
    times, plus = torch.randn(c, dtype=dtype), torch.randn(c, dtype=dtype)
    out = torch.empty_like(x)
    wanted = x * times.view(1, -1, 1, 1) + plus.view(1, -1, 1, 1)
    close(combine.affine(x, out, times, plus, "none").run(), wanted)
    wide = image(n, c + 5, h, w, dtype=dtype)
    wanted = torch.cat((wide[:, :3], x, wide[:, 3 + c :]), 1)
    combine.join(x, wide, 3).run()
    assert torch.equal(wide, wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(
    ("shape", "hidden", "activations"),
    [((1, 1, 1, 1), 1, ("relu", "sigmoid", "none")), ((2, 7, 3, 5), 3, ("silu", "sigmoid", "relu")),
     ((1, 33, 9, 4), 17, ("relu", "hardsigmoid", "none")),
     ((3, 64, 20, 17), 16, ("hardswish", "none", "hardswish")),
     ((1, 259, 13, 5), 70, ("relu6", "hardsigmoid", "hardsigmoid")),
     ((9, 40, 2, 2), 10, ("none", "sigmoid", "silu"))],
)  # fmt: skip
def test_squeeze_and_excitation(shape, hidden, activations, biased, dtype, poisoned, threads):
    torch.manual_seed(0)
    channels = shape[1]
    narrow = torch.randn(hidden, channels, 1, 1, dtype=dtype)
    wide = torch.randn(channels, hidden, 1, 1, dtype=dtype) / hidden
    rows = (torch.randn(hidden, dtype=dtype), torch.randn(channels, dtype=dtype))
    first, second = rows if biased else (None, None)
    x = image(*shape, dtype=dtype)
    wanted = vocabulary.squeeze_excite(x, narrow, first, wide, second, *activations)
    weights = excite.packed(narrow, first, wide, second)
    assert torch.equal(weights.unpacked(True), narrow)
    assert torch.equal(weights.unpacked(False), wide)
    results = []
    for count in (1, 2, 3):
        threads(count)
        between = torch.empty(excite.room(*shape[:2], weights), dtype=dtype)
        excite.squeeze(x, between, weights).run()
        out = torch.empty_like(x)
        results.append(excite.excite(x, between, weights, out, activations).run())
    eps = torch.finfo(dtype).eps
    atol = 64 * eps * wanted.abs().max().item()
    torch.testing.assert_close(results[0], wanted, rtol=64 * eps, atol=atol)
    assert all(torch.equal(results[0], other) for other in results)
    excite.excite(x, between, weights, x, activations).run()  # in place
    assert torch.equal(x, results[0])


class Gated(nn.Module):
    """Squeeze and excitation behind something, and something that looks like it."""

    def __init__(self, case: str) -> None:
        super().__init__()
        self.case = case
        self.before = nn.Conv2d(3, 20, 3, padding=1)
        self.narrow, self.wide = nn.Conv2d(20, 6, 1), nn.Conv2d(6, 20, 1, bias=False)

    def forward(self, x):
        y = x if self.case == "input" else F.relu(self.before(x))
        z = y.view(y.shape[0], 20, y.shape[3], y.shape[2]) if self.case == "view" else y
        mean = z.mean((2, 3), keepdim=True)
        hidden = F.silu(self.narrow(mean))
        gate = self.wide(hidden).sigmoid()
        if self.case == "swapped":
            return gate * z
        if self.case == "mean too":
            return z * gate, mean
        if self.case == "hidden too":
            return z * gate + hidden.mean()
        if self.case == "others":
            return z * gate + z.flip(3)
        return (z * gate, y) if self.case in ("view", "read again") else z * gate


@pytest.mark.parametrize(
    ("case", "fused"),
    [("plain", 1), ("swapped", 1), ("read again", 1), ("view", 1), ("input", 1), ("others", 1),
     ("mean too", 0), ("hidden too", 0)],
)  # fmt: skip
def test_squeeze_and_excitation_in_models(case, fused):
    torch.manual_seed(0)
    model = Gated(case).eval()
    shape = (2, 20, 6, 6) if case == "input" else (2, 3, 8, 6)
    faster = exported(model, torch.rand(shape))
    for images in (torch.rand(shape), torch.rand(1, *shape[1:])):
        with torch.no_grad():
            wanted, own = model(images), images.clone()
            given = faster(own)
        assert_same(given, wanted)
        assert torch.equal(own, images)
        kinds = [entry.what for entry in faster.reports()[-1].entries]
        assert kinds.count("squeeze excite") == fused, kinds


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, dtype) for name in ACTIVATIONS for dtype in DTYPES if why_not(name, dtype) is None],
)
def test_activations(name, dtype, poisoned):
    x = torch.cat((torch.linspace(-30, 30, 5001), torch.tensor([float("nan"), 1e30, -1e30])))
    x = x.to(dtype)
    out = torch.empty_like(x)
    wanted = finish(x, None, name)
    given = combine.dense(combine.COPY, x, out, None, name).run()
    torch.testing.assert_close(given, wanted, rtol=2e-6, atol=1e-6, equal_nan=True)


def test_gelu():
    x = torch.linspace(-12, 12, 20001)
    given = combine.dense(combine.COPY, x, torch.empty_like(x), None, "gelu").run()
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
    torch.testing.assert_close(pool.mean(x, out).run(), wanted,
                               rtol=8 * torch.finfo(dtype).eps, atol=0)  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (5, 7), (300, 96), (9, 1000)])
@pytest.mark.parametrize("affine", [False, True])
def test_layer_norms(rows, columns, affine, dtype, poisoned):
    torch.manual_seed(rows)
    x = torch.randn(rows, columns, dtype=dtype) + 3
    weight, bias = torch.randn(2, columns, dtype=dtype) if affine else (None, None)
    out = torch.empty_like(x)
    given = layer_norm.normed(x, out, rows, columns, weight, bias, 1e-6).run()
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
