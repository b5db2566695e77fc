"""The gradients of the inputs of convolutions on images.

The input's gradient is a convolution of the result's gradient with the transposed weight, taps in
the opposite order; of a strided convolution, one for each phase of the stride.
"""

from __future__ import annotations

from torch import Tensor

from pointwise.convolution.window import Phase, Window, adjoint
from pointwise.engine.cpu.layout import Arguments
from pointwise.engine.cpu.loops import grouped
from pointwise.engine.cpu.loops.depthwise import depthwise_launch
from pointwise.engine.cpu.loops.mixed import mixed
from pointwise.engine.cpu.memory import empty_image
from pointwise.engine.cpu.moments import Reduction, pass_over
from pointwise.engine.cpu.weights import pack_stencil, pack_weight


def phases(window: Window) -> list[tuple[Phase, Phase]]:
    """All pairs of phases (y, x) of a window's adjoint: one, unless there is a stride."""
    return [(y, x) for y in adjoint(window.y) for x in adjoint(window.x)]


def phase_of(weight: Tensor, window: Window, y: Phase, x: Phase) -> tuple[Tensor, Window]:
    """The taps of ``weight [.., kh, kw]`` in two phases, if any, as they are read; the window."""
    taps = _taps_of(_taps_of(weight, y, -2), x, -1)
    return taps, Window(window.images, y.axis, x.axis)


def _taps_of(weight: Tensor, phase: Phase, dimension: int) -> Tensor:
    """The taps that a phase reads along a dimension of the weight, the last one first."""
    taps = phase.axis.taps
    if taps == 0:
        return weight.narrow(dimension, 0, 0)
    first = phase.tap - (taps - 1) * phase.tap_stride
    chosen = slice(first, phase.tap + 1, phase.tap_stride)
    weight = weight[..., chosen, :] if dimension == -2 else weight[..., chosen]
    return weight.flip(dimension) if taps > 1 else weight


def _has_taps(y: Phase, x: Phase) -> bool:
    return y.axis.taps * x.axis.taps > 0


def depthwise_input_gradient(grad: Tensor, weight: Tensor, window: Window) -> Tensor:
    """The gradient of the input ``[N, C, H, W]``, for ``weight [C, 1, kh, kw]``."""
    out = empty_image((window.images, grad.shape[1], window.y.size, window.x.size), grad.dtype)
    for y, x in phases(window):
        pixels = out[:, :, y.first :: y.stride, x.first :: x.stride]
        if _has_taps(y, x):
            chosen, own = phase_of(weight, window, y, x)
            depthwise_launch(grad, pack_stencil(chosen, None), own, pixels).run()
        else:
            pixels.zero_()
    return out


def mixed_input_gradient(
    grad: Tensor,
    weight: Tensor,
    window: Window,
    groups: int,
    correction: Arguments | None = None,
    reduction: Reduction | None = None,
) -> Tensor:
    """The gradient of the input ``[N, C, H, W]``, for ``weight [C_out, C/groups, kh, kw]``.

    ``correction`` says how ``grad`` is read; ``reduction`` is taken of the result, and may change
    it.
    """
    outputs, inputs = weight.shape[:2]
    weight = weight.unflatten(0, (groups, outputs // groups)).transpose(1, 2).flatten(0, 1)

    def convolved(y: Phase, x: Phase, reduction: Reduction | None = None) -> Tensor:
        chosen, own = phase_of(weight, window, y, x)
        if grouped.is_better(own, inputs, groups, grad.dtype):
            return grouped.grouped(grad, chosen, own, groups, correction, reduction)
        return mixed(
            grad, pack_weight(chosen, None, groups), own, prologue=correction, moments=reduction
        )

    found = phases(window)
    if len(found) == 1 and _has_taps(*found[0]):
        return convolved(*found[0], reduction)
    out = empty_image((window.images, inputs * groups, window.y.size, window.x.size), grad.dtype)
    for y, x in found:
        pixels = out[:, :, y.first :: y.stride, x.first :: x.stride]
        if _has_taps(y, x):
            pixels.copy_(convolved(y, x))
        else:
            pixels.zero_()
    if reduction is not None:
        pass_over(out, reduction)
    return out
