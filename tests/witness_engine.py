"""What the witness has to know of the engine: its launches, its kernels, and how to run those of
other processors.

Modules move during a rebuild, so everything is found by name in whatever modules are loaded, and
what is not found is left alone.
"""

from __future__ import annotations

import functools
import gc
import importlib
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

_VNNI = ("avx512vnni", "avx512bw", "avx512vl")
_I8, _I32 = ir.IntType(8), ir.IntType(32)

# --- launches -------------------------------------------------------------------------------------


class Launches:
    """Counts what is launched, by the name of the kernel."""

    def __init__(self) -> None:
        self.kernels: Counter[str] = Counter()

    @property
    def total(self) -> int:
        return self.kernels.total()

    def count(self) -> None:
        """From now on; to be called once, before the package's other modules are imported."""
        for module in modules_with(r"^class Program\b"):
            launch, program = module.__dict__.get("launch"), module.Program
            if program.__module__ != module.__name__ or launch is None:
                continue
            replace_everywhere(launch, self._counted_launch(launch))
            program.run = self._counted_run(program.run)

    def _counted_launch(self, launch: Callable) -> Callable:
        @functools.wraps(launch)
        def counted(compiled: Any, arguments: Any, programs: int, *rest: Any) -> Any:
            if programs > 0:
                self.kernels[compiled.name] += 1
            return launch(compiled, arguments, programs, *rest)

        return counted

    def _counted_run(self, run: Callable) -> Callable:
        @functools.wraps(run)
        def counted(program: Any, which: slice | None = None) -> Any:
            for compiled in program.kernels[which or slice(None)]:
                self.kernels[compiled.name] += 1
            return run(program) if which is None else run(program, which)

        return counted


def kernel_names() -> set[str]:
    """The names of all kernels of the package."""
    for module in modules_with(r"\bkernel\b|\bby_dtype\b"):
        assert module
    return {found.name for found in gc.get_objects() if _is_kernel(found)}


def _is_kernel(found: Any) -> bool:
    kind = type(found)
    return kind.__name__ == "kernel" and kind.__module__.startswith("pointwise")


# --- instructions that this machine lacks ---------------------------------------------------------


def has_vnni() -> bool:
    features = llvm.get_host_cpu_features()
    return all(features.get(name) for name in _VNNI)


def emulate(wanted: Sequence[str] = _VNNI) -> None:
    """Imports ``pointwise`` and lets its kernels run as if the machine had the features.

    Every instruction that kernels ask LLVM for by name is written in other words, exactly. Numba is
    told the machine's own features, the package those that are wanted on top. Compiled kernels are
    kept in a folder of their own.
    """
    folder = Path(tempfile.gettempdir()) / f"pointwise-witness-{wanted[0]}-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    os.environ["NUMBA_CACHE_DIR"] = str(folder)
    features = llvm.get_host_cpu_features()
    os.environ["NUMBA_CPU_FEATURES"] = features.flatten()
    pretended = type(features)({**features, **dict.fromkeys(wanted, True)})
    llvm.get_host_cpu_features = lambda: pretended
    given = ir.IRBuilder.call

    def call(builder: ir.IRBuilder, function: Any, args: Any, *rest: Any, **options: Any) -> Any:
        name = getattr(function, "name", "")
        body = next((body for start, body in _BODIES.items() if name.startswith(start)), None)
        if body is not None:
            function = _apart(builder.module, f"witness.{name}", function.ftype, body)
        return given(builder, function, args, *rest, **options)

    ir.IRBuilder.call = call
    isa = importlib.import_module("pointwise.engine.cpu.isa")
    has = isa.has
    isa.has = lambda *names: all(name in wanted or has(name) for name in names)
    importlib.import_module("pointwise.operators")


def _apart(module: ir.Module, name: str, kind: ir.FunctionType, body: Callable) -> ir.Function:
    """A function of its own for an instruction, so that kernels stay quick to compile."""
    found = module.globals.get(name)
    if found is None:
        found = ir.Function(module, kind, name)
        found.linkage = "internal"
        found.attributes.add("noinline")
        body(ir.IRBuilder(found.append_basic_block()), found.args)
    return found


