"""The lanes of a mask next to each other, in memory."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from pointwise.engine.cpu.isa import ISA
from pointwise.engine.cpu.vector import call

_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)


@intrinsic
def compress_store(typingctx, address, value, mask):
    """Writes the lanes of ``mask`` next to each other; the rest of the register follows as garbage.

    The caller's buffer must have a whole register of room. (Compressing in the register and storing
    all of it is several times faster on Zen 4 than the instruction that compresses into memory.)
    """

    def codegen(context, builder, signature, arguments):
        place, register, wanted = arguments
        size = value.dtype.bitwidth
        if ISA.name == "avx2" and (value.count, size) in ((4, 64), (4, 32), (8, 32)):
            packed = _permuted(builder, register, wanted, size)
        else:
            packed = _compressed(builder, register, wanted)
        pointer = builder.inttoptr(place, packed.type.as_pointer())
        builder.store(packed, pointer, align=size // 8)
        return context.get_dummy_value()

    return types.void(types.int64, value, mask), codegen


def _compressed(builder, register, mask):
    """By the instruction, or what LLVM makes of it: one lane after the other."""
    shape = register.type
    whole = isinstance(shape.element, ir.IntType)
    bits = shape.element.width if whole else 32 if isinstance(shape.element, ir.FloatType) else 64
    name = f"llvm.experimental.vector.compress.v{shape.count}{'i' if whole else 'f'}{bits}"
    return call(builder, name, shape, [register, mask, ir.Constant(shape, ir.Undefined)])


def _permuted(builder, register, mask, size: int):
    """By a permutation of the 32-bit parts, from a table of all masks: AVX2 has no other way."""
    lanes = register.type.count
    parts = lanes * size // 32
    table = [_order(number, lanes, size // 32) for number in range(1 << lanes)]
    rows = ir.ArrayType(_I8, parts * len(table))
    constant = ir.Constant(rows, [place for row in table for place in row])
    start = cgutils.global_constant(builder, f"compressed_{lanes}_{size}", constant)
    number = builder.zext(builder.bitcast(mask, ir.IntType(lanes)), _I64)
    first = builder.gep(start, [_I64(0), builder.mul(number, _I64(parts))])
    row = ir.VectorType(_I8, parts)
    order = builder.load(builder.bitcast(first, row.as_pointer()), align=1)
    order = builder.zext(order, ir.VectorType(_I32, parts))
    if parts == 8:
        shape = ir.VectorType(_I32, 8)
        values = builder.bitcast(register, shape)
        moved = call(builder, "llvm.x86.avx2.permd", shape, [values, order])
    else:
        shape = ir.VectorType(ir.FloatType(), 4)
        values = builder.bitcast(register, shape)
        moved = call(builder, "llvm.x86.avx.vpermilvar.ps", shape, [values, order])
    return builder.bitcast(moved, register.type)


def _order(mask: int, lanes: int, parts: int) -> list[int]:
    """Which 32-bit parts come first: those of the lanes whose bit is set, each of ``parts``."""
    kept = [lane for lane in range(lanes) if mask >> lane & 1]
    kept += [0] * (lanes - len(kept))
    return [lane * parts + part for lane in kept for part in range(parts)]
