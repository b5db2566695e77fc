"""The loop of groups, against PyTorch in double precision, and bit by bit against gathered patches.

That functions, layers, gradients and accelerated models reach it is tested with them.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pointwise.convolution.epilogue import finish
from pointwise.convolution.problem import describe
from pointwise.engine import choose
from pointwise.engine.cpu.loops import grouped
from pointwise.engine.cpu.memory import empty_image
from pointwise.engine.cpu.taps import ROWS
from pointwise.engine.cpu.vector import REGISTER_BYTES

F32, F64 = torch.float32, torch.float64


def image(*shape: int, seed: int = 0, dtype: torch.dtype = F32) -> torch.Tensor:
    made = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return made.contiguous(memory_format=torch.channels_last)


def computed(x, weight, bias=None, residual=None, groups=1, stride=(1, 1), padding=(0,) * 4,
             dilation=(1, 1), activation="none", algorithm="grouped"):  # fmt: skip
    given = describe(x.shape, weight.shape, stride, padding, dilation, groups, x.dtype, activation)
    choice = choose.choose(given, algorithm=algorithm)
    out = empty_image(given.shape, x.dtype).fill_(torch.nan)
    return choose.launch(x, (choose.prepare(given, weight, bias, choice),), out, residual).run()


def wanted(x, weight, bias=None, residual=None, groups=1, stride=(1, 1), padding=(0,) * 4,
           dilation=(1, 1), activation="none"):  # fmt: skip
    top, bottom, left, right = padding
    x = F.pad(x.double(), (left, right, top, bottom))
    bias = None if bias is None else bias.double()
    out = F.conv2d(x, weight.double(), bias, stride, 0, dilation, groups)
    return finish(out, None if residual is None else residual.double(), activation)


def check(*tensors, **geometry):
    dtype = tensors[0].dtype
    found, exact = computed(*tensors, **geometry), wanted(*tensors, **geometry)
    depth = tensors[1][0].numel()
    tolerance = 4 * torch.finfo(dtype).eps * depth**0.5
    torch.testing.assert_close(found.double(), exact, rtol=tolerance, atol=4 * tolerance)


# Groups that share registers and that do not, whole registers and parts, as many groups as fill the
# last register, other numbers of outputs than inputs.
@pytest.mark.parametrize(("inputs", "outputs", "groups"), [
    (2, 2, 8), (4, 4, 8), (8, 8, 4), (16, 16, 2), (2, 2, 5), (4, 4, 3), (4, 4, 33), (3, 3, 6),
    (5, 5, 2), (12, 12, 3), (24, 24, 2), (40, 40, 3), (4, 8, 3), (8, 4, 5), (3, 17, 2), (2, 1, 6),
    (70, 6, 2), (2, 2, 70), (64, 64, 2),
])  # fmt: skip
@pytest.mark.parametrize("dtype", [F32, F64])
def test_widths_of_groups(inputs, outputs, groups, dtype):
    x = image(2, inputs * groups, 7, 9, dtype=dtype)
    weight = image(outputs * groups, inputs, 3, 3, seed=1, dtype=dtype)
    check(x, weight, groups=groups, padding=(1, 1, 1, 1))


@pytest.mark.parametrize("width", [1, 2, ROWS // 2, ROWS // 2 + 1, ROWS - 1, ROWS, ROWS + 1,
                                   ROWS + ROWS // 2, 2 * ROWS + 3])  # fmt: skip
@pytest.mark.parametrize("inputs", [4, 8])
def test_widths_of_images(inputs, width):
    x, weight = image(1, 24, 3, width), image(24, inputs, 3, 3, seed=1)
    check(x, weight, groups=24 // inputs, padding=(1, 1, 1, 1))


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), [
    ((1, 1), (1, 1), (0, 0, 0, 0), (1, 1)), ((1, 1), (2, 2), (0, 0, 0, 0), (1, 1)),
    ((3, 3), (2, 2), (1, 1, 1, 1), (1, 1)), ((3, 3), (2, 1), (0, 1, 2, 0), (1, 1)),
    ((3, 3), (1, 1), (2, 2, 3, 3), (2, 3)), ((5, 3), (1, 3), (2, 2, 1, 1), (1, 1)),
    ((1, 7), (1, 1), (0, 0, 9, 9), (1, 1)), ((3, 3), (1, 1), (0, 0, 0, 0), (1, 1)),
])  # fmt: skip
@pytest.mark.parametrize("inputs", [4, 12])
def test_windows(kernel, stride, padding, dilation, inputs):
    x, weight = image(2, 36, 11, 13), image(36, inputs, *kernel, seed=1)
    geometry = {"stride": stride, "padding": padding, "dilation": dilation}
    check(x, weight, groups=36 // inputs, **geometry)


@pytest.mark.parametrize("activation", ["none", "relu6", "gelu"])
@pytest.mark.parametrize("inputs", [4, 12])
def test_the_epilogue(activation, inputs, poisoned):
    x, weight = image(2, 36, 6, 6), image(36, inputs, 3, 3, seed=1)
    bias, residual = image(36, 1, 1, 1, seed=2).flatten(), image(2, 36, 6, 6, seed=3)
    check(x, weight, bias, residual, groups=36 // inputs, padding=(1, 1, 1, 1),
          activation=activation)  # fmt: skip


def test_bands_and_blocks():
    """Large enough that a program makes some lines of some groups."""
    x, weight = image(1, 192, 61, 40), image(192, 4, 3, 3, seed=1)
    check(x, weight, groups=48, padding=(1, 1, 1, 1))


@pytest.mark.parametrize(("channels", "inputs"), [(40, 4), (36, 12), (48, 8)])
def test_the_bits_of_gathered_patches(channels, inputs, threads):
    x, weight = image(2, channels, 17, 15), image(channels, inputs, 3, 3, seed=1)
    geometry = {"groups": channels // inputs, "padding": (1, 1, 1, 1)}
    patches = computed(x, weight, **geometry, algorithm="mixed")
    for count in (1, 2, 3):
        threads(count)
        assert torch.equal(computed(x, weight, **geometry), patches)


@pytest.mark.parametrize("inputs", [2, 4, 3])
def test_what_is_not_finite_stays_in_its_group(inputs):
    groups = 24 // inputs
    x, weight = image(1, 24, 3, 3), image(24, inputs, 1, 1, seed=1)
    x[0, inputs, 1, 1], x[0, 3 * inputs + 1, 0, 0] = torch.nan, torch.inf
    out = computed(x, weight, groups=groups).unflatten(1, (groups, inputs))
    assert out[0, 1, :, 1, 1].isnan().all()
    assert out[0, 3, :, 0, 0].isinf().all()
    assert out.isfinite().sum() == out.numel() - 2 * inputs


def test_where_it_is_chosen():
    lanes = REGISTER_BYTES // 4

    def chosen(width: int, kernel: int, groups: int = 4) -> str:
        size = (width * groups, width, kernel, kernel)
        given = describe((1, width * groups, 9, 9), size, (1, 1), (0,) * 4, (1, 1), groups, F32)
        return choose.choose(given).algorithm

    assert chosen(4, 3) == chosen(lanes, 3) == chosen(4 * lanes, 3) == chosen(lanes, 1) == "grouped"
    assert chosen(5 * lanes, 3) == chosen(2 * lanes, 1) == chosen(8, 3, groups=1) == "mixed"
    assert chosen(1, 3) == "depthwise"


def test_a_weight_is_put_back_in_order():
    """Accelerated models keep it as the loop reads it, and save it as PyTorch has it."""
    from pointwise import accelerate

    model = torch.nn.Sequential(
        torch.nn.Conv2d(20, 20, 3, groups=5), torch.nn.Conv2d(20, 24, 3, groups=4)
    ).eval()
    x = image(1, 20, 9, 9)
    fast = accelerate(model, x)
    before = fast.state_dict()
    with torch.no_grad():
        torch.testing.assert_close(fast(x), model(x), rtol=1e-5, atol=1e-5)
    assert all(torch.equal(tensor, fast.state_dict()[name]) for name, tensor in before.items())
    kept = fast._constants._values
    assert not [node for node, value in kept.items() if value.dim() == 4]


def test_gradients_reach_it(monkeypatch):
    launched = []
    launch = grouped.grouped_launch

    def noted(*given, **more):
        launched.append(given[1])
        return launch(*given, **more)

    monkeypatch.setattr(grouped, "grouped_launch", noted)
    from pointwise.functional import conv2d

    x = image(1, 16, 8, 8).requires_grad_()
    weight = image(16, 4, 3, 3, seed=1).requires_grad_()
    out = conv2d(x, weight, padding=1, stride=2, groups=4)
    assert len(launched) == 1
    out.square().sum().backward()
    assert len(launched) == 5  # a phase of the stride each
    exact = torch.autograd.grad(F.conv2d(x, weight, None, 2, 1, 1, 4).square().sum(), (x, weight))
    torch.testing.assert_close((x.grad, weight.grad), exact, rtol=1e-4, atol=1e-4)


# Narrow groups are taken several at once; one's number that is not finite is not the others'.
@pytest.mark.parametrize(("inputs", "outputs", "groups"), [(2, 2, 12), (4, 4, 7), (3, 5, 4),
                                                           (4, 2, 32), (8, 8, 3)])  # fmt: skip
@pytest.mark.parametrize("dtype", [F32, F64])
def test_the_gradient_of_the_weight(inputs, outputs, groups, dtype):
    x = image(2, inputs * groups, 7, 6, dtype=dtype)
    size = (outputs * groups, inputs, 3, 3)
    given = describe(x.shape, size, (2, 1), (1,) * 4, (1, 1), groups, dtype)
    grad = image(*given.shape, seed=1, dtype=dtype)
    x[:, 0] = torch.inf
    found = choose.weight_gradient(given, grad, x)
    exact = torch.nn.grad.conv2d_weight(x.double(), size, grad.double(), (2, 1), 1, 1, groups)
    finite = exact.isfinite()
    assert (found.isfinite() == finite).all()
    tolerance = 16 * torch.finfo(dtype).eps * grad[:, 0].numel() ** 0.5
    torch.testing.assert_close(
        found[finite].double(), exact[finite], rtol=tolerance, atol=tolerance
    )
