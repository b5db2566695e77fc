"""Floats to bytes and back: ``x·per + zero`` rounded half to even, and ``(q - zero)·scale``."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from torch import Tensor

from pointwise.engine.cpu.device import device
from pointwise.engine.cpu.gemm_int8 import rounded
from pointwise.engine.cpu.launch import Launch, kernel
from pointwise.engine.cpu.layout import Layout
from pointwise.engine.cpu.vector import (
    broadcast,
    lanes_of,
    load_first,
    load_some,
    number,
    peek,
    store_first,
    store_some,
    vector_of,
    within,
)

_CHUNK = 8192  # numbers of a program
_FLOAT = np.float32(0)
_NUMBERS = Layout("Numbers", "*x *out total factor:real zero:real")
_PLANES = Layout(
    "Planes",
    "*x *out lines points channels image_bytes channel_bytes line_bytes factor:real zero:real",
)
"""Images of ``lines × points``; what lies between images, channels and lines is in bytes."""


@intrinsic
def _store_bytes(typingctx, address, value, count):
    """Writes the first ``count`` lanes, which are from 0 to 255, rounded to bytes."""

    def codegen(context, builder, signature, arguments):
        address, whole, count = arguments
        lanes = value.count
        parts = builder.trunc(rounded(builder, whole, lanes), ir.VectorType(ir.IntType(8), lanes))
        store_some(builder, address, parts, count)
        return context.get_dummy_value()

    return types.void(types.int64, value, types.int64), codegen


@intrinsic
def _load_bytes(typingctx, address, count, like):
    """The first ``count`` bytes as floats, zeros behind them."""
    vector = vector_of(like)

    def codegen(context, builder, signature, arguments):
        shape = ir.VectorType(ir.IntType(8), vector.count)
        parts = load_some(builder, arguments[0], arguments[1], shape)
        whole = builder.zext(parts, ir.VectorType(ir.IntType(32), vector.count))
        return builder.uitofp(whole, ir.VectorType(ir.FloatType(), vector.count))

    return vector(types.int64, types.int64, like), codegen


@device
def _byte(x, per, zero):
    """One number, rounded half to even."""
    value = np.float32(np.float32(x * per) + zero)
    value = min(max(value, np.float32(0)), np.float32(255))
    return np.uint8(np.int64(np.rint(value)))


@kernel
def _quantize(arguments, program, thread):
    own = _NUMBERS(arguments)
    x, out, total = own.x, own.out, own.total
    per = broadcast(number(own.factor, _FLOAT))
    zero = broadcast(number(own.zero, _FLOAT))
    low, high = np.float32(0), np.float32(255)
    first = program * _CHUNK
    for k in range(first, min(first + _CHUNK, total), lanes_of(_FLOAT)):
        value = load_first(x + 4 * k, total - k, _FLOAT) * per + zero
        _store_bytes(out + k, within(value, low, high), total - k)


@intrinsic
def _poke_byte(typingctx, address, value):
    def codegen(context, builder, signature, arguments):
        pointer = builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())
        builder.store(arguments[1], pointer)
        return context.get_dummy_value()

    return types.void(types.int64, types.uint8), codegen


@kernel
def _quantize_planes(arguments, program, thread):
    """One line of an image with its channels first, to pixels with their channels last."""
    own = _PLANES(arguments)
    per, zero = number(own.factor, _FLOAT), number(own.zero, _FLOAT)
    points, channels = own.points, own.channels
    line = own.x + program // own.lines * own.image_bytes + program % own.lines * own.line_bytes
    out = own.out + program * points * channels
    for p in range(points):
        for c in range(channels):
            value = peek(line + c * own.channel_bytes + 4 * p, _FLOAT)
            _poke_byte(out + p * channels + c, _byte(value, per, zero))


@kernel
def _dequantize(arguments, program, thread):
    own = _NUMBERS(arguments)
    x, out, total = own.x, own.out, own.total
    scale = broadcast(number(own.factor, _FLOAT))
    minus = broadcast(-number(own.zero, _FLOAT))
    first = program * _CHUNK
    for k in range(first, min(first + _CHUNK, total), lanes_of(_FLOAT)):
        value = (_load_bytes(x + k, total - k, _FLOAT) + minus) * scale
        store_first(out + 4 * k, value, total - k)


def quantize(x: Tensor, out: Tensor, per: float, zero: int) -> Launch:
    """The bytes ``x·per + zero`` of numbers that lie in memory in the same way as ``out``."""
    return _all(_quantize, x, out, per, zero)


def dequantize(x: Tensor, out: Tensor, scale: float, zero: int) -> Launch:
    """What bytes stand for, ``(x - zero)·scale``; both lie in memory in the same way."""
    return _all(_dequantize, x, out, scale, zero)


def _all(compiled: kernel, x: Tensor, out: Tensor, factor: float, zero: int) -> Launch:
    total = x.numel()
    arguments = _NUMBERS(x=x, out=out, total=total, factor=factor, zero=float(zero))
    return Launch(compiled, arguments, -(-total // _CHUNK), out)


def quantize_planes(x: Tensor, out: Tensor, per: float, zero: int) -> Launch:
    """``quantize`` of images ``[N, C, H, W]`` of few channels; ``out`` has its channels last.

    The points of a line of ``x`` lie side by side.
    """
    images, channels, height, width = x.shape
    image, channel, line = (4 * stride for stride in x.stride()[:3])
    arguments = _PLANES(
        x=x, out=out, lines=height, points=width, channels=channels, image_bytes=image,
        channel_bytes=channel, line_bytes=line, factor=per, zero=float(zero),
    )  # fmt: skip
    return Launch(_quantize_planes, arguments, images * height, out)
