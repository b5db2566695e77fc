"""Where a convolution on an image looks: for each point of its result, which pixels of its input.

Point (y, x) of ``rows × columns`` reads, for tap (j, i) of ``taps``, the pixel
``(y·step_y + origin_y + j·spread_y, x·step_x + origin_x + i·spread_x)`` of an image of ``height ×
width``; what lies outside is zero. A convolution has its stride for step, its dilation for spread
and minus its padding for origin; its adjoint is made of windows again (``adjoint``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import gcd


@dataclass(frozen=True)
class Axis:
    """One of the two directions of a window."""

    size: int  # of the image that is read
    points: int  # of the result
    taps: int
    step: int = 1
    origin: int = 0
    spread: int = 1


@dataclass(frozen=True)
class Window:
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
        return all(
            axis == Axis(axis.size, axis.size, 1, 1, 0, axis.spread) for axis in (self.y, self.x)
        )


def window(
    images: int,
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Window:
    """The window of a convolution; ``padding`` is (before, after) of each direction."""
    axes = [
        Axis(
            size,
            (size + padding[2 * i] + padding[2 * i + 1] - (k - 1) * spread - 1) // step + 1,
            k,
            step,
            -padding[2 * i],
            spread,
        )
        for i, (size, k, step, spread) in enumerate(
            zip(sizes, kernel, stride, dilation, strict=True)
        )
    ]
    return Window(images, *axes)


@dataclass(frozen=True)
class Share:
    """The part of an adjoint along one axis that reads the same taps of the kernel.

    The pixels ``first, first + every, …`` of the image; tap i of the axis is the kernel's tap
    ``tap - i·between``.
    """

    axis: Axis
    first: int
    every: int
    tap: int
    between: int


def adjoint(axis: Axis) -> Iterator[Share]:
    """The shares whose windows over the result give back each pixel of the image.

    Pixel p got something from point q through tap j where ``p = q·step + origin + j·spread``. Which
    taps those can be depends on p modulo step alone, and they follow one another evenly.
    """
    between = axis.step // gcd(axis.step, axis.spread)  # taps apart that give the same remainder
    for first in range(min(axis.step, axis.size)):
        points = -(-(axis.size - first) // axis.step)
        found = [
            j for j in range(axis.taps) if (first - axis.origin - j * axis.spread) % axis.step == 0
        ]
        last = found[-1] if found else 0
        # Rising taps read falling points: from the last tap to the first, so that points rise.
        origin = (first - axis.origin - last * axis.spread) // axis.step
        spread = between * axis.spread // axis.step
        share = Axis(axis.points, points, len(found), 1, origin, spread)
        yield Share(share, first, axis.step, last, between)
