"""How this machine multiplies pairs of bfloat16, and adds both products up in float32.

A bfloat16 is the upper half of a float32: 8 bits of mantissa with the same range. Two lie in each
32-bit lane of a register, which holds what two steps of a product read (``vdpbf16ps``, which takes
subnormal numbers for zero). Numbers are rounded to them half to even (``vcvtne2ps2bf16``).
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pointwise.engine.cpu.device import device
from pointwise.engine.cpu.gemm import Floats, multiply_of
from pointwise.engine.cpu.isa import has
from pointwise.engine.cpu.vector import (
    bytes_of,
    call,
    lanes_of,
    load,
    load_first,
    store_lanes,
)

WHY_NOT = None if has("avx512bf16", "avx512vl") else "products of bfloat16 need AVX512-BF16"
"""Why this machine cannot; None where it can."""


class _BFloat(ir.Type):
    """LLVM's ``bfloat``, which llvmlite does not know."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


BFLOAT = _BFloat()


class Pairs(Floats):
    """A microkernel whose steps are pairs: in A and in B, where a float's bits would be."""

    def multiply_add(self, numbers, values, total):
        pairs = ir.VectorType(BFLOAT, 2 * self.width)
        given = [self.builder.bitcast(x, pairs) for x in (numbers, values)]
        name = f"llvm.x86.avx512bf16.dpbf16ps.{32 * self.width}"
        return call(self.builder, name, total.type, [total, *given])


def narrowed(builder, low, high):
    """Two registers of float32 as one of bfloat16, ``low`` first."""
    shape = ir.VectorType(BFLOAT, 2 * low.type.count)
    name = f"llvm.x86.avx512bf16.cvtne2ps2bf16.{32 * low.type.count}"
    return call(builder, name, shape, [high, low])


@intrinsic
def _store_pairs(typingctx, address, low, high):
    """Writes what two registers are in bfloat16, a register of them, to ``address``."""

    def codegen(context, builder, signature, arguments):
        address, low, high = arguments
        pairs = builder.bitcast(narrowed(builder, low, high), low.type)
        store_lanes(builder, address, pairs, None)
        return context.get_dummy_value()

    return types.void(types.int64, low, high), codegen


@device
def narrow_rows(rows, row_bytes, count, columns, like):
    """Makes rows of float32 rows of bfloat16 in place, with a zero behind an odd last one.

    Rows are whole registers.
    """
    size, width = bytes_of(like), lanes_of(like)
    whole = columns // (2 * width) * (2 * width)
    left = columns - whole
    for r in range(count):
        row = rows + r * row_bytes
        for k in range(0, whole, 2 * width):
            here = row + k * size
            _store_pairs(row + k * size // 2, load(here, like), load(here + width * size, like))
        if left > 0:
            here = row + whole * size
            low = load_first(here, left, like)
            high = low - low
            if left > width:
                high = load_first(here + width * size, left - width, like)
            _store_pairs(row + whole * size // 2, low, high)


multiply = multiply_of(Pairs)
"""``gemm.multiply`` of rows that are narrowed, ``depth`` pairs long."""
