"""Convolutions of images as kernels for GPUs: against the oracle, PyTorch, finite differences."""

from __future__ import annotations

import norm_cases
import pytest
import torch
import torch.nn.functional as F
from image_cases import F32, F64, ImageCase, each, every_third, laid_out, named
from image_oracle import assert_close
from torch import Tensor
from torch.library import opcheck

from pointwise.convolution.epilogue import ACTIVATIONS
from pointwise.engine import choose_gpu

OPERATORS = torch.ops.pointwise
HALF = pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
ROLES = ("input", "weight", "bias")

# Every path through the kernels; the interpreter takes half a second for one of them.
DEPTHWISE = named(
    "depthwise, 1 channels", "depthwise, 17 channels", "depthwise, 130 channels",
    "depthwise, 3 × 63 pixels", "depthwise, kernel 1 × 1", "depthwise, kernel 5 × 5",
    "depthwise, kernel 1 × 7, valid", "depthwise, stride 1, 3", "depthwise, stride 2, 1, same",
    "depthwise, dilation 1 and 3, stride 2", "depthwise, kernel 7 on 3 × 2",
    "depthwise, 1 times 33 channels", "depthwise, times 2, stride 2, dilation 2",
    "depthwise, cropped input", "depthwise, transposed weight",
)  # fmt: skip
DEPTHWISE += [
    ImageCase("depthwise, 3 × 9, stride 2, times 2", (3, 5), (3, 6), (3, 9), padding=4, stride=2,
              groups=3, batch=1, dtype=F64),
    ImageCase("depthwise, 5 × 9, dilated", (3, 4), (3, 3), (5, 9), padding=8, dilation=2, groups=3,
              batch=1),
]  # fmt: skip
FEW = named(
    "depthwise, 17 channels",
    "depthwise, 17 times 3 channels",
    "depthwise, uneven padding, stride 2",
)


@pytest.fixture(autouse=True)
def ours():
    """Kernels run wherever there are any, whoever would be faster."""
    with choose_gpu.forced(True):
        yield


def batched(case: ImageCase, device: str, dtype: torch.dtype | None = None) -> list[Tensor | None]:
    """Input, weight, bias and the gradient of the result."""
    return [
        None if t is None else on(t, device)
        for t in (case.tensor(role, dtype) for role in (*ROLES, "grad"))
    ]


def on(tensor: Tensor, device: str) -> Tensor:
    """A tensor on a device; on the CPU itself, among NaN and in whatever layout it is."""
    return tensor if device == "cpu" else tensor.to(device)


# --- depthwise, and its gradients -----------------------------------------------------------------


@every_third(DEPTHWISE)
def test_depthwise_and_its_gradients_are_the_oracles(case, device):
    x, weight, bias, grad = batched(case, device)
    inputs = [t.requires_grad_() for t in (x, weight, bias) if t is not None]
    out = OPERATORS.conv2d(x, weight, bias, None, *case.numbers, "none")
    assert out.is_contiguous(memory_format=torch.channels_last)
    case.check(out.cpu())
    for role, found in zip(ROLES, torch.autograd.grad(out, inputs, grad), strict=False):
        assert found.dtype == case.dtype
        case.check_gradient(role, found.cpu())


