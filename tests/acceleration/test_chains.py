"""Functions of numbers as chains: what PyTorch gives, in one pass, or PyTorch itself."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from both_ways import assert_as_eager, compiled, exported
from random_networks import Then
from torch import Tensor, nn

from pointwise.acceleration import vocabulary
from pointwise.convolution import steps
from pointwise.engine.cpu.loops import chain

# Each is one chain of a convolution's result x.
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "numbers": lambda x: (2 - x * 0.5 + 1) / 3 - 0.25,
    "alpha": lambda x: torch.add(x, x * x, alpha=0.3) - torch.sub(x, 1, alpha=2),
    "leaky": lambda x: F.leaky_relu(x * 0.7, 0.3),
    "powers": lambda x: x**2 + x.pow(3) - (x.abs() + 1) ** -0.5 + (x.abs() + 0.1).rsqrt(),
    "roots": lambda x: (x.abs() + 1e-3).sqrt() + (x * x + 1).reciprocal(),
    "exponents": lambda x: x.exp() + (x.abs() + 1e-3).log() - F.logsigmoid(x),
    "softplus": lambda x: F.softplus(x) + F.softplus(x, 3, 5) + F.softplus(40 * x),
    "selu": lambda x: F.selu(x) + F.elu(x, 0.5) - F.celu(x),
    "gelu by tanh": lambda x: F.gelu(2 * x, approximate="tanh"),
    "within": lambda x: x.clamp(-0.2, 0.7) + x.clamp(min=0.1) - x.clamp(max=0.5) * F.hardtanh(x),
    "largest": lambda x: torch.maximum(x, 0.3 - x) - torch.minimum(x, x * x),
    "rounded": lambda x: (3 * x).floor() + (2 * x).ceil(),
    "where": lambda x: torch.where((x > 0.1) & (x <= 0.6) | (x < -1), x * 2, -x),
    "filled": lambda x: (x + 1).masked_fill(~(x >= 0), -7.0),
    "compared": lambda x: torch.where(x == x * 1, x, 0.5) + torch.where(x != x, 1.0, x),
    "fused": lambda x: torch.addcmul(x, x, 1 + x, value=0.3) + torch.addcdiv(x, x, 2 + x * x),
    "lerp": lambda x: torch.lerp(x, x * x, 0.3),
    "activations": lambda x: F.silu(x) * torch.sigmoid(x) + F.mish(x) - torch.tanh(x + 1),
    "per pixel and image": lambda x: x[:, 1:2] * x + x[:, :, :1, :1] - x[:1, :1, -1:],
}  # fmt: skip
SHAPES = [(1, 3, 1, 1), (2, 3, 7, 5), (3, 3, 9, 1), (1, 3, 19, 24)]


class Broadcast(nn.Module):
    """Parameters of all the shapes that broadcast."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.row = nn.Parameter(torch.rand(())), nn.Parameter(torch.rand(1))
        self.channels = nn.Parameter(torch.rand(1, 6, 1, 1))
        self.conv, self.prelu = nn.Conv2d(3, 6, 1), nn.PReLU(6)

    def forward(self, x):
        y = self.conv(x) * 0.3
        return (
            self.prelu(y - 0.1) * self.one + self.row * y - y / (1 + self.channels * self.channels)
        )


def _model(function: Callable) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 1), Then(function)).eval()


def _both_formats(shape):
    torch.manual_seed(1)
    x = 2 * torch.randn(shape)
    return x, x.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_those_of_pytorch(name):
    model = _model(FUNCTIONS[name])
    faster = exported(model, torch.randn(2, 3, 8, 6))
    for shape in SHAPES:
        for x in _both_formats(shape):
            assert_as_eager(model, faster, x)
    report = faster.reports()[-1]
    kinds = [entry.what.split(" of ")[0] for entry in report.fused]
    assert kinds == ["pointwise conv", "chain"], report
    assert not report.plain, report


@pytest.mark.parametrize("name", ["where", "filled", "softplus", "per pixel and image", "within"])
def test_compiled_models_have_chains_too(name):
    model = _model(FUNCTIONS[name])
    faster = compiled(model)
    for shape in SHAPES[1:3]:
        for x in _both_formats(shape):
            assert_as_eager(model, faster, x)


@pytest.mark.parametrize("way", [exported, compiled])
def test_parameters_broadcast(way):
    model = Broadcast().eval()
    faster = way(model, torch.randn(2, 3, 8, 6))
    for shape in SHAPES:
        for x in _both_formats(shape):
            assert_as_eager(model, faster, x)


