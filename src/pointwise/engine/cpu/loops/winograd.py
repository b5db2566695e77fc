"""3×3 convolutions of stride one by Winograd's minimal filtering, in one tile loop.

A tile of m×m points of the result reads (m + 2)² pixels. Transformed by the matrix B of
``toom_cook`` they are multiplied by the transformed weights, (m + 2)² matrix products over many
tiles, and turned into points by A: 4 multiplications for each point and pair of channels for m = 2,
2.25 for m = 4, instead of 9. Each program does all of it for some tiles, which stay in the cache.

It rounds otherwise than the direct sum, whose error is twice that of m = 2, and half that of m = 4
(which is 1.5e-6 to 4e-6 of the largest result); an infinity or a NaN spreads over its tile. So
it is for inference. Small weights are transformed once, in float64 (``filtered``); large ones in
every run, since keeping them so would nearly double their memory (``filtering_step``).
"""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor

from pointwise.convolution.window import Window
from pointwise.engine.cpu.activation import NONE, activate
from pointwise.engine.cpu.by_dtype import by_dtype
from pointwise.engine.cpu.cut import cut_tiles, odd_lines
from pointwise.engine.cpu.gathers.transfer import copy, zeros
from pointwise.engine.cpu.gemm import GENERAL, ROWS, TILE, TILE_ROW, multiply
from pointwise.engine.cpu.launch import device_of, slot, threads
from pointwise.engine.cpu.loops.images import MIX_SLOTS, TAPS, Step, mixing, windowed
from pointwise.engine.cpu.pack import pack_kernels, pad_row
from pointwise.engine.cpu.table import real
from pointwise.engine.cpu.toom_cook import matrices, times
from pointwise.engine.cpu.vector import (
    REGISTER_BYTES,
    bytes_of,
    lanes_of,
    load,
    number,
    store,
    within,
)
from pointwise.engine.cpu.weights import Filtered, Mix

# In eighths, where rounding loses least: with 0, ±1, ±2 it is four times as much for m = 4.
_EIGHTH = Fraction(1, 8)
_POINTS = {2: (0, 8, -8), 4: (0, 5, -5, 12, -12)}
MATRICES = {m: matrices([_EIGHTH * p for p in points], 3) for m, points in _POINTS.items()}
_OWN = TAPS + MIX_SLOTS  # the argument table: the window, the mix, and what follows
_INFINITY = float("inf")
_APART = 16  # numbers, a cache line or two
_READING = 24  # rows, measured with weights that come from memory


def filtered(weight: Tensor, bias: Tensor | None, outputs: int) -> Filtered:
    """Transforms a weight, in float64, for tiles of ``outputs × outputs`` points."""
    _, g, _ = MATRICES[outputs]
    rows = torch.tensor([[float(x) for x in row] for row in g], dtype=torch.float64)
    whole = torch.einsum("ij, ocjk, lk -> iloc", rows, weight.double(), rows).to(weight.dtype)
    columns, depth = weight.shape[:2]
    points = whole.flatten(0, 2)[:, :, None, None]  # each point's weight as a group's
    packed = pack_kernels(points, len(rows) ** 2)
    return Filtered(packed, None if bias is None else pad_row(bias), columns, depth, outputs)


