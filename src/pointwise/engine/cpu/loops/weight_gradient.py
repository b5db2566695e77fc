"""The gradient of a mix's weight: gradientᵀ·A, with A gathered once more, its rows split.

Each program gathers some rows after the other, tile by tile, for a block of channels of a group,
and adds up their products. How many splits there are follows from the shapes alone, so that a sum
does not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pointwise.convolution.window import Window
from pointwise.engine.cpu.by_dtype import by_dtype
from pointwise.engine.cpu.cut import odd_lines
from pointwise.engine.cpu.device import device, device_of
from pointwise.engine.cpu.gathers import points, shift
from pointwise.engine.cpu.gathers.patches import PATCHES, fill_floats, patches_arguments
from pointwise.engine.cpu.gathers.prologue import other_image
from pointwise.engine.cpu.gathers.shift import SHIFT, shift_arguments
from pointwise.engine.cpu.gathers.slabs import fill_slabs
from pointwise.engine.cpu.gemm import FROM_NOTHING, FROM_ROWS, ROWS, multiply_turned
from pointwise.engine.cpu.launch import kernel, launch, threads
from pointwise.engine.cpu.layout import Arguments, Layout
from pointwise.engine.cpu.memory import empty
from pointwise.engine.cpu.pack import padded_columns
from pointwise.engine.cpu.partial_sums import (
    SPLITS,
    empty_split,
    split_points,
    split_rows,
    total_of,
    total_of_rows,
)
from pointwise.engine.cpu.vector import REGISTER_BYTES, bytes_of, number, poke
from pointwise.engine.cpu.window import over_other_pixels


def weight_gradient_of(name: str, gather: Layout, fill):
    """(the layout, the loop) of a gather.

    ``fill(target, target_row, first, rows, x, gather, channels, prologue, channel, like)`` gathers
    ``channels`` of some rows, from ``channel`` (in bytes) on, where ``x`` is.
    """
    layout = Layout(
        f"WeightGradient{name}",
        "*x *grad *sums *scratch *prologue *correction x_row grad_row gathered_row scratch_bytes "
        "direct slab rows span tile groups inputs outputs taps block blocks bias sums_row numbers",
        gather=gather,
    )
    # For each group and output, partial sums are [taps, inputs], and the bias's behind if it has
    # one, ``sums_row`` bytes apart; a program makes ``block`` of the inputs, of ``span`` rows.
    # ``direct`` reads the rows of x where they are; with a ``slab`` of so many bytes the gradient
    # is gathered too.

    @device_of(name)
    def weight_gradient(arguments, program, thread, like):
        """One split of rows, for one block of channels."""
        own = layout(arguments)
        size = bytes_of(like)
        # Programs that read the same rows follow one another.
        channel = program % own.blocks * own.block
        group = program // own.blocks % own.groups
        split = program // own.blocks // own.groups
        channels = min(own.block, own.inputs - channel)
        first_channel = (group * own.inputs + channel) * size
        x = own.x + first_channel
        grad = own.grad + group * own.outputs * size
        gathered = own.scratch + thread * own.scratch_bytes
        slabs = gathered + own.tile * own.gathered_row
        sums_row = own.sums_row
        sums = own.sums + (split * own.numbers + channel) * size + group * own.outputs * sums_row
        # Of all channels, the taps of a row lie side by side in the weight as well.
        products, columns = own.taps, channels
        if channels == own.inputs:
            products, columns = 1, own.taps * channels + own.bias
        other = other_image(own.correction)
        start = FROM_NOTHING
        if own.bias != 0:  # then the program makes all sums of the split
            empty_split(own.sums, split, own.numbers, like)
            start = FROM_ROWS
        begin = split * own.span
        end = min(begin + own.span, own.rows)
        for first in range(begin, end, own.tile):
            rows = min(own.tile, end - first)
            b, b_step = x + first * own.x_row, own.x_row
            if own.direct == 0:
                b, b_step = gathered, own.gathered_row
                fill(b, b_step, first, rows, x, own.gather, channels, own.prologue, first_channel,
                     like)  # fmt: skip
            if own.bias != 0:
                # A column of ones behind A makes the bias's gradient part of the same product.
                for r in range(rows):
                    poke(b + r * b_step + own.taps * channels * size, number(1, like))
            a, a_step, a_next = grad + first * own.grad_row, own.grad_row, ROWS * size
            if own.slab != 0:
                a_next = own.slab
                fill_slabs(slabs, a_next, a, a_step, rows, own.outputs, own.correction,
                           group * own.outputs * size, like)  # fmt: skip
                a, a_step = slabs, ROWS * size
            ahead = ahead_end = 0
            if own.groups == 1:
                ahead = grad + (first + own.tile) * own.grad_row
                ahead_end = grad + min(first + 2 * own.tile, end) * own.grad_row
            for t in range(products):
                place = sums + t * own.inputs * size
                multiply_turned(a, a_step, a_next, b + t * channels * size, b_step, rows, place,
                                sums_row, own.outputs, columns, start, place, sums_row,
                                number(-np.inf, like), number(np.inf, like), ahead, ahead_end,
                                other, like)  # fmt: skip
            start = FROM_ROWS

    return layout, weight_gradient


# --- on images ------------------------------------------------------------------------------------

_Patches = PATCHES.tuple
_TILE = 128  # rows
# Of a line of the cache, a microkernel reads a part at a time: less than half of it is better
# gathered, unless there are too few columns to make up for that.
_LINE, _WORTH_SLABS = 64, 64


@device
def _fill_patches(target, target_row, first, rows, x, gather, channels, prologue, channel, like):
    window = gather.window
    block = over_other_pixels(window, channels, window.height, window.width, window.padding_y,
                              window.padding_x)  # fmt: skip
    fill_floats(target, target_row, first, rows, x, _Patches(gather.pad, block), prologue, channel,
                like)  # fmt: skip


_PATCHES, _of_patches = weight_gradient_of("Patches", PATCHES, _fill_patches)
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
    if (together := _groups_together(groups, max(inputs, outputs), dtype)) > 1:
        whole = mixed_weight_gradient(grad, x, window, kernel, groups // together, prologue,
                                      correction)  # fmt: skip
        return _of_own_groups(whole, groups, together)
    # Few large sums are cut by channels, many small ones by points.
    block = min(inputs, 64 if taps > 1 else 512)
    # Programs with other columns of the same rows correct the gradient once more.
    least = 128 if window.points > 512 else 256
    while block > least and groups * -(-inputs // block) < SPLITS:
        # The microkernel reads whole registers of channels.
        block = padded_columns(max(least, block // 2), dtype)
    blocks = -(-inputs // block)
    most = max(1, min(64, SPLITS // (groups * blocks), -(-window.points // 64)))
    splits, span = split_rows(window.points, most)
    # The microkernel reads whole registers of channels.
    direct = window.is_identity and prologue is None and x.shape[1] * size % REGISTER_BYTES == 0
    direct = direct and inputs * size % REGISTER_BYTES == 0
    # Rows a power of two apart share a few sets of the cache, which only products of whole lines
    # leave time for.
    direct = direct and (REGISTER_BYTES == _LINE or x.shape[1] * size % 2048 != 0)
    gathered_row = odd_lines(block * taps * size)
    tile = max(16, min(_TILE, span, 384 * 1024 // (gathered_row + outputs * size)))
    parts = ROWS * size <= _LINE // 2 and block * taps >= _WORTH_SLABS
    gathers_grad = correction is not None or parts
    # With room for a register behind the last row.
    slab = tile * ROWS * size + REGISTER_BYTES
    scratch_bytes = tile * gathered_row + -(-outputs // ROWS) * slab
    # Rows a power of two apart would share a few sets of the cache.
    sums_row = odd_lines(taps * inputs * size)
    sums = empty((splits, groups * outputs * sums_row // size), dtype)
    pixel = x.shape[1] * size
    arguments = _PATCHES(
        x=x,
        grad=grad,
        sums=sums,
        scratch=torch.empty(threads() * scratch_bytes + REGISTER_BYTES, dtype=torch.uint8),
        prologue=prologue,
        correction=correction,
        x_row=pixel,
        grad_row=grad.shape[1] * size,
        gathered_row=gathered_row,
        scratch_bytes=scratch_bytes,
        direct=int(direct),
        slab=slab if gathers_grad else 0,
        rows=window.points,
        span=span,
        tile=tile,
        groups=groups,
        inputs=inputs,
        outputs=outputs,
        taps=taps,
        block=block,
        blocks=blocks,
        bias=0,
        sums_row=sums_row,
        numbers=sums.shape[1],
        gather=patches_arguments(window, pixel, inputs),
    )
    launch(_PATCHES_KERNELS[dtype], arguments, splits * groups * blocks)
    total = total_of_rows(sums, taps * inputs, groups * outputs)
    return total.view(groups * outputs, *kernel, inputs).permute(0, 3, 1, 2)


def _groups_together(groups: int, width: int, dtype: torch.dtype) -> int:
    """How many groups had better be gathered and multiplied as one.

    Narrow ones: it takes a few times as many products, of which only those within a group are
    wanted, but whole registers, and patches in fewer pieces.
    """
    lanes = REGISTER_BYTES // dtype.itemsize
    if width >= lanes:
        return 1
    return max(b for b in range(1, groups + 1) if groups % b == 0 and b * width <= 4 * lanes)


def _of_own_groups(whole: Tensor, groups: int, together: int) -> Tensor:
    """Of the gradient of some groups ``together`` as one, what reads and makes the same group's."""
    outputs, inputs = whole.shape[0], whole.shape[1] // together
    parts = whole.unflatten(1, (together, inputs)).unflatten(0, (groups // together, together, -1))
    own = parts.diagonal(dim1=1, dim2=3).movedim(-1, 1)
    return own.reshape(outputs, inputs, *whole.shape[2:])


# --- on points ------------------------------------------------------------------------------------


@device
def _fill_points(target, target_row, first, rows, x, gather, channels, prologue, channel, like):
    points.fill(target, target_row, first, rows, x, gather, like)


_POINTS, _of_points = weight_gradient_of("Points", points.GATHER, _fill_points)
_POINTS_KERNELS = by_dtype(_of_points, "weight_gradient_points")

# A tile is read once for every block of columns: it should stay in the second-level cache.
_TILE_BYTES = 256 * 1024


def points_weight_gradient(gather: points.Gather, grad: Tensor) -> tuple[Tensor, Tensor]:
    """(``Aᵀ @ grad [K, C_out]``, the sum of ``grad`` over rows ``[C_out]``)."""
    compiled = _POINTS_KERNELS[grad.dtype]
    return _of_rows(
        compiled, _POINTS, gather.x, gather.rows, gather.width, gather.arguments(), grad
    )


def _of_rows(
    compiled: kernel,
    layout: Layout,
    x: Tensor,
    rows: int,
    depth: int,
    gather: Arguments,
    grad: Tensor,
) -> tuple[Tensor, Tensor]:
    """The same of any gather with so many ``rows`` of ``depth`` numbers; channels come second."""
    dtype, size = x.dtype, x.element_size()
    outputs, inputs = grad.shape[1], x.shape[1]
    if rows == 0 or outputs == 0:
        return torch.zeros(depth, outputs, dtype=dtype), torch.zeros(outputs, dtype=dtype)
    splits, span = split_points(rows, (depth + 1) * padded_columns(outputs, dtype) * size)
    gathered_row = odd_lines((depth + 1) * size)
    tile = max(16, min(128, _TILE_BYTES // gathered_row))
    count = outputs * (depth + 1)
    sums = torch.empty(splits, padded_columns(count, dtype), dtype=dtype)
    scratch = torch.empty(threads() * tile * gathered_row + REGISTER_BYTES, dtype=torch.uint8)
    arguments = layout(
        x=x,
        grad=grad,
        sums=sums,
        scratch=scratch,
        prologue=None,
        correction=None,
        x_row=inputs * size,
        grad_row=outputs * size,
        gathered_row=gathered_row,
        scratch_bytes=tile * gathered_row,
        direct=0,
        slab=0,
        rows=rows,
        span=span,
        tile=tile,
        groups=1,
        inputs=inputs,
        outputs=outputs,
        taps=depth // inputs if inputs else 0,
        block=inputs,
        blocks=1,
        bias=1,
        sums_row=(depth + 1) * size,
        numbers=sums.shape[1],
        gather=gather,
    )
    launch(compiled, arguments, splits)
    total = total_of(sums)[:count].view(outputs, depth + 1)
    return total[:, :depth].t(), total[:, depth]


# --- of shifted channels --------------------------------------------------------------------------


@device
def _fill_shift(target, target_row, first, rows, x, gather, channels, prologue, channel, like):
    shift.fill(target, target_row, first, rows, x, gather, like)


_SHIFT, _of_shift = weight_gradient_of("Shift", SHIFT, _fill_shift)
_SHIFT_KERNELS = by_dtype(_of_shift, "weight_gradient_shift")


def shift_weight_gradient(grad: Tensor, x: Tensor, window: Window) -> Tensor:
    """The gradient ``[C_out, C]`` of what mixes the shifted ``x``; both are channels_last."""
    channels, pixel = x.shape[1], x.shape[1] * x.element_size()
    gather = shift_arguments(window, pixel, channels)
    compiled = _SHIFT_KERNELS[x.dtype]
    return _of_rows(compiled, _SHIFT, x, window.points, channels, gather, grad)[0].t()
