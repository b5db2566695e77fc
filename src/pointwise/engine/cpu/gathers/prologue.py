"""The prologue of a convolution: what becomes of the numbers of an image as a gather reads them.

A kernel gets the address of a table of the layout ``PROLOGUE``, or 0: then numbers are copied as
they are. There are two kinds:

NORMALISE: ``x·scale + shift`` kept within ``low … high``, the batch norm and the activation of the
layer before. CORRECT: ``x + other·scale + shift`` with another image of the same shape, the
gradient of a result and what comes back through the result's mean and variance.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pointwise.engine.cpu.by_dtype import by_dtype
from pointwise.engine.cpu.device import device
from pointwise.engine.cpu.launch import launch
from pointwise.engine.cpu.layout import Arguments, Layout
from pointwise.engine.cpu.memory import empty_image
from pointwise.engine.cpu.vector import (
    broadcast,
    bytes_of,
    fma,
    lanes_of,
    load,
    load_first,
    number,
    quotient,
    store,
    store_first,
    within,
)

NORMALISE, CORRECT = 1, 2

PROLOGUE = Layout("Prologue", "kind *scale *shift low:real high:real *image *other")
"""``scale`` and ``shift`` are rows of all channels; of CORRECT, ``image`` is what is read, and
``other`` the other one."""


def normalisation(scale: Tensor, shift: Tensor, low: float, high: float) -> Arguments:
    """The prologue ``clamp(x·scale + shift, low, high)``, for rows ``[C]``."""
    scale, shift = scale.contiguous(), shift.contiguous()
    return PROLOGUE(
        kind=NORMALISE, scale=scale, shift=shift, low=low, high=high, image=None, other=None
    )


_CORRECTING = Layout(
    "Correcting", "*d_mean *d_variance *mean *scale *shift channels count:real share:real"
)


@device
def _correct(arguments, program, thread, like):
    own = _CORRECTING(arguments)
    size, width = bytes_of(like), lanes_of(like)
    count, share = broadcast(number(own.count, like)), broadcast(number(own.share, like))
    for c in range(0, own.channels, width):
        at, left = c * size, own.channels - c
        scale = load_first(own.d_variance + at, left, like) * share
        shift = quotient(load_first(own.d_mean + at, left, like), count)
        store_first(own.scale + at, scale, left)
        store_first(own.shift + at, shift - scale * load_first(own.mean + at, left, like), left)


_CORRECT_KERNELS = by_dtype(_correct, "correct")


def _correcting_rows(
    d_mean: Tensor, d_variance: Tensor, mean: Tensor, out: Tensor
) -> tuple[Tensor, Tensor]:
    """Scale and shift of a correction: ``2·d_variance / n`` and ``d_mean / n - scale·mean``."""
    channels, dtype = out.shape[1], out.dtype
    scale, shift = torch.empty(channels, dtype=dtype), torch.empty(channels, dtype=dtype)
    count = out.numel() // channels
    arguments = _CORRECTING(
        d_mean=d_mean.contiguous(),
        d_variance=d_variance.contiguous(),
        mean=mean.contiguous(),
        scale=scale,
        shift=shift,
        channels=channels,
        count=count,
        share=2 / count,
    )
    launch(_CORRECT_KERNELS[dtype], arguments, 1)
    return scale, shift


class Correction:
    """The gradient of a result, with what comes back through the result's mean and variance.

    ``grad + out·scale + shift`` for ``grad`` and ``out`` ``[N, C, H, W]`` of the same strides and
    rows ``[C]``; ``prologue`` has a gather read it so.
    """

    def __init__(self, grad: Tensor, out: Tensor, scale: Tensor, shift: Tensor) -> None:
        self.grad, self.out, self.scale, self.shift = grad, out, scale, shift
        self.prologue = PROLOGUE(
            kind=CORRECT, scale=scale, shift=shift, low=0.0, high=0.0, image=grad, other=out
        )

    def corrected(self) -> Tensor:
        """The corrected gradient itself, an image in channels_last."""
        channels, dtype = self.grad.shape[1], self.grad.dtype
        out, row = empty_image(self.grad.shape, dtype), channels * self.grad.element_size()
        rows = self.grad.numel() // max(1, channels)
        arguments = _CORRECTED(
            grad=self.grad, out=out, correction=self.prologue, channels=channels, row=row, rows=rows
        )
        launch(_CORRECTED_KERNELS[dtype], arguments, -(-rows // _ROWS))
        return out


def correction_of(
    grad: Tensor, d_mean: Tensor, d_variance: Tensor, out: Tensor, mean: Tensor
) -> Correction:
    """That of a gradient, for those of the result's ``mean`` and variance, rows ``[C]``."""
    return Correction(grad, out, *_correcting_rows(d_mean, d_variance, mean, out))


