"""Layer norm over the channels of each pixel, or the columns of each row."""

from __future__ import annotations

import math

from llvmlite import ir
from numba.extending import intrinsic
from torch import Tensor

from pointwise.engine.cpu.by_dtype import by_dtype
from pointwise.engine.cpu.cut import cut_rows
from pointwise.engine.cpu.device import device
from pointwise.engine.cpu.launch import Launch
from pointwise.engine.cpu.layout import Layout
from pointwise.engine.cpu.vector import (
    broadcast,
    bytes_of,
    choose,
    first,
    fma,
    lanes_of,
    load_first,
    number,
    store_first,
)

_LAYER_NORM = Layout("LayerNorm", "*x *out *weight *bias rows columns span eps:real")
"""``rows`` of ``columns`` numbers, ``span`` of which are a program's."""


@intrinsic
def _total(typingctx, a):
    """The sum of all lanes."""

    def codegen(context, builder, signature, arguments):
        scalar = ir.FloatType() if a.dtype.bitwidth == 32 else ir.DoubleType()
        total = scalar(0.0)
        lanes = [builder.extract_element(arguments[0], ir.IntType(32)(i)) for i in range(a.count)]
        while len(lanes) > 1:  # in pairs
            lanes = [builder.fadd(p, q) for p, q in zip(lanes[::2], lanes[1::2], strict=True)]
        return builder.fadd(total, lanes[0])

    return a.dtype(a), codegen


@device
def _layer_norm(arguments, program, thread, like):
    own = _LAYER_NORM(arguments)
    size, width = bytes_of(like), lanes_of(like)
    columns, weight, bias = own.columns, own.weight, own.bias
    eps = number(own.eps, like)
    zero, one = broadcast(number(0, like)), broadcast(number(1, like))
    for r in range(program * own.span, min((program + 1) * own.span, own.rows)):
        x, out = own.x + r * columns * size, own.out + r * columns * size
        total = zero
        for k in range(0, columns, width):
            total = total + load_first(x + k * size, columns - k, like)
        mean = _total(total) / number(columns, like)
        minus = broadcast(-mean)
        squares = zero
        for k in range(0, columns, width):
            away = load_first(x + k * size, columns - k, like) + minus
            away = choose(first(columns - k, like), away, zero)
            squares = fma(away, away, squares)
        scale = broadcast(
            number(1 / math.sqrt(_total(squares) / number(columns, like) + eps), like)
        )
        for k in range(0, columns, width):
            left, at = columns - k, k * size
            value = (load_first(x + at, left, like) + minus) * scale
            gain = load_first(weight + at, left, like) if weight != 0 else one
            shift = load_first(bias + at, left, like) if bias != 0 else zero
            store_first(out + at, fma(value, gain, shift), left)


_KERNELS = by_dtype(_layer_norm, "layer_norm")


def normed(
    x: Tensor,
    out: Tensor,
    rows: int,
    columns: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> Launch:
    """``(x - mean) / √(variance + eps) · weight + bias`` of each of ``rows`` of ``columns``."""
    span = cut_rows(rows, columns * x.element_size())
    arguments = _LAYER_NORM(
        x=x, out=out, weight=weight, bias=bias, rows=rows, columns=columns, span=span, eps=eps
    )
    return Launch(_KERNELS[x.dtype], arguments, -(-rows // span), out)
