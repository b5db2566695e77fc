"""Sums, means, norms and largest numbers over rows or columns, and softmax of rows.

Numbers lie as ``[around, count, columns]``: of each column its ``count`` numbers become one, or,
where there is one column, of each row. Results do not depend on the number of threads.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from llvmlite import ir
from numba.extending import intrinsic
from torch import Tensor

from pointwise.engine.cpu.activation import quotient
from pointwise.engine.cpu.by_dtype import by_dtype
from pointwise.engine.cpu.cut import cut_channels, cut_rows
from pointwise.engine.cpu.device import device
from pointwise.engine.cpu.elementary import full_exponential
from pointwise.engine.cpu.launch import Launch
from pointwise.engine.cpu.layout import Layout
from pointwise.engine.cpu.vector import (
    broadcast,
    bytes_of,
    choose,
    equal,
    first,
    fma,
    lanes_of,
    less,
    load_first,
    number,
    root,
    store_first,
)


class Reduction(NamedTuple):
    """What many numbers become: the sum, or the largest, of themselves times ``sign``."""

    how: int
    sign: float = 1.0
    is_mean: bool = False
    has_root: bool = False


_SUM, _SQUARES, _LARGEST = range(3)

REDUCTIONS = {
    "sum": Reduction(_SUM),
    "mean": Reduction(_SUM, is_mean=True),
    "norm": Reduction(_SQUARES, has_root=True),
    "amax": Reduction(_LARGEST),
    "amin": Reduction(_LARGEST, sign=-1.0),
}
"""By name: ``norm`` is the root of the sum of squares."""

_REDUCE = Layout(
    "Reduce", "*x *out how around count columns block blocks span has_root sign:real divisor:real"
)
# Sums of so many numbers are added to the sum of all: fewer roundings of large numbers.
_RUN = 64


@intrinsic
def _folded(typingctx, a, is_largest):
    """The sum of all lanes, or the largest; NaN where one is."""

    def codegen(context, builder, signature, arguments):
        value, condition = arguments
        lanes = [builder.extract_element(value, ir.IntType(32)(i)) for i in range(a.count)]

        def pair(p, q):
            unordered = builder.fcmp_unordered("!=", p, p)
            is_first = builder.or_(unordered, builder.fcmp_ordered(">", p, q))
            return builder.select(condition, builder.select(is_first, p, q), builder.fadd(p, q))

        while len(lanes) > 1:
            lanes = [pair(p, q) for p, q in zip(lanes[::2], lanes[1::2], strict=True)]
        return lanes[0]

    return a.dtype(a, is_largest), codegen


@device
def _larger(a, b):
    """The larger lane by lane; NaN wins."""
    return choose(equal(a, a), choose(less(b, a), a, b), a)


@device
def _taken(total, value, how):
    """One more number for each lane."""
    if how == _SUM:
        return total + value
    if how == _SQUARES:
        return fma(value, value, total)
    return _larger(total, value)


@device
def _start(how, like):
    return broadcast(number(-math.inf if how == _LARGEST else 0, like))


@device
def _joined(total, some, how):
    return _larger(total, some) if how == _LARGEST else total + some


@device
def _finished(total, own, like):
    total = quotient(total * broadcast(number(own.sign, like)),
                     broadcast(number(own.divisor, like)))  # fmt: skip
    return root(total) if own.has_root != 0 else total


@device
def _columns(arguments, program, thread, like):
    """Some columns of ``[count, columns]``."""
    own = _REDUCE(arguments)
    size, width = bytes_of(like), lanes_of(like)
    around, begin = program // own.blocks, program % own.blocks * own.block
    row = own.columns * size
    x, out = own.x + around * own.count * row, own.out + around * row
    sign = broadcast(number(own.sign, like))
    end = min(begin + own.block, own.columns)
    for c in range(begin, end, width):
        left = end - c
        total = _start(own.how, like)
        for r in range(0, own.count, _RUN):
            some = _start(own.how, like)
            for i in range(r, min(r + _RUN, own.count)):
                value = load_first(x + i * row + c * size, left, like) * sign
                some = _taken(some, value, own.how)
            total = _joined(total, some, own.how)
        store_first(out + c * size, _finished(total, own, like), left)


@device
def _rows(arguments, program, thread, like):
    """``span`` rows of ``count``."""
    own = _REDUCE(arguments)
    size, width = bytes_of(like), lanes_of(like)
    sign, nothing = broadcast(number(own.sign, like)), _start(own.how, like)
    for r in range(program * own.span, min((program + 1) * own.span, own.around)):
        x = own.x + r * own.count * size
        total = nothing
        for begin in range(0, own.count, _RUN * width):
            some = nothing
            for k in range(begin, min(begin + _RUN * width, own.count), width):
                left = own.count - k
                value = choose(first(left, like), load_first(x + k * size, left, like) * sign,
                               nothing)  # fmt: skip
                some = _taken(some, value, own.how)
            total = _joined(total, some, own.how)
        whole = broadcast(_folded(total, own.how == _LARGEST))
        store_first(own.out + r * size, _finished(whole, own, like), 1)


_COLUMN_KERNELS, _ROW_KERNELS = by_dtype(_columns, "columns"), by_dtype(_rows, "rows")


def reduced(name: str, x: Tensor, out: Tensor, around: int, count: int, columns: int) -> Launch:
    """One of ``REDUCTIONS`` of ``x``, which lies as ``[around, count, columns]``."""
    how, sign, is_mean, has_root = REDUCTIONS[name]
    block, blocks, span, programs = columns, 1, 1, around
    if columns == 1:
        span = cut_rows(around, count * x.element_size())
        programs = -(-around // span)
    else:
        block, blocks = cut_channels(around, columns, x.element_size())
        programs = around * blocks
    kernels = _ROW_KERNELS if columns == 1 else _COLUMN_KERNELS
    arguments = _REDUCE(
        x=x, out=out, how=how, around=around, count=count, columns=columns, block=block,
        blocks=blocks, span=span, has_root=int(has_root), sign=sign,
        divisor=float(count if is_mean else 1),
    )  # fmt: skip
    return Launch(kernels[x.dtype], arguments, programs, out)


# --- softmax --------------------------------------------------------------------------------------

_SOFTMAX = Layout("Softmax", "*x *out rows columns span")


@device
def _softmax(arguments, program, thread, like):
    """``e^(x - largest)`` over its sum, of ``span`` rows."""
    own = _SOFTMAX(arguments)
    size, width, columns = bytes_of(like), lanes_of(like), own.columns
    nothing, zero = _start(_LARGEST, like), broadcast(number(0, like))
    for r in range(program * own.span, min((program + 1) * own.span, own.rows)):
        x, out = own.x + r * columns * size, own.out + r * columns * size
        largest = nothing
        for k in range(0, columns, width):
            value = load_first(x + k * size, columns - k, like)
            largest = _larger(largest, choose(first(columns - k, like), value, nothing))
        most = broadcast(_folded(largest, True))
        total = zero
        for k in range(0, columns, width):
            left = columns - k
            value = full_exponential(load_first(x + k * size, left, like) - most, like)
            value = choose(first(left, like), value, zero)
            total = total + value
            store_first(out + k * size, value, left)
        whole = broadcast(_folded(total, False))
        for k in range(0, columns, width):
            left, at = columns - k, out + k * size
            store_first(at, quotient(load_first(at, left, like), whole), left)


_SOFTMAX_KERNELS = by_dtype(_softmax, "softmax")


def softmax(x: Tensor, out: Tensor, rows: int, columns: int) -> Launch:
    """The softmax of each of ``rows`` of ``columns``."""
    span = cut_rows(rows, columns * x.element_size())
    arguments = _SOFTMAX(x=x, out=out, rows=rows, columns=columns, span=span)
    return Launch(_SOFTMAX_KERNELS[x.dtype], arguments, -(-rows // span), out)