@HALF
@each(FEW)
def test_numbers_of_16_bits_are_summed_in_32(case, half, device):
    x, weight, bias, grad = batched(case, device, half)
    inputs = [t.requires_grad_() for t in (x, weight)]
    out = OPERATORS.conv2d(x, weight, bias, None, *case.numbers, "none")
    found = [out, *torch.autograd.grad(out, inputs, grad)]

    def exact(*given):
        x, weight, grad = (t.detach().double().requires_grad_() for t in given)
        out = norm_cases.convolved(x, weight, case)
        shift = 0 if bias is None else bias.double().view(-1, 1, 1)
        return [out + shift, *torch.autograd.grad(out, (x, weight), grad)]

    sizes = exact(x.abs(), weight.abs(), grad.abs())
    terms = (case.terms, case.input_terms, case.weight_terms)
    for a, b, size, k in zip(found, exact(x, weight, grad), sizes, terms, strict=True):
        assert a.dtype == half
        # Rounded once, at the end; a depth multiplier's gradients too.
        limit = 0.51 * torch.finfo(half).eps * b.abs() + 4e-7 * k**0.5 * size + 1e-7
        assert bool(((a.double() - b).abs() <= limit).all())


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_and_residuals_are_pytorchs(name, device):
    case = ImageCase("activations", (3, 5), (3, 3), (1, 1), padding=0, groups=3, batch=1)
    x, weight, bias, _ = batched(case, device, F64)
    residual = on(case.tensor("residual", F64), device)
    before = norm_cases.convolved(x, weight, case) + bias.view(-1, 1, 1)
    for dtype, close in ((F64, 1e-12), (F32, 2e-6)):
        given = [t.to(dtype) for t in (x, weight, bias, residual)]
        for added in (None, given[3]):
            found = OPERATORS.conv2d(*given[:3], added, *case.numbers, name)
            exact = ACTIVATIONS[name].plain(before if added is None else before + residual)
            torch.testing.assert_close(found.double(), exact, rtol=close, atol=close)


def test_activations_keep_what_is_no_number(device):
    x = torch.tensor([float("nan"), float("inf"), -float("inf"), -1e30, 1e30, 0.0], device=device)
    x = x.view(1, 1, 2, 3)
    weight = torch.ones(1, 1, 1, 1, device=device)
    for name, row in ACTIVATIONS.items():
        found = OPERATORS.conv2d(x, weight, None, None, [1, 1], [0] * 4, [1, 1], 1, name)
        # In float32, PyTorch's gelu of infinity is NaN on a processor with AVX-512.
        exact = row.plain(x.double()).float()
        torch.testing.assert_close(found, exact, equal_nan=True, msg=name)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced", "transposed"])
def test_every_layout(layout, device):
    case = FEW[2]
    made = [on(case.tensor(role, layout=layout), device) for role in ("input", "weight", "grad")]
    x, weight, grad = made
    inputs = [x.requires_grad_(), weight.requires_grad_()]
    out = OPERATORS.conv2d(x, weight, None, None, *case.numbers, "none")
    for role, found in zip(ROLES, torch.autograd.grad(out, inputs, grad), strict=False):
        case.check_gradient(role, found.cpu())


def test_no_images(device):
    for case in named("depthwise, batch of 0"):
        x, weight, bias, grad = batched(case, device)
        inputs = [t.requires_grad_() for t in (x, weight, bias)]
        out = OPERATORS.conv2d(x, weight, bias, None, *case.numbers, "relu")
        assert out.shape == case.result_shape
        for given, found in zip(inputs, torch.autograd.grad(out, inputs, grad), strict=True):
            assert found.shape == given.shape
            assert not found.any()


@each([
    ImageCase("2 × 3, times 2, stride 2", (3, 3), (2, 4), (2, 3), stride=(1, 2), groups=2, batch=1),
])  # fmt: skip
def test_gradcheck(case, device):
    x, weight, bias, _ = batched(case, device, F64)

    def function(*tensors):
        return OPERATORS.conv2d(*tensors, None, *case.numbers, "none")

    inputs = [t.requires_grad_() for t in (x, weight, bias)]
    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


@each([ImageCase("times 2", (3, 4), (2, 4), (3, 2), stride=2, groups=2, batch=1)])
def test_opcheck(case, device):
    x, weight, bias, grad = batched(case, device)
    inputs = [t.requires_grad_() for t in (x, weight, bias)]
    opcheck(OPERATORS.conv2d.default, (*inputs, None, *case.numbers, "relu"))
    some = ("test_schema", "test_faketensor")
    opcheck(OPERATORS.conv2d_grad_input.default, (grad, weight, list(x.shape), *case.numbers),
            test_utils=some)  # fmt: skip
    opcheck(OPERATORS.conv2d_grad_weight.default, (grad, x, list(weight.shape), *case.numbers),
            test_utils=some)  # fmt: skip


