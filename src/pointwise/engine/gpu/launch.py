"""How a kernel is started: on the device that its tensors are on, whichever is the current one."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from pointwise.engine.gpu import is_interpreted


def launch(kernel: Any, grid: tuple[int, ...], like: Tensor, *arguments: Any, **constants: Any):
    """Runs ``kernel`` for every program of ``grid`` on the device of ``like``; none for an empty
    grid, which CUDA refuses.

    Products and sums are fused unless a kernel asks for other bits: it is Triton's default of now,
    and of which it warns that it will be another.
    """
    if 0 in grid:
        return
    constants.setdefault("enable_fp_fusion", True)
    if is_interpreted():
        _interpret(kernel, grid, arguments, constants)
        return
    with torch.cuda.device(like.device) if like.is_cuda else nullcontext():
        kernel[grid](*arguments, **constants)


def _interpret(kernel: Any, grid: tuple[int, ...], arguments: tuple, constants: dict) -> None:
    """Runs a kernel by Triton's interpreter, on float32 in place of bfloat16.

    NumPy has no bfloat16: the interpreter multiplies matrices of it as whole numbers, and rounds to
    it without carrying (1.999 becomes 1).
    """
    given = [
        each.float() if isinstance(each, Tensor) and each.dtype == torch.bfloat16 else each
        for each in arguments
    ]
    kernel[grid](*given, **constants)
    for old, new in zip(arguments, given, strict=True):
        if new is not old:
            old.copy_(new)


def pieces(count: int, size: int) -> int:
    """How many pieces of ``size`` hold ``count``."""
    return -(-count // size)
