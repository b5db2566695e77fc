"""The image operators and their gradients: against the oracle, gradcheck, opcheck, autocast."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from image_cases import (
    CASES,
    F32,
    F64,
    LAYOUTS,
    ImageCase,
    each,
    every_third,
    in_turn,
    laid_out,
    named,
)
from torch.library import opcheck

from pointwise.convolution import epilogue
from pointwise.functional import conv2d
from pointwise.operators import images as operators

OPERATORS = torch.ops.pointwise
ROLES = ("input", "weight", "bias")

PLAIN = {
    "conv2d": operators._conv2d_plain,
    "conv2d_grad_input": operators._grad_input_plain,
    "conv2d_grad_weight": operators._grad_weight_plain,
}


def calls(case: ImageCase) -> dict[str, tuple]:
    """Arguments for every operator, all with a batch."""
    tensors = {role: case.tensor(role) for role in (*ROLES, "residual", "grad")}
    if case.batch is None:
        for role in ("input", "residual", "grad"):
            tensors[role] = tensors[role].unsqueeze(0)
    x, weight, bias, residual, grad = tensors.values()
    return {
        "conv2d": (x, weight, bias, residual, *case.numbers, "none"),
        "conv2d_grad_input": (grad, weight, list(x.shape), *case.numbers),
        "conv2d_grad_weight": (grad, x, list(weight.shape), *case.numbers),
    }


def wanting(*tensors):
    return [None if t is None else t.detach().clone().requires_grad_() for t in tensors]


# --- kernels, plain forms and what tracing believes ---------------------------------------------

FEW = in_turn([
    ImageCase("standard", (6, 5), (5, 18)),
    ImageCase("groups, stride 2, same", (7, 6), (4, 6), stride=2, padding="same", groups=2),
    ImageCase("pointwise", (5, 6), (19, 35), (1, 1), padding=0),
    ImageCase("pointwise, stride 2", (5, 6), (7, 9), (1, 1), padding=0, stride=2, bias=False),
    ImageCase("depthwise", (5, 6), (19, 19), groups=19),
    ImageCase("depthwise, times 2, uneven", (4, 5), (3, 6), (2, 3), padding=((0, 2), (3, 1)),
              groups=3),
    *named("batch of 0", "depthwise, batch of 0", "1 × 1 pixels", "channels_last, one pixel",
           "dilation 3 and 2, same", "depthwise, cropped input", "channels_last, one channel"),
])  # fmt: skip


@pytest.mark.parametrize("name", PLAIN)
@each([FEW[1], *FEW[3:6]])  # shapes and strides are compared for the whole table, below
def test_opcheck(name, case):
    arguments: Any = calls(case)[name]
    arguments = [a.requires_grad_() if isinstance(a, torch.Tensor) else a for a in arguments]
    opcheck(getattr(OPERATORS, name).default, tuple(arguments))


@pytest.mark.parametrize("activation", ["relu", "relu6", "hardswish", "silu", "gelu", "sigmoid"])
def test_opcheck_with_an_activation(activation):
    for case in (FEW[0], FEW[4]):
        opcheck(OPERATORS.conv2d.default, (*calls(case)["conv2d"][:-1], activation))


@every_third()
def test_shapes_strides_and_types_are_foreseen(case):
    for name, arguments in calls(case).items():
        operator = getattr(OPERATORS, name).default
        opcheck(operator, arguments, test_utils=("test_schema", "test_faketensor"))


@each()
def test_kernel_and_plain_form_agree(case, poisoned):
    for name in PLAIN:
        compare_with_plain(case, name)


def compare_with_plain(case, name):
    arguments = calls(case)[name]
    found, plain = getattr(OPERATORS, name)(*arguments), PLAIN[name](*arguments)
    found, plain = (r if isinstance(r, tuple) else (r,) for r in (found, plain))
    if name == "conv2d":
        size = abs(case.arrays["residual"]) + case.expected[1]
        sizes, terms = [torch.from_numpy(size)], case.terms
    else:
        roles = ("input",) if name == "conv2d_grad_input" else ("weight",)
        sizes = [torch.from_numpy(case.expected_gradients[role][1]) for role in roles]
        terms = case.expected_gradients[roles[0]][2]
    for a, b, size in zip(found, plain, sizes, strict=True):
        assert a.dtype == b.dtype == case.dtype
        assert a.shape == b.shape == size.shape
        limit = 4 * torch.finfo(case.dtype).eps * terms**0.5 * size
        assert bool(((a - b).abs() <= limit).all())


# --- gradients against the oracle -----------------------------------------------------------------


@each()
def test_gradients_are_the_oracles(case, poisoned):
    x, weight, bias = wanted = case.tensors()
    for tensor in wanted:
        if tensor is not None:
            tensor.requires_grad_()  # in place: a copy would have other strides
    out = conv2d(x, weight, bias, **case.geometry, groups=case.groups)
    case.check(out)
    out.backward(case.tensor("grad"))
    for role, tensor in zip(ROLES, wanted, strict=True):
        if tensor is not None:
            assert tensor.grad.dtype == case.dtype
            case.check_gradient(role, tensor.grad)


@pytest.mark.parametrize("layout", LAYOUTS)
@each(FEW)
def test_gradients_in_every_layout(case, layout, poisoned):
    made = {role: case.tensor(role, layout=layout) for role in (*ROLES, "grad")}
    grad = made.pop("grad")
    inputs = [t for t in made.values() if t is not None]
    for tensor in inputs:
        tensor.requires_grad_()
    out = conv2d(*made.values(), **case.geometry, groups=case.groups)
    for role, found in zip(ROLES, torch.autograd.grad(out, inputs, grad), strict=False):
        case.check_gradient(role, found)


@each(FEW)
def test_a_gradient_that_is_one_number_many_times(case):
    # As sum() and mean() give it: all strides are 0.
    x, weight, bias = wanting(*case.tensors(F64))
    conv2d(x, weight, bias, **case.geometry, groups=case.groups).sum().backward()
    again = wanting(*case.tensors(F64))
    out = conv2d(*again, **case.geometry, groups=case.groups)
    out.backward(torch.ones_like(out))
    for a, b in zip((x, weight, bias), again, strict=True):
        assert a is None or torch.equal(a.grad, b.grad)


@each(FEW)
def test_only_the_gradients_asked_for(case, poisoned):
    names = (*ROLES, "residual") if case.bias else ("input", "weight", "residual")
    for count in range(1, len(names) + 1):
        for asked in itertools.combinations(names, count):
            given = {role: case.tensor(role) for role in (*ROLES, "residual")}
            for role in asked:
                given[role].requires_grad_()
            x, weight, bias, residual = given.values()
            out = conv2d(x, weight, bias, **case.geometry, groups=case.groups, residual=residual)
            out.backward(case.tensor("grad"))
            for role in names:
                if role not in asked:
                    assert given[role].grad is None
                elif role == "residual":
                    assert torch.equal(given[role].grad, case.tensor("grad"))
                else:
                    case.check_gradient(role, given[role].grad)


@each(FEW)
def test_gradients_add_up_and_leave_their_arguments_alone(case):
    x, weight, bias = wanting(*case.tensors())
    residual, grad = wanting(case.tensor("residual"))[0], case.tensor("grad")
    before = grad.clone()
    for _ in range(2):
        out = conv2d(x, weight, bias, **case.geometry, groups=case.groups, residual=residual)
        out.backward(grad)
    assert torch.equal(grad, before)
    once = wanting(x, weight, bias)
    conv2d(*once, **case.geometry, groups=case.groups).backward(grad)
    for twice, one in zip((x, weight, bias), once, strict=True):
        assert one is None or torch.equal(twice.grad, 2 * one.grad)


# Of functions that differ in a number alone, one.
ACTIVATIONS = tuple(name for name in epilogue.ACTIVATIONS if name.isidentifier() and name != "none")


@pytest.mark.parametrize("activation", ACTIVATIONS)
@each(FEW)
def test_gradients_through_the_epilogue_are_pytorchs(case, activation):
    stride, ((top, bottom), (left, right)), dilation = case.places
    function = epilogue.ACTIVATIONS[activation].plain
    tensors = [case.tensor(role, F64) for role in (*ROLES, "residual")]
    x, weight, bias, residual = ours = wanting(*tensors)
    out = conv2d(x, weight, bias, **case.geometry, groups=case.groups, activation=activation,
                 residual=residual)  # fmt: skip
    out.backward(case.tensor("grad", F64))
    x, weight, bias, residual = theirs = wanting(*tensors)
    padded = F.pad(x, (left, right, top, bottom))
    out = function(F.conv2d(padded, weight, bias, stride, 0, dilation, case.groups) + residual)
    out.backward(case.tensor("grad", F64))
    for a, b in zip(ours, theirs, strict=True):
        if a is not None:
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-11, atol=1e-11)


@each(in_turn([
    ImageCase("large", (40, 41), (9, 33), layout="channels_last"),
    ImageCase("large, groups, stride 2", (30, 29), (34, 68), groups=2, stride=2, padding="same"),
    ImageCase("large pointwise", (45, 46), (67, 70), (1, 1), padding=0, layout="channels_last"),
    ImageCase("deep pointwise", (7, 7), (600, 130), (1, 1), padding=0),
    ImageCase("large depthwise", (56, 57), (65, 65), groups=65, layout="channels_last"),
    ImageCase("large depthwise, 5 × 5, stride 2", (56, 57), (32, 32), (5, 5), padding="same",
              stride=2, groups=32, batch=5),
    ImageCase("depthwise, many images", (7, 6), (17, 34), groups=17, batch=64),
]))  # fmt: skip
def test_gradients_are_the_same_bits_at_any_number_of_threads(case, threads, poisoned):
    def gradients():
        wanted = wanting(*case.tensors())
        out = conv2d(*wanted, **case.geometry, groups=case.groups)
        return torch.autograd.grad(out, wanted, case.tensor("grad"))

    threads(1)
    alone = gradients()
    for count in (2, 3):
        threads(count)
        for a, b in zip(alone, gradients(), strict=True):
            assert torch.equal(a, b)


@each([
    ImageCase("large", (40, 41), (9, 33), layout="channels_last"),
    ImageCase("large pointwise", (45, 46), (67, 70), (1, 1), padding=0),
    ImageCase("large depthwise, stride 2", (56, 57), (33, 33), (5, 5), padding="same", stride=2,
              groups=33),
    ImageCase("many images", (3, 2), (17, 34), groups=17, batch=300),
])  # fmt: skip
def test_gradients_of_large_images(case, poisoned):
    # Sums over thousands of pixels, in splits and by several threads, against float64 in PyTorch.
    stride, ((top, bottom), (left, right)), dilation = case.places

    def exact(x, weight, bias, grad):
        x, weight, bias = wanting(x.double(), weight.double(), bias.double())
        padded = F.pad(x, (left, right, top, bottom))
        out = F.conv2d(padded, weight, bias, stride, 0, dilation, case.groups)
        return torch.autograd.grad(out, (x, weight, bias), grad.double())

    tensors, grad = case.tensors(), case.tensor("grad")
    wanted = wanting(*tensors)
    out = conv2d(*wanted, **case.geometry, groups=case.groups)
    found = torch.autograd.grad(out, wanted, grad)
    sizes = exact(*(t.abs() for t in (*tensors, grad)))
    terms = (case.input_terms, case.weight_terms, case.weight_terms)
    for a, b, size, k in zip(found, exact(*(*tensors, grad)), sizes, terms, strict=True):
        limit = 2 * torch.finfo(torch.float32).eps * k**0.5 * size
        assert bool(((a - b).abs() <= limit).all())


@pytest.mark.parametrize("activation", ["relu6", "hardswish", "gelu"])
def test_an_activation_inside_the_operator_has_its_gradients(activation):
    """A graph that was traced without gradients has it there."""
    case = ImageCase("inside", (3, 4), (2, 4), (2, 2), padding=((1, 0), (0, 1)), groups=2, batch=1)
    tensors = wanting(*(case.tensor(role, F64) for role in (*ROLES, "residual")))

    def function(*tensors):
        return OPERATORS.conv2d(*tensors, *case.numbers, activation)

    assert torch.autograd.gradcheck(function, tensors)
    assert torch.autograd.gradgradcheck(function, tensors)


# --- autocast -------------------------------------------------------------------------------------


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
@each(FEW)
def test_autocast_gives_pytorchs_types(case, half):
    stride, ((top, bottom), (left, right)), dilation = case.places

    def ours(x, weight, bias):
        return conv2d(x, weight, bias, **case.geometry, groups=case.groups)

    def theirs(x, weight, bias):
        x = F.pad(x, (left, right, top, bottom))
        return F.conv2d(x, weight, bias, stride, 0, dilation, case.groups)

    found = []
    for function in (ours, theirs):
        x, weight, bias = wanted = wanting(*case.tensors(F32))
        with torch.autocast("cpu", dtype=half):
            out = function(x, weight, bias)
            twice = function(x.to(half), weight, bias)  # what a layer before would hand on
            double = function(*(None if t is None else t.double() for t in wanted))
        out.float().square().sum().backward()
        slopes = [t.grad for t in wanted if t is not None]
        found.append([out.detach(), twice.detach(), double.detach(), *slopes])
    for a, b in zip(*found, strict=True):
        assert a.dtype == b.dtype
        bound = 0.1 * (1 + float(b.abs().max())) if b.numel() else 0
        torch.testing.assert_close(a, b, rtol=0.0, atol=bound)


def test_autocast_of_the_residual_and_its_gradient():
    x, weight, bias, residual = wanting(*(FEW[0].tensor(role) for role in (*ROLES, "residual")))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = conv2d(x, weight, bias, padding=1, residual=residual, activation="relu")
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert {t.grad.dtype for t in (x, weight, bias, residual)} == {torch.float32}


# --- would these tests notice? --------------------------------------------------------------------


def _moved(out):
    out.copy_(out.roll(1, 3))


def _last_pixel_missing(out):
    out[-1, -1, -1, -1] = float("nan")


def _slightly_off(out):
    out[0, 2, 1, 1] *= 1.00001


def _channels_swapped(out):
    out.copy_(out.flip(1))


@pytest.mark.parametrize("damage", [_moved, _last_pixel_missing, _slightly_off, _channels_swapped])
def test_a_broken_result_is_noticed(damage):
    for case in FEW[:6]:
        x, weight, bias = case.tensors()
        out = conv2d(x, weight, bias, **case.geometry, groups=case.groups)
        case.check(out)
        damage(out)
        with pytest.raises(AssertionError, match=r"wrong; .* expected .* allowed error"):
            case.check(out)


def test_what_is_read_beyond_a_tensor_is_noticed():
    case = FEW[0]
    for layout in LAYOUTS:
        x = laid_out(case.tensor("input", F64), layout)
        assert bool(x.isfinite().all())
        span = 1 + sum((n - 1) * s for n, s in zip(x.shape, x.stride(), strict=True))
        for shift in (-1, span):  # one before, one behind
            near = x.as_strided((1,), (1,), x.storage_offset() + shift)
            assert not bool(near.isfinite().any())
    assert len(CASES) > 200