def test_the_other_convolutions_are_pytorchs(device):
    for case in named("3 to 16 channels", "pointwise, stride 2, 2", "3 groups, stride 2"):
        x, weight, bias, _ = batched(case, device)
        case.check(OPERATORS.conv2d(x, weight, bias, None, *case.numbers, "none").cpu())


# --- both halves of a separable convolution -------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "channels", "columns"),
    [(3, 1, 1, 19, 17), (3, 2, 1, 40, 300), (5, 1, 2, 8, 3), (9, 2, 1, 5, 16)],
)
@pytest.mark.parametrize("dtype", [F32, torch.float16, torch.bfloat16], ids=str)
def test_separable(kernel, stride, dilation, channels, columns, dtype, device, monkeypatch):
    from pointwise.engine.gpu.loops import separable

    monkeypatch.setattr(separable, "in_tf32", lambda: False)
    generator = torch.Generator().manual_seed(kernel * channels)

    def numbers(*shape, scale=1.0):
        return (scale * torch.randn(shape, generator=generator)).to(device, dtype)

    x = laid_out(numbers(2, channels, 9, 7).cpu(), "sliced").to(device)
    depthwise = numbers(channels, 1, kernel, kernel, scale=1 / kernel)
    pointwise = numbers(columns, channels, 1, 1, scale=channels**-0.5)
    inner, bias = numbers(channels), numbers(columns)
    edge = kernel // 2
    placed = [stride] * 2, [edge, edge + 1, edge + 2, edge], [dilation] * 2
    double = [t.double() for t in (x, depthwise, pointwise, inner, bias)]
    a, b, c, d, e = double
    middle = F.pad(a, (edge + 2, edge, edge, edge + 1))
    middle = F.relu6(F.conv2d(middle, b, d, stride, 0, dilation, channels))
    before = F.conv2d(middle, c, e)
    size = F.conv2d(middle.abs(), c.abs(), e.abs())
    residual = numbers(*before.shape)
    for added, activation in ((None, "none"), (residual, "silu")):
        found = OPERATORS.separable_conv2d(x, depthwise, pointwise, inner, bias, added, *placed,
                                           "relu6", activation)  # fmt: skip
        exact = before if added is None else before + added.double()
        exact = ACTIVATIONS[activation].plain(exact)
        assert found.dtype == dtype
        # What lies between is rounded as PyTorch rounds it, then the result.
        limit = 2 * torch.finfo(dtype).eps * (size + exact.abs()) + 1e-5
        assert bool(((found.double() - exact).abs() <= limit).all())
    if dtype == F32:
        opcheck(OPERATORS.separable_conv2d.default,
                (x, depthwise, pointwise, inner, None, residual, *placed, "none", "relu"),
                test_utils=("test_schema", "test_faketensor"))  # fmt: skip


def test_separable_of_no_images(device):
    x, weight = torch.zeros(0, 8, 5, 5, device=device), torch.ones(8, 1, 3, 3, device=device)
    pointwise = torch.ones(4, 8, 1, 1, device=device)
    out = OPERATORS.separable_conv2d(x, weight, pointwise, None, None, None, [1, 1], [1] * 4,
                                     [1, 1], "none", "none")  # fmt: skip
    assert out.shape == (0, 4, 5, 5)


# --- training with batch norm ---------------------------------------------------------------------

TRAINED = named(
    "3 groups, stride 2", "pointwise, 5 to 15 channels", "pointwise, stride 2 and groups",
    "depthwise, 17 channels", "depthwise, kernel 4 × 4", "depthwise, stride 2, 2",
    "depthwise, uneven padding, stride 2", "depthwise, 130 channels",
    "depthwise, kernel 7 on 3 × 2",
)  # fmt: skip


