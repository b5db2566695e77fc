"""From sums of int32, by float32, to whole numbers of 8 or 16 bits, kept within 0 … 255.

Instructions that pack take the halves of each 128 bits by turns: what they give is put in order, or
was out of order before and is in order then.
"""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir

from pointwise.engine.cpu.vector import call

_I8, _I16, _I32 = ir.IntType(8), ir.IntType(16), ir.IntType(32)
# By the bits of a register.
_TO_INT = {128: "sse2.cvtps2dq", 256: "avx.cvt.ps2dq.256"}
_TO_WORDS = {128: "sse2.packssdw.128", 256: "avx2.packssdw", 512: "avx512.packssdw.512"}
_TO_BYTES = {128: "sse2.packuswb.128", 256: "avx2.packuswb", 512: "avx512.packuswb.512"}


def scaled(builder, sums: Sequence, factors: Sequence, shifts: Sequence) -> list:
    """``sum·factor + shift`` of int32 sums, in float32, each operation rounded once."""
    values = []
    for total, factor, shift in zip(sums, factors, shifts, strict=True):
        value = builder.fmul(builder.sitofp(total, factor.type), factor)
        values.append(builder.fadd(value, shift))
    return values


def to_int(builder, value):
    """The nearest whole numbers up to 255, half to even; below 0 any, as far as they go."""
    most = ir.Constant(value.type, [255.0] * value.type.count)
    value = builder.select(builder.fcmp_ordered("<", value, most), value, most)
    whole = ir.VectorType(_I32, value.type.count)
    bits = 32 * whole.count
    if bits < 512:
        return call(builder, f"llvm.x86.{_TO_INT[bits]}", whole, [value])
    zero = ir.Constant(whole, [0] * whole.count)
    arguments = [value, zero, ir.IntType(16)(-1), _I32(4)]
    return call(builder, "llvm.x86.avx512.mask.cvtps2dq.512", whole, arguments)


def woven_bytes(builder, values: Sequence):
    """Four registers as one of uint8, which are in order if ``values`` were woven."""
    wholes = [to_int(builder, value) for value in values]
    low, high = _packed(builder, _TO_WORDS, *wholes[:2]), _packed(builder, _TO_WORDS, *wholes[2:])
    return _packed(builder, _TO_BYTES, low, high)


def ordered_bytes(builder, values: Sequence):
    """One or two registers of eight as as many uint8, in order."""
    wholes = [to_int(builder, value) for value in values]
    if len(wholes) == 1:
        words = _packed(builder, _TO_WORDS, *_halves(builder, wholes[0]))
        return _shuffled(builder, _packed(builder, _TO_BYTES, words, words), range(8))
    words = _packed(builder, _TO_WORDS, *wholes)
    parts = builder.bitcast(
        _packed(builder, _TO_BYTES, *_halves(builder, words)), ir.VectorType(_I32, 4)
    )
    return builder.bitcast(_shuffled(builder, parts, (0, 2, 1, 3)), ir.VectorType(_I8, 16))


def ordered_words(builder, values: Sequence):
    """One or two registers of eight as as many numbers of 16 bits, in order."""
    zero = ir.Constant(ir.VectorType(_I32, 8), [0] * 8)
    parts = []
    for value in values:
        whole = to_int(builder, value)
        parts.append(builder.select(builder.icmp_signed(">", whole, zero), whole, zero))
    if len(parts) == 1:
        return _packed(builder, _TO_WORDS, *_halves(builder, parts[0]))
    words = builder.bitcast(_packed(builder, _TO_WORDS, *parts), ir.VectorType(ir.IntType(64), 4))
    return builder.bitcast(_shuffled(builder, words, (0, 2, 1, 3)), ir.VectorType(_I16, 16))


def _packed(builder, names: dict[int, str], low, high):
    """Two registers as one of numbers of half the size."""
    width, count = low.type.element.width, low.type.count
    shape = ir.VectorType(ir.IntType(width // 2), 2 * count)
    return call(builder, f"llvm.x86.{names[width * count]}", shape, [low, high])


def _halves(builder, value) -> list:
    half = value.type.count // 2
    return [_shuffled(builder, value, range(first, first + half)) for first in (0, half)]


def _shuffled(builder, value, order: Sequence[int]):
    mask = ir.Constant(ir.VectorType(_I32, len(order)), list(order))
    return builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), mask)
