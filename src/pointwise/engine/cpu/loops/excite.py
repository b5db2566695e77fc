"""Squeeze and excitation: each channel of an image times a factor that its channel means decide.

``factor = gate(wide · between(narrow · mean + b) + b')``, in two launches. A program of both has
some channels of an image. The first (``squeeze``) takes their means, and leaves behind what they
add to each hidden number. The second (``excite``) adds up what all programs left, computes the
factors of its channels, and applies them. How channels are cut depends on shapes alone, and so do
the results' bits.

Source: Hu, Shen and Sun, "Squeeze-and-Excitation Networks", CVPR 2018, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pointwise.engine.cpu.activation import FORM, activate, form_arguments, quotient
from pointwise.engine.cpu.by_dtype import by_dtype
from pointwise.engine.cpu.cut import TEAM
from pointwise.engine.cpu.device import device
from pointwise.engine.cpu.launch import Launch
from pointwise.engine.cpu.layout import Arguments, Layout
from pointwise.engine.cpu.pack import pack, pad_row, padded_columns
from pointwise.engine.cpu.vector import (
    broadcast,
    bytes_of,
    fma,
    lanes_of,
    load,
    load_first,
    number,
    peek,
    store,
    store_first,
    within,
)

_CUT = Layout("Cut", "pixels channels block blocks padded room_bytes")
"""Images of ``pixels``, in ``blocks`` of ``block`` channels: one program each.

