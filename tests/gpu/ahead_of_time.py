"""Compiles kernels for GPUs that are not here: operators' forms run on CPU tensors, and their
launches compile instead of starting anything.

    python tests/gpu/ahead_of_time.py 80 90 --only cell

prints a line of JSON for every kernel that was compiled: for which device and types, the registers
of a thread, what it spills, and the shared memory of a program. Triton must not interpret here.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from pointwise.engine import gpu, library

POINTERS = {
    torch.float64: "*fp64", torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16",
    torch.int64: "*i64", torch.int32: "*i32",
}  # fmt: skip


def source_of(kernel, arguments: tuple, constants: dict) -> tuple[ASTSource, dict]:
    """A kernel with its arguments as Triton's launcher specialises it, and the options left."""
    signature, fixed, attributes = {}, {}, {}
    options = {name: value for name, value in constants.items() if name not in kernel.arg_names}
    options.setdefault("enable_fp_fusion", True)  # as launch does
    given = dict(zip(kernel.arg_names, arguments, strict=False)) | constants
    for place, name in enumerate(kernel.arg_names):
        value = given[name]
        if name in constants or (not isinstance(value, torch.Tensor) and value == 1):
            signature[name], fixed[name] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[name] = POINTERS[value.dtype]
            attributes[(place,)] = [["tt.divisibility", 16]]
        else:
            signature[name] = "i32" if abs(value) < 2**31 else "i64"
            if value % 16 == 0:
                attributes[(place,)] = [["tt.divisibility", 16]]
    return ASTSource(kernel, signature, fixed, attributes), options


def resources(cubin: bytes) -> dict[str, int]:
    """What NVIDIA's tool says of a kernel: registers of a thread, and bytes that it spills."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(tool), "--dump-resource-usage", file.name]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", said))
    return {"registers": int(found["REG"]), "spilled": int(found["STACK"]) + int(found["LOCAL"])}


def compiling(targets: list[int], found: list[dict]) -> Callable:
    """A ``launch`` that compiles for ``targets`` and says so in ``found``."""

    def launch(kernel, grid, like, *arguments, **constants) -> None:
        source, options = source_of(kernel, arguments, constants)
        for target in targets:
            made = triton.compile(source, target=GPUTarget("cuda", target, 32), options=options)
            found.append(
                {
                    "kernel": f"{kernel.fn.__module__.rpartition('.')[2]}.{kernel.fn.__name__}",
                    "target": target,
                    "type": str(like.dtype).removeprefix("torch."),
                    "shared": made.metadata.shared,
                    **resources(made.asm["cubin"]),
                }
            )

    return launch


def modules() -> Iterator[ModuleType]:
    """All with kernels for GPUs, imported."""
    for each in pkgutil.walk_packages(gpu.__path__, gpu.__name__ + "."):
        yield importlib.import_module(each.name)


def forms(only: str) -> Iterator[tuple[str, tuple]]:
    """The operators on tables whose names begin so, with arguments of every type.

    Not the searches, which read what their kernels have found: ``as_compiled.py`` is for them.
    """
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "operators")]
    from cases import Case, uniform
    from cell_calls import PLAIN_FORMS, calls

    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):

        def typed(x, dtype=dtype):
            return x.to(dtype) if isinstance(x, torch.Tensor) and x.is_floating_point() else x

        wide = 32 if dtype == torch.float64 else 64
        cases = [Case("wide", uniform(40), (32, wide), 0.3)]
        if dtype == torch.float32:  # Triton compiles sizes of one, and odd ones, otherwise
            cases.append(Case("odd", uniform(41), (5, 3), 0.3))
            cases.append(Case("ones", uniform(1), (1, 1), 0.3, 1))
        for case in cases:
            for name, arguments in calls(case).items():
                if name in PLAIN_FORMS and name.startswith(only):
                    yield name, tuple(map(typed, arguments))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("targets", nargs="+", type=int, help="compute capabilities, as 90")
    parser.add_argument("--only", default="", help="operators whose names begin so")
    given = parser.parse_args()
    assert not gpu.is_interpreted(), "unset TRITON_INTERPRET, which compiles nothing"
    gpu.why_not = lambda device: None
    gpu.runs_on = lambda device: True
    found: list[dict] = []
    for module in modules():
        if hasattr(module, "launch"):
            module.launch = compiling(given.targets, found)
    for name, arguments in forms(given.only):
        for tf32 in (False, True) if arguments[0].dtype == torch.float32 else (False,):
            torch.backends.cuda.matmul.allow_tf32 = tf32
            library.on_gpu[name](*arguments)
    for line in sorted({json.dumps(each) for each in found}):
        print(line)


if __name__ == "__main__":
    main()
