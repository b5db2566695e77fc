"""ONNX operators that PyTorch does not have as such, as functions of tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_AVERAGE = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_LARGEST = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


def as_torch(begin: Sequence[int], end: Sequence[int]) -> list[int]:
    """Edges in the order of ``F.pad``: pairs, those of the last dimension first."""
    return [edge for pair in zip(reversed(begin), reversed(end), strict=True) for edge in pair]


def pad_same(
    x: Tensor, kernel: list[int], stride: list[int], dilation: list[int], upper: bool
) -> Tensor:
    """Pads images with zeros, so that a window gives ⌈size / stride⌉ results."""
    begin, end = _edges(x, kernel, stride, dilation, None, upper)
    return F.pad(x, as_torch(begin, end))


def _edges(x, kernel, stride, dilation, pads, upper) -> tuple[list[int], list[int]]:
    """What is around an image; without ``pads`` as much as the sizes ask for.

    The odd one is behind where it is ``upper``.
    """
    count = len(kernel)
    if pads is not None:
        return list(pads[:count]), list(pads[count:])
    begin, end = [], []
    for size, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True):
        total = max(0, ((size + s - 1) // s - 1) * s + (k - 1) * d + 1 - size)
        small, large = total // 2, total - total // 2
        begin.append(small if upper else large)
        end.append(large if upper else small)
    return begin, end


def average_pool(
    x: Tensor,
    kernel: list[int],
    stride: list[int],
    pads: list[int] | None,
    upper: bool,
    ceil: bool,
    with_padding: bool,
) -> Tensor:
    pool: Any = _AVERAGE[len(kernel)]
    begin, end = _edges(x, kernel, stride, [1] * len(kernel), pads, upper)
    if begin == end and all(2 * b <= k for b, k in zip(begin, kernel, strict=True)):
        return pool(x, kernel, stride, begin, ceil, with_padding)
    more = _beyond(x, kernel, stride, begin, end) if ceil else [0] * len(kernel)
    around, behind = as_torch(begin, end), as_torch([0] * len(kernel), more)
    out = pool(F.pad(F.pad(x, around), behind), kernel, stride)
    if with_padding and not any(more):
        return out
    counted = F.pad(torch.ones_like(x[:1, :1]), around, value=1.0 if with_padding else 0.0)
    return out / pool(F.pad(counted, behind), kernel, stride)  # by how much of a window counts


def max_pool(
    x: Tensor,
    kernel: list[int],
    stride: list[int],
    pads: list[int] | None,
    upper: bool,
    ceil: bool,
    dilation: list[int],
) -> Tensor:
    pool: Any = _LARGEST[len(kernel)]
    begin, end = _edges(x, kernel, stride, dilation, pads, upper)
    if begin == end and all(2 * b <= k for b, k in zip(begin, kernel, strict=True)):
        return pool(x, kernel, stride, begin, dilation, ceil)
    if ceil:
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
        more = _beyond(x, reach, stride, begin, end)
        end = [e + m for e, m in zip(end, more, strict=True)]
    lowest = -float("inf") if x.is_floating_point() else torch.iinfo(x.dtype).min
    return pool(F.pad(x, as_torch(begin, end), value=lowest), kernel, stride, 0, dilation)


def _beyond(x: Tensor, reach: list[int], stride: list[int], begin: list[int], end: list[int]):
    """How far the last windows go beyond what is around an image.

    They may, where they begin in the image or before it.
    """
    found = []
    for size, k, s, b, e in zip(x.shape[2:], reach, stride, begin, end, strict=True):
        last = (size + b + e - k + s - 1) // s  # number of the last window, from 0
        if last * s >= size + b:
            last -= 1
        found.append(max(0, last * s + k - (size + b + e)))
    return found


def global_mean(x: Tensor) -> Tensor:
    return x.mean(tuple(range(2, x.dim())), keepdim=True)


def global_max(x: Tensor) -> Tensor:
    return x.amax(tuple(range(2, x.dim())), keepdim=True)


def instance_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return torch.group_norm(x, x.shape[1], weight, bias, eps)


def layer_norm(x: Tensor, axis: int, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """Over all dimensions from ``axis`` on; factor and shift are broadcast over them."""
    out = F.layer_norm(x, x.shape[axis:], None, None, eps) * weight
    return out if bias is None else out + bias


def pad(x: Tensor, edges: list[int], mode: str, value: float, dims: list[int] | None) -> Tensor:
    """``edges`` are those before each dimension, then those behind each."""
    count = len(edges) // 2
    chosen = range(x.dim()) if dims is None else dims
    if len(chosen) != count:
        raise ValueError(
            f"Pad: {len(edges)} edges for {len(chosen)} dimensions of an input of sizes "
            f"{tuple(x.shape)}"
        )
    begin, end = [0] * x.dim(), [0] * x.dim()
    for i, dim in enumerate(chosen):
        begin[dim], end[dim] = edges[i], edges[count + i]
    around = as_torch(begin, end)
    while len(around) > 2 and around[-2:] == [0, 0]:
        around = around[:-2]
    if mode == "constant":
        return F.pad(x, around, mode, value)
    if len(around) <= 2 * (x.dim() - 2) <= 6 and min(around) >= 0 and x.is_floating_point():
        return F.pad(x, around, mode)
    for dim, (before, behind) in enumerate(zip(begin, end, strict=True)):
        if before or behind:
            x = x.index_select(dim, _outside(x.shape[dim], before, behind, mode))
    return x


def _outside(size: int, before: int, behind: int, mode: str) -> Tensor:
    """The indices of an axis of ``size`` pixels that is padded at both ends by its own pixels."""
    at = torch.arange(-before, size + behind)
    if mode == "replicate":
        return at.clamp(0, size - 1)
    if size == 1 or max(before, behind) >= size:
        raise ValueError(f"Pad: {max(before, behind)} cannot be mirrored of {size} pixels")
    at = at.abs()
    return torch.where(at >= size, 2 * (size - 1) - at, at)


def reshape(x: Tensor, shape: list[int], zeros: bool) -> Tensor:
    """A reshape in which a size of 0 is the input's own, unless ``zeros`` says that it is meant."""
    sizes = [x.shape[i] if n == 0 and not zeros else n for i, n in enumerate(shape)]
    return x.reshape(sizes)


