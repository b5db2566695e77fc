"""A batch norm with the bounds of its activation, as kernels read it."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from pointwise.engine.cpu.by_dtype import by_dtype
from pointwise.engine.cpu.device import device
from pointwise.engine.cpu.launch import launch
from pointwise.engine.cpu.layout import Layout
from pointwise.engine.cpu.vector import bytes_of, lanes_of, load_first, store_first

NORM = Layout("Norm", "*mean *scale *shift low:real high:real")
"""``clamp((x - mean)·scale + shift, low, high)``, for rows ``[C]``."""


@lru_cache(maxsize=256)
def same(value: float, count: int, dtype: torch.dtype) -> np.ndarray:
    """A row of one number, which nobody writes."""
    row = np.full(count, value, dtype=str(dtype).removeprefix("torch."))
    row.setflags(write=False)
    return row


_SHIFT = Layout("NormShift", "*mean *scale *shift *out channels")


@device
def _from_zero(arguments, program, thread, like):
    own = _SHIFT(arguments)
    size, width = bytes_of(like), lanes_of(like)
    for c in range(0, own.channels, width):
        at, left = c * size, own.channels - c
        product = load_first(own.mean + at, left, like) * load_first(own.scale + at, left, like)
        store_first(own.out + at, load_first(own.shift + at, left, like) - product, left)


_KERNELS = by_dtype(_from_zero, "norm_shift")


def from_zero(mean: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """The shift with which ``x·scale + shift`` is ``(x - mean)·scale + shift``; rows ``[C]``."""
    out = torch.empty(len(mean), dtype=mean.dtype)
    arguments = _SHIFT(
        mean=mean.contiguous(),
        scale=scale.contiguous(),
        shift=shift.contiguous(),
        out=out,
        channels=len(mean),
    )
    launch(_KERNELS[mean.dtype], arguments, 1)
    return out