@pytest.mark.parametrize(
    "numbers",
    [[math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-30, -1e30, 3.0], [1e38, -1e38, 88.0, -200.0]],
)
def test_numbers_that_are_none(numbers):
    """NaN and infinities come out where they do in PyTorch, of every step."""
    torch.manual_seed(0)
    x = torch.tensor(numbers).repeat(9)[:33]
    for name, (operands, plain) in steps.STEPS.items():
        if name in steps.MASKS or name == "where" or name == "gelu":
            continue
        given = [x, x.flip(0)][:operands]
        out = torch.empty_like(x)
        strides = chain.collapsed([len(x)], [[1]] * (operands + 1))
        chain.chain(given, [(name, *range(operands))], out, strides).run()
        wanted = plain(*given)
        assert torch.equal(out.isnan(), wanted.isnan()), name
        torch.testing.assert_close(out, wanted, rtol=1e-5, atol=1e-30, equal_nan=True, msg=name)


LONG = [
    ("multiply", 0, 1), ("add", 3, 2), ("maximum", 4, 0.1), ("subtract", 0, 5), ("less", 6, 0.5),
    ("unequal", 6, 2), ("both", 7, 8), ("where", 9, 4, 6), ("divide", 10, 2.0), ("mish", 11),
]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 3, 1), (3, 0, 1, 2)])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (2, 3, 5, 4), (1, 16, 33, 20), (3, 8, 1, 1), (5, 1, 2, 9000)]
)
def test_one_loop_goes_through_all_layouts(shape, order, dtype, poisoned, threads):
    """Operands that broadcast over pixels and over images, whichever dimension lies innermost."""
    torch.manual_seed(0)

    def laid(sizes):
        whole = torch.randn([sizes[dim] for dim in order], dtype=dtype)
        return whole.permute([order.index(dim) for dim in range(4)])

    inputs = [laid(shape), laid((1, shape[1], 1, 1)), laid((shape[0], 1, *shape[2:]))]
    out = torch.empty_like(inputs[0])
    sizes = [shape[dim] for dim in order]
    strides = [[x.expand(shape).stride(dim) for dim in order] for x in (*inputs, out)]
    way = chain.collapsed(sizes, strides)
    wanted, results = steps.run(inputs, LONG), []
    for count in (1, 2, 3):
        threads(count)
        results.append(chain.chain(inputs, LONG, out.fill_(math.nan), way).run().clone())
    torch.testing.assert_close(results[0], wanted)
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize(
    ("wrong", "inputs", "why"),
    [([("multiply", 0, 1)], 1, "wrong operand"), ([("system", 0)], 1, "no step"),
     ([("abs", 0, 0)], 1, "no step"), ([("add", 0, "1")], 1, "wrong operand"),
     ([("add", 0, True)], 1, "wrong operand"), ([("less", 0, 0.0)], 1, "result is a number"),
     ([("less", 0, 0.0), ("add", 1, 0)], 1, "wrong operand"),
     ([("where", 0, 0, 0)], 1, "wrong operand"),
     ([("exp", 1.0)], 1, "reads no value"), ([], 2, "has an input")],
)  # fmt: skip
def test_what_is_no_chain_is_refused(wrong, inputs, why):
    """Kernels are written from steps, and steps may come from a file."""
    x = torch.rand(3)
    with pytest.raises(ValueError, match=why):
        steps.check(wrong, inputs)
    with pytest.raises(ValueError, match=why):
        vocabulary.chain([x] * inputs, wrong)


class Mixed(nn.Module):
    """What no chain may take: other types, what is read elsewhere, and writes to what is read."""

    def forward(self, x, counts):
        y = F.relu(x + 1)
        z = y * 2
        y.add_(1)
        half = (y.half() * 2).float()
        scaled = counts * 3 + 1
        whole = (x * 4).to(torch.int32) // 2
        return z, y, half, scaled, whole, x > 0.5, (x > 0.5).float() * y


@pytest.mark.parametrize("way", [exported, compiled])
def test_other_types_and_writes_stay_right(way):
    model = Mixed().eval()
    x, counts = torch.randn(2, 5, 6), torch.arange(7)
    assert_as_eager(model, way(model, x, counts), x, counts)


def test_one_image_of_a_constant_batch():
    """A constant that is as large as a batch is not for some of its images."""

    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
            self.places = nn.Parameter(torch.rand(8, 8, 64, 64))

        def forward(self, x):
            return self.last(self.conv(x) * 0.5 + self.places)

    model = Positions().eval()
    x = torch.randn(8, 3, 64, 64)
    assert_as_eager(model, exported(model, x), x)


def test_a_chain_of_one_channel_among_others():
    """What is joined with others behind it: its numbers are no neighbours there."""

    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.last = nn.Conv2d(3, 1, 3), nn.Conv2d(3, 4, 1)

        def forward(self, x):
            x = self.one(x)
            return self.last(
                torch.cat((torch.nn.functional.avg_pool2d(x, 3, 1, 1), x, x.tanh()), 1)
            )

    model = Joined().eval()
    x = torch.randn(2, 3, 9, 7)
    assert_as_eager(model, exported(model, x), x)
