"""One kernel source for every precision."""

from __future__ import annotations

import numpy as np
import torch

from pointwise.engine.cpu.launch import kernel

ZEROS = {torch.float32: np.float32(0), torch.float64: np.float64(0)}


def by_dtype(loop, name: str) -> dict[torch.dtype, kernel]:
    """Kernels of ``loop(arguments, program, thread, like)``, for ``like`` of each precision."""
    return {dtype: of_type(loop, like, f"{name}_{dtype}") for dtype, like in ZEROS.items()}


def of_type(loop, like, name: str) -> kernel:
    """The kernel of ``loop`` for ``like`` of one type."""

    def run(arguments, program, thread):
        loop(arguments, program, thread, like)

    return kernel(run, name)


def by_kind(loop, name: str) -> dict[torch.dtype, kernel]:
    """Kernels of ``loop(arguments, program, thread, kind)``, which reads arrays of that type."""
    return {dtype: of_type(loop, type(like), f"{name}_{dtype}") for dtype, like in ZEROS.items()}
