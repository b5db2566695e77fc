"""ONNX's ``Resize``: pixels chosen or mixed along one axis after the other.

Which pixel a result is made of is worked out in float32, operation by operation as ONNX Runtime
does it: a coordinate that falls between two pixels, or a size that is just below a whole number,
would otherwise be another one. PyTorch's own interpolation is called where it chooses the same.

Source: https://onnx.ai/onnx/operators/onnx__Resize.html
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

COORDINATES = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_half_pixel_for_nn",
)
NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


class Method(NamedTuple):
    """``nearest`` or ``linear``, which coordinate a result has, and how that is rounded.

    ``simple`` rounds down as images grow and up as they shrink: what version 10 does.
    """

    mode: str
    coordinate: str
    rounded: str


def by_factors(x: Tensor, factors: list[float], axes: list[int] | None, *names: str) -> Tensor:
    """``factors`` are those of ``axes``, or of all; ``names`` make up a ``Method``."""
    method = Method(*names)
    every = _of_all(x, factors, axes, 1.0)
    if _are_images(x) and every[:2] == [1, 1] and _is_torchs(every[2:], method):
        chosen = {"mode": "nearest-exact"} if method.mode == "nearest" else _linear(x, method)
        return F.interpolate(x, scale_factor=every[2:], recompute_scale_factor=False, **chosen)
    for axis, factor in enumerate(every):
        if factor != 1:
            x = _along(x, axis, _size(x.shape[axis], factor), factor, method)
    return x


def to_sizes(x: Tensor, sizes: list[int], axes: list[int] | None, *names: str) -> Tensor:
    """``sizes`` are those of ``axes``, or of all; ``names`` make up a ``Method``."""
    method = Method(*names)
    every = _of_all(x, sizes, axes, None)
    kept = all(size is None or size == own for size, own in zip(every[:2], x.shape, strict=False))
    whole = kept and None not in every[2:]
    if whole and _are_images(x) and method.mode == "linear" and _is_smooth(method):
        return F.interpolate(x, size=every[2:], **_linear(x, method))
    for axis, size in enumerate(every):
        if size is not None:
            x = _along(x, axis, size, None, method)
    return x


def _of_all(x: Tensor, given: list, axes: list[int] | None, other: Any) -> list:
    """What is given for some axes, with ``other`` for the rest."""
    chosen = range(x.dim()) if axes is None else [axis % x.dim() for axis in axes]
    if len(given) != len(chosen):
        raise ValueError(
            f"Resize: {list(given)} are {len(given)} numbers for {len(chosen)} dimensions of an "
            f"input of sizes {tuple(x.shape)}"
        )
    found = [other] * x.dim()
    for axis, value in zip(chosen, given, strict=True):
        found[axis] = value
    return found


def _are_images(x: Tensor) -> bool:
    return x.dim() in (3, 4, 5) and x.is_floating_point()


def _linear(x: Tensor, method: Method) -> dict[str, Any]:
    mode = {3: "linear", 4: "bilinear", 5: "trilinear"}[x.dim()]
    return {"mode": mode, "align_corners": method.coordinate == "align_corners"}


def _is_smooth(method: Method) -> bool:
    return method.coordinate in ("half_pixel", "align_corners")


def _is_torchs(factors: list[float], method: Method) -> bool:
    """Whether PyTorch's interpolation is the same: for whole factors, or its own linear rule."""
    if method.mode == "linear":
        return _is_smooth(method) and all(map(_is_short, factors))
    some_times = all(factor == int(factor) >= 1 for factor in factors)
    return some_times and (method.coordinate, method.rounded) in (
        ("half_pixel", "round_prefer_floor"),
        ("half_pixel", "round_prefer_ceil"),
        ("half_pixel_symmetric", "round_prefer_floor"),
        ("pytorch_half_pixel", "round_prefer_floor"),
        ("asymmetric", "floor"),
        ("asymmetric", "simple"),
    )


def _is_short(factor: float) -> bool:
    """Whether sizes times this are exact in float32 (sizes of up to 65,536)."""
    mantissa, _ = math.frexp(factor)
    return (mantissa * 256).is_integer()


def _size(size: int, factor: float) -> int:
    """⌊size · factor⌋ in float32, as ONNX Runtime."""
    if _is_short(factor):
        return int(size * factor)
    return int(np.float32(int(size)) * np.float32(factor))


def _along(x: Tensor, axis: int, size: int, factor: float | None, method: Method) -> Tensor:
    """One axis at ``size``."""
    own = x.shape[axis]
    if factor is None:
        scale = torch.scalar_tensor(size, dtype=torch.float32) / own
    else:
        scale = torch.scalar_tensor(factor, dtype=torch.float32)
    at = _coordinates(own, size, scale, method.coordinate)
    # An axis that stays as it is stays so by every rule.
    at = torch.where(scale == 1, torch.arange(size, dtype=torch.float32), at)
    if method.mode == "nearest":
        return x.index_select(axis, _rounded(at, scale, method.rounded).long().clamp(0, own - 1))
    if not x.is_floating_point():
        raise ValueError(f"Resize: linear mixes floating-point numbers, not those of {x.dtype}")
    at = at.clamp(0, own - 1)
    low = at.long()
    high = (low + 1).clamp(max=own - 1)
    share = (at - low).reshape([-1] + [1] * (x.dim() - 1 - axis))
    below, above = x.index_select(axis, low), x.index_select(axis, high)
    return (below * (1 - share) + above * share).to(x.dtype)


def _coordinates(own: int, size: int, scale: Tensor, rule: str) -> Tensor:
    """Where each of ``size`` results lies among ``own`` pixels, in pixels."""
    i = torch.arange(size, dtype=torch.float32)
    if rule == "align_corners":
        return i * (own - 1) / max(size - 1, 1)
    if rule == "asymmetric":
        return i / scale
    if rule == "tf_half_pixel_for_nn":
        return (i + 0.5) / scale
    if rule == "pytorch_half_pixel" and size == 1:
        return i
    half = (i + 0.5) / scale - 0.5
    if rule == "half_pixel_symmetric":
        adjusted = torch.scalar_tensor(size, dtype=torch.float32) / (scale * own)
        return own / 2 * (1 - adjusted) + half
    return half


def _rounded(at: Tensor, scale: Tensor, how: str) -> Tensor:
    low = at.floor()
    if how == "simple":
        return torch.where(scale < 1, at.ceil(), low)
    if how in ("floor", "ceil"):
        return low if how == "floor" else at.ceil()
    more = at - low > 0.5 if how == "round_prefer_floor" else at - low >= 0.5
    return low + more
