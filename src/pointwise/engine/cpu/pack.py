"""Weights in the order in which the microkernel reads them."""

from __future__ import annotations

import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from torch import Tensor

from pointwise.engine.cpu.by_dtype import by_dtype
from pointwise.engine.cpu.device import device
from pointwise.engine.cpu.launch import launch
from pointwise.engine.cpu.layout import Layout
from pointwise.engine.cpu.memory import empty
from pointwise.engine.cpu.vector import (
    REGISTER_BYTES,
    broadcast,
    bytes_of,
    lanes_of,
    llvm_type,
    load_first,
    load_lanes,
    number,
    peek,
    poke,
    store,
    store_lanes,
    vector_of,
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


# A weight is packed anew in every step of a training, so that this is worth a kernel: with it no
# operation of PyTorch lies between the launches of a convolution.

_PACK = Layout(
    "Pack",
    "*weight *packed *bias *row columns inputs taps_y taps_x panels by_group by_output by_input "
    "by_tap_y by_tap_x",
)
"""``columns`` outputs and ``panels`` of a group; ``by_…`` are the weight's strides in bytes, those
of taps below 0 where these are read backwards. A bias becomes a ``row`` of whole registers."""


@intrinsic
def _transpose_square(typingctx, place, source, row, like):
    """Registers at ``place``, one after the other: the columns of as many rows as they have lanes.

    Step by step, blocks of 1, 2, 4 … numbers beside the diagonal change places.
    """
    vector = vector_of(like)

    def codegen(context, builder, signature, arguments):
        place, source, row, _ = arguments
        shape, lanes = llvm_type(vector), range(vector.count)
        whole = ir.IntType(64)
        rows = [
            load_lanes(builder, builder.add(source, builder.mul(row, whole(i))), None, shape)
            for i in lanes
        ]
        half = 1
        while half < vector.count:
            low = [vector.count + k - half if k & half else k for k in lanes]
            high = [vector.count + k if k & half else k + half for k in lanes]
            for i in lanes:
                if not i & half:
                    pair = rows[i], rows[i + half]
                    rows[i] = builder.shuffle_vector(*pair, _lanes(low))
                    rows[i + half] = builder.shuffle_vector(*pair, _lanes(high))
            half *= 2
        register = vector.count * vector.dtype.bitwidth // 8
        for i in lanes:
            store_lanes(builder, builder.add(place, whole(i * register)), rows[i], None)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, like), codegen


def _lanes(numbers: list[int]) -> ir.Constant:
    return ir.Constant(ir.VectorType(ir.IntType(32), len(numbers)), numbers)


@device
def transpose(place, source, count, lanes, by_input, by_output, like):
    """``count`` registers of neighbouring outputs, of weights in which inputs are neighbours.

    A square at a time: each cache line is read once, before its neighbours in the same set come.
    """
    size, width = bytes_of(like), lanes_of(like)
    if count == width and lanes == width and by_input == size:
        _transpose_square(place, source, by_output, like)
        return
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
    own = _PACK(arguments)
    inputs, by_output, by_input = own.inputs, own.by_output, own.by_input
    group, panel = program // own.panels, program % own.panels
    source = own.weight + group * own.by_group + panel * width * by_output
    place = own.packed + program * own.taps_y * own.taps_x * inputs * width * size
    lanes = min(width, own.columns - panel * width)
    if own.row != 0:
        bias = own.bias + (group * own.columns + panel * width) * size
        store(own.row + program * width * size, load_first(bias, lanes, like))
    for j in range(own.taps_y):
        for i in range(own.taps_x):
            tap = source + j * own.by_tap_y + i * own.by_tap_x
            if by_output == size:
                for c in range(inputs):
                    store(place + c * width * size, load_first(tap + c * by_input, lanes, like))
            else:
                for c in range(0, inputs, width):
                    transpose(place + c * width * size, tap + c * by_input, min(width, inputs - c),
                          lanes, by_input, by_output, like)  # fmt: skip
            place += inputs * width * size


_PACK_KERNELS = by_dtype(_pack, "pack")


def pack_kernels(weight: Tensor, groups: int) -> Tensor:
    """``[C_out, C_in/groups, kh, kw]`` of any strides as ``[groups, panels, K, lanes]``."""
    return pack_with_bias(weight, groups, None)[0]


