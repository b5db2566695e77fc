"""How far an image is extended with zeros: every way to say it, as four numbers."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pointwise import checks

Padding = str | int | Sequence[int] | Sequence[Sequence[int]]
"""``"same"``, ``"valid"``, a number, one number per dimension, or (before, after) per dimension."""


def resolve(
    caller: str,
    padding: Padding,
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> list[int]:
    """(before, after) of each dimension, one behind the other.

    ``"same"`` makes the output ``ceil(size / stride)`` long. With stride 1 that is PyTorch's; with
    larger strides it is TensorFlow's SAME, which depends on the size of the image and, where the
    padding is odd, extends the end by one more than the beginning.
    """
    found = _resolved(padding, sizes, kernel, stride, dilation)
    if found is None:
        dimensions = len(kernel)
        raise ValueError(
            f'{caller}: padding must be "same", "valid", a whole number from 0, {dimensions} of '
            f"them, or {dimensions} pairs (before, after), got {padding!r}"
        )
    checks.not_too_large(caller, "padding", *found)
    return found


def _resolved(padding, sizes, kernel, stride, dilation) -> list[int] | None:
    dimensions = len(kernel)
    if isinstance(padding, str):
        if padding.lower() == "valid":
            return [0] * (2 * dimensions)
        if padding.lower() == "same":
            return [
                part
                for size, k, s, d in zip(sizes, kernel, stride, dilation, strict=True)
                for part in _same(size, (k - 1) * d + 1, s)
            ]
    elif _natural(padding):
        return [padding] * (2 * dimensions)  # type: ignore[list-item]
    elif isinstance(padding, Sequence) and len(padding) == dimensions:
        pairs = [p if isinstance(p, Sequence) else (p, p) for p in padding]
        flat = [part for pair in pairs for part in pair]
        if all(len(pair) == 2 for pair in pairs) and all(_natural(part) for part in flat):
            return flat  # type: ignore[return-value]
    return None


def _natural(value) -> bool:
    return checks.whole(value) and value >= 0


def _same(size: int, extent: int, stride: int) -> tuple[int, int]:
    # Not -(-size // stride): exported to ONNX, a negative quotient would be rounded up.
    reach = ((size + stride - 1) // stride - 1) * stride + extent
    total = torch.sym_max(reach - size, 0)
    return total // 2, total - total // 2
