"""What a call of our own operators, ``torch.ops.pointwise``, costs.

An operator that does several things at once is counted as several kinds of work.
"""

from __future__ import annotations

from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from pointwise.convolution.epilogue import ACTIVATIONS
from pointwise.convolution.shift import shift_window
from pointwise.costs import clouds, convolutions, work_kinds
from pointwise.costs.convolutions import Shape
from pointwise.costs.count import Count
from pointwise.costs.formula import Formula, Work, applied, size_of
from pointwise.costs.operators import shape_of

# --- images ---------------------------------------------------------------------------------------


def _epilogue(residual: Tensor | None, activation: str, out: Tensor) -> list[Work]:
    """What our operators do with a result before they write it."""
    parts = []
    if residual is not None:
        count = Count(additions=out.numel(), bytes_read=size_of(residual))
        parts.append(Work(work_kinds.ELEMENTWISE, count))
    if activation != "none":
        parts.append(Work(work_kinds.ACTIVATION, _activated(activation, out.numel())))
    return parts


def _activated(activation: str, numbers: int) -> Count:
    return Count(others=ACTIVATIONS[activation].cost * numbers)


def _our_shape(given, input, weight, bias, out_sizes) -> Shape:
    groups = given.get("groups", input.shape[1])
    return shape_of(
        input, weight, bias, given["stride"], given["padding"], given["dilation"], groups, out_sizes
    )


def _our_kind(shape: Shape) -> str:
    return work_kinds.of_convolution(shape.kernel, shape.in_channels, shape.groups)


def _conv2d(given, out) -> list[Work]:
    input, weight, bias = given["input"], given["weight"], given["bias"]
    shape = _our_shape(given, input, weight, bias, out.shape[2:])
    part = applied(_our_kind(shape), convolutions.count(shape, input.element_size()), weight, bias)
    return [part, *_epilogue(given["residual"], given["activation"], out)]


def _separable_conv2d(given, out) -> list[Work]:
    input, size = given["input"], given["input"].element_size()
    depthwise, pointwise = given["depthwise"], given["pointwise"]
    first = _our_shape(given, input, depthwise, given["depthwise_bias"], out.shape[2:])
    first = first._replace(groups=input.shape[1], in_channels=input.shape[1])
    second = Shape(
        out.shape[0],
        pointwise.shape[1],
        pointwise.shape[0],
        first.out_sizes,
        (1, 1),
        (1, 1),
        (0,) * 4,
        (1, 1),
        1,
        given["bias"] is not None,
        first.out_sizes,
    )
    one, two = convolutions.count(first, size), convolutions.count(second, size)
    between = _activated(given["between"], one.outputs)
    one, two = convolutions.join(one, two)
    return [
        applied(work_kinds.DEPTHWISE, one, depthwise, given["depthwise_bias"]),
        Work(work_kinds.ACTIVATION, between),
        applied(work_kinds.POINTWISE, two, pointwise, given["bias"]),
        *_epilogue(given["residual"], given["activation"], out),
    ]


def _shift_conv2d(given, out) -> list[Work]:
    input, weight, bias = given["input"], given["weight"], given["bias"]
    window = shift_window(
        input.shape[0], input.shape[2:], given["kernel_size"], given["stride"], given["dilation"]
    )
    count = convolutions.count_shift(
        window, input.shape[1], weight.shape[0], bias is not None, input.element_size()
    )
    part = applied(work_kinds.SHIFT, count, weight, bias)
    return [part, *_epilogue(given["residual"], given["activation"], out)]


def _norm_conv2d(given, out) -> list[Work]:
    """The norm of what comes in, the convolution, and mean and variance of what comes out."""
    z, weight = given["z"], given["weight"]
    result = out[0]
    shape = _our_shape(given, z, weight, None, result.shape[2:])
    part = applied(_our_kind(shape), convolutions.count(shape, z.element_size()), weight)
    statistics = Count(
        multiplications=result.numel(), additions=3 * result.numel(), outputs=2 * len(out[1])
    )
    parts = [part, Work(work_kinds.NORM, statistics)]
    if given["mean"] is not None:
        before = Count(multiplications=z.numel(), additions=2 * z.numel(), others=z.numel())
        parts.append(Work(work_kinds.NORM, before, (given["scale"], given["shift"])))
    return parts


def _norm_act(given, out) -> list[Work]:
    numbers = out.numel()
    count = Count(
        multiplications=numbers,
        additions=2 * numbers,
        outputs=numbers,
        bytes_read=size_of(given["z"]),
        bytes_written=size_of(out),
    )
    part = Work(work_kinds.NORM, count, (given["scale"], given["shift"]))
    return [part, *_epilogue(given["residual"], given["activation"], out)]


