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
    """The taps of ``weight [.., kh, kw]`` in two phases, if any, and their window.

    They are read backwards, the last one first.
    """
    taps = weight[..., _taps_of(y), _taps_of(x)]
    return taps, Window(window.images, y.axis, x.axis)


def _taps_of(phase: Phase) -> slice:
    """The taps that a phase reads."""
    first = phase.tap - (phase.axis.taps - 1) * phase.tap_stride
    return slice(first, phase.tap + 1, phase.tap_stride) if phase.axis.taps else slice(0, 0)


def _has_taps(y: Phase, x: Phase) -> bool:
    return y.axis.taps * x.axis.taps > 0


def depthwise_input_gradient(grad: Tensor, weight: Tensor, window: Window) -> Tensor:
    """The gradient of the input ``[N, C, H, W]``, for ``weight [C, 1, kh, kw]``."""
    out = empty_image((window.images, grad.shape[1], window.y.size, window.x.size), grad.dtype)
    for y, x in phases(window):
        pixels = out[:, :, y.first :: y.stride, x.first :: x.stride]
        if _has_taps(y, x):
            chosen, own = phase_of(weight, window, y, x)
            depthwise_launch(grad, pack_stencil(chosen, None, True), own, pixels).run()
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
    weight = weight.unflatten(0, (groups, outputs // groups)).transpose(1, 2)

    def convolved(y: Phase, x: Phase, reduction: Reduction | None = None) -> Tensor:
        chosen, own = phase_of(weight, window, y, x)
        if grouped.is_better(own, inputs, groups, grad.dtype):
            packed = grouped.pack(chosen, None, groups, backwards=True)
            return grouped.grouped(grad, packed, own, groups * inputs, correction, reduction)
        return mixed(grad, pack_weight(chosen, None, groups, backwards=True), own,
                     prologue=correction, moments=reduction)  # fmt: skip

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
