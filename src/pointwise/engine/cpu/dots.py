"""How this machine multiplies bytes, a uint8 and an int8, and adds products up in int32.

What is added up stands in one 32-bit lane of a register: with VNNI four bytes, multiplied and added
by one instruction (``vpdpbusd``); with AVX2 two numbers of 16 bits, to which the bytes are widened
before (``vpmaddwd``, and an addition). AVX2's own instruction for bytes, ``vpmaddubsw``, adds two
products up in 16 bits, which they overflow. Sums are exact in each case, so that all machines give
the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import llvmlite.binding as llvm
import torch
from llvmlite import ir

from pointwise.engine.cpu.isa import has
from pointwise.engine.cpu.vector import call

LANE_BYTES = 4

_I8, _I16, _I32 = ir.IntType(8), ir.IntType(16), ir.IntType(32)


class Dots(NamedTuple):
    """A way to multiply bytes, by instructions that LLVM knows by name."""

    title: str
    lanes: int  # of a whole register
    group: int  # products that are added up in a lane
    dtype: torch.dtype  # of a weight in a lane
    rows: int  # of A that the microkernel multiplies at once, by two registers of columns

    @property
    def size(self) -> int:
        """Bytes of what is multiplied, in a lane."""
        return LANE_BYTES // self.group


AVX512_VNNI = Dots("AVX512-VNNI", 16, 4, torch.int8, 14)
AVX_VNNI = Dots("AVX-VNNI", 8, 4, torch.int8, 6)
AVX2 = Dots("AVX2", 8, 2, torch.int16, 6)


def found(has: Callable[..., bool]) -> Dots | None:
    """The best way of a machine that ``has`` some of LLVM's features."""
    if has("avx512vnni", "avx512bw", "avx512vl"):
        return AVX512_VNNI
    if has("avxvnni", "avx2"):
        return AVX_VNNI
    return AVX2 if has("avx2") else None


_FOUND = found(has)
WHY_NOT = None if _FOUND else "kernels of bytes need AVX2, AVX-VNNI or AVX512-VNNI"
"""Why this machine cannot; None where it can."""

DOTS = _FOUND or AVX2
"""This machine's way. (Where there is none nothing is compiled that asks.)"""


def dot(builder, sums, numbers, weights, lanes: int):
    """``sums`` plus, in each of ``lanes``, the products of a lane's ``numbers`` and ``weights``."""
    whole = ir.VectorType(_I32, lanes)
    if DOTS.group == 2:
        pairs = ir.VectorType(_I16, 2 * lanes)
        name = {4: "llvm.x86.sse2.pmadd.wd", 8: "llvm.x86.avx2.pmadd.wd"}[lanes]
        given = [builder.bitcast(x, pairs) for x in (numbers, weights)]
        return builder.add(sums, call(builder, name, whole, given))
    if llvm.llvm_version_info[0] >= 22:  # it takes bytes since then
        parts = ir.VectorType(_I8, 4 * lanes)
        numbers, weights = (builder.bitcast(x, parts) for x in (numbers, weights))
    name = f"llvm.x86.avx512.vpdpbusd.{32 * lanes}"
    return call(builder, name, whole, [sums, numbers, weights])