@device
def other_image(prologue):
    """How many bytes lie between an image and the other one that a prologue reads; 0 for none."""
    distance = 0
    if prologue != 0:
        own = PROLOGUE(prologue)
        if own.kind == CORRECT:
            distance = own.other - own.image
    return distance


@device
def zeros(target, count, like):
    """Writes ``count`` zeros."""
    size, width = bytes_of(like), lanes_of(like)
    zero = broadcast(number(0, like))
    whole = count // width * width
    for k in range(0, whole, width):
        store(target + k * size, zero)
    if whole < count:
        store_first(target + whole * size, zero, count - whole)


@device
def copy(target, source, count, like):
    """Copies ``count`` numbers."""
    size, width = bytes_of(like), lanes_of(like)
    whole = count // width * width
    for k in range(0, whole, width):
        store(target + k * size, load(source + k * size, like))
    if whole < count:
        value = load_first(source + whole * size, count - whole, like)
        store_first(target + whole * size, value, count - whole)


@device
def transfer(target, source, count, prologue, channel, like):
    """Reads ``count`` channels of a pixel through a prologue, from ``channel`` (in bytes) on."""
    if prologue == 0:
        copy(target, source, count, like)
        return
    own = PROLOGUE(prologue)
    size, width = bytes_of(like), lanes_of(like)
    scale, shift = own.scale + channel, own.shift + channel
    whole = count // width * width
    if own.kind == NORMALISE:
        low, high = number(own.low, like), number(own.high, like)
        for k in range(0, whole, width):
            at = k * size
            x = fma(load(source + at, like), load(scale + at, like), load(shift + at, like))
            store(target + at, within(x, low, high))
        if whole < count:
            at, left = whole * size, count - whole
            factor, term = load_first(scale + at, left, like), load_first(shift + at, left, like)
            x = fma(load_first(source + at, left, like), factor, term)
            store_first(target + at, within(x, low, high), left)
        return
    other = source + (own.other - own.image)
    for k in range(0, whole, width):
        at = k * size
        x = fma(load(other + at, like), load(scale + at, like), load(shift + at, like))
        store(target + at, x + load(source + at, like))
    if whole < count:
        at, left = whole * size, count - whole
        factor, term = load_first(scale + at, left, like), load_first(shift + at, left, like)
        x = fma(load_first(other + at, left, like), factor, term)
        store_first(target + at, x + load_first(source + at, left, like), left)


# Up to so many bytes, rows lie close together, and channels in the outer loop save much work.
_NARROW = 1024
# But only as many rows at a time as memory hands out in order anyway.
_NEAR = 4096


@device
def transfer_rows(target, target_row, source, source_row, rows, columns, prologue, channel, like):
    """``transfer`` of so many ``rows``, ``source_row`` and ``target_row`` bytes apart."""
    size, width = bytes_of(like), lanes_of(like)
    if prologue == 0 or columns * size > _NARROW:
        for r in range(rows):
            transfer(
                target + r * target_row, source + r * source_row, columns, prologue, channel, like
            )
        return
    own = PROLOGUE(prologue)
    low, high = number(own.low, like), number(own.high, like)
    whole = columns // width * width
    some = max(1, _NEAR // source_row)
    for first in range(0, rows, some):
        last = min(first + some, rows)
        for c in range(0, whole, width):
            at = c * size
            scale = load(own.scale + channel + at, like)
            shift = load(own.shift + channel + at, like)
            if own.kind == NORMALISE:
                for r in range(first, last):
                    x = fma(load(source + r * source_row + at, like), scale, shift)
                    store(target + r * target_row + at, within(x, low, high))
            else:
                apart = own.other - own.image
                for r in range(first, last):
                    here = source + r * source_row + at
                    x = fma(load(here + apart, like), scale, shift)
                    store(target + r * target_row + at, x + load(here, like))
    if whole < columns:
        at, left = whole * size, columns - whole
        for r in range(rows):
            here, place = source + r * source_row + at, target + r * target_row + at
            transfer(place, here, left, prologue, channel + at, like)


_CORRECTED = Layout("Corrected", "*grad *out *correction channels row rows")
_ROWS = 64  # of one program


@device
def _corrected(arguments, program, thread, like):
    own = _CORRECTED(arguments)
    first = program * _ROWS
    rows, place = min(_ROWS, own.rows - first), first * own.row
    transfer_rows(own.out + place, own.row, own.grad + place, own.row, rows, own.channels,
                  own.correction, 0, like)  # fmt: skip


_CORRECTED_KERNELS = by_dtype(_corrected, "corrected")
