"""Where a convolution on an image looks: for each point of its result, which pixels of its input.

Point (y, x) of ``rows × columns`` reads, for tap (j, i) of ``taps``, the pixel
``(y·stride_y - padding_y + j·dilation_y, x·stride_x - padding_x + i·dilation_x)`` of an image of
``height × width``; what lies outside is zero. The adjoint of a window is made of windows again
(``adjoint``), whose padding may be negative.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import gcd
from typing import NamedTuple


class Axis(NamedTuple):
    """One of the two directions of a window."""

    size: int  # of the image that is read
    points: int  # of the result
    taps: int
    stride: int = 1
    padding: int = 0  # in front
    dilation: int = 1

    @property
    def is_identity(self) -> bool:
        """Whether point i reads pixel i and nothing else, for each pixel."""
        return self.points == self.size and self.taps == self.stride == 1 and self.padding == 0


class Window(NamedTuple):
    """What is read for each point of ``images`` results."""

    images: int
    y: Axis
    x: Axis

    @property
    def points(self) -> int:
        return self.images * self.y.points * self.x.points

    @property
    def taps(self) -> int:
        return self.y.taps * self.x.taps

    @property
    def is_identity(self) -> bool:
        """Whether point i reads pixel i and nothing else, as a pointwise convolution does."""
        return self.y.is_identity and self.x.is_identity


def window(
    images: int,
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Window:
    """The window of a convolution; ``padding`` is (before, after) of each direction."""
    axes = []
    edges = zip(padding[::2], padding[1::2], strict=True)
    for size, taps, step, apart, (before, after) in zip(
        sizes, kernel, stride, dilation, edges, strict=True
    ):
        points = (size + before + after - (taps - 1) * apart - 1) // step + 1
        axes.append(Axis(size, points, taps, step, before, apart))
    return Window(images, *axes)


class Phase(NamedTuple):
    """The part of an adjoint along one axis for the pixels that read the same taps of the kernel.

    These are the pixels ``first, first + stride, …`` of the image, the points of ``axis``; its tap
    i is the kernel's tap ``tap - i·tap_stride``.
    """

    axis: Axis
    first: int
    stride: int
    tap: int
    tap_stride: int


def adjoint(axis: Axis) -> Iterator[Phase]:
    """The phases of a stride, whose windows over the result give back each pixel of the image.

    Pixel p got something from point q through tap j where ``p = q·stride - padding + j·dilation``.
    Which taps those can be depends on p modulo stride alone, and they follow one another evenly.
    """
    # Taps so far apart give the same remainder.
    tap_stride = axis.stride // gcd(axis.stride, axis.dilation)
    for first in range(min(axis.stride, axis.size)):
        points = -(-(axis.size - first) // axis.stride)
        place = first + axis.padding
        taps = [j for j in range(axis.taps) if (place - j * axis.dilation) % axis.stride == 0]
        last = taps[-1] if taps else 0
        # Rising taps read falling points: from the last tap to the first, so that points rise.
        padding = -((place - last * axis.dilation) // axis.stride)
        dilation = tap_stride * axis.dilation // axis.stride
        own = Axis(axis.points, points, len(taps), 1, padding, dilation)
        yield Phase(own, first, axis.stride, last, tap_stride)
