"""Kernels over rows of a stencil: one for each width and stride that has inner loops of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from pointwise.convolution.window import Window
from pointwise.engine.cpu.by_dtype import ZEROS, of_type
from pointwise.engine.cpu.launch import kernel

FLOATS: dict[torch.dtype, Any] = ZEROS
BYTES: dict[torch.dtype, Any] = {torch.uint8: np.uint8(0)}


def row_kernels(
    loop_of: Callable,
    rows: Mapping[tuple[int, int], Any],
    name: str,
    types: Mapping[torch.dtype, Any] = FLOATS,
) -> dict[tuple, kernel]:
    """Kernels of ``loop_of(fill, taps, stride)`` by (taps, stride, dtype).

    ``rows`` are the functions that make rows of results by (taps, stride).
    """
    kernels = {}
    for (taps, stride), fill in rows.items():
        loop = loop_of(fill, taps, stride)
        for dtype, like in types.items():
            kernels[taps, stride, dtype] = of_type(loop, like, f"{name}_{taps}_{stride}_{dtype}")
    return kernels


def row_kernel(kernels: Mapping[tuple, kernel], window: Window, dtype: torch.dtype) -> kernel:
    """The kernel for a window: of its own width and stride, or the general one, (0, 0)."""
    x = window.x
    own = (x.taps, x.stride, dtype)
    return kernels[own if x.dilation == 1 and own in kernels else (0, 0, dtype)]