``padded`` are the hidden numbers up to whole registers. In the room of an image, ``room_bytes``,
lie what each program leaves behind, ``padded`` numbers; as many for each program's hidden numbers;
and a row of means, then of factors.
"""
_SQUEEZE = Layout("Squeeze", "*x *out *narrow", cut=_CUT)
_EXCITE = Layout(
    "Excite", "*x *room *out *narrow_bias *wide *wide_bias hidden",
    cut=_CUT, between=FORM, gate=FORM, last=FORM,
)  # fmt: skip

# Sums of so many rows are added to the sum of all: fewer roundings of large numbers.
_RUN = 64


@device
def _sum_of(x, row, pixels, left, like):
    """The sum over all pixels, for the channels of one register."""
    total = broadcast(number(0, like))
    for begin in range(0, pixels, _RUN):
        some = broadcast(number(0, like))
        for p in range(begin, min(begin + _RUN, pixels)):
            some = some + load_first(x + p * row, left, like)
        total = total + some
    return total


@device
def _sums_of_four(x, row, pixels, sums, like):
    """``_sum_of`` for four whole registers, stored to ``sums``."""
    step = lanes_of(like) * bytes_of(like)
    zero = broadcast(number(0, like))
    a, b, c, d = zero, zero, zero, zero
    for begin in range(0, pixels, _RUN):
        e, f, g, h = zero, zero, zero, zero
        for p in range(begin, min(begin + _RUN, pixels)):
            at = x + p * row
            e = e + load(at, like)
            f = f + load(at + step, like)
            g = g + load(at + 2 * step, like)
            h = h + load(at + 3 * step, like)
        a, b, c, d = a + e, b + f, c + g, d + h
    store(sums, a)
    store(sums + step, b)
    store(sums + 2 * step, c)
    store(sums + 3 * step, d)


@device
def _squeeze(arguments, program, thread, like):
    own = _SQUEEZE(arguments)
    cut = own.cut
    size = bytes_of(like)
    image, share = program // cut.blocks, program % cut.blocks
    first = share * cut.block
    end = min(first + cut.block, cut.channels)
    row, wide = cut.channels * size, cut.padded * size
    x = own.x + image * cut.pixels * row
    room = own.out + image * cut.room_bytes
    means, left = room + 2 * cut.blocks * wide, room + share * wide
    _means(x + first * size, row, cut.pixels, means + first * size, end - first, like)
    _add_up(own.narrow + first * wide, wide, means + first * size, end - first, left, like)


@device
def _means(x, row, pixels, means, channels, like):
    """The means over all pixels of some channels, a register of the last ones in any case."""
    size, width = bytes_of(like), lanes_of(like)
    c = 0
    while c < channels:
        if c + 4 * width <= channels:
            _sums_of_four(x + c * size, row, pixels, means + c * size, like)
            c += 4 * width
        else:
            store(means + c * size, _sum_of(x + c * size, row, pixels, channels - c, like))
            c += width
    count = broadcast(number(pixels, like))
    for c in range(0, channels, width):
        store(means + c * size, quotient(load(means + c * size, like), count))


@device
def _add_up(weight, wide, means, channels, out, like):
    """What some channels add to the hidden numbers: their means times their rows of the weight."""
    size = bytes_of(like)
    step = lanes_of(like) * size
    zero = broadcast(number(0, like))
    for j in range(0, wide, step):
        store(out + j, zero)
    # Four rows of the weight at a time: all of it is read in the order of memory.
    c = 0
    while c + 4 <= channels:
        mean = means + c * size
        p, q = broadcast(peek(mean, like)), broadcast(peek(mean + size, like))
        r, s = broadcast(peek(mean + 2 * size, like)), broadcast(peek(mean + 3 * size, like))
        for j in range(0, wide, step):
            at = weight + j
            total = fma(p, load(at, like), load(out + j, like))
            total = fma(q, load(at + wide, like), total)
            total = fma(r, load(at + 2 * wide, like), total)
            store(out + j, fma(s, load(at + 3 * wide, like), total))
        weight += 4 * wide
        c += 4
    while c < channels:
        p = broadcast(peek(means + c * size, like))
        for j in range(0, wide, step):
            store(out + j, fma(p, load(weight + j, like), load(out + j, like)))
        weight += wide
        c += 1


@device
def _factors(weight, bias, hidden, count, out, low, high, like):
    """``hidden`` times some panels of the second weight, ``bias`` added, within bounds."""
    size, width = bytes_of(like), lanes_of(like)
    step = width * size
    panel = count * step
    zero = broadcast(number(0, like))
    a, b = zero, zero
    c, d = zero, zero
    even = count // 4 * 4
    for j in range(0, even, 4):  # four sums, so that none waits for itself
        at, from_ = weight + j * step, hidden + j * size
        a = fma(broadcast(peek(from_, like)), load(at, like), a)
        b = fma(broadcast(peek(from_ + size, like)), load(at + step, like), b)
        c = fma(broadcast(peek(from_ + 2 * size, like)), load(at + 2 * step, like), c)
        d = fma(broadcast(peek(from_ + 3 * size, like)), load(at + 3 * step, like), d)
    for j in range(even, count):
        a = fma(broadcast(peek(hidden + j * size, like)), load(weight + j * step, like), a)
    total = (a + b) + (c + d)
    if bias != 0:
        total = total + load(bias, like)
    store(out, within(total, low, high))
    return weight + panel


@device
def _excite(arguments, program, thread, like):
    own = _EXCITE(arguments)
    cut = own.cut
    size, width = bytes_of(like), lanes_of(like)
    image, share = program // cut.blocks, program % cut.blocks
    first = share * cut.block
    end = min(first + cut.block, cut.channels)
    row, wide = cut.channels * size, cut.padded * size
    room = own.room + image * cut.room_bytes
    factors, hidden = room + 2 * cut.blocks * wide, room + (cut.blocks + share) * wide
    _hidden(room, cut.blocks, wide, own.narrow_bias, hidden, own.between, like)
    weight = own.wide + first // width * own.hidden * width * size
    low, high = number(own.gate.low, like), number(own.gate.high, like)
    for c in range(first, end, width):
        bias = own.wide_bias + c * size if own.wide_bias != 0 else 0
        weight = _factors(weight, bias, hidden, own.hidden, factors + c * size, low, high, like)
    activate(own.gate.activation, factors + first * size, row, 1, end - first)
    begin = image * cut.pixels * row + first * size
    _scale(own.x + begin, own.out + begin, row, cut.pixels, factors + first * size, end - first,
           own.last, like)  # fmt: skip


@device
def _hidden(room, blocks, wide, bias, out, form, like):
    """The hidden numbers: what all programs left behind, the bias, the activation."""
    low, high = number(form.low, like), number(form.high, like)
    step = lanes_of(like) * bytes_of(like)
    for j in range(0, wide, step):
        total = broadcast(number(0, like))
        for other in range(blocks):
            total = total + load(room + other * wide + j, like)
        if bias != 0:
            total = total + load(bias + j, like)
        store(out + j, within(total, low, high))
    activate(form.activation, out, wide, 1, wide // bytes_of(like))


@device
def _scale(x, out, row, pixels, factors, channels, form, like):
    """Some channels of all pixels times their factors."""
    size, width = bytes_of(like), lanes_of(like)
    low, high = number(form.low, like), number(form.high, like)
    for p in range(pixels):
        for c in range(0, channels, width):
            at, left = p * row + c * size, channels - c
            value = load_first(x + at, left, like) * load(factors + c * size, like)
            store_first(out + at, within(value, low, high), left)
        activate(form.activation, out + p * row, row, 1, channels)


_SQUEEZE_KERNELS = by_dtype(_squeeze, "squeeze")
_EXCITE_KERNELS = by_dtype(_excite, "excite")


@dataclass(frozen=True)
class Excitation:
    """The weights and biases of both products."""

    narrow: Tensor  # [C, hidden up to whole registers]
    narrow_bias: Tensor | None  # [hidden up to whole registers]
    wide: Tensor  # [C / lanes, hidden, lanes]
    wide_bias: Tensor | None  # [C up to whole registers]
    hidden: int

    def unpacked(self, first: bool) -> Tensor:
        """One of the weights in PyTorch's order."""
        if first:
            return self.narrow[:, : self.hidden].t().contiguous()[:, :, None, None]
        channels = len(self.narrow)
        rows = self.wide.transpose(1, 2).reshape(-1, self.hidden)[:channels]
        return rows.contiguous()[:, :, None, None]


