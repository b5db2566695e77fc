"""The operators of training with batch norm: kernels, plain forms and gradients, in one table."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from image_cases import F64, LAYOUTS, ImageCase, each, every_third, in_turn, laid_out, named
from norm_cases import (
    FEW,
    OPERATORS,
    TRAINED,
    Operands,
    check_all,
    check_result,
    convolved,
    gradients,
    operands,
    plain,
)
from torch.autograd import gradcheck
from torch.library import opcheck

from pointwise.convolution import epilogue
from pointwise.engine.cpu.loops.normed_images import NormalisedImage
from pointwise.operators import normed

POINTWISE = ImageCase("pointwise", kernel=(1, 1), padding=0)
NORMED = pytest.mark.parametrize("with_norm", [True, False], ids=["normed", "as it is"])


@NORMED
@every_third(TRAINED)
def test_forward_and_backward(case, with_norm, poisoned):
    check_all(operands(case, normed=with_norm))


@NORMED
@each(FEW)
def test_the_plain_forms_are_exact(case, with_norm):
    o = operands(case, F64, with_norm)
    found = normed._norm_conv2d_plain(*o.given)
    check_result(o, found)
    for wanted in (True, False):
        d_z, d_scale, d_shift, d_weight = normed._backward_plain(
            *o.slopes, found[0], found[1], wanted, *o.given
        )
        kernel = normed._backward_cpu(*o.slopes, found[0], found[1], wanted, *o.given)
        for a, b in zip((d_z, d_scale, d_shift, d_weight), kernel, strict=True):
            assert a.shape == b.shape
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)
    exact = gradients(o)
    torch.testing.assert_close(d_weight, exact[-1], rtol=1e-11, atol=1e-11)


# --- gradients of everything, by finite differences -----------------------------------------------


@pytest.mark.parametrize("bounds", [(0.0, 6.0), (0.0, float("inf")), (-float("inf"), float("inf"))])
@each(named("1 × 2 pixels", "depthwise, 2 × 2 pixels", "pointwise, 5 pixels"))
def test_gradcheck_with_mean_and_variance(case, bounds):
    o = operands(case, F64)
    numbers = case.numbers

    def function(z, mean, scale, shift, weight):
        return OPERATORS.norm_conv2d(z, mean, scale, shift, *bounds, weight, *numbers)

    assert gradcheck(function, [t.requires_grad_() for t in o.wanted])


@each(named("kernel 3 × 2", "depthwise, kernel 2 × 5", "pointwise, stride 2, 1"))
def test_gradcheck_without_a_norm(case):
    o = operands(case, F64, normed=False)

    def function(z, weight):
        none = (None, None, None, -1.0, 1.0)
        return OPERATORS.norm_conv2d(z, *none, weight, *case.numbers)

    assert gradcheck(function, [t.requires_grad_() for t in o.wanted], fast_mode=True)


ACTIVATIONS = tuple(row.name for row in epilogue.ACTIVATIONS.values() if row.exact)


@pytest.mark.parametrize("residual", [True, False], ids=["residual", "alone"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradcheck_of_norm_act(activation, residual):
    o = operands(ImageCase("norm_act", (3, 4), (5, 5)), F64)
    added = [0.25 * o.grad] if residual else []

    def function(z, mean, scale, shift, *more):
        return OPERATORS.norm_act(z, mean, scale, shift, *(more or [None]), activation)

    assert gradcheck(function, [t.requires_grad_() for t in (*o.wanted[:4], *added)])


def chain_by_operators(o: Operands, weight, gamma, beta):
    """Pointwise convolution, norm, relu6, convolution, norm, residual, silu."""
    z, norm = o.z, (None, None, None, 0.0, 6.0)
    for conv, case in ((weight, POINTWISE), (o.weight, o.case)):
        z, mean, variance = OPERATORS.norm_conv2d(z, *norm, conv, *case.numbers)
        norm = (mean, (variance + 1e-5).rsqrt() * gamma, beta, 0.0, 6.0)
    return OPERATORS.norm_act(z, *norm[:3], o.z, "silu")


def chain_by_pytorch(o: Operands, weight, gamma, beta):
    x = F.batch_norm(convolved(o.z, weight, POINTWISE), None, None, gamma, beta, training=True)
    x = convolved(F.relu6(x), o.weight, o.case)
    return F.silu(F.batch_norm(x, None, None, gamma, beta, training=True) + o.z)


def test_gradients_of_a_chain():
    case = ImageCase("chain", (6, 5), (8, 8), (3, 3), groups=2)
    found = []
    for function in (chain_by_operators, chain_by_pytorch):
        o = operands(case, F64, normed=False)
        weight = torch.from_numpy(case.values("first", (8, 8, 1, 1)))
        gamma, beta = (torch.from_numpy(case.values(role, (8,))) for role in ("gamma", "beta"))
        wanted = [t.requires_grad_() for t in (o.z, o.weight, weight, gamma, beta)]
        out = function(o, weight, gamma, beta)
        found.append([out.detach(), *torch.autograd.grad(out, wanted, o.grad)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@each(FEW)
def test_any_of_the_three_results_may_be_used_alone(case):
    for used in range(3):
        o = operands(case, F64)
        for tensor in o.wanted:
            tensor.requires_grad_()
        out = OPERATORS.norm_conv2d(*o.given)[used]
        found = torch.autograd.grad(out, o.wanted, o.slopes[used])
        again = o.of_type(F64)
        for tensor in again.wanted:
            tensor.requires_grad_()
        expected = torch.autograd.grad(plain(again)[used], again.wanted, o.slopes[used])
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@each(FEW[:4])
def test_only_the_gradients_asked_for(case):
    names = ("z", "mean", "scale", "shift", "weight")
    for number in range(1, 2 ** len(names)):
        asked = [name for bit, name in enumerate(names) if number >> bit & 1]
        found = []
        for function in (lambda o: OPERATORS.norm_conv2d(*o.given), plain):
            o = operands(case, F64)
            wanted = [getattr(o, name).requires_grad_() for name in asked]
            found.append(torch.autograd.grad(function(o), wanted, o.slopes))
        for a, b in zip(*found, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_there_are_no_gradients_of_gradients_and_it_says_so():
    o = operands(FEW[0], F64)
    out = OPERATORS.norm_conv2d(o.z.requires_grad_(), *o.given[1:])[0]
    (slope,) = torch.autograd.grad(out.square().sum(), o.z, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


# --- how tensors lie in memory --------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@each(FEW)
def test_every_layout(case, layout, poisoned):
    o = operands(case)
    o.z, o.grad, o.weight = (laid_out(t.detach(), layout) for t in (o.z, o.grad, o.weight))
    wide = [t.repeat_interleave(3)[::3] for t in (o.mean, o.scale, o.shift)]  # steps of 3
    o.mean, o.scale, o.shift = wide
    check_all(o)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_layout_of_norm_act(activation, layout, poisoned):
    o = operands(ImageCase("norm_act", (7, 6), (19, 19)), torch.float32)
    found = []
    for function, dtype in ((OPERATORS.norm_act, torch.float32), (normed._norm_act_plain, F64)):
        made = [laid_out(t.detach().to(dtype), layout) for t in (o.z, o.grad, 0.5 * o.grad)]
        z, grad, residual = made
        wanted = [t.detach().to(dtype).requires_grad_() for t in (o.mean, o.scale, o.shift)]
        wanted = [z.requires_grad_(), *wanted, residual.requires_grad_()]
        out = function(*wanted, activation)
        assert out.is_contiguous(memory_format=torch.channels_last)
        found.append([out.detach(), *torch.autograd.grad(out, wanted, grad)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=2e-5, atol=2e-5 * float(b.abs().max()))


@each(FEW)
def test_gradients_that_are_one_number_many_times(case):
    # As mean() and sum() give them: all strides are 0.
    o = operands(case, F64)
    found = []
    for function in (lambda o: OPERATORS.norm_conv2d(*o.given), plain):
        again = o.of_type(F64)
        for tensor in again.wanted:
            tensor.requires_grad_()
        loss = sum(result.sum() for result in function(again))
        found.append(torch.autograd.grad(loss, again.wanted))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


# --- statistics -----------------------------------------------------------------------------------


@each([
    ImageCase("pointwise", (40, 41), (5, 33), (1, 1), padding=0),
    ImageCase("standard", (40, 41), (5, 17), padding=0),
    ImageCase("depthwise", (40, 41), (17, 17), padding=0, groups=17),
])  # fmt: skip
def test_the_variance_does_not_cancel(case):
    """Mean 10,000, standard deviation 1: E[x²] - E[x]² has no digit left in float32."""
    x = 1e4 + case.tensor("input")
    taps = case.kernel[0] * case.kernel[1]
    weight = torch.zeros(case.weight_shape)
    weight[:, 0] = 1.0 / taps  # means of pixels, or one of them
    o = Operands(x, None, None, None, weight, *[torch.zeros(1)] * 3, case)
    out, mean, variance = OPERATORS.norm_conv2d(*o.given)
    exact = out.double().var((0, 2, 3), unbiased=False)
    torch.testing.assert_close(mean.double(), out.double().mean((0, 2, 3)), rtol=2e-7, atol=0)
    torch.testing.assert_close(variance.double(), exact, rtol=1e-4, atol=0)
    # What the result's own rounding may add to it: numbers near 10,000 are 2⁻¹⁰ apart.
    true = convolved(x.double(), weight.double(), case).var((0, 2, 3), unbiased=False)
    torch.testing.assert_close(variance.double(), true, rtol=5e-3, atol=2.0**-18)


# --- threads, tracing -----------------------------------------------------------------------------


@each(in_turn([
    ImageCase("large", (40, 41), (9, 33), layout="channels_last"),
    ImageCase("groups, stride 2", (30, 29), (34, 68), groups=2, stride=2, padding="same"),
    ImageCase("pointwise", (45, 46), (67, 70), (1, 1), padding=0, layout="channels_last"),
    ImageCase("deep pointwise", (7, 7), (600, 130), (1, 1), padding=0),
    ImageCase("depthwise", (56, 57), (65, 65), groups=65, layout="channels_last"),
    ImageCase("depthwise, 5 × 5, stride 2", (56, 57), (32, 32), (5, 5), padding="same", stride=2,
              groups=32, batch=5),
    ImageCase("depthwise, many images", (7, 6), (17, 17), groups=17, batch=64),
]))  # fmt: skip
def test_the_same_bits_at_any_number_of_threads(case, threads, poisoned):
    def everything():
        o = operands(case)
        for tensor in o.wanted:
            tensor.requires_grad_()
        found = OPERATORS.norm_conv2d(*o.given)
        return [*found, *torch.autograd.grad(found, o.wanted, o.slopes)]

    threads(1)
    alone = everything()
    for count in (2, 3):
        threads(count)
        for a, b in zip(alone, everything(), strict=True):
            assert torch.equal(a, b)


@NORMED
@each(named("3 groups, stride 2", "pointwise, 7 groups", "depthwise, 17 channels"))
def test_opcheck_of_norm_conv2d(case, with_norm):
    o = operands(case, normed=with_norm)
    out, mean, _ = OPERATORS.norm_conv2d(*o.given)
    for wanted in (True, False):
        arguments = (*o.slopes, out, mean, wanted, *o.given)
        opcheck(OPERATORS.norm_conv2d_backward.default, arguments)
    opcheck(OPERATORS.norm_conv2d.default, o.given)
    for tensor in o.wanted:
        tensor.requires_grad_()
    opcheck(OPERATORS.norm_conv2d.default, o.given)


@pytest.mark.parametrize("residual", [True, False], ids=["residual", "alone"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_opcheck_of_norm_act(activation, residual):
    o = operands(ImageCase("norm_act", (7, 6), (19, 19)), torch.float32)
    given = (*o.wanted[:4], 0.5 * o.grad if residual else None, activation)
    opcheck(OPERATORS.norm_act_backward.default, (o.grad, *given))
    opcheck(OPERATORS.norm_act.default, given)
    for tensor in o.wanted[:4]:
        tensor.requires_grad_()
    opcheck(OPERATORS.norm_act.default, given)


@each([
    ImageCase("no tap reads the pixel", (1, 1), (4, 5), (1, 1), padding=1, stride=2),
    ImageCase("no tap of 3 × 3 reads it", (1, 1), (4, 5), padding=3, stride=2, dilation=2),
])  # fmt: skip
def test_an_image_that_nothing_reads(case):
    check_all(operands(case))


@each([
    ImageCase("no tap reads the pixel", (1, 1), (5, 5), padding=3, stride=2, dilation=2, groups=5),
    ImageCase("some pixels", (1, 4), (4, 5), (1, 1), padding=1, stride=2),
    ImageCase("every second column", (4, 5), (4, 4), padding=3, stride=2, dilation=2, groups=4),
])  # fmt: skip
def test_images_that_are_read_in_part(case, poisoned):
    check_all(operands(case))


# --- would these tests notice? --------------------------------------------------------------------


def _origin(o, monkeypatch):
    o.case = replace(o.case, padding=((2, 0), (1, 1)))


def _norm_forgotten(o, monkeypatch):
    monkeypatch.setattr(NormalisedImage, "prologue", lambda self: None)


def _bounds_forgotten(o, monkeypatch):
    def unbounded(image):
        return replace(image, low=-float("inf"), high=float("inf"))

    norm = NormalisedImage.norm
    monkeypatch.setattr(NormalisedImage, "norm", lambda self: norm(unbounded(self)))
    gradient = NormalisedImage.gradient
    monkeypatch.setattr(NormalisedImage, "gradient", lambda self: gradient(unbounded(self)))


def _variance_forgotten(o, monkeypatch):
    o.d_variance = o.d_variance * 0


def _one_weight_off(o, monkeypatch):
    o.weight = o.weight.clone()
    o.weight.view(-1)[7] *= 1.01


@pytest.mark.parametrize("groups", [1, 9])
@pytest.mark.parametrize(
    "damage", [_origin, _norm_forgotten, _bounds_forgotten, _variance_forgotten, _one_weight_off]
)
def test_a_broken_kernel_is_noticed(damage, groups, monkeypatch):
    case = ImageCase("broken on purpose", (8, 9), (9, 9), groups=groups)
    check_all(operands(case))
    broken = operands(case)
    damage(broken, monkeypatch)
    with pytest.raises(AssertionError, match=r"wrong; .* expected .* allowed error"):
        check_all(operands(case), broken)
