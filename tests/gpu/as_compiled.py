"""Kernels compiled for GPUs that are not here: what the interpreter runs, a compiler must take too.

The interpreter is lenient: it knows neither types that change in a loop nor sizes that must be
powers of two. So launches are recorded while it runs them, and the same kernels, with the same
types and constants, are then compiled to machine code (ptxas comes with Triton), in a process of
its own: Triton decides when it is imported whether it interprets.

    with as_compiled.recorded() as launches:
        run(...)
    for kernel in as_compiled.compile_all(launches):
        assert "local" not in kernel.ptx
"""

from __future__ import annotations

import inspect
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

TARGETS = (80, 90)  # compute capabilities, times ten


@dataclass(frozen=True)
class Launch:
    """A kernel as it was launched: where it is, the types of its arguments, what is constant."""

    module: str
    name: str
    signature: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, Any], ...]
    options: tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Compiled:
    """What became of a launch on a target; ``error`` is empty where it compiled."""

    launch: Launch
    target: int
    ptx: str
    registers: int
    stack: int
    error: str


@contextmanager
def recorded() -> Iterator[set[Launch]]:
    """The launches of kernels that the interpreter runs meanwhile."""
    from triton.runtime import interpreter
    from triton.runtime.jit import KernelParam, mangle_type

    launches: set[Launch] = set()
    run = interpreter.GridExecutor.__call__

    def noted(self, *arguments, **keywords):
        parameters = inspect.signature(self.fn).parameters
        own = {name: value for name, value in keywords.items() if name in parameters}
        options = {name: value for name, value in keywords.items() if name not in parameters}
        bound = inspect.signature(self.fn).bind(*arguments, **own)
        bound.apply_defaults()
        signature, constants = {}, {}
        for number, (name, value) in enumerate(bound.arguments.items()):
            parameter = KernelParam(number, parameters[name], True, True)
            if parameter.is_constexpr:
                signature[name], constants[name] = "constexpr", value
            else:
                signature[name] = parameter.annotation_type or mangle_type(value)
        module = self.fn.__globals__["__name__"]
        parts = (tuple(part.items()) for part in (signature, constants, options))
        launches.add(Launch(module, self.fn.__name__, *parts))
        return run(self, *arguments, **keywords)

    interpreter.GridExecutor.__call__ = noted
    try:
        yield launches
    finally:
        interpreter.GridExecutor.__call__ = run


def compile_all(launches: set[Launch]) -> list[Compiled]:
    """Every launch compiled for every target; raises AssertionError for what does not compile."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    child = subprocess.run(
        [sys.executable, __file__],
        input=pickle.dumps([tuple(vars(each).values()) for each in launches]),
        stdout=subprocess.PIPE,
        env=environment | {"PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
    )
    found = [Compiled(Launch(*launch), *rest) for launch, *rest in pickle.loads(child.stdout)]
    wrong = [f"{k.launch.name} on sm_{k.target}: {k.error}" for k in found if k.error]
    assert not wrong, "\n".join(wrong)
    return found


def _compile(launch: tuple, target: int) -> tuple:
    import importlib

    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    module, name, signature, constants, options = launch
    kernel = getattr(importlib.import_module(module), name)
    source = ASTSource(kernel, dict(signature), constexprs=dict(constants))
    try:
        done = triton.compile(source, GPUTarget("cuda", target, 32), options=dict(options))
    except Exception as error:
        return (launch, target, "", 0, 0, f"{type(error).__name__}: {error} ({error.__cause__})")
    return (launch, target, done.asm["ptx"], *_used(done.asm["cubin"]), "")


def _used(cubin: bytes) -> tuple[int, int]:
    """(registers of a thread, bytes of its stack, where spilled ones go), by a tool of CUDA's."""
    import re
    import tempfile
    from pathlib import Path

    import triton

    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        said = subprocess.run(
            [tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    registers, stack = re.search(r"REG:(\d+) STACK:(\d+)", said).groups()
    return int(registers), int(stack)


if __name__ == "__main__":
    answers = [_compile(launch, target) for launch in pickle.load(sys.stdin.buffer)
               for target in TARGETS]  # fmt: skip
    sys.stdout.buffer.write(pickle.dumps(answers))
