"""Convolutions in training with batch norm: statistics from the epilogue, the norm in the gather.

Between two convolutions, batch norm and activation are ``clamp((z - mean)·scale + shift)`` of the
first one's result z. That is applied as the second one reads z, and never written; mean and
variance of a result are summed up while it is still in the cache. Backwards alike: what comes back
through mean and variance is added as the gradient is read, and the activation's mask and the
gradients of mean, scale and shift come out of the epilogue of the input's gradient. So every
activation and every gradient is written once, and read by the next convolution and by the weight's
gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pointwise import conv_images, conv_images_gradient
from pointwise.conv_images import bits, is_stencil
from pointwise.engine.cpu.launch import device_of, launch, slot, threads
from pointwise.engine.cpu.moments import Mask, Moments, leave, pass_over
from pointwise.engine.cpu.table import Table
from pointwise.engine.cpu.vector import number
from pointwise.gathers import stencil
from pointwise.gathers.band import copy_band, fixed_bands, window_bytes
from pointwise.gathers.transfer import CORRECT, NORMALISE
from pointwise.gathers.window import Window


@dataclass(frozen=True)
class Norm:
    """``clamp((z - mean)·scale + shift)`` of an image z ``[N, C, H, W]``."""

    z: Tensor
    mean: Tensor | None  # [C]; None: z as it is
    scale: Tensor | None
    shift: Tensor | None
    low: float
    high: float

    def table(self) -> Table | None:
        """How z is read."""
        if self.mean is None or self.scale is None or self.shift is None:
            return None
        shift = self.shift - self.mean * self.scale
        return _Affine(NORMALISE, self.scale, shift, bits(self.low), bits(self.high))

    def behind(self) -> Mask | None:
        """What a gradient that comes back here leaves behind."""
        if self.mean is None or self.scale is None or self.shift is None:
            return None
        return Mask(self.z, self.mean, self.scale, self.shift, self.low, self.high)


class _Affine(Table):
    """A table of scale and shift, which it keeps."""

    def __init__(self, mode: int, scale: Tensor, shift: Tensor, *rest: int) -> None:
        self.scale, self.shift = scale.contiguous(), shift.contiguous()
        super().__init__([mode, self.scale.data_ptr(), self.shift.data_ptr(), *rest])


class Correction(_Affine):
    """How a result's gradient is read: with what comes back through its mean and variance."""

    def __init__(
        self, grad: Tensor, d_mean: Tensor, d_variance: Tensor, out: Tensor, mean: Tensor
    ) -> None:
        count = out.numel() // out.shape[1]
        scale = d_variance * (2 / count)
        shift = d_mean / count - scale * mean
        apart = out.data_ptr() - grad.data_ptr()
        super().__init__(CORRECT, scale, shift, 0, 0, apart)
        self.grad, self.out = grad, out

    def written(self) -> Tensor:
        """The corrected gradient itself."""
        scale, shift = self.scale.view(-1, 1, 1), self.shift.view(-1, 1, 1)
        return torch.addcmul(shift, self.out, scale).add_(self.grad)


# --- the stencil on a band that is read through a table -------------------------------------------

_OWN = 21


def _band_of(fill, *shape):
    @device_of(*shape)
    def normed_band(arguments, program, thread, like):
        out, band, bands = (
            slot(arguments, _OWN),
            slot(arguments, _OWN + 1),
            slot(arguments, _OWN + 2),
        )
        how, left, room = (
            slot(arguments, _OWN + 3),
            slot(arguments, _OWN + 4),
            slot(arguments, _OWN + 6),
        )
        pixel, channels = slot(arguments, 1), slot(arguments, 2)
        height, width = slot(arguments, 3), slot(arguments, 4)
        lines, points = slot(arguments, 5), slot(arguments, 6)
        image, first = program // bands, program % bands * band
        rows = min(band, lines - first)
        source = slot(arguments, 0) + image * height * width * pixel
        out += (image * lines + first) * points * pixel
        y, origin_y, origin_x = first, slot(arguments, 11), slot(arguments, 12)
        if how != 0:
            source = slot(arguments, _OWN + 5) + thread * room
            height, width = copy_band(arguments, source, image, first, rows, how, like)
            y, origin_y, origin_x = 0, 0, 0
        low, high = number(-np.inf, like), number(np.inf, like)
        fill(out, pixel, points * pixel, y, rows, source, pixel, channels, height, width, points,
             slot(arguments, 7), slot(arguments, 8), slot(arguments, 9), slot(arguments, 10),
             origin_y, origin_x, slot(arguments, 13), slot(arguments, 14), slot(arguments, 15),
             slot(arguments, 16), slot(arguments, 17), low, high, like)  # fmt: skip
        if left != 0:
            leave(left, out, pixel, rows * points, channels, 0, channels, program, True,
                  like)  # fmt: skip

    return normed_band