def _dot_bytes(builder: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
    """``vpdpbusd``: sums of int32, plus in each lane four products of a uint8 and an int8."""
    sums, unsigned, signed = args
    lanes = sums.type.count
    bytes_of, products_of = ir.VectorType(_I8, 4 * lanes), ir.VectorType(_I32, 4 * lanes)
    products = builder.mul(
        builder.zext(builder.bitcast(unsigned, bytes_of), products_of),
        builder.sext(builder.bitcast(signed, bytes_of), products_of),
    )
    for number in range(4):
        sums = builder.add(sums, _lanes(builder, products, range(number, 4 * lanes, 4)))
    builder.ret(sums)


def _dot_pairs(builder: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
    """``vdpbf16ps``: sums of float32, plus in each lane two products of bfloat16, one by one."""
    sums, *factors = args
    whole = ir.VectorType(_I32, sums.type.count)
    bits = [builder.bitcast(factor, whole) for factor in factors]

    def every(value: int) -> ir.Constant:
        return ir.Constant(whole, [value] * whole.count)

    for half in (
        [builder.and_(x, every(-65536)) for x in bits],
        [builder.shl(x, every(16)) for x in bits],
    ):
        numbers = [builder.bitcast(x, sums.type) for x in half]
        sums = builder.fadd(sums, builder.fmul(*numbers))
    builder.ret(sums)


def _narrow_pairs(builder: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
    """``vcvtne2ps2bf16``: two registers as one of bfloat16, the second one's numbers first.

    Rounded half to even; subnormal numbers become zeros, and a NaN stays one.
    """
    high, low = args
    count = low.type.count
    whole, words = ir.VectorType(_I32, count), ir.VectorType(ir.IntType(16), count)

    def every(value: int) -> ir.Constant:
        return ir.Constant(whole, [value] * count)

    def narrow(value: ir.Value) -> ir.Value:
        bits = builder.bitcast(value, whole)
        top = builder.lshr(bits, every(16))
        odd = builder.and_(top, every(1))
        rounded = builder.lshr(builder.add(builder.add(bits, every(0x7FFF)), odd), every(16))
        exponent = builder.and_(bits, every(0x7F800000))
        small = builder.icmp_unsigned("==", exponent, every(0))
        rounded = builder.select(small, builder.and_(top, every(0x8000)), rounded)
        nan = builder.fcmp_unordered("uno", value, value)
        return builder.trunc(builder.select(nan, builder.or_(top, every(0x40)), rounded), words)

    order = ir.Constant(ir.VectorType(_I32, 2 * count), list(range(2 * count)))
    both = builder.shuffle_vector(narrow(low), narrow(high), order)
    builder.ret(builder.bitcast(both, builder.function.ftype.return_type))


def _in_halves(narrow: str, operands: int) -> Callable:
    """An instruction on 512 bits as two on 256; it works on 128 bits at a time in any case."""

    def body(builder: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        result = builder.function.ftype.return_type
        half = ir.VectorType(result.element, result.count // 2)
        parts = []
        for first in (0, 1):
            given = []
            for arg in args[:operands]:
                count = arg.type.count // 2
                given.append(_lanes(builder, arg, range(first * count, (first + 1) * count)))
            kind = ir.FunctionType(half, [arg.type for arg in given])
            found = builder.module.globals.get(narrow) or ir.Function(builder.module, kind, narrow)
            parts.append(builder.call(found, given))
        order = ir.Constant(ir.VectorType(_I32, result.count), list(range(result.count)))
        builder.ret(builder.shuffle_vector(*parts, order))

    return body


def _masked_load(builder: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
    """The bytes of the mask one by one, and those of the last operand elsewhere."""
    pointer, _, mask, rest = args
    place = builder.bitcast(pointer, _I8.as_pointer())
    room = builder.alloca(rest.type)
    builder.store(rest, room)
    target = builder.bitcast(room, _I8.as_pointer())

    def one(lane: ir.Value) -> None:
        builder.store(builder.load(builder.gep(place, [lane])), builder.gep(target, [lane]))

    _for_lanes(builder, mask, one)
    builder.ret(builder.load(room))


def _masked_store(builder: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
    """The bytes of the mask one by one."""
    value, pointer, _, mask = args
    place = builder.bitcast(pointer, _I8.as_pointer())
    room = builder.alloca(value.type)
    builder.store(value, room)
    source = builder.bitcast(room, _I8.as_pointer())

    def one(lane: ir.Value) -> None:
        builder.store(builder.load(builder.gep(source, [lane])), builder.gep(place, [lane]))

    _for_lanes(builder, mask, one)
    builder.ret_void()


def _for_lanes(builder: ir.IRBuilder, mask: ir.Value, one: Callable[[ir.Value], None]) -> None:
    count = mask.type.count
    wide = builder.alloca(ir.VectorType(_I8, count))
    builder.store(builder.zext(mask, ir.VectorType(_I8, count)), wide)
    bits = builder.bitcast(wide, _I8.as_pointer())
    before, loop = builder.block, builder.append_basic_block("loop")
    done = builder.append_basic_block("done")
    builder.branch(loop)
    builder.position_at_end(loop)
    lane = builder.phi(_I32)
    lane.add_incoming(_I32(0), before)
    with builder.if_then(
        builder.icmp_unsigned("!=", builder.load(builder.gep(bits, [lane])), _I8(0))
    ):
        one(lane)
    after = builder.add(lane, _I32(1))
    lane.add_incoming(after, builder.block)
    builder.cbranch(builder.icmp_unsigned("<", after, _I32(count)), loop, done)
    builder.position_at_end(done)


def _lanes(builder: ir.IRBuilder, vector: ir.Value, which: range) -> ir.Value:
    mask = ir.Constant(ir.VectorType(_I32, len(which)), list(which))
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), mask)


_BODIES: dict[str, Callable] = {
    "llvm.x86.avx512.vpdpbusd.": _dot_bytes,
    "llvm.x86.avx512bf16.dpbf16ps.": _dot_pairs,
    "llvm.x86.avx512bf16.cvtne2ps2bf16.": _narrow_pairs,
    "llvm.x86.avx512.mask.cvtps2dq.512": _in_halves("llvm.x86.avx.cvt.ps2dq.256", 1),
    "llvm.x86.avx512.packssdw.512": _in_halves("llvm.x86.avx2.packssdw", 2),
    "llvm.x86.avx512.packuswb.512": _in_halves("llvm.x86.avx2.packuswb", 2),
    # What AVX2 has no instruction for LLVM writes out lane by lane, which takes minutes to compile.
    **{f"llvm.masked.load.v{n}i8": _masked_load for n in (16, 32, 64)},
    **{f"llvm.masked.store.v{n}i8": _masked_store for n in (16, 32, 64)},
}
"""How a call begins that is written in other words, and those words."""


# --- finding --------------------------------------------------------------------------------------


def modules_with(pattern: str) -> Iterator[Any]:
    """Imports the modules of ``pointwise`` whose source has the regular expression."""
    import pointwise

    root = Path(pointwise.__file__).parent
    for file in sorted(root.rglob("*.py")):
        if re.search(pattern, file.read_text(encoding="utf-8"), re.MULTILINE):
            parts = file.relative_to(root.parent).with_suffix("").parts
            name = ".".join(parts).removesuffix(".__init__")
            try:
                yield importlib.import_module(name)
            except ImportError:  # an extra that is not installed
                continue


def replace_everywhere(old: Any, new: Any) -> None:
    """``new`` wherever a module of the package has ``old`` under some name."""
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "pointwise":
            for key, value in list(vars(module).items()):
                if value is old:
                    setattr(module, key, new)
