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

from pointwise.convolution.window import Window
from pointwise.engine.cpu.by_dtype import by_dtype
from pointwise.engine.cpu.gathers import stencil
from pointwise.engine.cpu.gathers.band import copy_band, fixed_bands, window_bytes
from pointwise.engine.cpu.gathers.stencil_backward import BACKWARD_ROWS, PIXELS, reach
from pointwise.engine.cpu.gathers.transfer import CORRECT, NORMALISE, transfer_rows, zeros
from pointwise.engine.cpu.launch import device_of, launch, slot, threads
from pointwise.engine.cpu.loops import image_gradients as conv_images_gradient
from pointwise.engine.cpu.loops import images as conv_images
from pointwise.engine.cpu.loops.images import bits, is_stencil
from pointwise.engine.cpu.loops.moments import Mask, Moments, leave, pass_over
from pointwise.engine.cpu.memory import empty, empty_image
from pointwise.engine.cpu.pack import padded_columns
from pointwise.engine.cpu.partial_sums import total_of
from pointwise.engine.cpu.table import Table, real
from pointwise.engine.cpu.vector import bytes_of, number


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

    def rows(self) -> tuple[Tensor, Tensor, Tensor, float, float]:
        """Mean, scale and shift for ``z·scale + shift``, and bounds, also if it is z as it is."""
        if self.mean is None or self.scale is None or self.shift is None:
            zero = self.z.new_zeros(self.z.shape[1])
            return zero, torch.ones_like(zero), zero, -np.inf, np.inf
        shift = self.shift - self.mean * self.scale
        return self.mean, self.scale, shift, self.low, self.high

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


# --- the stencil backwards ------------------------------------------------------------------------

_BACK = 15  # the first slot behind the window


def _backward_of(add, taps, step, phase):
    points = reach(taps, step, phase)
    first_read, last_read = min(points), max(points)

    @device_of(taps, step, phase)
    def backward_slab(arguments, program, thread, like):
        """Some bands of rows, one after the other; their sums go to a slab of its own."""
        size = bytes_of(like)
        grad, out = slot(arguments, _BACK), slot(arguments, _BACK + 1)
        weight, numbers = slot(arguments, _BACK + 2), slot(arguments, _BACK + 4)
        total = slot(arguments, _BACK + 3) + program * numbers * size
        band, bands, span = (
            slot(arguments, _BACK + 5),
            slot(arguments, _BACK + 6),
            slot(arguments, _BACK + 7),
        )
        images, correct = slot(arguments, _BACK + 8), slot(arguments, _BACK + 9)
        scratch = slot(arguments, _BACK + 10) + thread * slot(arguments, _BACK + 11)
        norm = (
            slot(arguments, _BACK + 12),
            slot(arguments, _BACK + 13),
            slot(arguments, _BACK + 14),
        )
        low, high = real(arguments, _BACK + 15, like), real(arguments, _BACK + 16, like)
        pixel, channels = slot(arguments, 1), slot(arguments, 2)
        height, width = slot(arguments, 3), slot(arguments, 4)
        lines, points = slot(arguments, 5), slot(arguments, 6)
        step_y, taps_y = slot(arguments, 7), slot(arguments, 9)
        origin_y, origin_x = slot(arguments, 11), slot(arguments, 12)
        zeros(total, numbers, like)
        # Columns of points that the pixels of a row read, whole blocks of them.
        zero_point = (-origin_x - phase) // step
        left = zero_point + first_read
        blocks = (width + PIXELS - 1) // PIXELS
        columns = zero_point + (blocks - 1) * PIXELS // step + last_read + 1 - left
        begin = min(columns, max(0, -left))
        end = max(begin, min(columns, points - left))
        for work in range(program * span, min((program + 1) * span, images * bands)):
            image, first = work // bands, work % bands * band
            rows = min(band, height - first)
            top = max(0, -((origin_y + taps_y - 1 - first) // step_y))
            bottom = min(lines, (first + rows - 1 - origin_y) // step_y + 1)
            for p in range(top, bottom):
                place = scratch + (p - top) * columns * pixel
                source = grad + ((image * lines + p) * points + left) * pixel
                zeros(place, begin * channels, like)
                transfer_rows(place + begin * pixel, pixel, source + begin * pixel, pixel,
                              end - begin, channels, correct, 0, like)  # fmt: skip
                zeros(place + end * pixel, (columns - end) * channels, like)
            here = (image * height + first) * width * pixel
            add(first, rows, width, scratch + (zero_point - left) * pixel, columns * pixel, top,
                lines, taps_y, origin_y, step_y, pixel, weight, total, slot(arguments, 0) + here,
                out + here, norm, low, high, total + taps_y * taps * channels * size, channels,
                like)  # fmt: skip

    return backward_slab


_BACKWARD = {
    (*shape, dtype): compiled
    for shape, add in BACKWARD_ROWS.items()
    for dtype, compiled in by_dtype(_backward_of(add, *shape), f"stencil_backward_{shape}").items()
}


def _depthwise_backward(compiled, given: Norm, weight, seen: Window, correct: Correction):
    """(gradients of z, of scale, of shift, and of the weight) of a stencil, in one pass."""
    z, channels = given.z, given.z.shape[1]
    pixel = channels * z.element_size()
    mean, scale, shift, low, high = given.rows()
    taps = conv_images.taps(weight, None)
    out = empty_image(z.shape, z.dtype)
    band = max(1, min(seen.y.size, 64 * 1024 // (seen.x.size * pixel)))
    while band > 1 and seen.images * -(-seen.y.size // band) < conv_images_gradient.PROGRAMS:
        band = -(-band // 2)
    bands = -(-seen.y.size // band)
    span = -(-seen.images * bands // conv_images_gradient.PROGRAMS)
    slabs = -(-seen.images * bands // span)
    numbers = padded_columns((seen.taps + 2) * channels, z.dtype)
    totals = empty((slabs, numbers), z.dtype)
    # Rows and columns of points that a band can read, at most.
    room = ((band + seen.y.taps) // seen.y.stride + 2) * (seen.x.size + 3 * PIXELS) * pixel
    scratch = torch.empty(threads() * room, dtype=torch.uint8)
    arguments = conv_images.windowed(z, seen, channels)
    arguments += [correct.grad.data_ptr(), out.data_ptr(), taps.weight.data_ptr(),
                  totals.data_ptr(), numbers, band, bands, span, seen.images, correct.address,
                  scratch.data_ptr(), room, mean.data_ptr(), scale.data_ptr(), shift.data_ptr(),
                  bits(low), bits(high)]  # fmt: skip
    launch(compiled, arguments, slabs)
    total = total_of(totals)
    d_weight, d_scale, d_shift = total[: (seen.taps + 2) * channels].split(
        (seen.taps * channels, channels, channels)
    )
    kernel = weight.shape[2:]
    d_weight = d_weight.view(-1, channels).t().reshape(-1, 1, *kernel)
    return (out, None, None, d_weight) if given.mean is None else (out, d_scale, d_shift, d_weight)


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
    x = seen.x
    shape = x.taps, x.stride, x.padding % x.stride, given.z.dtype
    if is_stencil(weight.shape, groups) and wanted and x.dilation == 1 == seen.y.dilation:
        compiled = _BACKWARD.get(shape)
        if compiled is not None:
            return _depthwise_backward(compiled, given, weight, seen, correct)
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