_BANDS = conv_images.over_rows(_band_of, stencil.ROWS, "normed")


def _depthwise(x, taps, seen: Window, how: Table | None, behind) -> Tensor:
    out = conv_images.empty(x, seen, x.shape[1])
    pixel = x.shape[1] * x.element_size()
    band, bands = fixed_bands(seen, seen.x.points * pixel)
    room = window_bytes(seen, band, pixel)
    scratch = torch.empty(threads() * room if how else 0, dtype=torch.uint8)
    left = 0
    if behind is not None:
        rows = np.full(bands, band, dtype=np.int64)
        rows[-1] = seen.y.points - (bands - 1) * band
        left = behind.begin(out, np.tile(rows * seen.x.points, seen.images))
    arguments = conv_images.windowed(x, seen, x.shape[1]) + conv_images.stencil_arguments(
        taps, "none"
    )
    arguments += [out.data_ptr(), band, bands, 0 if how is None else how.address, left,
                  scratch.data_ptr(), room]  # fmt: skip
    launch(conv_images.row_kernel(_BANDS, seen, x.dtype), arguments, seen.images * bands)
    return out


# --- forward and backward -------------------------------------------------------------------------


def forward(given: Norm, weight: Tensor, seen: Window, groups: int):
    """(the convolution of what ``given`` stands for, its mean, its variance)."""
    behind = Moments()
    how = given.table()
    if is_stencil(weight.shape, groups):
        out = _depthwise(given.z, conv_images.taps(weight, None), seen, how, behind)
    else:
        mix = conv_images.mix(weight, None, groups)
        out = conv_images.mixed(given.z, mix, seen, how=how, behind=behind)
    return out, *behind.result()


def backward(
    given: Norm,
    weight: Tensor,
    seen: Window,
    groups: int,
    out: Tensor,
    out_mean: Tensor,
    grad: Tensor,
    d_mean: Tensor,
    d_variance: Tensor,
    wanted: bool,
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor]:
    """Gradients of z, of scale and shift, and of the weight; z's only where it is ``wanted``.

    The mean's gradient is minus scale times the shift's.
    """
    correct = Correction(grad, d_mean, d_variance, out, out_mean)
    how, kernel = given.table(), weight.shape[2:]
    d_z = d_scale = d_shift = None
    behind = given.behind()
    if is_stencil(weight.shape, groups):
        d_weight = conv_images_gradient.depthwise_weight(grad, given.z, seen, kernel, how, correct)
        if wanted:
            d_z = _depthwise_input(grad, weight, seen, correct, behind)
    else:
        d_weight = conv_images_gradient.mixed_weight(
            grad, given.z, seen, kernel, groups, how, correct
        )
        if wanted:
            d_z = conv_images_gradient.mixed_input(grad, weight, seen, groups, correct, behind)
    if wanted and behind is not None:
        d_scale, d_shift = behind.result()
    return d_z, d_scale, d_shift, d_weight


def _depthwise_input(grad, weight, seen: Window, correct: Correction, behind) -> Tensor:
    shares = conv_images_gradient.shares(seen)
    if len(shares) == 1:
        turned, back = conv_images_gradient.part_of(weight, seen, *shares[0])
        return _depthwise(grad, conv_images.taps(turned, None), back, correct, behind)
    # A strided result is small beside its input: the corrected gradient may as well be written.
    d_z = conv_images_gradient.depthwise_input(correct.written(), weight, seen)
    if behind is not None:
        pass_over(d_z, behind)
    return d_z
