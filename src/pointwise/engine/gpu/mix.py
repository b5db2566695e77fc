"""The small matrix product of a tile: on tensor cores, with sums of more bits than its operands."""

from __future__ import annotations

import torch
import triton
import triton.language as tl


def sums_of(dtype: torch.dtype) -> tl.dtype:
    """The type that numbers of a type are added up in."""
    return tl.float64 if dtype == torch.float64 else tl.float32


@triton.jit
def product(a, b, total, PRECISION: tl.constexpr):
    """``total + a @ b``; ``a`` is rounded to the type of ``b``, and ``total`` has that of sums."""
    return tl.dot(a.to(b.dtype), b, total, input_precision=PRECISION)


def precision(dtype: torch.dtype) -> str:
    """How ``product`` multiplies numbers of a type: of float32 as PyTorch is told to."""
    return "tf32" if dtype == torch.float32 and _is_tf32_allowed() else "ieee"


def warps(dtype: torch.dtype) -> int:
    """How many groups of 32 threads share a tile's product.

    Float32 that is not rounded has no tensor cores, and float64 takes twice the room: with fewer
    threads their tiles would not fit into registers.
    """
    return 8 if dtype.itemsize > 2 and precision(dtype) == "ieee" else 4


def _is_tf32_allowed() -> bool:
    """Whether PyTorch's own products may round float32 to TF32, by its older switch or its newer.

    Reading the older one is an error where the newer was set.
    """
    switches = torch.backends.cuda.matmul
    if hasattr(switches, "fp32_precision"):
        return switches.fp32_precision == "tf32"
    return switches.allow_tf32