def _of_outputs(m: int):
    points = m + 2
    back, _, there = MATRICES[m]
    forward, backward = times(there), times(back)

    @device_of(m)
    def transform(target, by_y, by_x, y, x, image, pixel, channels, height, width, patch,
                  like):  # fmt: skip
        """The pixels from (y, x) on, transformed: point (j, i) to ``target + j·by_y + i·by_x``."""
        size, lanes = bytes_of(like), lanes_of(like)
        register = lanes * size
        source, line = image + (y * width + x) * pixel, width * pixel
        if y < 0 or x < 0 or y + points > height or x + points > width:
            source, line = patch, points * pixel
            for j in range(y, y + points):
                for i in range(x, x + points):
                    place = patch + (j - y) * line + (i - x) * pixel
                    if j < 0 or j >= height or i < 0 or i >= width:
                        zeros(place, channels, like)
                    else:
                        copy(place, image + (j * width + i) * pixel, channels, like)
        for c in range(0, channels * size, register):
            forward(source + c, line, pixel, target + c, by_y, by_x, like)

    @device_of(m)
    def finish(products, between, columns, out, line, pixel, rows, across, bias, residual, low,
               high, work, like):  # fmt: skip
        """A tile's products, ``between`` bytes apart, transformed back into ``rows × across``."""
        size, lanes = bytes_of(like), lanes_of(like)
        register = lanes * size
        for c in range(0, columns * size, register):
            backward(products + c, points * between, between, work, m * register, register, like)
            for j in range(min(m, rows)):
                for i in range(min(m, across)):
                    place = j * line + i * pixel + c
                    value = load(work + (j * m + i) * register, like)
                    if bias != 0:
                        value = value + load(bias + c, like)
                    if residual != 0:
                        value = value + load(residual + place, like)
                    store(out + place, within(value, low, high))

    @device_of(m)
    def some_tiles(arguments, program, thread, like):
        size, lanes = bytes_of(like), lanes_of(like)
        pixel, channels = slot(arguments, 1), slot(arguments, 2)
        height, width = slot(arguments, 3), slot(arguments, 4)
        lines, row = slot(arguments, 5), slot(arguments, 6)
        weight, bias = slot(arguments, TAPS), slot(arguments, TAPS + 2)
        filters, out_pixel = slot(arguments, TAPS + 4), slot(arguments, TAPS + 5)
        out, residual = slot(arguments, TAPS + 6), slot(arguments, TAPS + 7)
        low, high = real(arguments, TAPS + 8, like), real(arguments, TAPS + 9, like)
        kind = slot(arguments, TAPS + 10)
        span, total = slot(arguments, _OWN), slot(arguments, _OWN + 1)
        share, shares, block = (
            slot(arguments, _OWN + 2),
            slot(arguments, _OWN + 3),
            slot(arguments, _OWN + 4),
        )
        tile_row, by_y, by_x = (
            slot(arguments, _OWN + 5),
            slot(arguments, _OWN + 6),
            slot(arguments, _OWN + 7),
        )
        tiles = slot(arguments, _OWN + 8) + thread * slot(arguments, _OWN + 9)
        products, between = tiles + slot(arguments, _OWN + 10), block * size
        products_row, apart = slot(arguments, _OWN + 11), slot(arguments, _OWN + 12)
        patch = products + span * products_row
        work = patch + points * points * pixel
        across, down = -(-row // m), -(-lines // m)
        first, column = program // shares * span, program % shares * share
        count, end = min(span, total - first), min(column + share, filters)
        for r in range(count):
            tile = first + r
            image = tile // (across * down)
            y, x = tile // across % down * m, tile % across * m
            transform(tiles + r * tile_row, by_y, by_x, y + slot(arguments, 11),
                      x + slot(arguments, 12), slot(arguments, 0) + image * height * width * pixel,
                      pixel, channels, height, width, patch, like)  # fmt: skip
        stride = TILE if tile_row == TILE_ROW else GENERAL
        panel = channels * lanes * size
        infinity = number(_INFINITY, like)
        while column < end:
            columns = min(block, end - column)
            for p in range(points * points):
                multiply(tiles + p // points * by_y + p % points * by_x, tile_row, stride, size,
                         weight + p * apart + column // lanes * panel, lanes * size, panel,
                         channels, products + p * between, products_row, count, columns, 0, 0, 0, 0,
                         -infinity, infinity, 0, 0, 0, like)  # fmt: skip
            for r in range(count):
                tile = first + r
                image = tile // (across * down)
                y, x = tile // across % down * m, tile % across * m
                place = ((image * lines + y) * row + x) * out_pixel + column * size
                finish(products + r * products_row, between, columns, out + place, row * out_pixel,
                       out_pixel, lines - y, row - x, 0 if bias == 0 else bias + column * size,
                       0 if residual == 0 else residual + place, low, high, work,
                       like)  # fmt: skip
                if kind != NONE:
                    for j in range(min(m, lines - y)):
                        activate(out + place + j * row * out_pixel, out_pixel, min(m, row - x),
                                 columns, kind, like)  # fmt: skip
            column += block

    return some_tiles


def _filtering(m: int):
    spread, points = times(MATRICES[m][1]), m + 2

    @device_of(m)
    def one_panel(arguments, program, thread, like):
        register = lanes_of(like) * bytes_of(like)
        apart, panel = slot(arguments, 2), slot(arguments, 3)
        source = slot(arguments, 0) + 9 * program * panel
        target = slot(arguments, 1) + program * panel
        for c in range(0, panel, register):
            spread(source + c, 3 * panel, panel, target + c, points * apart, apart, like)

    return one_panel


_KERNELS = {m: by_dtype(_of_outputs(m), f"winograd_{m}") for m in MATRICES}
_FILTERING = {m: by_dtype(_filtering(m), f"winograd_weight_{m}") for m in MATRICES}


def winograd_step(
    x: Tensor,
    weights: Filtered,
    window: Window,
    out: Tensor,
    residual: Tensor | None = None,
    activation: str = "none",
) -> Step:
    """The convolution into ``out``; all images are channels_last, channels whole registers."""
    m, place = weights.outputs, TAPS + 6
    compiled = _KERNELS[m][x.dtype]
    if out.numel() == 0:
        return Step(compiled, [], 0, out, place, (), TAPS + 7)
    size, points = x.element_size(), m + 2
    pixel, lanes = weights.depth * size, REGISTER_BYTES // size
    total = window.images * -(-window.y.points // m) * -(-window.x.points // m)
    span, share = cut_tiles(total, weights.columns, points**2 * pixel, 2 * lanes, threads())
    block = min(share, 4 * lanes)
    shares = -(-weights.columns // share)
    # Rows of all tiles, for one point or, where they fit into it, the points of a line.
    rows = -(-span // ROWS) * ROWS
    tile_row = TILE_ROW if pixel < TILE_ROW else odd_lines(pixel)
    by_x, by_y = rows * tile_row, points * rows * tile_row
    if points * pixel <= TILE_ROW:
        by_x, by_y = pixel, rows * tile_row
    tiles = points * by_y
    products_row = points**2 * block * size + 64
    work = m**2 * REGISTER_BYTES
    own = tiles + span * products_row + points**2 * pixel + work
    scratch = torch.empty(threads() * own, dtype=torch.uint8)
    arguments = windowed(x, window, weights.depth) + mixing(weights, out, residual, activation)
    arguments += [span, total, share, shares, block, tile_row, by_y, by_x, scratch.data_ptr(), own,
                  tiles, products_row, weights.packed.stride(0) * size]  # fmt: skip
    programs = -(-total // span) * shares
    return Step(compiled, arguments, programs, out, place, (weights, scratch), TAPS + 7)


def filtering_step(weights: Mix, into: Filtered) -> Step:
    """Transforms a 3×3 weight, a panel of columns in each program."""
    packed, size = into.packed, weights.packed.element_size()
    panel = into.depth * REGISTER_BYTES
    arguments = [weights.packed.data_ptr(), packed.data_ptr(), packed.stride(0) * size, panel]
    compiled, panels = _FILTERING[into.outputs][packed.dtype], packed.shape[1]
    return Step(compiled, arguments, panels, packed, 1, (weights, packed))


def room_for(weights: Mix, outputs: int) -> int:
    """Numbers that a transformed weight takes, its points not on the same lines of a cache."""
    return (outputs + 2) ** 2 * (weights.columns * weights.depth // 9 + _APART)


def filters_in(room: Tensor, weights: Mix, outputs: int) -> Filtered:
    """Where ``filtering_step`` may write: a view of ``room``, which is of ``room_for`` numbers."""
    lanes, depth = weights.packed.shape[3], weights.depth // 9
    packed = room.view((outputs + 2) ** 2, -1)[:, :-_APART].unflatten(1, (-1, depth, lanes))
    bias = None if weights.bias is None else weights.bias[0]
    return Filtered(packed, bias, weights.columns, depth, outputs)


def winograd_outputs(
    window: Window, inputs: int, columns: int, groups: int, dtype: torch.dtype
) -> int:
    """The m with which a convolution is faster by this loop than directly; 0 where it is not.

    What is compared are rows of matrix products, in steps of half a microkernel's, and reading the
    weight, which takes as long as some rows: where there are few tiles, larger weights do not pay.
    Four times the weight's memory is not spent on more than a megabyte.
    """
    y, x = window.y, window.x
    lanes = REGISTER_BYTES // dtype.itemsize
    plain = all((axis.taps, axis.stride, axis.dilation) == (3, 1, 1) for axis in (y, x))
    if not plain or groups > 1 or inputs % lanes or columns % lanes:
        return 0

    def cost(m: int) -> int:
        tiles = window.images * -(-y.points // max(m, 1)) * -(-x.points // max(m, 1))
        products = (m + 2) ** 2 if m else 9
        return products * (-(-tiles // (ROWS // 2)) * (ROWS // 2) + _READING)

    return min((0, 2) if is_large(inputs, columns, dtype) else (0, *MATRICES), key=cost)


def is_large(inputs: int, columns: int, dtype: torch.dtype) -> bool:
    """Whether a 3×3 weight had better be transformed in every run than be kept so."""
    return 9 * inputs * columns * dtype.itemsize > 1024 * 1024