def pack_with_bias(
    weight: Tensor, groups: int, bias: Tensor | None, backwards: bool = False
) -> tuple[Tensor, Tensor | None]:
    """The same, and the bias ``[C_out]`` with zeros up to whole registers ``[groups, columns]``.

    A weight may also be given group by group, ``[groups, C_out/groups, C_in/groups, kh, kw]``. Its
    taps are packed from the first to the last, or ``backwards``.
    """
    if weight.dim() == 4:
        weight = weight.unflatten(0, (groups, weight.shape[0] // groups))
    groups, columns, inputs, taps_y, taps_x = weight.shape
    dtype, size = weight.dtype, weight.element_size()
    lanes = REGISTER_BYTES // size
    panels = -(-columns // lanes)
    packed = empty((groups, panels, taps_y * taps_x * inputs, lanes), dtype)
    row = None if bias is None else torch.empty(groups, panels * lanes, dtype=dtype)
    bias = None if bias is None else bias.contiguous()
    by_group, by_output, by_input, by_tap_y, by_tap_x = (size * step for step in weight.stride())
    if backwards:
        weight, by_tap_y, by_tap_x = _from_the_last(weight), -by_tap_y, -by_tap_x
    arguments = _PACK(
        weight=weight,
        packed=packed,
        bias=bias,
        row=row,
        columns=columns,
        inputs=inputs,
        taps_y=taps_y,
        taps_x=taps_x,
        panels=panels,
        by_group=by_group,
        by_output=by_output,
        by_input=by_input,
        by_tap_y=by_tap_y,
        by_tap_x=by_tap_x,
    )
    launch(_PACK_KERNELS[dtype], arguments, groups * panels)
    return packed, row


def _from_the_last(weight: Tensor) -> Tensor:
    """A weight from its last tap on; all of it where it has none, of which nothing is read."""
    return weight[..., -1, -1] if weight.shape[-2] * weight.shape[-1] else weight


_STENCIL = Layout(
    "PackStencil", "*weight *packed *bias *row channels taps_y taps_x by_channel by_tap_y by_tap_x"
)
_CHANNELS = 256  # of one program


@device
def _pack_stencil(arguments, program, thread, like):
    """Some channels of a depthwise weight, tap by tap; and their bias, zeros for none."""
    own = _STENCIL(arguments)
    size = bytes_of(like)
    begin = program * _CHANNELS
    end = min(begin + _CHANNELS, own.channels)
    for c in range(begin, end):
        bias = number(0, like)
        if own.bias != 0:
            bias = peek(own.bias + c * size, like)
        poke(own.row + c * size, bias)
    place = own.packed
    for j in range(own.taps_y):
        for i in range(own.taps_x):
            tap = own.weight + j * own.by_tap_y + i * own.by_tap_x
            for c in range(begin, end):
                poke(place + c * size, peek(tap + c * own.by_channel, like))
            place += own.channels * size


_STENCIL_KERNELS = by_dtype(_pack_stencil, "pack_stencil")


def pack_taps(
    weight: Tensor, bias: Tensor | None = None, backwards: bool = False
) -> tuple[Tensor, Tensor]:
    """``[C, 1, kh, kw]`` of any strides as ``[kh·kw, C]``; its bias ``[C]``, zeros for none.

    Taps are read from the first to the last, or ``backwards``.
    """
    channels, _, taps_y, taps_x = weight.shape
    dtype, size = weight.dtype, weight.element_size()
    packed = torch.empty(taps_y * taps_x, channels, dtype=dtype)
    row = torch.empty(channels, dtype=dtype)
    bias = None if bias is None else bias.contiguous()
    by_channel, _, by_tap_y, by_tap_x = (size * step for step in weight.stride())
    if backwards:
        weight, by_tap_y, by_tap_x = _from_the_last(weight), -by_tap_y, -by_tap_x
    arguments = _STENCIL(
        weight=weight,
        packed=packed,
        bias=bias,
        row=row,
        channels=channels,
        taps_y=taps_y,
        taps_x=taps_x,
        by_channel=by_channel,
        by_tap_y=by_tap_y,
        by_tap_x=by_tap_x,
    )
    launch(_STENCIL_KERNELS[dtype], arguments, -(-channels // _CHANNELS))
    return packed, row
