"""What is done to the pixels of one image, or of two, number by number.

COPY: ``x``. ADD: ``x + y``. MULTIPLY: ``x · y``. SCALE: each channel times a factor of its image,
``x[n, p, c] · y[n, c]``. AFFINE: ``x[p, c] · y[c] + z[c]``. Each is followed by an activation.
"""

from __future__ import annotations

from torch import Tensor

from pointwise.engine.cpu.activation import FORM, activate, activated, form_arguments
from pointwise.engine.cpu.by_dtype import by_dtype
from pointwise.engine.cpu.cut import cut_rows
from pointwise.engine.cpu.device import device
from pointwise.engine.cpu.launch import Launch
from pointwise.engine.cpu.layout import Layout
from pointwise.engine.cpu.vector import (
    bytes_of,
    fma,
    lanes_of,
    load_first,
    number,
    store_first,
    within,
)
from pointwise.engine.cpu.window import pixel_bytes

COPY, ADD, MULTIPLY, SCALE, AFFINE = range(5)

_COMBINE = Layout(
    "Combine", "*x *out *y *z how total channels span x_row out_row pixels", form=FORM
)
"""``total`` numbers in rows of ``channels``, ``span`` rows to a program.

Rows of x and y lie ``x_row`` bytes apart, those of the result ``out_row``. SCALE: ``pixels`` rows
are an image.
"""
_DENSE_ROW = 1024


@device
def _combine(arguments, program, thread, like):
    own = _COMBINE(arguments)
    form, how = own.form, own.how
    size, width = bytes_of(like), lanes_of(like)
    total, channels = own.total, own.channels
    low, high = number(form.low, like), number(form.high, like)
    begin = program * own.span
    end = min(begin + own.span, -(-total // channels))
    for r in range(begin, end):
        columns = min(channels, total - r * channels)
        x, out = own.x + r * own.x_row, own.out + r * own.out_row
        if how == COPY and form.activation != 0:  # which has no bounds
            activated(form.activation, x, own.x_row, out, own.out_row, 1, columns)
            continue
        y, z = own.y, own.z
        if how == SCALE:
            y += r // own.pixels * channels * size
        elif how != AFFINE:
            y += r * own.x_row
        for k in range(0, columns, width):
            left, at = columns - k, k * size
            value = load_first(x + at, left, like)
            if how == ADD:
                value = value + load_first(y + at, left, like)
            elif how == AFFINE:
                value = fma(value, load_first(y + at, left, like), load_first(z + at, left, like))
            elif how != COPY:
                value = value * load_first(y + at, left, like)
            store_first(out + at, within(value, low, high), left)
        activate(form.activation, out, own.out_row, 1, columns)


_KERNELS = by_dtype(_combine, "combine")


def dense(how: int, x: Tensor, out: Tensor, y: Tensor | None, activation: str) -> Launch:
    """COPY, ADD or MULTIPLY of tensors that lie in memory alike; ``out`` may be ``x``."""
    row = _DENSE_ROW * x.element_size()
    return _launch(how, x, out, y, None, activation, x.numel(), _DENSE_ROW, row)


def scale(x: Tensor, out: Tensor, factor: Tensor, activation: str) -> Launch:
    """``activation(x · factor)`` of ``x [N, C, H, W]``, channels_last; ``factor [N, C, 1, 1]``."""
    row = x.shape[1] * x.element_size()
    pixels = x.shape[2] * x.shape[3]
    return _launch(SCALE, x, out, factor, None, activation, x.numel(), x.shape[1], row, pixels)


def affine(x: Tensor, out: Tensor, factor: Tensor, shift: Tensor, activation: str) -> Launch:
    """``activation(x · factor + shift)``, one ``factor [C]`` and ``shift [C]`` for each channel.

    ``x`` is ``[N, C, H, W]``, channels_last, or ``[N, C]``.
    """
    row = x.shape[1] * x.element_size()
    return _launch(AFFINE, x, out, factor, shift, activation, x.numel(), x.shape[1], row)


def join(x: Tensor, out: Tensor, begin: int) -> Launch:
    """Copies ``x`` into the channels of ``out`` from ``begin`` on; both are channels_last.

    The pixels of ``x`` may be parts of wider ones.
    """
    row = out.shape[1] * out.element_size()
    return _launch(COPY, x, out[:, begin:], None, None, "none", x.numel(), x.shape[1], row,
                   x_row=pixel_bytes(x))  # fmt: skip


def _launch(
    how: int,
    x: Tensor,
    out: Tensor,
    y: Tensor | None,
    z: Tensor | None,
    activation: str,
    total: int,
    channels: int,
    out_row: int,
    pixels: int = 1,
    x_row: int | None = None,
) -> Launch:
    rows, row = -(-total // channels), channels * x.element_size()
    span = cut_rows(rows, row)
    arguments = _COMBINE(
        x=x, out=out, y=y, z=z, how=how, total=total, channels=channels, span=span,
        x_row=x_row or row,
        out_row=out_row, pixels=pixels, form=form_arguments(activation, x.dtype),
    )  # fmt: skip
    return Launch(_KERNELS[x.dtype], arguments, -(-rows // span), out)
