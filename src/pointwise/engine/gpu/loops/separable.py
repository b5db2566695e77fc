"""The depthwise separable convolution on a GPU, in one kernel, for inference.

A program gathers the stencil of ``BLOCK_P`` points, ``BLOCK_K`` channels at a time, and multiplies
it by the pointwise weight at once, for ``BLOCK_N`` results of each point: what lies between the
halves stays in registers. Where there are more results, the stencil is computed once for each
``BLOCK_N`` of them, of pixels that are in the cache by then.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from pointwise.convolution.window import Window
from pointwise.engine.gpu import in_tf32
from pointwise.engine.gpu.activation import activate
from pointwise.engine.gpu.launch import launch, pieces
from pointwise.engine.gpu.loops.depthwise import UNROLLED, empty_image

MOST = 256
"""So many results of a point at once, at most."""

_COUNTS = [
    "count", "height", "width", "points_y", "points_x", "padding_y", "padding_x", "dilation_y",
    "dilation_x", "taps_y", "taps_x", "blocks_n",
]  # fmt: skip


@triton.jit
def _with_tap(
    tile, x, depthwise, image, line, spot, given, height, width, channel, channels, has, tap,
):  # fmt: skip
    """A stencil's sums with one more tap; outside of the image is nothing to add."""
    inside = given & (line >= 0) & (line < height) & (spot >= 0) & (spot < width)
    place = ((image + line) * width + spot)[:, None] * channels + channel[None, :]
    pixels = tl.load(x + place, mask=inside[:, None] & has[None, :], other=0.0)
    weight = tl.load(depthwise + tap, mask=has, other=0.0).to(tl.float32)
    return tile + pixels.to(tl.float32) * weight[None, :]


@triton.jit(do_not_specialize=_COUNTS)
def separable_kernel(
    x, depthwise, inner, pointwise, bias, residual, out, count, channels, columns, height, width,
    points_y, points_x, padding_y, padding_x, dilation_y, dilation_x, taps_y, taps_x, blocks_n,
    STRIDE_Y: tl.constexpr, STRIDE_X: tl.constexpr, TAPS_Y: tl.constexpr, TAPS_X: tl.constexpr,
    IS_UNROLLED: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr,
    BETWEEN: tl.constexpr, ACTIVATION: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    kind: tl.constexpr = out.dtype.element_ty
    program = tl.program_id(0)
    point = program // blocks_n * BLOCK_P + tl.arange(0, BLOCK_P)
    column = program % blocks_n * BLOCK_N + tl.arange(0, BLOCK_N)
    given, wanted = point < count, column < columns
    top = point // points_x % points_y * STRIDE_Y - padding_y
    left = point % points_x * STRIDE_X - padding_x
    image = (point // points_x // points_y).to(tl.int64) * height
    total = tl.zeros((BLOCK_P, BLOCK_N), tl.float32)
    for first in range(0, channels, BLOCK_K):
        channel = first + tl.arange(0, BLOCK_K)
        has = channel < channels
        tile = tl.zeros((BLOCK_P, BLOCK_K), tl.float32)
        if IS_UNROLLED:
            for j in tl.static_range(TAPS_Y):
                for i in tl.static_range(TAPS_X):
                    line, spot = top + j * dilation_y, left + i * dilation_x
                    tap = channel * TAPS_Y * TAPS_X + j * TAPS_X + i
                    tile = _with_tap(tile, x, depthwise, image, line, spot, given, height, width,
                                     channel, channels, has, tap)  # fmt: skip
        else:
            for j in range(taps_y):
                for i in range(taps_x):
                    line, spot = top + j * dilation_y, left + i * dilation_x
                    tap = channel * taps_y * taps_x + j * taps_x + i
                    tile = _with_tap(tile, x, depthwise, image, line, spot, given, height, width,
                                     channel, channels, has, tap)  # fmt: skip
        if inner is not None:
            tile = tile + tl.load(inner + channel, mask=has, other=0.0).to(tl.float32)[None, :]
        tile = activate(tile, BETWEEN)
        place = column[None, :] * channels + channel[:, None]
        weight = tl.load(pointwise + place, mask=has[:, None] & wanted[None, :], other=0.0)
        total = tl.dot(tile.to(kind), weight.to(kind), total, input_precision=PRECISION)
    if bias is not None:
        total = total + tl.load(bias + column, mask=wanted, other=0.0).to(tl.float32)[None, :]
    place = point.to(tl.int64)[:, None] * columns + column[None, :]
    inside = given[:, None] & wanted[None, :]
    if residual is not None:
        total = total + tl.load(residual + place, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + place, activate(total, ACTIVATION).to(kind), mask=inside)


def separable(
    x: Tensor,
    depthwise: Tensor,
    pointwise: Tensor,
    window: Window,
    inner: Tensor | None = None,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    between: str = "none",
    activation: str = "none",
) -> Tensor:
    """``activation(pointwise(between(depthwise(x) + inner)) + bias + residual)``.

    ``x``, ``residual`` and the result are channels_last; ``depthwise [C, 1, kh, kw]`` and
    ``pointwise [C_out, C, 1, 1]`` are contiguous.
    """
    y, x_ = window.y, window.x
    channels, columns = x.shape[1], len(pointwise)
    out = empty_image(x, window.images, columns, y.points, x_.points)
    block_n = max(16, min(MOST, triton.next_power_of_2(columns)))
    blocks_n = pieces(columns, block_n)
    block_p = 64
    unrolled = max(y.taps, x_.taps) <= UNROLLED
    launch(
        separable_kernel, (pieces(window.points, block_p) * blocks_n,), x,
        x, depthwise, inner, pointwise, bias, residual, out, window.points, channels, columns,
        y.size, x_.size, y.points, x_.points, y.padding, x_.padding, y.dilation, x_.dilation,
        y.taps, x_.taps, blocks_n,
        STRIDE_Y=y.stride, STRIDE_X=x_.stride, TAPS_Y=y.taps if unrolled else 0,
        TAPS_X=x_.taps if unrolled else 0, IS_UNROLLED=unrolled, BLOCK_P=block_p,
        BLOCK_K=max(16, min(32, triton.next_power_of_2(channels))), BLOCK_N=block_n,
        BETWEEN=between, ACTIVATION=activation, PRECISION="tf32" if in_tf32() else "ieee",
        num_warps=8 if block_n >= 128 else 4,
    )  # fmt: skip
    return out
