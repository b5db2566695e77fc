"""Floats to bytes and back: ``x·per + zero`` rounded half to even, and ``(q - zero)·scale``."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pointwise.engine.cpu.gemm_int8 import rounded
from pointwise.engine.cpu.launch import device, kernel, slot
from pointwise.engine.cpu.table import real
from pointwise.engine.cpu.vector import (
    broadcast,
    first_lanes,
    lanes_of,
    load_first,
    masked_load,
    masked_store,
    peek,
    store_first,
    vector_of,
    within,
)

CHUNK = 8192  # numbers of a program
FLOAT = np.float32(0)
# Entries: x, out, numbers in all, per (or scale), zero.
OUT = 1


@intrinsic
def _store_bytes(typingctx, address, value, count):
    """Writes the first ``count`` lanes, which are from 0 to 255, rounded to bytes."""

    def codegen(context, builder, signature, arguments):
        address, whole, count = arguments
        lanes = value.count
        parts = builder.trunc(rounded(builder, whole, lanes), ir.VectorType(ir.IntType(8), lanes))
        masked_store(builder, address, parts, first_lanes(builder, count, lanes))
        return context.get_dummy_value()

    return types.void(types.int64, value, types.int64), codegen


@intrinsic
def _load_bytes(typingctx, address, count, like):
    """The first ``count`` bytes as floats, zeros behind them."""
    vector = vector_of(like)

    def codegen(context, builder, signature, arguments):
        shape = ir.VectorType(ir.IntType(8), vector.count)
        mask = first_lanes(builder, arguments[1], vector.count)
        parts = masked_load(builder, arguments[0], mask, shape)
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
def quantize(arguments, program, thread):
    """Numbers that lie in memory in the same way as their bytes."""
    x, out, total = slot(arguments, 0), slot(arguments, 1), slot(arguments, 2)
    per = broadcast(real(arguments, 3, FLOAT))
    zero = broadcast(real(arguments, 4, FLOAT))
    low, high = np.float32(0), np.float32(255)
    first = program * CHUNK
    for k in range(first, min(first + CHUNK, total), lanes_of(FLOAT)):
        value = load_first(x + 4 * k, total - k, FLOAT) * per + zero
        _store_bytes(out + k, within(value, low, high), total - k)


@kernel
def quantize_planes(arguments, program, thread):
    """One line of images ``[N, C, H, W]`` of few channels, to pixels with their channels last.

    Entries: x, out, lines, per, zero, points of a line, channels, and in bytes what lies between
    images, channels, lines.
    """
    x, out, lines = slot(arguments, 0), slot(arguments, 1), slot(arguments, 2)
    per, zero = real(arguments, 3, FLOAT), real(arguments, 4, FLOAT)
    points, channels = slot(arguments, 5), slot(arguments, 6)
    by_image, by_channel, by_line = slot(arguments, 7), slot(arguments, 8), slot(arguments, 9)
    source = x + program // lines * by_image + program % lines * by_line
    place = out + program * points * channels
    for p in range(points):
        for c in range(channels):
            value = peek(source + c * by_channel + 4 * p, FLOAT)
            _poke_byte(place + p * channels + c, _byte(value, per, zero))


@intrinsic
def _poke_byte(typingctx, address, value):
    def codegen(context, builder, signature, arguments):
        pointer = builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())
        builder.store(arguments[1], pointer)
        return context.get_dummy_value()

    return types.void(types.int64, types.uint8), codegen


@kernel
def dequantize(arguments, program, thread):
    """Bytes to floats that lie in memory in the same way."""
    x, out, total = slot(arguments, 0), slot(arguments, 1), slot(arguments, 2)
    scale = broadcast(real(arguments, 3, FLOAT))
    minus = broadcast(-real(arguments, 4, FLOAT))
    first = program * CHUNK
    for k in range(first, min(first + CHUNK, total), lanes_of(FLOAT)):
        value = (_load_bytes(x + k, total - k, FLOAT) + minus) * scale
        store_first(out + 4 * k, value, total - k)
