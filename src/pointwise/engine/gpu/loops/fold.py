"""Batch norm with fixed statistics, folded into the weight before it on a GPU, in one launch.

What a weight was folded from may be written to unseen (through ``tensor.data``), and a GPU cannot
be asked for samples without waiting for it. So weights are folded for every run, which takes a few
microseconds, unless a network is frozen.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from pointwise.engine.gpu.launch import launch


@triton.jit(do_not_specialize=["size"])
def fold_kernel(
    weight, bias, mean, variance, factor, shift, out, out_bias, size, eps, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    scale = 1.0 / tl.sqrt_rn(tl.load(variance + row).to(tl.float32) + eps)
    if factor is not None:
        scale = scale * tl.load(factor + row).to(tl.float32)
    moved = -tl.load(mean + row).to(tl.float32)
    if bias is not None:
        moved = moved + tl.load(bias + row).to(tl.float32)
    moved = moved * scale
    if shift is not None:
        moved = moved + tl.load(shift + row).to(tl.float32)
    tl.store(out_bias + row, moved.to(out_bias.dtype.element_ty))
    start = row.to(tl.int64) * size
    for first in range(0, size, BLOCK):
        place = first + tl.arange(0, BLOCK)
        value = tl.load(weight + start + place, mask=place < size, other=0.0).to(tl.float32)
        tl.store(out + start + place, (value * scale).to(out.dtype.element_ty), mask=place < size)


def fold(
    weight: Tensor, bias: Tensor | None, norm: Any, dtype: torch.dtype
) -> tuple[Tensor, Tensor | None]:
    """``convolution.epilogue.fold`` in type ``dtype``: of 16 or 32 bits."""
    if norm is None:
        return weight.to(dtype), None if bias is None else bias.to(dtype)
    weight = weight.contiguous()
    out = torch.empty_like(weight, dtype=dtype)
    out_bias = torch.empty(len(weight), dtype=dtype, device=weight.device)
    rows = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    size = weight[0].numel()
    block = min(1024, triton.next_power_of_2(size))
    launch(fold_kernel, (len(weight),), weight, weight, bias, *rows, out, out_bias, size, norm.eps,
           BLOCK=block, num_warps=1 if block < 256 else 4)  # fmt: skip
    return out, out_bias
