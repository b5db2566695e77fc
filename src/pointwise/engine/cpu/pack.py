"""Weights in the order in which the microkernel reads them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pointwise.engine.cpu.launch import device, kernel, launch, slot
from pointwise.engine.cpu.memory import empty
from pointwise.engine.cpu.vector import (
    REGISTER_BYTES,
    broadcast,
    bytes_of,
    lanes_of,
    load_first,
    number,
    peek,
    poke,
    store,
)


def padded_columns(columns: int, dtype: torch.dtype) -> int:
    """``columns`` rounded up to whole registers."""
    width = REGISTER_BYTES // dtype.itemsize
    return -(-columns // width) * width


def pack(matrix: Tensor) -> Tensor:
    """``[K, C]`` as ``[C / lanes, K, lanes]``, with zeros behind the last column."""
    depth, columns = matrix.shape
    width = REGISTER_BYTES // matrix.dtype.itemsize
    padded = padded_columns(columns, matrix.dtype)
    wide = torch.zeros(depth, padded, dtype=matrix.dtype) if padded != columns else matrix
    if padded != columns:
        wide[:, :columns] = matrix
    return wide.reshape(depth, padded // width, width).permute(1, 0, 2).contiguous()


def pad_row(row: Tensor) -> Tensor:
    """A bias ``[C]`` with zeros up to whole registers."""
    padded = torch.zeros(padded_columns(len(row), row.dtype), dtype=row.dtype)
    padded[: len(row)] = row
    return padded


# A weight is packed anew in every step of a training, so that this is worth a kernel.


@device
def _turn(place, source, count, lanes, by_input, by_output, like):
    """``count`` registers of neighbouring outputs, of weights in which inputs are neighbours.

    A square at a time: each cache line is read once, before its neighbours in the same set come.
    """
    size, width = bytes_of(like), lanes_of(like)
    if lanes < width:
        zero = broadcast(number(0, like))
        for c in range(count):
            store(place + c * width * size, zero)
    for lane in range(lanes):
        row = source + lane * by_output
        for c in range(count):
            poke(place + (c * width + lane) * size, peek(row + c * by_input, like))


@device
def _pack(arguments, program, thread, like):
    """Some steps of depth of one panel: registers of neighbouring outputs, one after the other."""
    size, width = bytes_of(like), lanes_of(like)
    weight, packed = slot(arguments, 0), slot(arguments, 1)
    columns, inputs, high, wide = (
        slot(arguments, 2),
        slot(arguments, 3),
        slot(arguments, 4),
        slot(arguments, 5),
    )
    by_output, by_input = slot(arguments, 6), slot(arguments, 7)
    by_line, by_tap = slot(arguments, 8), slot(arguments, 9)
    panels = slot(arguments, 10)
    group, panel = program // panels, program % panels
    source = weight + (group * columns + panel * width) * by_output
    place = packed + program * high * wide * inputs * width * size
    lanes = min(width, columns - panel * width)
    for j in range(high):
        for i in range(wide):
            tap = source + j * by_line + i * by_tap
            if by_output == size:
                for c in range(inputs):
                    store(place + c * width * size, load_first(tap + c * by_input, lanes, like))
            else:
                for c in range(0, inputs, width):
                    _turn(place + c * width * size, tap + c * by_input, min(width, inputs - c),
                          lanes, by_input, by_output, like)  # fmt: skip
            place += inputs * width * size


@kernel
def _pack_float32(arguments, program, thread):
    _pack(arguments, program, thread, np.float32(0))


@kernel
def _pack_float64(arguments, program, thread):
    _pack(arguments, program, thread, np.float64(0))


def pack_kernels(weight: Tensor, groups: int) -> Tensor:
    """``[C_out, C_in/groups, kh, kw]`` of any strides as ``[groups, panels, K, lanes]``."""
    outputs, inputs, high, wide = weight.shape
    columns = outputs // groups
    lanes = REGISTER_BYTES // weight.element_size()
    panels = -(-columns // lanes)
    packed = empty((groups, panels, high * wide * inputs, lanes), weight.dtype)
    strides = (stride * weight.element_size() for stride in weight.stride())
    arguments = [
        weight.data_ptr(),
        packed.data_ptr(),
        columns,
        inputs,
        high,
        wide,
        *strides,
        panels,
    ]
    compiled = _pack_float32 if weight.dtype == torch.float32 else _pack_float64
    launch(compiled, arguments, groups * panels)
    return packed
