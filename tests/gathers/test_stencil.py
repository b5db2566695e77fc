"""The stencil: rows with taps of their own and the general ones, epilogues, and gaps in results."""

from __future__ import annotations

import pytest
import torch
from image_cases import ImageCase, each
from image_oracle import activate, assert_close
from windows import EXACT, OWN, STENCILS, image, window_of

from pointwise.engine.cpu.loops import depthwise as loop
from pointwise.engine.cpu.loops import depthwise_gradient
from pointwise.engine.cpu.loops.depthwise import depthwise, depthwise_launch
from pointwise.engine.cpu.memory import empty_result
from pointwise.engine.cpu.weights import pack_stencil


def check(case: ImageCase, found: torch.Tensor, activation: str = "none") -> None:
    exact, size = case.expected
    exact, size = activate(exact, activation), size + abs(exact) + 1
    assert_close(found.numpy(), exact, size if activation != "none" else case.expected[1],
                 case.terms + 8)  # fmt: skip


def run(case: ImageCase, activation: str = "none") -> torch.Tensor:
    x, weight, bias = case.tensors()
    weights = pack_stencil(weight.contiguous(), bias)
    return depthwise(image(x), weights, window_of(case), activation)


@each([*STENCILS, *OWN])
def test_gather_is_the_oracle(case, poisoned):
    check(case, run(case))


@pytest.mark.parametrize("activation", EXACT)
@each(STENCILS[::5])
def test_every_epilogue(case, activation, poisoned):
    check(case, run(case, activation), activation)


@each(OWN)
def test_rows_of_their_own_are_the_general_ones(case, monkeypatch):
    """Forward and the weight's gradient, for every length of a row."""
    grad, x = image(case.tensor("grad")), image(case.tensor("input"))

    def both():
        gradient = depthwise_gradient.stencil_weight_gradient(grad, x, window_of(case), case.kernel)
        case.check_gradient("weight", gradient)
        return run(case), gradient

    found = both()
    for module in (loop, depthwise_gradient):
        monkeypatch.setattr(
            module, "row_kernel", lambda kernels, window, dtype: kernels[0, 0, dtype]
        )
    eps = torch.finfo(case.dtype).eps
    for a, b in zip(found, both(), strict=True):
        torch.testing.assert_close(a, b, rtol=16 * eps, atol=64 * eps)


@each(STENCILS[::4])
def test_results_with_gaps(case):
    # As the gradient of a strided convolution writes them: what lies between is left alone.
    images, channels, height, width = case.result_shape
    whole = image(torch.full((images, channels, 3 * height, 2 * width), 7.0, dtype=case.dtype))
    part = whole[:, :, 1::3, 1::2]
    x, weight, bias = case.tensors()
    weights = pack_stencil(weight.contiguous(), bias)
    depthwise_launch(image(x), weights, window_of(case), part).run()
    check(case, part)
    part.fill_(7)
    assert bool((whole == 7).all())


# --- would these tests notice? --------------------------------------------------------------------


def _one_tap_off(weights):
    weights.weight[4, 3] *= 1.001


def _taps_swapped(weights):
    weights.weight.copy_(weights.weight.flip(0))


def _a_channel_late(weights):
    weights.weight.copy_(weights.weight.roll(1, 1))


def _no_bias(weights):
    weights.bias.zero_()


@pytest.mark.parametrize("damage", [_one_tap_off, _taps_swapped, _a_channel_late, _no_bias])
def test_a_broken_stencil_is_noticed(damage):
    case = ImageCase("broken on purpose", (8, 9), (19, 19), groups=19)
    x, weight, bias = case.tensors()
    weights = pack_stencil(weight, bias)
    check(case, depthwise(image(x), weights, window_of(case)))
    damage(weights)
    with pytest.raises(AssertionError, match=r"wrong; .* expected .* allowed error"):
        check(case, depthwise(image(x), weights, window_of(case)))


def test_points_that_nobody_writes_are_noticed(poisoned):
    case = ImageCase("one row short", (8, 9), (19, 19), groups=19)
    x, weight, bias = case.tensors()
    window = window_of(case)
    out = empty_result(window, 19, x.dtype)
    fewer = window._replace(y=window.y._replace(points=window.y.points - 1))
    x, weights = image(x), pack_stencil(weight, bias)
    depthwise_launch(x, weights, fewer, out).run()
    with pytest.raises(AssertionError, match="wrong"):
        check(case, out)
