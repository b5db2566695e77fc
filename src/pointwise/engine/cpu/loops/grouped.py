"""Convolutions of many groups, in one tile loop: products of pixels where they lie, group by group.

A group's patches are too narrow to be worth gathering: of four channels, 3×3 taps would be copied
in nine pieces of 16 bytes for each point and group. So each program copies the pixels that some
lines of some groups read once, with the zeros around the image, and multiplies them there
(``taps``).
"""

from __future__ import annotations

import torch
from torch import Tensor

from pointwise.convolution.window import Window
from pointwise.engine.cpu.activation import activate
from pointwise.engine.cpu.by_dtype import by_dtype
from pointwise.engine.cpu.cut import cut_bands, odd_lines
from pointwise.engine.cpu.device import device_of
from pointwise.engine.cpu.gathers.band import copy_line
from pointwise.engine.cpu.gemm import FROM_BIAS, FROM_ROWS
from pointwise.engine.cpu.launch import Launch, threads
from pointwise.engine.cpu.layout import Arguments, Layout
from pointwise.engine.cpu.memory import empty_result
from pointwise.engine.cpu.mix import MIX, mix_arguments
from pointwise.engine.cpu.moments import Reduction, pass_over
from pointwise.engine.cpu.taps import points_of
from pointwise.engine.cpu.vector import REGISTER_BYTES, bytes_of, lanes_of, number
from pointwise.engine.cpu.weights import GroupedWeight, pack_grouped
from pointwise.engine.cpu.window import WINDOW, pixel_bytes, window_arguments

_LAYOUT = Layout(
    "Grouped",
    "*x *out *residual *scratch *prologue scratch_bytes pixel line inputs depth channels bundles "
    "block blocks band bands",
    window=WINDOW,
    mix=MIX,
)
"""A program makes a ``band`` of lines of one image, of a ``block`` of ``bundles``: of groups, or of
registers that groups share. Each reads ``inputs`` channels and makes the mix's ``columns``, the
last of the ``channels`` of the result maybe fewer. Its pixels lie ``pixel`` bytes apart and lines
``line``; a tap is ``depth`` steps."""

# Of a pixel, so that a program's pixels stay in the cache, and whole cache lines are copied.
_BLOCK_BYTES = 256
_BAND_BYTES = 96 * 1024


