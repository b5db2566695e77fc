"""Compiles the kernels for GPUs ahead of time, which needs none: what a process of its own runs.

    python compiled.py KERNELS TYPES CAPABILITIES

Each a list by commas: parts of the names in ``JOBS``, types, and compute capabilities as in 80.
Prints a line for each kernel: its name, type, capability, registers, bytes of spilled ones.
Triton must not be told to interpret.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor, nn
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia import compiler as nvidia
from triton.compiler import ASTSource

from pointwise.convolution.window import window
from pointwise.engine.gpu import moments
from pointwise.engine.gpu.gathers.prologue import correction, norm
from pointwise.engine.gpu.loops import (
    depthwise,
    depthwise_gradient,
    fold,
    norm_act,
    normed_images,
    separable,
)

MODULES = (depthwise, depthwise_gradient, fold, moments, norm_act, separable)
TYPES = {str(each).removeprefix("torch."): each
         for each in (torch.float32, torch.bfloat16, torch.float16, torch.float64)}  # fmt: skip


def image(dtype: torch.dtype, channels: int = 64, size: int = 14) -> Tensor:
    x = torch.zeros(2, channels, size, size, dtype=dtype)
    return x.contiguous(memory_format=torch.channels_last)


def seen(kernel: int, stride: int = 1, size: int = 14) -> Any:
    edge = kernel // 2
    return window(2, (size, size), (kernel,) * 2, (stride,) * 2, (edge,) * 4, (1, 1))


def weight(dtype: torch.dtype, kernel: int, channels: int = 64) -> Tensor:
    return torch.zeros(channels, 1, kernel, kernel, dtype=dtype)


def rows(dtype: torch.dtype, count: int = 3, channels: int = 64) -> list[Tensor]:
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return [torch.zeros(channels, dtype=wide) for _ in range(count)]


def _forward(kernel: int, stride: int, channels: int = 64) -> Callable:
    def run(dtype):
        bias = torch.zeros(channels, dtype=dtype)
        epilogue = depthwise.Epilogue(bias=bias, activation="silu")
        depthwise.depthwise(image(dtype, channels), weight(dtype, kernel, channels),
                            seen(kernel, stride), epilogue)  # fmt: skip

    return run


def _activations(dtype):
    for name in depthwise_activations():
        epilogue = depthwise.Epilogue(activation=name)
        depthwise.depthwise(image(dtype, size=7), weight(dtype, 1), seen(1, size=7), epilogue)


def depthwise_activations() -> list[str]:
    from pointwise.convolution.epilogue import ACTIVATIONS

    return list(ACTIVATIONS)


def _trained(kernel: int, stride: int) -> Callable:
    """Every kernel of a depthwise convolution's training step."""

    def run(dtype):
        x, own, places = image(dtype), weight(dtype, kernel), seen(kernel, stride)
        before = norm(*rows(dtype), 0.0, 6.0)
        out = image(dtype, size=places.y.points)
        args = before, own, places, (kernel // 2,) * 4, 64
        normed_images.forward(x, *args)
        normed_images.backward(x, *args, out, rows(dtype)[0], out, *rows(dtype, 2), True)

    return run


def _weight_gradient(dtype):
    depthwise_gradient.depthwise_weight_gradient(image(dtype), image(dtype), seen(7))


def _separable(kernel: int, columns: int) -> Callable:
    def run(dtype):
        if dtype == torch.float64:
            return
        bias = torch.zeros(columns, dtype=dtype)
        separable.separable(image(dtype), weight(dtype, kernel), torch.zeros(columns, 64, 1, 1,
                            dtype=dtype), seen(kernel), rows(dtype)[0].to(dtype), bias,
                            image(dtype, columns), "relu6", "hardswish")  # fmt: skip

    return run


def _norms(dtype):
    x, before = image(dtype), norm(*rows(dtype), 0.0, 6.0)
    moments.moments(x)
    norm_act.forward(x, before, x, "silu")
    norm_act.corrected(x, correction(x, *rows(dtype)))
    for name in depthwise_activations():
        norm_act.backward(x, x, before, x, name)
    if dtype != torch.float64:
        fold.fold(torch.zeros(8, 40, 3, 3), torch.zeros(8), nn.BatchNorm2d(8), dtype)


JOBS: dict[str, Callable] = {
    "3x3": _forward(3, 1),
    "3x3 stride 2": _forward(3, 2),
    "7x7": _forward(7, 1, 96),
    "9x9": _forward(9, 1, 40),
    "activations": _activations,
    "training 3x3": _trained(3, 1),
    "training 5x5 stride 2": _trained(5, 2),
    "weight 7x7": _weight_gradient,
    "separable 3x3": _separable(3, 128),
    "separable 9x9": _separable(9, 300),
    "norms": _norms,
}


def compiled(kernel: Any, arguments: tuple, constants: dict, capability: int) -> str:
    """A kernel for such arguments; registers and spilled bytes, as ptxas says."""
    options = {"num_warps": constants.pop("num_warps"), "enable_fp_fusion": True}
    given = dict(zip(kernel.arg_names, arguments, strict=False)) | constants
    signature, fixed, attributes = {}, {}, {}
    for place, parameter in enumerate(kernel.params):
        name, value = parameter.name, given[parameter.name]
        is_one = type(value) is int and value == 1 and not parameter.do_not_specialize
        if parameter.is_constexpr or value is None or is_one:
            signature[name], fixed[(place,)] = "constexpr", value
        elif isinstance(value, Tensor):
            signature[name] = "*" + _type_name(value.dtype)
            attributes[(place,)] = [["tt.divisibility", 16]]
        elif isinstance(value, int):
            signature[name] = "i32"
            if value % 16 == 0 and not parameter.do_not_specialize:
                attributes[(place,)] = [["tt.divisibility", 16]]
        else:
            signature[name] = "fp32"
    source = ASTSource(kernel, signature, fixed, attributes)
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    return _resources(made.asm["ptx"], capability)


def _type_name(dtype: torch.dtype) -> str:
    return {torch.float32: "fp32", torch.float64: "fp64", torch.bfloat16: "bf16",
            torch.float16: "fp16"}[dtype]  # fmt: skip


def _resources(ptx: str, capability: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "kernel.ptx")
        file.write_text(ptx, encoding="utf-8")
        arch = "sm_90a" if capability == 90 else f"sm_{capability}"
        ptxas = nvidia.get_ptxas(capability).path
        command = [ptxas, "-v", f"--gpu-name={arch}", str(file), "-o", "/dev/null"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    registers = re.search(r"Used (\d+) registers", said)
    spilled = re.search(r"(\d+) bytes spill stores", said)
    assert registers is not None
    assert spilled is not None
    return f"{registers[1]} registers, {spilled[1]} bytes spilled"


def main(kernels: str, types: str, capabilities: str) -> None:
    for capability in map(int, capabilities.split(",")):
        for name, job in JOBS.items():
            if not any(part in name for part in kernels.split(",")):
                continue
            for type_ in types.split(","):
                done: set[str] = set()

                def launch(kernel, grid, like, *arguments, **constants):
                    constants.setdefault("num_warps", 4)
                    said = compiled(kernel, arguments, constants, capability)  # noqa: B023
                    done.add(f"{kernel.__name__}: {said}")  # noqa: B023

                for module in MODULES:
                    module.launch = launch
                job(TYPES[type_])
                for line in sorted(done):
                    print(f"{name} {type_} sm_{capability} {line}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
