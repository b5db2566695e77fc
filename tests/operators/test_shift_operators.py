"""The shift convolution on images: against the oracle, its plain form, gradients, opcheck."""

from __future__ import annotations

import image_oracle
import pytest
import torch
from shift_cases import F64, FEW, PRECISIONS, ShiftCase, each
from torch.library import opcheck

from pointwise.operators import shift

OPERATORS = torch.ops.pointwise


def calls(case: ShiftCase, dtype: torch.dtype = F64) -> dict[str, tuple]:
    """Arguments for every operator."""
    x, weight, bias, grad = (
        case.tensor(role, dtype) for role in ("input", "weight", "bias", "grad")
    )
    return {
        "shift_conv2d": (x, weight, bias, None, *case.numbers, "none"),
        "shift_conv2d_grad_input": (grad, weight, list(x.shape), *case.numbers),
        "shift_conv2d_grad_weight": (grad, x, *case.numbers),
    }


PLAIN = {
    "shift_conv2d": shift._shift_plain,
    "shift_conv2d_grad_input": shift._shift_grad_input_plain,
    "shift_conv2d_grad_weight": shift._shift_grad_weight_plain,
}


def check(case: ShiftCase, found: dict[str, torch.Tensor]) -> None:
    """Result and gradients, each with the oracle's."""
    terms = case.channels[0] + 1
    image_oracle.assert_close(found["shift_conv2d"].numpy(), *case.expected(), terms)
    gradients = case.expected_gradients()
    for role in ("input", "weight"):
        array = found[f"shift_conv2d_grad_{role}"].numpy()
        image_oracle.assert_close(array, *gradients[role], what=f"d {role}")


@PRECISIONS
@each()
def test_kernels_are_the_oracle(case, dtype, poisoned):
    given = calls(case, dtype)
    check(case, {name: getattr(OPERATORS, name)(*given[name]) for name in PLAIN})


@each()
def test_plain_forms_are_the_oracle(case):
    given = calls(case)
    check(case, {name: plain(*given[name]) for name, plain in PLAIN.items()})


@each()
def test_moving_multiplies_nothing(case, poisoned):
    """By a weight that passes each channel on, the shift itself, to the last bit."""
    x = case.tensor("input", F64)
    through = torch.eye(case.channels[0], dtype=F64)
    found = OPERATORS.shift_conv2d(x, through, None, None, *case.numbers, "none")
    moved = image_oracle.shift(case.array("input"), *case.geometry)
    assert torch.equal(found, torch.from_numpy(moved))


@PRECISIONS
@each()
def test_adjoint(case, dtype, poisoned):
    """⟨Gx, a⟩ = ⟨x, Gᵀa⟩."""
    given = calls(case, dtype)
    x, weight, *_ = given["shift_conv2d"]
    grad = given["shift_conv2d_grad_input"][0]
    out = OPERATORS.shift_conv2d(x, weight, None, None, *case.numbers, "none")
    back = OPERATORS.shift_conv2d_grad_input(*given["shift_conv2d_grad_input"])
    forward, backward = ((a.double() * b.double()).sum() for a, b in ((out, grad), (x, back)))
    _, size = case.expected()
    bound = float((torch.from_numpy(size) * grad.double().abs()).sum())
    terms = sum(case.channels) + 1
    error = image_oracle.TOLERANCE * torch.finfo(dtype).eps * terms**0.5 * bound
    assert abs(forward - backward) <= error


@each(FEW)
def test_threads_change_no_bit(case, threads):
    given, found = calls(case, torch.float32), []
    for count in (1, 2, 3):
        threads(count)
        found.append([getattr(OPERATORS, name)(*given[name]) for name in PLAIN])
    for results in zip(*found, strict=True):
        assert all(torch.equal(results[0], other) for other in results[1:])


SMALL = [
    ShiftCase("small", (3, 4), (11, 2), batch=1),
    ShiftCase("small, strided", (4, 5), (10, 2), stride=(2, 2), dilation=(2, 1), batch=1),
    ShiftCase("small, all at the centre", (2, 2), (3, 2), stride=(1, 2), batch=1),
]


@each(SMALL)
def test_gradients_are_exact_to_the_second_order(case):
    x, weight, bias = (
        case.tensor(role, F64).requires_grad_() for role in ("input", "weight", "bias")
    )

    def convolved(x, weight, bias):
        return OPERATORS.shift_conv2d(x, weight, bias, None, *case.numbers, "none")

    assert torch.autograd.gradcheck(convolved, (x, weight, bias))
    assert torch.autograd.gradgradcheck(convolved, (x, weight, bias))


def test_an_activation_inside_has_its_gradient():
    case = SMALL[0]
    x, weight, bias = (
        case.tensor(role, F64).requires_grad_() for role in ("input", "weight", "bias")
    )
    residual = case.tensor("grad", F64).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda *a: OPERATORS.shift_conv2d(*a, *case.numbers, "silu"), (x, weight, bias, residual)
    )


@pytest.mark.parametrize("name", PLAIN)
def test_opcheck(name):
    arguments = calls(SMALL[1])[name]
    wanting = tuple(
        a.clone().requires_grad_() if isinstance(a, torch.Tensor) else a for a in arguments
    )
    opcheck(getattr(OPERATORS, name).default, wanting)


def test_a_shift_to_another_side_is_noticed():
    case = SMALL[0]
    given = calls(case)
    x, *rest = given["shift_conv2d"]
    turned = OPERATORS.shift_conv2d(x.flip(3), *rest).flip(3)
    with pytest.raises(AssertionError, match="wrong"):
        image_oracle.assert_close(turned.numpy(), *case.expected(), case.channels[0])


X, W = torch.ones(1, 9, 4, 4), torch.ones(2, 9)
HOW = ([3, 3], [1, 1], [1, 1])


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("shift_conv2d", (X[0], W, None, None, *HOW, "none"), "does not fit input"),
        ("shift_conv2d", (X, W[:, :8], None, None, *HOW, "none"), "it must be .C_out, C_in."),
        ("shift_conv2d", (X, W, W[0], None, *HOW, "none"), r"bias must be \[2\]"),
        ("shift_conv2d", (X, W, None, X, *HOW, "none"), "residual must be like the result"),
        ("shift_conv2d", (X, W, None, None, [3, 2], *HOW[1:], "none"), "kernel_size must be odd"),
        ("shift_conv2d", (X, W, None, None, *HOW, "nothing"), "activation must be one of"),
        ("shift_conv2d_grad_input", (X, W, [1, 9, 4, 4], *HOW), "grad must be like the result"),
        ("shift_conv2d_grad_input", (X[:, :2], W, [1, 9], *HOW), r"size must be \[N, C, H, W\]"),
        ("shift_conv2d_grad_weight", (X[:, :, 1:], X, *HOW), "grad must be like the result"),
    ],
)
def test_operators_refuse_what_does_not_fit(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(OPERATORS, name)(*arguments)