def _loop_of(shared: int):
    line_of_points = points_of(shared)

    @device_of(shared)
    def grouped(arguments, program, thread, like):
        own = _LAYOUT(arguments)
        window, mix = own.window, own.mix
        size, width = bytes_of(like), lanes_of(like)
        first_bundle = program % own.blocks * own.block
        bundles = min(own.block, own.bundles - first_bundle)
        first = program // own.blocks % own.bands * own.band
        image = program // own.blocks // own.bands
        rows = min(own.band, window.lines - first)
        # What the band reads, zeros around it.
        scratch = own.scratch + thread * own.scratch_bytes
        channel = first_bundle * own.inputs
        channels = min(bundles * own.inputs, window.channels - channel)
        source = own.x + image * window.height * window.width * window.pixel + channel * size
        top = first * window.stride_y - window.padding_y
        lines = (rows - 1) * window.stride_y + (window.taps_y - 1) * window.dilation_y + 1
        columns = (window.points - 1) * window.stride_x
        columns += (window.taps_x - 1) * window.dilation_x + 1
        for j in range(lines):
            inside = 0 <= top + j < window.height
            copy_line(scratch + j * own.line, own.pixel, columns,
                      source + (top + j) * window.width * window.pixel, -window.padding_x,
                      window.width if inside else 0, window.pixel, channels, own.prologue,
                      channel * size, like)  # fmt: skip
        start = 0
        if own.residual != 0:
            start |= FROM_ROWS
        if mix.bias != 0:
            start |= FROM_BIAS
        panel = mix.depth * width * size
        panels = -(-mix.columns // width)  # of a bundle
        low, high = number(mix.low, like), number(mix.high, like)
        place = (image * window.lines + first) * window.points * mix.out_row
        place += first_bundle * mix.columns * size
        beside = (image * window.lines + first) * window.points * mix.residual_row
        beside += first_bundle * mix.columns * size
        for bundle in range(bundles):
            number_of = first_bundle + bundle
            own_columns = min(mix.columns, own.channels - number_of * mix.columns)
            for panel_of in range(panels):
                column = panel_of * width
                offset = (bundle * mix.columns + column) * size
                at, other = place + offset, own.residual + beside + offset
                which = number_of * panels + panel_of
                for row in range(rows):
                    a = scratch + row * window.stride_y * own.line + bundle * own.inputs * size
                    line_of_points(
                        a, window.stride_x * own.pixel, mix.weight + which * panel, own.depth,
                        window.taps_y, window.taps_x, window.dilation_y * own.line,
                        window.dilation_x * own.pixel, own.out + at, mix.out_row, window.points,
                        own_columns - column, start, other, mix.residual_row,
                        mix.bias + which * width * size, low, high, like,
                    )  # fmt: skip
                    at += window.points * mix.out_row
                    other += window.points * mix.residual_row
        made = min(bundles * mix.columns, own.channels - first_bundle * mix.columns)
        activate(mix.activation, own.out + place, mix.out_row, rows * window.points, made)

    return grouped


SHARED = (0, 2, 4, 8)
"""Widths of groups that share registers, where those hold several; 0 for all others."""
_KERNELS = {shared: by_dtype(_loop_of(shared), f"grouped_{shared}") for shared in SHARED}


def is_better(window: Window, columns: int, groups: int, dtype: torch.dtype) -> bool:
    """Whether groups of so many ``columns`` each are faster here than with patches gathered.

    Measured with AVX2 (``benchmarks/grouped.py``): wide groups multiply as much for each number
    that is gathered, and 1×1 kernels need not gather.
    """
    lanes = REGISTER_BYTES // dtype.itemsize
    return groups > 1 and columns <= (lanes if window.taps == 1 else 4 * lanes)


def pack(
    weight: Tensor, bias: Tensor | None, groups: int, backwards: bool = False
) -> GroupedWeight:
    """A weight ``[C_out, C_in/groups, kh, kw]`` and its bias as this loop reads them.

    It may be given group by group, and its taps packed ``backwards`` (see ``pack_with_bias``).
    """
    lanes, inputs = REGISTER_BYTES // weight.element_size(), weight.shape[-3]
    columns = weight.shape[1] if weight.dim() == 5 else len(weight) // groups
    shared = columns == inputs < lanes and inputs in SHARED
    return pack_grouped(weight, bias, groups, inputs if shared else 0, backwards)


def grouped_launch(
    x: Tensor,
    weight: GroupedWeight,
    window: Window,
    out: Tensor,
    residual: Tensor | None = None,
    activation: str = "none",
    prologue: Arguments | None = None,
) -> Launch:
    """The convolution of groups into ``out``; all images are channels_last.

    Pixels may be parts of wider ones.
    ``prologue`` says what becomes of ``x`` as it is read.
    """
    compiled = _KERNELS[weight.shared][x.dtype]
    if out.numel() == 0:
        return Launch(compiled, None, 0, out)
    size = x.element_size()
    # A register is read whole, also where the last channels do not fill it.
    bundle_bytes = weight.inputs * size
    block = min(weight.bundles, max(1, _BLOCK_BYTES // bundle_bytes))
    pixel = -(-block * bundle_bytes // REGISTER_BYTES) * REGISTER_BYTES
    blocks = -(-weight.bundles // block)
    y, columns = window.y, (window.x.points - 1) * window.x.stride + 1
    columns += (window.x.taps - 1) * window.x.dilation
    line = odd_lines(columns * pixel)
    band, bands = cut_bands(window, y.stride * line, _BAND_BYTES, blocks)
    room = ((band - 1) * y.stride + (y.taps - 1) * y.dilation + 1) * line
    arguments = _LAYOUT(
        x=x,
        out=out,
        residual=residual,
        scratch=torch.empty(threads() * room, dtype=torch.uint8),
        prologue=prologue,
        scratch_bytes=room,
        pixel=pixel,
        line=line,
        inputs=weight.inputs,
        depth=weight.depth // window.taps,
        channels=out.shape[1],
        bundles=weight.bundles,
        block=block,
        blocks=blocks,
        band=band,
        bands=bands,
        window=window_arguments(window, pixel_bytes(x), x.shape[1]),
        mix=mix_arguments(weight, pixel_bytes(out), activation, residual),
    )
    return Launch(compiled, arguments, window.images * bands * blocks, out)


def grouped(
    x: Tensor,
    weight: GroupedWeight,
    window: Window,
    channels: int,
    prologue: Arguments | None = None,
    reduction: Reduction | None = None,
) -> Tensor:
    """The convolution into a new image of so many ``channels``.

    ``reduction`` is taken of the result, and may change it.
    """
    out = empty_result(window, channels, x.dtype)
    grouped_launch(x, weight, window, out, prologue=prologue).run()
    if reduction is not None:
        pass_over(out, reduction)
    return out
