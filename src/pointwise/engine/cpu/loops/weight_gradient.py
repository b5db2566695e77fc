"""The gradient of a mix's weight: gradientᵀ·A over slabs of rows, with A gathered once more.

Each program gathers some rows after the other, tile by tile, for a block of channels of a group,
and adds its products to a slab of sums. How many slabs there are follows from the shapes alone, so
that a sum does not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pointwise.convolution.window import Window
from pointwise.engine.cpu.by_dtype import by_dtype
from pointwise.engine.cpu.cut import odd_lines
from pointwise.engine.cpu.gathers import patches
from pointwise.engine.cpu.gathers.prologue import other_image, transfer_rows
from pointwise.engine.cpu.gemm import ELEMENT, FROM_NOTHING, FROM_ROWS, multiply
from pointwise.engine.cpu.launch import device, device_of, launch, threads
from pointwise.engine.cpu.layout import Arguments, Layout
from pointwise.engine.cpu.memory import empty
from pointwise.engine.cpu.pack import padded_columns
from pointwise.engine.cpu.partial_sums import SLABS, total_of
from pointwise.engine.cpu.vector import REGISTER_BYTES, bytes_of, lanes_of, number
from pointwise.engine.cpu.window import WINDOW, window_arguments


def weight_gradient_of(name: str, gather: Layout, fill):
    """(the layout, the loop) of a gather.

    ``fill(target, target_row, first, rows, x, gather, channels, prologue, channel, like)`` gathers
    ``channels`` of some rows, from ``channel`` (in bytes) on, where ``x`` is.
    """
    layout = Layout(
        f"WeightGradient{name}",
        "*x *grad *sums *scratch *prologue *correction x_row grad_row gathered_row direct rows "
        "span tile groups inputs outputs taps block blocks numbers",
        gather=gather,
    )

    @device_of(name)
    def weight_gradient(arguments, program, thread, like):
        """One slab of rows, for one block of channels."""
        own = layout(arguments)
        size, width = bytes_of(like), lanes_of(like)
        # Programs that read the same rows follow one another.
        channel = program % own.blocks * own.block
        group = program // own.blocks % own.groups
        slab = program // own.blocks // own.groups
        channels = min(own.block, own.inputs - channel)
        first_channel = (group * own.inputs + channel) * size
        x = own.x + first_channel
        grad = own.grad + group * own.outputs * size
        gathered = own.scratch + thread * own.tile * (own.gathered_row + own.outputs * size)
        corrected = gathered + own.tile * own.gathered_row
        sums_row = own.taps * own.inputs * size
        sums = own.sums + (slab * own.numbers + channel) * size + group * own.outputs * sums_row
        # Of all channels, the taps of a row lie side by side in the weight as well.
        products, columns = own.taps, channels
        if channels == own.inputs:
            products, columns = 1, own.taps * channels
        other = other_image(own.correction)
        begin = slab * own.span
        end = min(begin + own.span, own.rows)
        for first in range(begin, end, own.tile):
            rows = min(own.tile, end - first)
            b, b_step = x + first * own.x_row, own.x_row
            if own.direct == 0:
                b, b_step = gathered, own.gathered_row
                fill(b, b_step, first, rows, x, own.gather, channels, own.prologue, first_channel,
                     like)  # fmt: skip
            a, a_step = grad + first * own.grad_row, own.grad_row
            if own.correction != 0:
                a, a_step = corrected, own.outputs * size
                transfer_rows(a, a_step, grad + first * own.grad_row, own.grad_row, rows,
                              own.outputs, own.correction, group * own.outputs * size,
                              like)  # fmt: skip
            ahead = ahead_end = 0
            if own.groups == 1:
                ahead = grad + (first + own.tile) * own.grad_row
                ahead_end = grad + min(first + 2 * own.tile, end) * own.grad_row
            start = FROM_NOTHING if first == begin else FROM_ROWS
            for t in range(products):
                place = sums + t * own.inputs * size
                multiply(a, size, ELEMENT, a_step, b + t * channels * size, b_step, width * size,
                         rows, place, sums_row, own.outputs, columns, start, place, sums_row, 0,
                         number(-np.inf, like), number(np.inf, like), ahead, ahead_end, other,
                         like)  # fmt: skip

    return layout, weight_gradient


@device
def _fill_patches(target, target_row, first, rows, x, window, channels, prologue, channel, like):
    patches.fill(target, target_row, first, rows, x, window.pixel, channels, window.height,
                 window.width, window.lines, window.points, window.stride_y, window.stride_x,
                 window.taps_y, window.taps_x, -window.padding_y, -window.padding_x,
                 window.dilation_y, window.dilation_x, prologue, channel, like)  # fmt: skip


_PATCHES, _of_patches = weight_gradient_of("Patches", WINDOW, _fill_patches)
_PATCHES_KERNELS = by_dtype(_of_patches, "weight_gradient_patches")


def mixed_weight_gradient(
    grad: Tensor,
    x: Tensor,
    window: Window,
    kernel: Sequence[int],
    groups: int,
    prologue: Arguments | None = None,
    correction: Arguments | None = None,
) -> Tensor:
    """The gradient of the weight ``[C_out, C/groups, kh, kw]``; both images are channels_last.

    ``prologue`` says how ``x`` is read, ``correction`` how ``grad`` is.
    """
    inputs, outputs = x.shape[1] // groups, grad.shape[1] // groups
    size, dtype, taps = x.element_size(), x.dtype, window.taps
    if window.points == 0:
        return torch.zeros(groups * outputs, inputs, *kernel, dtype=dtype)
    # Few large sums are cut by channels, many small ones by points.
    block = min(inputs, 64 if taps > 1 else 224)
    while block > 64 and groups * -(-inputs // block) < SLABS:
        # The microkernel reads whole registers of channels.
        block = padded_columns(max(64, block // 2), dtype)
    blocks = -(-inputs // block)
    slabs = max(1, min(64, SLABS // (groups * blocks), -(-window.points // 64)))
    span = -(-window.points // slabs)
    slabs = -(-window.points // span)
    # The microkernel reads whole registers of channels.
    direct = window.is_identity and prologue is None and x.shape[1] * size % REGISTER_BYTES == 0
    direct = direct and inputs * size % REGISTER_BYTES == 0
    gathered_row = odd_lines(block * taps * size)
    tile = max(16, min(256, span, 384 * 1024 // (gathered_row + outputs * size)))
    room = threads() * tile * (gathered_row + outputs * size) + REGISTER_BYTES
    count = groups * outputs * taps * inputs
    sums = empty((slabs, padded_columns(count, dtype)), dtype)
    pixel = x.shape[1] * size
    arguments = _PATCHES(
        x=x,
        grad=grad,
        sums=sums,
        scratch=torch.empty(room, dtype=torch.uint8),
        prologue=prologue,
        correction=correction,
        x_row=pixel,
        grad_row=grad.shape[1] * size,
        gathered_row=gathered_row,
        direct=int(direct),
        rows=window.points,
        span=span,
        tile=tile,
        groups=groups,
        inputs=inputs,
        outputs=outputs,
        taps=taps,
        block=block,
        blocks=blocks,
        numbers=sums.shape[1],
        gather=window_arguments(window, pixel, inputs),
    )
    launch(_PATCHES_KERNELS[dtype], arguments, slabs * groups * blocks)
    total = total_of(sums)[:count]
    return total.view(groups * outputs, *kernel, inputs).permute(0, 3, 1, 2)
