"""What the planner knows of bytes, each as a function in plain PyTorch that says what it means.

A byte q stands for ``(q - zero)·scale``. Kernels give the same bits as these functions do; where a
machine has no kernels for bytes, these run in their place, exact and slow.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def quantize(x: Tensor, per: float, zero: int) -> Tensor:
    """The nearest bytes: ``x·per + zero``, rounded half to even, within 0 … 255."""
    # As float32 numbers, so that each operation rounds as in the kernel.
    parts = (torch.tensor(part, dtype=torch.float32) for part in (per, float(zero)))
    factor, shift = parts
    return (x * factor + shift).clamp(0, 255).round().to(torch.uint8)


def dequantize(x: Tensor, scale: float, zero: int) -> Tensor:
    """What bytes stand for."""
    return (x.float() - zero) * torch.tensor(scale, dtype=torch.float32)


def conv_int8(
    x: Tensor,
    weight: Tensor,
    factor: Tensor,
    shift: Tensor,
    residual: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    zero: int,
    times: float,
    low: float,
    high: float,
    as_bytes: bool,
) -> Tensor:
    """``convolution(x - zero)·factor + shift + residual·times`` of images of bytes.

    ``weight [C_out, C_in/groups, kh, kw]`` is int8, ``factor`` and ``shift [C_out]`` are float32.
    The convolution is one of whole numbers and exact (float64 holds them all). The result is kept
    within ``low … high``, or, ``as_bytes``, rounded half to even and within 0 … 255.
    """
    top, bottom, left, right = padding
    wide = F.pad(x.double() - zero, (left, right, top, bottom))
    sums = F.conv2d(wide, weight.double(), None, stride, 0, dilation, groups)
    out = sums.round().float() * factor.view(-1, 1, 1) + shift.view(-1, 1, 1)
    if residual is not None:
        out = out + residual.float() * torch.tensor(times, dtype=torch.float32)
    if as_bytes:
        return out.clamp(0, 255).round().to(torch.uint8)
    return out.clamp(low, high)


FUNCTIONS = {function.__name__: function for function in (quantize, dequantize, conv_int8)}
"""Name to function."""
