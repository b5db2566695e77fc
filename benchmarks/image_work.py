"""What convolutions on images need by definition, whoever does it: operations, and bytes at least.

A multiply-add is two operations. Taps that lie outside the image are not counted, since zeros need
no arithmetic: at 7×7 pixels that is every sixth tap of a 3×3 kernel. (Winograd's method needs fewer
operations than this for some standard convolutions. It is not counted as the limit.) Batch norms,
activations and residuals are nothing beside the convolutions and are not counted.

Of memory, only what enters and leaves is counted (input, weights, result): what lies between could
stay in cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from image_shapes import Convolution

FLOAT = 4  # bytes


class Work(NamedTuple):
    """Operations, and bytes moved at least."""

    flops: float
    bytes: float


def taps(shape: Convolution) -> int:
    """Along one side: pairs of an output pixel and an input pixel in its kernel's reach."""
    return sum(
        0 <= out * shape.stride + tap - shape.padding < shape.size
        for out in range(shape.out)
        for tap in range(shape.kernel)
    )


def multiply_adds(shape: Convolution) -> int:
    """Of one image."""
    return taps(shape) ** 2 * shape.c_out * shape.c_in // shape.groups


def weights(shape: Convolution) -> int:
    """How many there are."""
    return shape.c_out * shape.c_in // shape.groups * shape.kernel**2


def values_read(shape: Convolution) -> int:
    """Input values of one image that count at all; a 1×1 kernel with stride 2 skips most."""
    return min(shape.size, shape.out * shape.kernel) ** 2 * shape.c_in


def values_written(shape: Convolution) -> int:
    """Of one image."""
    return shape.out**2 * shape.c_out


def forward(shape: Convolution, batch: int) -> Work:
    """One convolution."""
    moved = weights(shape) + batch * (values_read(shape) + values_written(shape))
    return Work(2 * batch * multiply_adds(shape), FLOAT * moved)


def training(shape: Convolution, batch: int) -> Work:
    """One convolution, its input's gradient and its weights'.

    Each of the three takes as many operations. Read are input, weights and the result's gradient,
    written are the result and the other two gradients, in full.
    """
    image = batch * shape.size**2 * shape.c_in
    result = batch * values_written(shape)
    moved = batch * values_read(shape) + image + 2 * result + 2 * weights(shape)
    return Work(3 * 2 * batch * multiply_adds(shape), FLOAT * moved)


def network_forward(
    shapes: Sequence[Convolution], batch: int, result: int, others: int = 0
) -> Work:
    """All convolutions of a network or block, in the order they run, and ``others`` weights of
    linear layers; ``result`` is the number of values it returns for one image."""
    flops = 2 * batch * (sum(map(multiply_adds, shapes)) + others)
    held = sum(map(weights, shapes)) + others
    moved = held + batch * (values_read(shapes[0]) + result)
    return Work(flops, FLOAT * moved)


def network_training(
    shapes: Sequence[Convolution], batch: int, others: int = 0, input_gradient: bool = False
) -> Work:
    """Forward, and the gradients of all weights; that of the images only if ``input_gradient``."""
    every = sum(map(multiply_adds, shapes)) + others
    first = 0 if input_gradient else multiply_adds(shapes[0])
    held = sum(map(weights, shapes)) + others
    image = batch * values_read(shapes[0])
    moved = 2 * held + image * (2 if input_gradient else 1)
    return Work(2 * batch * (3 * every - first), FLOAT * moved)
