"""The shift convolution of images: channels are moved, then mixed; and the move's adjoint alone."""

from __future__ import annotations

from torch import Tensor

from pointwise.convolution.window import Window, window
from pointwise.engine.cpu.by_dtype import by_dtype
from pointwise.engine.cpu.cut import cut_rows, row_stride
from pointwise.engine.cpu.device import device
from pointwise.engine.cpu.gathers.shift import SHIFT, adjoint_arguments, fill, shift_arguments
from pointwise.engine.cpu.gemm import ROWS
from pointwise.engine.cpu.launch import Launch, threads
from pointwise.engine.cpu.loops.mixed import (
    gathered_of,
    image_tiling,
    launch_mixed,
    mixed,
    mixed_of,
)
from pointwise.engine.cpu.memory import empty_image
from pointwise.engine.cpu.mix import MIX, mix_arguments, mix_tile
from pointwise.engine.cpu.weights import PackedWeight, pack_weight


@device
def _fill_tile(target, target_row, first, rows, x, gather, prologue, channel, like):
    """``fill`` as the loops call it; nothing is done to what is moved."""
    fill(target, target_row, first, rows, x, gather, like)


_MIXED, _mixed = mixed_of("shift", SHIFT, _fill_tile, MIX, mix_tile)
_MOVED, _moved = gathered_of("shift", SHIFT, _fill_tile)
_MIXED_KERNELS = by_dtype(_mixed, "mixed_shift")
_MOVED_KERNELS = by_dtype(_moved, "moved")


def shift_launch(
    x: Tensor,
    weights: PackedWeight,
    window: Window,
    out: Tensor,
    residual: Tensor | None = None,
    activation: str = "none",
) -> Launch:
    """Shifted channels times the weight, into ``out``; all images are channels_last."""
    compiled = _MIXED_KERNELS[x.dtype]
    if out.numel() == 0:
        return Launch(compiled, None, 0, out)
    size, channels = x.element_size(), x.shape[1]
    tiling = image_tiling(window.points, channels, weights.columns, 1, size, False, False,
                          row_stride(channels * size), ROWS, threads())  # fmt: skip
    gather = shift_arguments(window, channels * size, channels)
    mix = mix_arguments(weights, out.shape[1] * size, activation, residual)
    return launch_mixed(compiled, _MIXED, x, out, tiling, gather, mix, residual)


def shift_input_gradient(grad: Tensor, weight: Tensor, forward: Window) -> Tensor:
    """The gradient of the input ``[N, C, H, W]`` for ``weight [C_out, C]``: mixed, then moved back.

    No two results read one number, so that nothing is added up.
    """
    identity = window(forward.images, grad.shape[2:], (1, 1), (1, 1), [0] * 4, (1, 1))
    moved = mixed(grad, pack_weight(weight.t()[:, :, None, None], None), identity)
    channels, rows = weight.shape[1], forward.images * forward.y.size * forward.x.size
    out = empty_image((forward.images, channels, forward.y.size, forward.x.size), grad.dtype)
    pixel = channels * grad.element_size()
    tile = cut_rows(rows, pixel)
    gather = adjoint_arguments(forward, pixel, channels)
    arguments = _MOVED(x=moved, out=out, tile=tile, rows=rows, out_row=pixel, gather=gather)
    return Launch(_MOVED_KERNELS[grad.dtype], arguments, -(-rows // tile), out).run()
