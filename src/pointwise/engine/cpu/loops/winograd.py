"""3×3 convolutions of stride one by Winograd's minimal filtering, in one tile loop.

A tile of m×m points of the result reads (m + 2)² pixels. Transformed by the matrix B of
``toom_cook`` they are multiplied by the transformed weights, (m + 2)² matrix products over many
tiles, and turned into points by A: 4 multiplications for each point and pair of channels for m = 2,
2.25 for m = 4, instead of 9. Each program does all of it for some tiles, which stay in the cache.

It rounds otherwise than the direct sum, whose error is twice that of m = 2, and half that of m = 4
(which is 1.5e-6 to 4e-6 of the largest result); an infinity or a NaN spreads over its tile. So
it is for inference. Small weights are transformed once, in float64 (``winograd_weight``); large
ones of an accelerated model in every run, since keeping them so would nearly double their memory
(``weight_transform_launch``), those of a layer by itself once. (Lavin and Gray, CVPR 2016.)
"""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor

from pointwise.convolution.window import Window
from pointwise.engine.cpu.activation import activate
from pointwise.engine.cpu.by_dtype import by_dtype
from pointwise.engine.cpu.cut import cut_tiles, odd_lines
from pointwise.engine.cpu.device import device_of
from pointwise.engine.cpu.gathers.prologue import copy, zeros
from pointwise.engine.cpu.gemm import FEW, ROWS, multiply
from pointwise.engine.cpu.launch import Launch, threads
from pointwise.engine.cpu.layout import Layout
from pointwise.engine.cpu.memory import empty
from pointwise.engine.cpu.mix import MIX, mix_arguments
from pointwise.engine.cpu.pack import pack_kernels, pad_row
from pointwise.engine.cpu.product import TILE_ROW
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
from pointwise.engine.cpu.weights import PackedWeight, WinogradWeight, pack_weight
from pointwise.engine.cpu.window import WINDOW, pixel_bytes, window_arguments

# In eighths, where rounding loses least: with 0, ±1, ±2 it is four times as much for m = 4.
_EIGHTH = Fraction(1, 8)
_POINTS = {2: (0, 8, -8), 4: (0, 5, -5, 12, -12)}
MATRICES = {m: matrices([_EIGHTH * p for p in points], 3) for m, points in _POINTS.items()}
_INFINITY = float("inf")
_APART = 16  # numbers, a cache line or two
_READING = 24  # rows, measured with weights that come from memory

# A program makes ``share`` of the columns of ``span`` tiles, of the ``tiles`` that there are, and
# ``block`` columns at once. In its scratch are the transformed tiles, point (j, i) of the first at
# ``j·by_y + i·by_x``; their products; room for a tile's pixels; and room for its results.
_WINOGRAD = Layout(
    "Winograd",
    "*x *out *residual *scratch tiles span share shares block weight_step "
    "tile_row by_y by_x products_begin products_row scratch_step",
    window=WINDOW,
    mix=MIX,
)
_WEIGHT_TRANSFORM = Layout("WinogradWeight", "*x *out weight_step panel")


def winograd_weight(weight: Tensor, bias: Tensor | None, outputs: int) -> WinogradWeight:
    """Transforms a weight for tiles of ``outputs × outputs`` points.

    In float64; a large one by ``weight_transform_launch``, as where that is done in every run: in
    its own type, and in a twentieth of the time.
    """
    columns, depth = weight.shape[:2]
    if is_large(depth, columns, weight.dtype):
        plain = pack_weight(weight, bias)
        into = winograd_weight_in(empty((room_for(plain, outputs),), weight.dtype), plain, outputs)
        weight_transform_launch(plain, into).run()
        return into
    _, g, _ = MATRICES[outputs]
    rows = torch.tensor([[float(x) for x in row] for row in g], dtype=torch.float64)
    taps = weight.double().reshape(columns * depth, 9)
    whole = (torch.kron(rows, rows) @ taps.t()).to(weight.dtype)
    points = whole.view(-1, columns, depth, 1, 1)  # each point's weight as a group's
    packed = pack_kernels(points, len(points))
    return WinogradWeight(packed, None if bias is None else pad_row(bias), columns, depth, outputs)


