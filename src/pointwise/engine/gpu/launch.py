"""How a kernel is started: on the device that its tensors are on, whichever is the current one."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor


def launch(kernel: Any, grid: tuple[int, ...], like: Tensor, *arguments: Any, **constants: Any):
    """Runs ``kernel`` for every program of ``grid`` on the device of ``like``; none for an empty
    grid, which CUDA refuses.

    Products and sums are fused unless a kernel asks for other bits: it is Triton's default of now,
    and of which it warns that it will be another.
    """
    if 0 in grid:
        return
    constants.setdefault("enable_fp_fusion", True)
    with torch.cuda.device(like.device) if like.is_cuda else nullcontext():
        kernel[grid](*arguments, **constants)


def pieces(count: int, size: int) -> int:
    """How many pieces of ``size`` hold ``count``."""
    return -(-count // size)
