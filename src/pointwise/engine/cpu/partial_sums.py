"""Sums that many programs have a part in: each adds up a slab, and the slabs are added in order.

So a sum does not depend on the number of threads.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pointwise.engine.cpu.launch import device, kernel, launch, slot
from pointwise.engine.cpu.vector import bytes_of, lanes_of, load, store


@device
def _sum_slabs(arguments, program, thread, like):
    """Adds the slabs of one stretch of the result, in the order of the slabs."""
    size = bytes_of(like)
    width = lanes_of(like)
    slabs, stride = slot(arguments, 0), slot(arguments, 1)
    here = slot(arguments, 2) + program * _STRETCH * size
    for k in range(0, min(_STRETCH, stride // size - program * _STRETCH), width):
        total = load(here + k * size, like)
        for s in range(1, slabs):
            total = total + load(here + k * size + s * stride, like)
        store(here + k * size, total)


_STRETCH = 1024


@kernel
def sum_slabs_float32(arguments, program, thread):
    """One stretch of the sum over slabs."""
    _sum_slabs(arguments, program, thread, np.float32(0))


@kernel
def sum_slabs_float64(arguments, program, thread):
    """One stretch of the sum over slabs."""
    _sum_slabs(arguments, program, thread, np.float64(0))


def total_of(slabs: Tensor) -> Tensor:
    """The sum of ``slabs [S, numbers]`` in place, whatever the number of threads."""
    count, numbers = slabs.shape
    compiled = sum_slabs_float32 if slabs.dtype == torch.float32 else sum_slabs_float64
    stride = numbers * slabs.element_size()
    launch(compiled, [count, stride, slabs.data_ptr()], -(-numbers // _STRETCH))
    return slabs[0]