def _loop_of(m: int):
    points = m + 2
    back, _, there = MATRICES[m]
    forward, backward = times(there), times(back)

    @device_of(m)
    def transform(target, by_y, by_x, y, x, image, window, patch, like):
        """The pixels from (y, x) on, transformed: point (j, i) to ``target + j·by_y + i·by_x``."""
        size, lanes = bytes_of(like), lanes_of(like)
        pixel, channels = window.pixel, window.channels
        height, width = window.height, window.width
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
    def finish(products, step, columns, out, line, pixel, rows, across, bias, residual,
               residual_line, residual_pixel, low, high, work, like):  # fmt: skip
        """A tile's products, ``step`` bytes apart, transformed back into ``rows × across``."""
        size, lanes = bytes_of(like), lanes_of(like)
        register = lanes * size
        for c in range(0, columns * size, register):
            backward(products + c, points * step, step, work, m * register, register, like)
            for j in range(min(m, rows)):
                for i in range(min(m, across)):
                    place = j * line + i * pixel + c
                    value = load(work + (j * m + i) * register, like)
                    if bias != 0:
                        value = value + load(bias + c, like)
                    if residual != 0:
                        beside = j * residual_line + i * residual_pixel + c
                        value = value + load(residual + beside, like)
                    store(out + place, within(value, low, high))

    @device_of(m)
    def position(tile, window):
        """(image, y, x) of a tile's first point."""
        across, down = -(-window.points // m), -(-window.lines // m)
        return tile // (across * down), tile // across % down * m, tile % across * m

    @device_of(m)
    def some_tiles(arguments, program, thread, like):
        """Some columns of some tiles: transformed, multiplied point by point, transformed back."""
        own = _WINOGRAD(arguments)
        window, mix = own.window, own.mix
        size, lanes = bytes_of(like), lanes_of(like)
        pixel, channels = window.pixel, window.channels
        lines, row = window.lines, window.points
        low, high = number(mix.low, like), number(mix.high, like)
        tiles = own.scratch + thread * own.scratch_step
        products, step = tiles + own.products_begin, own.block * size
        patch = products + own.span * own.products_row
        work = patch + points * points * pixel
        first, column = program // own.shares * own.span, program % own.shares * own.share
        count, end = min(own.span, own.tiles - first), min(column + own.share, mix.columns)
        for r in range(count):
            image, y, x = position(first + r, window)
            transform(tiles + r * own.tile_row, own.by_y, own.by_x, y - window.padding_y,
                      x - window.padding_x, own.x + image * window.height * window.width * pixel,
                      window, patch, like)  # fmt: skip
        is_tile = own.tile_row == TILE_ROW
        panel = channels * lanes * size
        infinity = number(_INFINITY, like)
        while column < end:
            columns = min(own.block, end - column)
            weight = mix.weight + column // lanes * panel
            bias = 0 if mix.bias == 0 else mix.bias + column * size
            for p in range(points * points):
                own_weight = weight + p * own.weight_step
                # Large weights come from far away: those of the next point, while these are used.
                ahead = own_weight + own.weight_step if p < points * points - 1 else 0
                multiply(tiles + p // points * own.by_y + p % points * own.by_x, own.tile_row,
                         is_tile, own_weight, panel, channels, products + p * step,
                         own.products_row, count, columns, 0, 0, 0, 0, -infinity, infinity, ahead,
                         ahead + min(ahead, columns // lanes * panel), 0, like)  # fmt: skip
            for r in range(count):
                image, y, x = position(first + r, window)
                point = (image * lines + y) * row + x
                place, apart = point * mix.out_row + column * size, mix.residual_row
                residual = 0
                if own.residual != 0:
                    residual = own.residual + point * apart + column * size
                finish(products + r * own.products_row, step, columns, own.out + place,
                       row * mix.out_row, mix.out_row, lines - y, row - x, bias, residual,
                       row * apart, apart, low, high, work, like)  # fmt: skip
                for j in range(min(m, lines - y)):
                    activate(mix.activation, own.out + place + j * row * mix.out_row, mix.out_row,
                             min(m, row - x), columns)  # fmt: skip
            column += own.block

    return some_tiles


def _weight_transform_of(m: int):
    transform, points = times(MATRICES[m][1]), m + 2

    @device_of(m)
    def one_panel(arguments, program, thread, like):
        """The weights of a panel of columns, transformed."""
        own = _WEIGHT_TRANSFORM(arguments)
        register = lanes_of(like) * bytes_of(like)
        panel, step = own.panel, own.weight_step
        source, target = own.x + 9 * program * panel, own.out + program * panel
        for c in range(0, panel, register):
            transform(source + c, 3 * panel, panel, target + c, points * step, step, like)

    return one_panel


_KERNELS = {m: by_dtype(_loop_of(m), f"winograd_{m}") for m in MATRICES}
_WEIGHT_KERNELS = {m: by_dtype(_weight_transform_of(m), f"winograd_weight_{m}") for m in MATRICES}


def winograd_launch(
    x: Tensor,
    weights: WinogradWeight,
    window: Window,
    out: Tensor,
    residual: Tensor | None = None,
    activation: str = "none",
) -> Launch:
    """The convolution into ``out``; all images are channels_last, channels whole registers."""
    m = weights.outputs
    compiled = _KERNELS[m][x.dtype]
    if out.numel() == 0:
        return Launch(compiled, None, 0, out)
    size, points = x.element_size(), m + 2
    pixel, lanes = weights.depth * size, REGISTER_BYTES // size
    tiles = window.images * -(-window.y.points // m) * -(-window.x.points // m)
    span, share = cut_tiles(tiles, weights.columns, points**2 * pixel, 2 * lanes, threads())
    block = min(share, 4 * lanes)
    shares = -(-weights.columns // share)
    # Rows of all tiles, for one point or, where they fit into it, the points of a line.
    rows = -(-span // ROWS) * ROWS
    tile_row = TILE_ROW if pixel < TILE_ROW else odd_lines(pixel)
    by_x, by_y = rows * tile_row, points * rows * tile_row
    if points * pixel <= TILE_ROW:
        by_x, by_y = pixel, rows * tile_row
    products_begin = points * by_y
    products_row = points**2 * block * size + 64
    work = m**2 * REGISTER_BYTES
    apart = pixel_bytes(x)  # as are the pixels of a tile that are copied
    scratch_step = products_begin + span * products_row + points**2 * apart + work
    arguments = _WINOGRAD(
        x=x, out=out, residual=residual,
        scratch=torch.empty(threads() * scratch_step, dtype=torch.uint8),
        tiles=tiles, span=span, share=share, shares=shares, block=block,
        weight_step=weights.packed.stride(0) * size, tile_row=tile_row, by_y=by_y, by_x=by_x,
        products_begin=products_begin, products_row=products_row, scratch_step=scratch_step,
        window=window_arguments(window, apart, weights.depth),
        mix=mix_arguments(weights, pixel_bytes(out), activation, residual),
    )  # fmt: skip
    return Launch(compiled, arguments, -(-tiles // span) * shares, out)


def weight_transform_launch(weights: PackedWeight, into: WinogradWeight) -> Launch:
    """Transforms a 3×3 weight, a panel of columns in each program."""
    packed = into.packed
    arguments = _WEIGHT_TRANSFORM(
        x=weights.packed,
        out=packed,
        weight_step=packed.stride(0) * packed.element_size(),
        panel=into.depth * REGISTER_BYTES,
    )
    return Launch(_WEIGHT_KERNELS[into.outputs][packed.dtype], arguments, packed.shape[1], packed)


def room_for(weights: PackedWeight, outputs: int) -> int:
    """Numbers that a transformed weight takes, its points not on the same lines of a cache."""
    return (outputs + 2) ** 2 * (weights.columns * weights.depth // 9 + _APART)


def winograd_weight_in(room: Tensor, weights: PackedWeight, outputs: int) -> WinogradWeight:
    """A weight for ``weight_transform_launch`` to write, in ``room`` for ``room_for`` numbers."""
    lanes, depth = weights.packed.shape[3], weights.depth // 9
    packed = room.view((outputs + 2) ** 2, -1)[:, :-_APART].unflatten(1, (-1, depth, lanes))
    bias = None if weights.bias is None else weights.bias[0]
    return WinogradWeight(packed, bias, weights.columns, depth, outputs)


def best_tile_size(
    window: Window, inputs: int, columns: int, groups: int, dtype: torch.dtype, kept: bool = False
) -> int:
    """The m with which a convolution is faster by this loop than directly; 0 where it is not.

    What is compared are rows of matrix products, in steps of half a microkernel's, and reading the
    weight, which takes as long as some rows: where there are few tiles, larger weights do not pay,
    the less so if they are transformed in every run and not ``kept`` so. Four times the weight's
    memory is not spent on more than a megabyte.
    """
    y, x = window.y, window.x
    lanes = REGISTER_BYTES // dtype.itemsize
    plain = all((axis.taps, axis.stride, axis.dilation) == (3, 1, 1) for axis in (y, x))
    if not plain or groups > 1 or inputs % lanes or columns % lanes:
        return 0

    def cost(m: int) -> int:
        tiles = window.images * -(-y.points // max(m, 1)) * -(-x.points // max(m, 1))
        products, step = ((m + 2) ** 2, FEW if kept else ROWS // 2) if m else (9, ROWS // 2)
        return products * (-(-tiles // step) * step + _READING)

    return min((0, 2) if is_large(inputs, columns, dtype) else (0, *MATRICES), key=cost)


def is_large(inputs: int, columns: int, dtype: torch.dtype) -> bool:
    """Whether a 3×3 weight had better be transformed in every run than be kept so."""
    return 9 * inputs * columns * dtype.itemsize > 1024 * 1024
