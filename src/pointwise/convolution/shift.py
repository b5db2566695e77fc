"""The shift of channels: each is moved by one of the offsets of a kernel, on no device.

⌊C/M⌋ consecutive channels go with each of the M offsets of a kernel, in the order of its weights;
what is left over stays at the centre. On an image the M = kh·kw offsets are taps of a window, and
zeros come in from outside; on a cloud they are the M = k³ kernel cells, and a channel is the mean
(or sum) of the neighbours in its cell. A pointwise convolution follows. Source: Wu et al., "Shift:
A Zero FLOP, Zero Parameter Alternative to Spatial Convolutions", CVPR 2018.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pointwise.convolution.cells import gather
from pointwise.convolution.window import Window, window


def offset_channels(channels: int, offsets: int) -> Iterator[tuple[int, range]]:
    """(offset, its channels): in the order of the channels, none twice, the centre's rest last."""
    group = channels // offsets
    if group > 0:
        for offset in range(offsets):
            yield offset, range(offset * group, (offset + 1) * group)
    if channels > group * offsets:
        yield offsets // 2, range(group * offsets, channels)


# --- on images ------------------------------------------------------------------------------------


def padding_of(kernel: Sequence[int], dilation: Sequence[int]) -> list[int]:
    """(before, after) of each direction: with stride 1 the result is as large as the image."""
    edges = (apart * (taps - 1) // 2 for taps, apart in zip(kernel, dilation, strict=True))
    return [edge for before in edges for edge in (before, before)]


def shift_window(
    images: int,
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> Window:
    """The window whose taps are the offsets; every ``stride``-th pixel has a result."""
    return window(images, sizes, kernel, stride, padding_of(kernel, dilation), dilation)


def adjoint_window(forward: Window) -> Window:
    """The same taps seen from the image: pixel p reads ``(p + padding - tap·dilation) / stride``.

    Where that is no whole number, nobody read the pixel. The stride is not the window's to know.
    """
    y, x = (
        axis._replace(size=axis.points, points=axis.size, stride=1, padding=-axis.padding,
                      dilation=-axis.dilation)
        for axis in (forward.y, forward.x)
    )  # fmt: skip
    return Window(forward.images, y, x)


def _places(offset: int, seen: Window) -> tuple[slice, slice]:
    """Which pixels of the padded image an offset reads, for all points of the result."""
    taps = divmod(offset, seen.x.taps)
    first = [tap * axis.dilation for tap, axis in zip(taps, (seen.y, seen.x), strict=True)]
    y, x = (
        slice(begin, begin + (axis.points - 1) * axis.stride + 1, axis.stride)
        for begin, axis in zip(first, (seen.y, seen.x), strict=True)
    )
    return y, x


def shift(input: Tensor, seen: Window) -> Tensor:
    """The moved channels of an image ``[N, C, H, W]``, ``[N, C, H_out, W_out]``, differentiable."""
    top, left = seen.y.padding, seen.x.padding
    padded = F.pad(input, (left, left, top, top))
    moved = []
    for offset, channels in offset_channels(input.shape[1], seen.taps):
        y, x = _places(offset, seen)
        moved.append(padded[:, channels.start : channels.stop, y, x])
    return torch.cat(moved, dim=1)


def shift_adjoint(grad: Tensor, seen: Window) -> Tensor:
    """The adjoint of ``shift``: each channel moved back, ``[N, C, H, W]``."""
    top, left = seen.y.padding, seen.x.padding
    padded = grad.new_zeros(*grad.shape[:2], seen.y.size + 2 * top, seen.x.size + 2 * left)
    for offset, channels in offset_channels(grad.shape[1], seen.taps):
        own = slice(channels.start, channels.stop)
        y, x = _places(offset, seen)
        padded[:, own, y, x] = grad[:, own]
    return padded[:, :, top : top + seen.y.size, left : left + seen.x.size]


# --- on clouds ------------------------------------------------------------------------------------


def cells_of_channels(channels: int, cells: int) -> Tensor:
    """The kernel cell that each channel comes from, ``[C]`` int64."""
    found = torch.empty(channels, dtype=torch.int64)
    for cell, own in offset_channels(channels, cells):
        found[own.start : own.stop] = cell
    return found


def gather_shift(
    features: Tensor, row_start: Tensor, pairs: Tensor, bits: int, cells: int, mean: bool
) -> Tensor:
    """``[N, C]``: each channel's mean (or sum) of the ``features [Np, C]`` in its own cell."""
    channels = features.shape[1]
    gathered = gather(features, row_start, pairs, bits, cells, mean)
    own = cells_of_channels(channels, cells).to(features.device)
    return gathered[:, own, torch.arange(channels, device=features.device)]
