"""The patches around the points of an image: A and its adjoint, against the oracle's loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from image_cases import CASES, ImageCase, each, named
from image_oracle import TOLERANCE, reads
from windows import image, window_of

from pointwise.convolution.problem import is_depthwise
from pointwise.convolution.window import Window
from pointwise.engine.cpu import launch
from pointwise.engine.cpu.loops.depthwise import depthwise
from pointwise.engine.cpu.loops.input_gradient import depthwise_input_gradient, mixed_input_gradient
from pointwise.engine.cpu.loops.mixed import mixed
from pointwise.engine.cpu.weights import pack_stencil, pack_weight

BATCHED = [case for case in CASES if case.batch and not case.is_depthwise and case.groups == 1]
FEW = named("5 to 17 channels", "kernel 4 × 4", "stride 2, 1, same", "dilation 3 and 2, same",
            "uneven padding, stride 2", "pointwise, stride 3, 3", "stem")  # fmt: skip


def gathered(case: ImageCase, x: torch.Tensor, field: Window) -> torch.Tensor:
    """A ``[N, taps·C, H, W]``, by a weight that passes each value on."""
    channels, taps = x.shape[1], field.taps
    through = torch.eye(taps * channels, dtype=x.dtype).view(-1, *case.kernel, channels)
    return mixed(image(x), pack_weight(through.permute(0, 3, 1, 2), None), field)


def expected(case: ImageCase) -> np.ndarray:
    """[N, kh, kw, C, H, W] with zeros where nothing is read."""
    x = case.arrays["input"]
    found = np.zeros((len(x), *case.kernel, x.shape[1], *case.result_shape[2:]))
    for target, cell, source in reads(case.sizes, case.kernel, *case.places):
        found[(slice(None), *cell, slice(None), *target)] = x[(..., *source)]
    return found.reshape(len(x), -1, *case.result_shape[2:])


def check(case: ImageCase, found: torch.Tensor) -> None:
    # Passed on by products with one and sums with zero: to the last bit.
    np.testing.assert_array_equal(found.numpy(), expected(case).astype(found.numpy().dtype))


@each(BATCHED)
def test_gather_is_the_oracle(case, poisoned):
    check(case, gathered(case, case.tensor("input"), window_of(case)))


@each([case for case in CASES if case.batch and (
    not case.is_depthwise or case.channels[0] == case.channels[1])])  # fmt: skip
def test_adjoint(case, poisoned):
    """⟨Gx, a⟩ = ⟨x, Gᵀa⟩, where G is the convolution by a weight, and Gᵀ the input's gradient."""
    x, weight, grad = (case.tensor(role) for role in ("input", "weight", "grad"))
    x, grad, field = image(x), image(grad), window_of(case)
    if is_depthwise(weight.shape, case.groups):
        out = depthwise(x, pack_stencil(weight, None), field)
        back = depthwise_input_gradient(grad, weight, field)
    else:
        out = mixed(x, pack_weight(weight, None, case.groups), field)
        back = mixed_input_gradient(grad, weight, field, case.groups)
    forward, backward = ((a.double() * b.double()).sum() for a, b in ((out, grad), (x, back)))
    terms = case.terms + case.input_terms
    size = sum((a.double() * b.double()).abs().sum() for a, b in ((out, grad), (x, back)))
    size += case.expected[1].sum() * float(grad.abs().max())
    assert abs(forward - backward) <= TOLERANCE * torch.finfo(case.dtype).eps * terms**0.5 * size


@each(FEW)
def test_more_rows_than_a_tile(case, threads):
    # Many images, by several threads: tiles begin and end anywhere in a row.
    x = case.tensor("input")
    many = torch.cat([x + 10 * i for i in range(37)])
    one_by_one = torch.cat([gathered(case, x + 10 * i, window_of(case)) for i in range(37)])
    field = window_of(case)._replace(images=len(many))
    for count in (1, 2, 3):
        threads(count)
        assert torch.equal(gathered(case, many, field), one_by_one)


# --- would these tests notice? --------------------------------------------------------------------


def _moved(y):
    return {"padding": y.padding - 1}


def _dilated(y):
    return {"dilation": y.dilation + 1}


def _smaller(y):
    return {"size": y.size - 1}


def _faster(y):
    return {"stride": y.stride + 1}


@pytest.mark.parametrize("damage", [_moved, _dilated, _smaller, _faster])
@pytest.mark.parametrize("axis", ["y", "x"])
def test_a_gather_that_looks_elsewhere_is_noticed(damage, axis):
    case = ImageCase("looks elsewhere", (9, 9), (3, 5), stride=2)
    sound = window_of(case)
    check(case, gathered(case, case.tensor("input"), sound))
    old = getattr(sound, axis)
    wrong = sound._replace(**{axis: old._replace(**damage(old))})
    with pytest.raises(AssertionError, match="not equal"):
        check(case, gathered(case, case.tensor("input"), wrong))


def test_rows_that_nobody_writes_are_noticed(poisoned, monkeypatch):
    case = ImageCase("not to the end", (9, 9), (3, 5))
    check(case, gathered(case, case.tensor("input"), window_of(case)))
    run = launch.launch
    monkeypatch.setattr(launch, "launch", lambda *given: run(*given[:2], given[2] - 1))
    with pytest.raises(AssertionError, match="nan"):
        check(case, gathered(case, case.tensor("input"), window_of(case)))
