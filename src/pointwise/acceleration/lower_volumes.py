"""From the vocabulary to launches: volumes as images, and images as volumes again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx

from pointwise.acceleration import vocabulary
from pointwise.acceleration.buffers import Value, strides_of
from pointwise.acceleration.builder import Builder, Constant, Found, why_not
from pointwise.engine.cpu.launch import Launch
from pointwise.engine.cpu.loops import resample

_LAST = (0, 2, 3, 4, 1)  # the dimensions of a volume with its channels last


def _planes(plan: Builder, node: fx.Node, x: Any, kernel: int, stride: int, edges: Sequence[int],
            dilation: int, groups: int) -> Found:  # fmt: skip
    x = plan.settled(x)
    why = why_not(x)
    if why:
        return why
    if len(x.shape) != 5:
        return "not a volume"
    count, channels, deep, high, wide = x.shape
    lines = (deep + sum(edges) - dilation * (kernel - 1) - 1) // stride + 1
    if lines < 1 or channels % groups:
        return "its kernel does not fit into the volume"
    strides = strides_of(x.shape, _LAST)
    whole = x if x.fake.stride() == strides else plan.copied(x, strides)
    if kernel == stride == 1 and not any(edges):
        if whole.buffer.slot is not None:  # calls of PyTorch's are given a slot's whole tensor
            whole = plan.copied(x, strides)
        whole.buffer.is_rigid = True
        return Value(whole.fake.transpose(1, 2).flatten(0, 1), whole.buffer)
    out = plan.new((count * lines, kernel * channels, high, wide), x.dtype)
    for tap in range(kernel):
        places = torch.arange(lines) * stride + tap * dilation - edges[0]
        places = torch.where((places >= 0) & (places < deep), places, -1)
        plan.emit(partial(_tap, plan, whole, out, tap, places), [whole], out)
    if groups == 1:
        return out
    order = torch.arange(kernel * channels).view(kernel, groups, -1).transpose(0, 1).flatten()
    turned = plan.new(out.shape, x.dtype)
    return plan.emit(
        lambda: resample.picked(plan.real(out), plan.real(turned), order), [out], turned
    )


def _tap(plan: Builder, x: Value, out: Value, tap: int, places: Tensor) -> Launch:
    """The planes that one tap reads, as some channels of the images."""
    count, channels = x.shape[:2]
    volume = plan.real(x).flatten(3, 4)  # of each volume an image, whose lines are planes
    images = plan.real(out).unflatten(0, (count, -1)).transpose(1, 2).flatten(3, 4)
    images = images[:, tap * channels : (tap + 1) * channels]
    return resample.copied(volume, images, places, torch.arange(volume.shape[3]), 0.0)


def _volumes(plan: Builder, node: fx.Node, images: Any, count: int) -> Found:
    if isinstance(images, Constant):
        return "an operand is a constant"
    images = plan.settled(images)
    if not isinstance(images, Value) or images.buffer.slot is not None:
        return "PyTorch's own"
    images.buffer.is_rigid = True
    return Value(images.fake.unflatten(0, (count, -1)).transpose(1, 2), images.buffer)


LOWERINGS: dict[Any, Callable[..., Found]] = {
    vocabulary.planes: _planes,
    vocabulary.volumes: _volumes,
}
