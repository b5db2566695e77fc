"""What the witness has to know of the engine: its launches, its kernels, and bytes without VNNI.

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
from collections.abc import Callable, Iterator
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
        for module in modules_with(r"^def launch\(|^class Program\b"):
            launch = module.__dict__.get("launch")
            program = module.__dict__.get("Program")
            if callable(launch):
                replace_everywhere(launch, self._counted_launch(launch))
            if isinstance(program, type):
                setattr(program, "run", self._counted_run(program.__dict__["run"]))  # noqa: B010

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


# --- bytes on machines without VNNI ---------------------------------------------------------------


def has_vnni() -> bool:
    features = llvm.get_host_cpu_features()
    return all(features.get(name) for name in _VNNI)


def emulate_vnni() -> None:
    """Lets kernels of bytes run without AVX-512; to be called before ``pointwise`` is imported.

    Every AVX-512 instruction that kernels ask LLVM for by name is written in other words, exactly.
    Numba is told the machine's own features, the package those that int8 needs on top. Compiled
    kernels are kept in a folder of their own.
    """
    folder = Path(tempfile.gettempdir()) / f"pointwise-witness-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    os.environ["NUMBA_CACHE_DIR"] = str(folder)
    features = llvm.get_host_cpu_features()
    os.environ["NUMBA_CPU_FEATURES"] = features.flatten()
    pretended = type(features)({**features, **dict.fromkeys(_VNNI, True)})
    llvm.get_host_cpu_features = lambda: pretended
    given = ir.IRBuilder.call

    def call(builder: ir.IRBuilder, function: Any, args: Any, *rest: Any, **options: Any) -> Any:
        name = getattr(function, "name", "")
        if name.startswith("llvm.x86.avx512.vpdpbusd."):
            return dot_bytes(builder, *args)
        if name in _HALVES:
            return in_halves(builder, name, function.ftype.return_type, args)
        return given(builder, function, args, *rest, **options)

    ir.IRBuilder.call = call


def dot_bytes(
    builder: ir.IRBuilder, sums: ir.Value, unsigned: ir.Value, signed: ir.Value
) -> ir.Value:
    """``sums`` of int32, plus in each lane four products of a uint8 and an int8 (``vpdpbusd``)."""
    lanes = sums.type.count
    bytes_of, products_of = ir.VectorType(_I8, 4 * lanes), ir.VectorType(_I32, 4 * lanes)
    products = builder.mul(
        builder.zext(builder.bitcast(unsigned, bytes_of), products_of),
        builder.sext(builder.bitcast(signed, bytes_of), products_of),
    )
    for number in range(4):
        sums = builder.add(sums, _lanes(builder, products, range(number, 4 * lanes, 4)))
    return sums


_HALVES = {
    "llvm.x86.avx512.mask.cvtps2dq.512": ("llvm.x86.avx.cvt.ps2dq.256", 1),
    "llvm.x86.avx512.packssdw.512": ("llvm.x86.avx2.packssdw", 2),
    "llvm.x86.avx512.packuswb.512": ("llvm.x86.avx2.packuswb", 2),
}
"""Instructions on 512 bits, the same on 256, and how many of the operands are vectors of them."""


def in_halves(
    builder: ir.IRBuilder, name: str, result: ir.VectorType, args: list[ir.Value]
) -> ir.Value:
    """An instruction on 512 bits as two on 256; it works on 128 bits at a time in any case."""
    narrow, operands = _HALVES[name]
    half = ir.VectorType(result.element, result.count // 2)
    parts = []
    for first in (0, 1):
        given = []
        for arg in args[:operands]:
            count = arg.type.count // 2
            given.append(_lanes(builder, arg, range(first * count, (first + 1) * count)))
        kind = ir.FunctionType(half, [arg.type for arg in given])
        function = builder.module.globals.get(narrow) or ir.Function(builder.module, kind, narrow)
        parts.append(builder.call(function, given))
    order = ir.Constant(ir.VectorType(_I32, result.count), list(range(result.count)))
    return builder.shuffle_vector(*parts, order)


def _lanes(builder: ir.IRBuilder, vector: ir.Value, which: range) -> ir.Value:
    mask = ir.Constant(ir.VectorType(_I32, len(which)), list(which))
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), mask)


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