def flatten(x: Tensor, axis: int) -> Tensor:
    """Two dimensions: the product of those before ``axis``, and of the others."""
    if axis == 1 and x.dim() > 1:
        return torch.flatten(x, 1)
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def reversed_dimensions(x: Tensor) -> Tensor:
    return x.permute(tuple(reversed(range(x.dim()))))


def squeeze(x: Tensor, dims: list[int] | None) -> Tensor:
    if dims is None:
        return torch.squeeze(x)
    wrong = [dim for dim in dims if x.shape[dim] != 1]
    if wrong:
        raise ValueError(
            f"Squeeze: dimension {wrong[0]} of sizes {tuple(x.shape)} is not 1, as the file says"
        )
    return torch.squeeze(x, tuple(dims))


def unsqueeze(x: Tensor, dims: list[int]) -> Tensor:
    rank = x.dim() + len(dims)
    for dim in sorted(dim % rank for dim in dims):
        x = x.unsqueeze(dim)
    return x


def split_evenly(x: Tensor, count: int, axis: int, rest: bool) -> Any:
    """``count`` parts of one size; the last may be smaller where a ``rest`` is allowed."""
    if not rest and x.shape[axis] % count:
        raise ValueError(f"Split: {x.shape[axis]} along axis {axis} are no {count} equal parts")
    return torch.split(x, (x.shape[axis] + count - 1) // count, axis)


def slices(
    x: Tensor, starts: list[int], ends: list[int], dims: list[int] | None, steps: list[int] | None
) -> Tensor:
    for i, dim in enumerate(range(len(starts)) if dims is None else dims):
        step = 1 if steps is None else steps[i]
        if step > 0:
            x = x[(slice(None),) * (dim % x.dim()) + (slice(starts[i], ends[i], step),)]
        else:
            chosen = range(*slice(starts[i], ends[i], step).indices(x.shape[dim]))
            x = x.index_select(dim, torch.tensor(list(chosen), dtype=torch.int64))
    return x


def gather(x: Tensor, index: Tensor, axis: int) -> Tensor:
    axis = axis % x.dim()
    flat = index.reshape(-1)
    flat = torch.where(flat < 0, flat + x.shape[axis], flat)
    found = x.index_select(axis, flat)
    return found.reshape([*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]])


def expand(x: Tensor, shape: list[int]) -> Tensor:
    return x.expand(torch.broadcast_shapes(x.shape, tuple(shape)))


def of_the_type(x: Tensor, other: Tensor) -> Tensor:
    return x.to(other.dtype)


def gather_elements(x: Tensor, index: Tensor, axis: int) -> Tensor:
    return x.gather(axis, torch.where(index < 0, index + x.shape[axis], index))


def scatter(x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
    """``x`` with ``updates`` where the last dimension of ``index`` points to."""
    return x.index_put(tuple(index.unbind(-1)), updates)