# --- clouds ---------------------------------------------------------------------------------------


def table_of_call(given, points: int, cells: int) -> clouds.TableSize:
    """The size of the neighbours' table; an upper bound where they are tensors without data."""
    row_start, pairs = given["row_start"], given["pairs"]
    if isinstance(row_start, FakeTensor) or row_start.is_meta:
        return clouds.largest_table(points, row_start.shape[0] - 1, cells, pairs.shape[0])
    return clouds.count_table(row_start, pairs, points, cells)


def _cell_conv(given, out) -> list[Work]:
    x, weight, bias = given["features"], given["weight"], given["bias"]
    table = table_of_call(given, x.shape[0], weight[0, 0].numel())
    count = clouds.count_cells(
        table, x.shape[1], weight.shape[0], given["mean"], bias is not None, x.element_size()
    )
    return [applied(work_kinds.CELL, count, weight, bias)]


def _cell_depthwise_conv(given, out) -> list[Work]:
    x, weight = given["features"], given["weight"]
    table = table_of_call(given, x.shape[0], weight[0].numel())
    count = clouds.count_cells_depthwise(table, x.shape[1], given["mean"], x.element_size())
    return [applied(work_kinds.CELL_DEPTHWISE, count, weight)]


def _cell_separable_conv(given, out) -> list[Work]:
    x, depthwise, pointwise = given["features"], given["depthwise"], given["pointwise"]
    table = table_of_call(given, x.shape[0], depthwise[0].numel())
    size = x.element_size()
    first = clouds.count_cells_depthwise(table, x.shape[1], given["mean"], size)
    second = clouds.count_matrix(
        table.queries, pointwise.shape[1], pointwise.shape[0], given["bias"] is not None, size
    )
    first, second = convolutions.join(first, second)
    return [
        applied(work_kinds.CELL_DEPTHWISE, first, depthwise),
        applied(work_kinds.POINTWISE, second, pointwise, given["bias"]),
    ]


def _cell_shift_conv(given, out) -> list[Work]:
    x, weight, bias = given["features"], given["weight"], given["bias"]
    points, channels = x.shape
    cells = given["kernel_size"] ** 3
    table = table_of_call(given, points, cells)
    if table.exact:
        moved = clouds.count_moved(given["row_start"], given["pairs"], points, cells, channels)
    else:
        moved = table.pairs * channels, min(table.queries, table.pairs) * channels
    count = clouds.count_cells_shift(
        table, moved, channels, weight.shape[0], given["mean"], bias is not None, x.element_size()
    )
    return [applied(work_kinds.SHIFT, count, weight, bias)]


def _pointwise_conv(given, out) -> list[Work]:
    x, weight, bias = given["features"], given["weight"], given["bias"]
    count = clouds.count_matrix(
        x.shape[0], weight.shape[1], weight.shape[0], bias is not None, x.element_size()
    )
    return [applied(work_kinds.POINTWISE, count, weight, bias)]


def _search(given, out) -> list[Work]:
    """Neighbours and voxels: no fixed number of operations, only what is read and written."""
    found = [x for x in out if isinstance(x, Tensor)]
    read = {id(x): size_of(x) for x in given.values() if isinstance(x, Tensor)}
    count = Count(
        outputs=sum(x.numel() for x in found),
        bytes_read=sum(read.values()),
        bytes_written=sum(map(size_of, found)),
    )
    return [Work(work_kinds.SEARCH, count)]


FORMULAS: dict[str, Formula] = {
    "pointwise::conv2d": _conv2d,
    "pointwise::separable_conv2d": _separable_conv2d,
    "pointwise::shift_conv2d": _shift_conv2d,
    "pointwise::norm_conv2d": _norm_conv2d,
    "pointwise::norm_act": _norm_act,
    "pointwise::cell_conv": _cell_conv,
    "pointwise::cell_depthwise_conv": _cell_depthwise_conv,
    "pointwise::cell_separable_conv": _cell_separable_conv,
    "pointwise::cell_shift_conv": _cell_shift_conv,
    "pointwise::pointwise_conv": _pointwise_conv,
    "pointwise::cell_search": _search,
    "pointwise::voxel_grid": _search,
}
"""By the operators' names."""

WITHOUT_ARITHMETIC = ("pointwise::cell_search", "pointwise::voxel_grid")
"""Operators whose formula knows their bytes only: to be listed as not counted."""