@every_third(TRAINED)
def test_training_with_batch_norm(case, device):
    norm_cases.check_all(norm_cases.operands(case), device=device)


@each(TRAINED[1:5:2])
def test_training_of_an_image_as_it_is(case, device):
    norm_cases.check_all(norm_cases.operands(case, normed=False), device=device)


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_statistics_of_numbers_far_from_zero(dtype, device):
    """A mean that is large beside the deviation costs nothing."""
    generator = torch.Generator().manual_seed(0)
    for groups, shape in ((20, (20, 1, 1, 1)), (1, (20, 20, 1, 1))):
        x = 1000 + torch.randn(3, 20, 13, 11, generator=generator, dtype=F64)
        weight = torch.eye(20).view(shape) if groups == 1 else torch.ones(shape)
        _, mean, variance = OPERATORS.norm_conv2d(
            x.to(device, dtype), None, None, None, 0.0, 1.0, weight.to(device, dtype), [1, 1],
            [0] * 4, [1, 1], groups)  # fmt: skip
        rounded = x.to(dtype).double()
        torch.testing.assert_close(mean.double().cpu(), rounded.mean((0, 2, 3)), rtol=1e-6, atol=0)
        exact = rounded.var((0, 2, 3), unbiased=False)
        torch.testing.assert_close(variance.double().cpu(), exact, rtol=1e-4, atol=0)


@HALF
@each(named("depthwise, 17 channels", "depthwise, stride 2, 2", "pointwise, 5 to 15 channels"))
def test_training_in_16_bits_has_rows_of_32(case, half, device):
    o = norm_cases.operands(case, F64)
    z, weight, grad = (t.to(device, half) for t in (o.z, o.weight, o.grad))
    rows = [t.to(device, F32) for t in (o.mean, o.scale, o.shift)]
    slopes = grad, o.d_mean.to(device, F32), o.d_variance.to(device, F32)
    inputs = [t.requires_grad_() for t in (z, *rows, weight)]
    found = OPERATORS.norm_conv2d(z, *rows, *o.bounds, weight, *case.numbers)
    assert [t.dtype for t in found] == [half, F32, F32]
    got = torch.autograd.grad(found, inputs, slopes)
    assert [t.dtype for t in got] == [half, F32, F32, F32, half]
    exact = norm_cases.Operands(*(t.detach().double() for t in (z, *rows, weight, *slopes)),
                                case=case)  # fmt: skip
    for a, b in zip(found, norm_cases.plain(exact), strict=True):
        scale = float(b.abs().max())
        torch.testing.assert_close(a.double(), b, rtol=0.0, atol=scale * 4 * torch.finfo(half).eps)
    for a, b in zip(got, norm_cases.gradients(exact), strict=True):
        error = float((a.double() - b).norm() / b.norm())
        assert error < 8 * torch.finfo(half).eps


@each(named("depthwise, 2 × 2 pixels"))
def test_gradcheck_of_training(case, device):
    o = norm_cases.operands(case, F64)

    def function(z, mean, scale, shift, weight):
        return OPERATORS.norm_conv2d(z, mean, scale, shift, 0.0, 6.0, weight, *case.numbers)

    inputs = [t.to(device).requires_grad_() for t in o.wanted]
    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)


def test_opcheck_of_training(device):
    o = norm_cases.operands(named("depthwise, 2 × 2 pixels")[0])
    given = [t.to(device) if isinstance(t, Tensor) else t for t in o.given]
    opcheck(OPERATORS.norm_conv2d.default, tuple(given),
            test_utils=("test_schema", "test_faketensor"))  # fmt: skip


