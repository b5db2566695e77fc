"""Backwards through a pointwise convolution and the norm before it, in one walk over its points.

One by one, the gradients of input and weight read the same three images: the result's gradient, the
result, which corrects it, and the input. Here a tile of them is read, corrected and normalised
once, and multiplied while it is in the cache: of large images, which come from memory, that is
three images to read instead of six.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pointwise.convolution.window import Window
from pointwise.engine.cpu.by_dtype import by_dtype
from pointwise.engine.cpu.cut import odd_lines
from pointwise.engine.cpu.device import device
from pointwise.engine.cpu.gathers.prologue import Correction, other_image, transfer_rows
from pointwise.engine.cpu.gathers.slabs import fill_slabs
from pointwise.engine.cpu.gemm import FROM_NOTHING, FROM_ROWS, ROWS, multiply_turned
from pointwise.engine.cpu.launch import launch, threads
from pointwise.engine.cpu.layout import Arguments, Layout
from pointwise.engine.cpu.memory import empty, empty_image
from pointwise.engine.cpu.mix import MIX, mix_arguments, mix_tile
from pointwise.engine.cpu.moments import NormGradient
from pointwise.engine.cpu.partial_sums import split_rows, total_of_rows
from pointwise.engine.cpu.vector import REGISTER_BYTES, bytes_of, number
from pointwise.engine.cpu.weights import pack_weight

_BACKWARD = Layout(
    "PointwiseBackward",
    "*x *out *grad *sums *scratch *prologue *correction *moments rows span tile inputs outputs "
    "x_row grad_row gathered_row corrected_row scratch_bytes slab sums_row numbers",
    mix=MIX,
)
"""``x`` is the input before the norm, ``out`` its gradient. A program walks over ``span`` rows, a
``tile`` at a time, and leaves partial sums ``[outputs, inputs]``, ``sums_row`` bytes from row to
row. With a ``slab`` of so many bytes the corrected gradient is gathered in slabs too."""

_LINE = 64  # bytes of a line of the cache


@device
def _backward(arguments, program, thread, like):
    own = _BACKWARD(arguments)
    size = bytes_of(like)
    begin = program * own.span
    end = min(begin + own.span, own.rows)
    corrected = own.scratch + thread * own.scratch_bytes
    gathered = corrected + (own.tile + ROWS) * own.corrected_row  # the microkernel reads more rows
    slabs = gathered + own.tile * own.gathered_row
    sums = own.sums + program * own.numbers * size
    apart = other_image(own.correction)
    start = FROM_NOTHING
    for first in range(begin, end, own.tile):
        rows = min(own.tile, end - first)
        grad, x = own.grad + first * own.grad_row, own.x + first * own.x_row
        transfer_rows(corrected, own.corrected_row, grad, own.grad_row, rows, own.outputs,
                      own.correction, 0, like)  # fmt: skip
        transfer_rows(gathered, own.gathered_row, x, own.x_row, rows, own.inputs, own.prologue, 0,
                      like)  # fmt: skip
        a, a_step, a_next = corrected, own.corrected_row, ROWS * size
        if own.slab != 0:
            fill_slabs(slabs, own.slab, a, a_step, rows, own.outputs, 0, 0, like)
            a, a_step, a_next = slabs, ROWS * size, own.slab
        # While it computes, each product asks for a part of what the next tile reads.
        ahead, following = first + own.tile, min(first + 2 * own.tile, end)
        multiply_turned(a, a_step, a_next, gathered, own.gathered_row, rows, sums, own.sums_row,
                        own.outputs, own.inputs, start, sums, own.sums_row, number(-np.inf, like),
                        number(np.inf, like), own.x + ahead * own.x_row,
                        own.x + following * own.x_row, own.out - own.x, like)  # fmt: skip
        mix_tile(own.mix, own.out, 0, corrected, own.corrected_row, False, first, rows, 0, 0,
                 own.inputs, like, own.moments, program, first == begin,
                 own.grad + ahead * own.grad_row, own.grad + following * own.grad_row,
                 apart)  # fmt: skip
        start = FROM_ROWS


_KERNELS = by_dtype(_backward, "pointwise_backward")


def is_better(window: Window, weight: Tensor, groups: int) -> bool:
    """Whether one walk is faster than two.

    The weight and the sums of its gradient are to stay in the cache beside a tile.
    """
    size = weight.numel() * weight.element_size()
    return window.is_identity and groups == 1 and 0 < size <= _WEIGHT and window.points >= _POINTS


_WEIGHT, _POINTS = 256 * 1024, 512
_TILE_BYTES = 192 * 1024


def pointwise_backward(
    x: Tensor,
    weight: Tensor,
    window: Window,
    correction: Correction,
    prologue: Arguments | None,
    reduction: NormGradient | None,
) -> tuple[Tensor, Tensor]:
    """Gradients of ``x`` and of the ``weight [C_out, C, 1, 1]``; images are channels_last.

    ``prologue`` says how ``x`` is read, ``correction`` how the result's gradient is; ``reduction``
    is taken of the gradient of ``x``, and changes it.
    """
    outputs, inputs = weight.shape[:2]
    size, dtype, points = x.element_size(), x.dtype, window.points
    out = empty_image(x.shape, dtype)
    splits, span = split_rows(points, 16, 64)
    corrected_row, gathered_row = odd_lines(outputs * size), odd_lines(inputs * size)
    tile = ROWS * max(1, min(126 // ROWS, _TILE_BYTES // (ROWS * (corrected_row + gathered_row))))
    # Of a line of the cache, a microkernel reads a part at a time: see ``weight_gradient``.
    slab = tile * ROWS * size + REGISTER_BYTES if ROWS * size <= _LINE // 2 else 0
    scratch_bytes = (tile + ROWS) * corrected_row + tile * gathered_row + -(-outputs // ROWS) * slab
    scratch_bytes += REGISTER_BYTES
    sums_row = odd_lines(inputs * size)
    sums = empty((splits, outputs * sums_row // size), dtype)
    moments = None
    if reduction is not None:
        counts = np.full(splits, span, dtype=np.int64)
        moments = reduction.begin(out, counts)
    packed = pack_weight(weight.transpose(0, 1), None)
    arguments = _BACKWARD(
        x=x,
        out=out,
        grad=correction.grad,
        sums=sums,
        scratch=torch.empty(threads() * scratch_bytes, dtype=torch.uint8),
        prologue=prologue,
        correction=correction.prologue,
        moments=moments,
        rows=points,
        span=span,
        tile=tile,
        inputs=inputs,
        outputs=outputs,
        x_row=inputs * size,
        grad_row=outputs * size,
        gathered_row=gathered_row,
        corrected_row=corrected_row,
        scratch_bytes=scratch_bytes,
        slab=slab,
        sums_row=sums_row,
        numbers=sums.shape[1],
        mix=mix_arguments(packed, inputs * size, "none"),
    )
    launch(_KERNELS[dtype], arguments, splits)
    return out, total_of_rows(sums, inputs, outputs).view(outputs, inputs, 1, 1)
