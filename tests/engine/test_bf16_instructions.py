"""The machine code of products of bfloat16, for processors that have them: this one need not."""

from __future__ import annotations

import re

import llvmlite.binding as llvm
import pytest
from llvmlite import ir
from numba import types

from pointwise.engine.cpu.pairs import Pairs, narrowed
from pointwise.engine.cpu.product import GENERAL, TILE
from pointwise.engine.cpu.vector import Vector

_I64, _F32 = ir.IntType(64), ir.FloatType()


def assembly_of(module: ir.Module, processor: str) -> str:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    parsed = llvm.parse_assembly(str(module))
    parsed.verify()
    target = llvm.Target.from_triple("x86_64-unknown-linux-gnu")
    machine = target.create_target_machine(cpu=processor, opt=3, codemodel="default")
    return machine.emit_assembly(parsed)


def function(arguments: list[ir.Type]) -> tuple[ir.Module, ir.IRBuilder, list[ir.Value]]:
    module = ir.Module()
    made = ir.Function(module, ir.FunctionType(ir.VoidType(), arguments), "f")
    return module, ir.IRBuilder(made.append_basic_block()), list(made.args)


@pytest.mark.parametrize("processor", ["cooperlake", "sapphirerapids", "znver4"])
@pytest.mark.parametrize("walk", [GENERAL, TILE])
def test_the_microkernel_is_dot_products_of_pairs(processor, walk):
    rows, vectors = 14, 2
    module, builder, given = function([_I64] * 13 + [_F32, _F32] + [_I64] * 2)
    Pairs(builder, Vector(types.float32, 16), (rows, vectors), walk, False, False, given).emit()
    builder.ret_void()
    code = assembly_of(module, processor)
    # Four steps unrolled and one alone, each with all sums in registers of 512 bits.
    assert len(re.findall(r"vdpbf16ps\s.*%zmm", code)) == 5 * rows * vectors
    assert "vfmadd" not in code
    loop = code[: code.rindex("vdpbf16ps")]
    assert not re.search(r"vmovups\s+%zmm\d+, \d*\(%rsp\)", loop), "sums are kept on the stack"


@pytest.mark.parametrize(("lanes", "register"), [(16, "zmm"), (8, "ymm")])
def test_two_registers_are_rounded_by_one_instruction(lanes, register):
    module, builder, (low, high, out) = function([_I64] * 3)
    shape = ir.VectorType(_F32, lanes)
    read = [
        builder.load(builder.inttoptr(address, shape.as_pointer()), align=4)
        for address in (low, high)
    ]
    pairs = builder.bitcast(narrowed(builder, *read), shape)
    builder.store(pairs, builder.inttoptr(out, shape.as_pointer()), align=4)
    builder.ret_void()
    code = assembly_of(module, "sapphirerapids")
    assert len(re.findall(rf"vcvtne2ps2bf16\s.*%{register}", code)) == 1
