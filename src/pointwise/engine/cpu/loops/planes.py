"""Images whose channels lie last, written plane by plane: how PyTorch has results.

A square of as many pixels as channels fill a register is turned in registers. PyTorch's copy takes
number by number, three times as long.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from torch import Tensor

from pointwise.engine.cpu.by_dtype import ZEROS, by_dtype
from pointwise.engine.cpu.cut import cut_rows
from pointwise.engine.cpu.device import device
from pointwise.engine.cpu.launch import Launch
from pointwise.engine.cpu.layout import Layout
from pointwise.engine.cpu.vector import bytes_of, lanes, lanes_of, peek, poke
from pointwise.engine.cpu.window import pixel_bytes

_CHUNK = 64  # pixels that stay in the first-level cache, while each line of a plane is filled
_PLANES = Layout("Planes", "*x *out pixels channels pixel cuts span")


@intrinsic
def _square(typingctx, source, by_row, place, by_column, like):
    """Turns a square: registers ``by_row`` bytes apart become others, ``by_column`` apart."""
    count = lanes(like)

    def codegen(context, builder, signature, arguments):
        element = ir.FloatType() if like.bitwidth == 32 else ir.DoubleType()
        shape, i32 = ir.VectorType(element, count), ir.IntType(32)
        size = like.bitwidth // 8

        def at(first, step, i):
            address = builder.add(first, builder.mul(step, ir.IntType(64)(i)))
            return builder.inttoptr(address, shape.as_pointer())

        first, row, place, column, _ = arguments
        rows = [builder.load(at(first, row, i), align=size) for i in range(count)]
        half = count // 2
        masks = [[begin + i // 2 + i % 2 * count for i in range(count)] for begin in (0, half)]
        mixes = [ir.Constant(ir.VectorType(i32, count), mask) for mask in masks]
        for _ in range(count.bit_length() - 1):  # each time, i and i + half are shuffled together
            pairs = zip(rows[:half], rows[half:], strict=True)
            rows = [builder.shuffle_vector(a, b, mix) for a, b in pairs for mix in mixes]
        for i, value in enumerate(rows):
            builder.store(value, at(place, column, i), align=size)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64, like), codegen


@device
def _planes(arguments, program, thread, like):
    """``span`` pixels of an image."""
    own = _PLANES(arguments)
    size, width, channels = bytes_of(like), lanes_of(like), own.channels
    image, plane = program // own.cuts, own.pixels * size
    begin = program % own.cuts * own.span
    end = min(begin + own.span, own.pixels)
    x, out = own.x + image * own.pixels * own.pixel, own.out + image * channels * plane
    whole = begin + (end - begin) // width * width if channels >= width else begin
    for first in range(begin, whole, _CHUNK):
        for c in range(0, channels, width):
            c = min(c, channels - width)  # the last ones again, where they fill no register
            for p in range(first, min(first + _CHUNK, whole), width):
                place = out + c * plane + p * size
                _square(x + p * own.pixel + c * size, own.pixel, place, plane, like)
    for c in range(channels):
        for p in range(whole, end):
            poke(out + c * plane + p * size, peek(x + p * own.pixel + c * size, like))


_KERNELS = by_dtype(_planes, "planes")


def is_worth_it(x: Tensor) -> bool:
    """Whether a kernel turns an image ``[N, C, H, W]``: it has channels for a register."""
    zero = ZEROS.get(x.dtype)
    return zero is not None and x.shape[1] >= lanes(zero.dtype)


def planes(x: Tensor, out: Tensor) -> Launch:
    """``out``, in PyTorch's order, as ``x``, which is channels_last."""
    images, channels, height, width = x.shape
    pixels = height * width
    span = -(-cut_rows(pixels, 2 * channels * x.element_size()) // _CHUNK) * _CHUNK
    cuts = -(-pixels // span)
    arguments = _PLANES(
        x=x, out=out, pixels=pixels, channels=channels, pixel=pixel_bytes(x), cuts=cuts, span=span
    )
    return Launch(_KERNELS[x.dtype], arguments, images * cuts, out)
