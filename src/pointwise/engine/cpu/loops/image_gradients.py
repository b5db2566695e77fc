"""The gradients of the convolutions on images.

The input's gradient is a convolution of the result's gradient with the transposed weight, taps in
the opposite order; of a strided convolution, several, each for the pixels that the same taps have
read. The weight's gradient gathers again and multiplies from the other side, in slabs whose number
follows from the shapes alone, so that it does not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pointwise.convolution.window import Share, Window, adjoint
from pointwise.engine.cpu.by_dtype import by_dtype
from pointwise.engine.cpu.cut import odd_lines
from pointwise.engine.cpu.gathers import patches
from pointwise.engine.cpu.gathers.band import copy_band, fixed_bands, window_bytes
from pointwise.engine.cpu.gathers.stencil_gradient import GRADIENT_ROWS
from pointwise.engine.cpu.gathers.transfer import transfer_rows
from pointwise.engine.cpu.gemm import ELEMENT, FROM_NOTHING, FROM_ROWS, multiply
from pointwise.engine.cpu.launch import device, device_of, launch, slot, threads
from pointwise.engine.cpu.loops.images import (
    depthwise_step,
    mixed,
    over_rows,
    row_kernel,
    windowed,
)
from pointwise.engine.cpu.loops.moments import Behind, pass_over
from pointwise.engine.cpu.memory import empty, empty_image
from pointwise.engine.cpu.pack import padded_columns
from pointwise.engine.cpu.partial_sums import total_of
from pointwise.engine.cpu.table import Table, address
from pointwise.engine.cpu.vector import REGISTER_BYTES, broadcast, bytes_of, lanes_of, number, store
from pointwise.engine.cpu.weights import mix, taps


def shares(window: Window) -> list[tuple[Share, Share]]:
    """The parts of the input that read the same taps: one, or one for each step of the stride."""
    return [(y, x) for y in adjoint(window.y) for x in adjoint(window.x)]


def part_of(weight: Tensor, window: Window, y: Share, x: Share) -> tuple[Tensor, Window]:
    """The taps of a share, in the order in which it reads them, and its window."""
    for dimension, share in ((-2, y), (-1, x)):
        if share.axis.taps == 0:
            weight = weight.narrow(dimension, 0, 0)
            continue
        first = share.tap - (share.axis.taps - 1) * share.between
        chosen = weight[..., first : share.tap + 1 : share.between, :]
        if dimension == -1:
            chosen = weight[..., first : share.tap + 1 : share.between]
        weight = chosen.flip(dimension) if share.axis.taps > 1 else chosen
    return weight, Window(window.images, y.axis, x.axis)


def depthwise_input(grad: Tensor, weight: Tensor, window: Window) -> Tensor:
    """The gradient of the input ``[N, C, H, W]``, for ``weight [C, 1, kh, kw]``."""
    shape = (window.images, grad.shape[1], window.y.size, window.x.size)
    out = empty_image(shape, grad.dtype)
    for y, x in shares(window):
        part = out[:, :, y.first :: y.every, x.first :: x.every]
        chosen, seen = part_of(weight, window, y, x)
        if chosen.numel() == 0:
            part.zero_()
        else:
            depthwise_step(grad, taps(chosen, None), seen, part).run()
    return out


def mixed_input(
    grad: Tensor,
    weight: Tensor,
    window: Window,
    groups: int,
    how: Table | None = None,
    behind: Behind | None = None,
) -> Tensor:
    """The gradient of the input ``[N, C, H, W]``, for ``weight [C_out, C/groups, kh, kw]``.

    ``how`` says how ``grad`` is read, ``behind`` what the result leaves behind.
    """
    outputs, inputs = weight.shape[:2]
    turned = weight.unflatten(0, (groups, outputs // groups)).transpose(1, 2).flatten(0, 1)
    found = shares(window)
    if len(found) == 1 and found[0][0].axis.taps * found[0][1].axis.taps > 0:
        return _mixed_share(grad, turned, window, groups, *found[0], how, behind)
    shape = (window.images, inputs * groups, window.y.size, window.x.size)
    out = empty_image(shape, grad.dtype)
    for y, x in found:
        part = out[:, :, y.first :: y.every, x.first :: x.every]
        if y.axis.taps * x.axis.taps == 0:
            part.zero_()
        else:
            part.copy_(_mixed_share(grad, turned, window, groups, y, x, how))
    if behind is not None:
        pass_over(out, behind)
    return out


def _mixed_share(
    grad, turned, window: Window, groups: int, y: Share, x: Share, how=None, behind=None
) -> Tensor:
    chosen, seen = part_of(turned, window, y, x)
    return mixed(grad, mix(chosen, None, groups), seen, how=how, behind=behind)


# --- the weight of a mix --------------------------------------------------------------------------

_OWN = 15  # the first slot behind the window


@device
def _mix_gradient(arguments, program, thread, like):
    """gradientᵀ·A over one slab of points, for one block of channels."""
    size, width = bytes_of(like), lanes_of(like)
    tile, a_row = slot(arguments, _OWN), slot(arguments, _OWN + 1)
    grad_row, outputs = slot(arguments, _OWN + 3), slot(arguments, _OWN + 4)
    numbers, groups = slot(arguments, _OWN + 5), slot(arguments, _OWN + 8)
    span, points = slot(arguments, _OWN + 9), slot(arguments, _OWN + 12)
    blocks, block = slot(arguments, _OWN + 10), slot(arguments, _OWN + 11)
    how, correct = slot(arguments, _OWN + 14), slot(arguments, _OWN + 15)
    pixel, inputs = slot(arguments, 1), slot(arguments, 2)
    taps = slot(arguments, 9) * slot(arguments, 10)
    # Programs that read the same points follow one another.
    channel = program % blocks * block
    group = program // blocks % groups
    slab = program // blocks // groups
    channels = min(block, inputs - channel)
    x = slot(arguments, 0) + (group * inputs + channel) * size
    grad = slot(arguments, _OWN + 2) + group * outputs * size
    scratch = slot(arguments, _OWN + 6) + thread * tile * (a_row + outputs * size)
    corrected = scratch + tile * a_row
    total = slot(arguments, _OWN + 7) + slab * numbers * size
    total_row = taps * inputs * size
    total += group * outputs * total_row + channel * size
    begin = slab * span
    last = min(begin + span, points)
    for first in range(begin, last, tile):
        rows = min(tile, last - first)
        b, b_step = x + first * pixel, pixel
        if slot(arguments, _OWN + 13) == 0:
            b, b_step = scratch, a_row
            patches.fill(b, b_step, first, rows, x, pixel, channels, slot(arguments, 3),
                         slot(arguments, 4), slot(arguments, 5), slot(arguments, 6),
                         slot(arguments, 7), slot(arguments, 8), slot(arguments, 9),
                         slot(arguments, 10), slot(arguments, 11), slot(arguments, 12),
                         slot(arguments, 13), slot(arguments, 14), how,
                         (group * inputs + channel) * size, like)  # fmt: skip
        a, a_step = grad + first * grad_row, grad_row
        if correct != 0:
            a, a_step = corrected, outputs * size
            transfer_rows(a, a_step, grad + first * grad_row, grad_row, rows, outputs, correct,
                          group * outputs * size, like)  # fmt: skip
        ahead = ahead_end = apart = 0
        if groups == 1:
            ahead = grad + (first + tile) * grad_row
            ahead_end = grad + min(first + 2 * tile, last) * grad_row
        if correct != 0:
            apart = slot(correct, 5)
        start = FROM_NOTHING if first == begin else FROM_ROWS
        # Of all channels, the taps of a point lie side by side in the weight as well.
        parts, wide = (1, taps * channels) if channels == inputs else (taps, channels)
        for t in range(parts):
            place = total + t * inputs * size
            multiply(a, size, ELEMENT, a_step, b + t * channels * size, b_step, width * size, rows,
                     place, total_row, outputs, wide, start, place, total_row, 0,
                     number(-np.inf, like), number(np.inf, like), ahead, ahead_end,
                     apart, like)  # fmt: skip


_MIX_GRADIENT = by_dtype(_mix_gradient, "mix_gradient")
PROGRAMS = 16  # enough for the threads of most machines to be busy to the end


def mixed_weight(
    grad: Tensor,
    x: Tensor,
    window: Window,
    kernel: Sequence[int],
    groups: int,
    how: Table | None = None,
    correct: Table | None = None,
) -> Tensor:
    """The gradient of the weight ``[C_out, C/groups, kh, kw]``; both tensors are channels_last.

    ``how`` and ``correct`` say how ``x`` and ``grad`` are read.
    """
    inputs, outputs = x.shape[1] // groups, grad.shape[1] // groups
    size, dtype = x.element_size(), x.dtype
    taps_ = window.taps
    if window.points == 0:
        return torch.zeros(groups * outputs, inputs, *kernel, dtype=dtype)
    # Few large sums are cut by channels, many small ones by points.
    block = min(inputs, 64 if taps_ > 1 else 224)
    while block > 64 and groups * -(-inputs // block) < PROGRAMS:
        # The microkernel reads whole registers of channels.
        block = padded_columns(max(64, block // 2), dtype)
    blocks = -(-inputs // block)
    slabs = max(1, min(64, PROGRAMS // (groups * blocks), -(-window.points // 64)))
    span = -(-window.points // slabs)
    slabs = -(-window.points // span)
    # The microkernel reads whole registers of channels.
    direct = window.is_identity and how is None and x.shape[1] * size % REGISTER_BYTES == 0
    direct = direct and inputs * size % REGISTER_BYTES == 0
    a_row = odd_lines(block * taps_ * size)
    tile = max(16, min(256, span, 384 * 1024 // (a_row + outputs * size)))
    room = threads() * tile * (a_row + outputs * size) + REGISTER_BYTES
    scratch = torch.empty(room, dtype=torch.uint8)
    numbers = padded_columns(groups * outputs * taps_ * inputs, dtype)
    totals = empty((slabs, numbers), dtype)
    arguments = windowed(x, window, inputs)
    arguments += [tile, a_row, grad.data_ptr(), grad.shape[1] * size, outputs, numbers,
                  scratch.data_ptr(), totals.data_ptr(), groups, span, blocks, block,
                  window.points, int(direct), address(how), address(correct)]  # fmt: skip
    launch(_MIX_GRADIENT[dtype], arguments, slabs * groups * blocks)
    total = total_of(totals) if slabs > 1 else totals[0]
    total = total[: groups * outputs * taps_ * inputs]
    return total.view(groups * outputs, *kernel, inputs).permute(0, 3, 1, 2)


# --- the weight of a stencil ----------------------------------------------------------------------


def _stencil_gradient_of(add, *shape):
    @device_of(*shape)
    def stencil_slab(arguments, program, thread, like):
        """One slab of bands of rows."""
        size, width = bytes_of(like), lanes_of(like)
        grad, total = slot(arguments, _OWN), slot(arguments, _OWN + 1)
        numbers, images = slot(arguments, _OWN + 2), slot(arguments, _OWN + 6)
        band, bands = slot(arguments, _OWN + 3), slot(arguments, _OWN + 4)
        span = slot(arguments, _OWN + 5)
        pixel, channels = slot(arguments, 1), slot(arguments, 2)
        height, width_ = slot(arguments, 3), slot(arguments, 4)
        lines, points = slot(arguments, 5), slot(arguments, 6)
        how, correct = slot(arguments, _OWN + 7), slot(arguments, _OWN + 8)
        room, grad_room = slot(arguments, _OWN + 10), slot(arguments, _OWN + 11)
        scratch = slot(arguments, _OWN + 9) + thread * (room + grad_room)
        sums = total + program * numbers * size
        zero = broadcast(number(0, like))
        for k in range(0, numbers, width):
            store(sums + k * size, zero)
        for work in range(program * span, min((program + 1) * span, images * bands)):
            image, first = work // bands, work % bands * band
            rows = min(band, lines - first)
            source = slot(arguments, 0) + image * height * width_ * pixel
            above = grad + (image * lines + first) * points * pixel
            y, high, wide = first, height, width_
            origin_y, origin_x = slot(arguments, 11), slot(arguments, 12)
            if how != 0:
                source = scratch
                high, wide = copy_band(arguments, source, image, first, rows, how, like)
                y, origin_y, origin_x = 0, 0, 0
            if correct != 0:
                transfer_rows(scratch + room, pixel, above, pixel, rows * points, channels, correct,
                              0, like)  # fmt: skip
                above = scratch + room
            add(sums, above, y, rows, source, pixel, channels, high, wide, points,
                slot(arguments, 7), slot(arguments, 8), slot(arguments, 9), slot(arguments, 10),
                origin_y, origin_x, slot(arguments, 13), slot(arguments, 14), like)  # fmt: skip

    return stencil_slab


_STENCIL_GRADIENT = over_rows(_stencil_gradient_of, GRADIENT_ROWS, "stencil_gradient")


def depthwise_weight(
    grad: Tensor,
    x: Tensor,
    window: Window,
    kernel: Sequence[int],
    how: Table | None = None,
    correct: Table | None = None,
) -> Tensor:
    """The gradient of the weight ``[C, 1, kh, kw]``; both tensors are channels_last.

    ``how`` and ``correct`` say how ``x`` and ``grad`` are read.
    """
    channels, size, dtype = x.shape[1], x.element_size(), x.dtype
    if window.points == 0:
        return torch.zeros(channels, 1, *kernel, dtype=dtype)
    pixel = channels * size
    band, bands = fixed_bands(window, window.x.points * pixel)
    room = window_bytes(window, band, pixel) if how else 0
    grad_room = band * window.x.points * pixel if correct else 0
    scratch = torch.empty(threads() * (room + grad_room), dtype=torch.uint8)
    span = -(-window.images * bands // PROGRAMS)
    slabs = -(-window.images * bands // span)
    numbers = padded_columns(window.taps * channels, dtype)
    totals = empty((slabs, numbers), dtype)
    arguments = windowed(x, window, channels)
    arguments += [grad.data_ptr(), totals.data_ptr(), numbers, band, bands, span, window.images,
                  address(how), address(correct), scratch.data_ptr(), room,
                  grad_room]  # fmt: skip
    launch(row_kernel(_STENCIL_GRADIENT, window, dtype), arguments, slabs)
    total = total_of(totals) if slabs > 1 else totals[0]
    return total[: window.taps * channels].view(window.taps, channels).t().reshape(-1, 1, *kernel)