@pytest.mark.parametrize(
    ("name", "dtype"),
    [*((name, (F32, F64)[i % 2]) for i, name in enumerate(ACTIVATIONS)), ("silu", torch.bfloat16)],
)
def test_norm_residual_and_activation(name, dtype, device):
    generator = torch.Generator().manual_seed(7)
    wide = torch.float32 if dtype == torch.bfloat16 else dtype

    def numbers(*shape, dtype=dtype):
        return (2 * torch.randn(shape, generator=generator)).to(device, dtype)

    z, grad = numbers(2, 70, 5, 4), numbers(2, 70, 5, 4)
    mean, scale, shift = (numbers(70, dtype=wide) for _ in range(3))
    for residual in (None, numbers(2, 70, 5, 4)):
        given = [t for t in (z, mean, scale, shift, residual) if t is not None]
        mine = [t.detach().clone().requires_grad_() for t in given]
        exact = [t.detach().double().requires_grad_() for t in given]
        out = OPERATORS.norm_act(*mine[:4], mine[4] if residual is not None else None, name)
        a, b, c, d, *rest = exact
        before = (a - b.view(-1, 1, 1)) * c.view(-1, 1, 1) + d.view(-1, 1, 1)
        plain = ACTIVATIONS[name].plain(before + rest[0] if rest else before)
        close = 4 * torch.finfo(dtype).eps
        torch.testing.assert_close(out.double(), plain, rtol=close, atol=8 * close)
        got = torch.autograd.grad(out, mine, grad)
        expected = torch.autograd.grad(plain, exact, grad.double())
        for one, other in zip(got, expected, strict=True):
            most = float(other.abs().max())
            torch.testing.assert_close(one.double(), other, rtol=0.0, atol=10 * close * most)


# --- errors ---------------------------------------------------------------------------------------


def test_tensors_on_two_devices_are_named():
    """The same check as on GPUs, which there are none of here."""
    x, far = torch.zeros(1, 4, 5, 5), torch.zeros(4, 1, 3, 3, device="meta")
    placed = [1, 1], [1] * 4, [1, 1]
    pointwise = torch.zeros(4, 4, 1, 1)
    with pytest.raises(ValueError, match="weight is on meta but input is on cpu; move one"):
        OPERATORS.conv2d(x, far, None, None, *placed, 4, "none")
    with pytest.raises(ValueError, match="depthwise is on meta but input is on cpu; move one"):
        OPERATORS.separable_conv2d(x, far, pointwise, None, None, None, *placed, "none", "none")
    with pytest.raises(ValueError, match="weight is on meta but grad is on cpu"):
        OPERATORS.conv2d_grad_input(x, far, [1, 4, 5, 5], *placed, 4)
    with pytest.raises(ValueError, match="input is on meta but grad is on cpu"):
        OPERATORS.conv2d_grad_weight(x, x.to("meta"), [4, 1, 3, 3], *placed, 4)
    with pytest.raises(ValueError, match="weight is on meta but z is on cpu"):
        OPERATORS.norm_conv2d(x, None, None, None, 0.0, 1.0, far, *placed, 4)
    row = torch.zeros(4)
    with pytest.raises(ValueError, match="shift is on meta but z is on cpu"):
        OPERATORS.norm_act(x, row, row, row.to("meta"), None, "relu")


@pytest.mark.gpu
def test_memory_that_is_not_there_is_pytorchs_error():
    x = torch.zeros(1, 1, 1, 1, device="cuda").expand(2**20, 2**10, 2**6, 2**3)
    weight = torch.zeros(2**10, 1, 1, 1, device="cuda")
    with pytest.raises(torch.cuda.OutOfMemoryError):
        OPERATORS.conv2d(x, weight, None, None, [1, 1], [0] * 4, [1, 1], 2**10, "none")


# --- would these tests notice? --------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["shifted", "scaled"])
def test_a_wrong_result_is_noticed(wrong, device):
    case = FEW[0]
    x, weight, bias, _ = batched(case, device)
    out = OPERATORS.conv2d(x, weight, bias, None, *case.numbers, "none").cpu()
    broken = out.roll(1, 3) if wrong == "shifted" else out * (1 + 1e-5)
    with pytest.raises(AssertionError, match="wrong"):
        case.check(broken)
    with pytest.raises(AssertionError, match="wrong"):
        assert_close(broken.numpy(), *case.expected, case.terms)