def packed(
    narrow: Tensor, narrow_bias: Tensor | None, wide: Tensor, wide_bias: Tensor | None
) -> Excitation:
    """Weights ``[hidden, C, 1, 1]`` and ``[C, hidden, 1, 1]``."""
    hidden, channels = narrow.shape[:2]
    rows = torch.zeros(channels, padded_columns(hidden, narrow.dtype), dtype=narrow.dtype)
    rows[:, :hidden] = narrow[:, :, 0, 0].t()
    biases = (None if row is None else pad_row(row) for row in (narrow_bias, wide_bias))
    return Excitation(rows, next(biases), pack(wide[:, :, 0, 0].t()), next(biases), hidden)


def _blocks(images: int, channels: int, dtype: torch.dtype) -> tuple[int, int]:
    """(channels of a program, programs of an image), whatever the number of threads."""
    line = 64 // dtype.itemsize
    lines = -(-channels // line)
    block = -(-lines // max(1, min(lines, TEAM // images))) * line
    return block, -(-channels // block)


def room(images: int, channels: int, weights: Excitation) -> tuple[int, int]:
    """The shape of what lies between the two launches: so many numbers for each image."""
    padded = weights.narrow.shape[1]
    _, blocks = _blocks(images, channels, weights.narrow.dtype)
    return images, 2 * blocks * padded + padded_columns(channels, weights.narrow.dtype)


def _cut(x: Tensor, between: Tensor, weights: Excitation) -> Arguments:
    images, channels, height, width = x.shape
    block, blocks = _blocks(images, channels, x.dtype)
    return _CUT(
        pixels=height * width, channels=channels, block=block, blocks=blocks,
        padded=weights.narrow.shape[1], room_bytes=between.shape[1] * x.element_size(),
    )  # fmt: skip


def _programs(x: Tensor) -> int:
    images, channels = x.shape[:2]
    return images * _blocks(images, channels, x.dtype)[1]


def squeeze(x: Tensor, between: Tensor, weights: Excitation) -> Launch:
    """Means of ``x [N, C, H, W]``, channels_last, times the first weight, into ``between``."""
    cut = _cut(x, between, weights)
    arguments = _SQUEEZE(x=x, out=between, narrow=weights.narrow, cut=cut)
    return Launch(_SQUEEZE_KERNELS[x.dtype], arguments, _programs(x), between)


def excite(
    x: Tensor, between: Tensor, weights: Excitation, out: Tensor, activations: tuple[str, str, str]
) -> Launch:
    """Hidden numbers, factors, and ``x`` times these, into ``out``, which may be ``x``.

    ``activations`` are those of the hidden numbers, of the factors, and of the result.
    """
    inner, gate, last = (form_arguments(name, x.dtype) for name in activations)
    arguments = _EXCITE(
        x=x, room=between, out=out, narrow_bias=weights.narrow_bias, wide=weights.wide,
        wide_bias=weights.wide_bias, hidden=weights.hidden, cut=_cut(x, between, weights),
        between=inner, gate=gate, last=last,
    )  # fmt: skip
    return Launch(_EXCITE_KERNELS[x.dtype], arguments, _programs(x), out)
