"""What a call of our own operators, ``torch.ops.pointwise``, costs: several parts where one does
several things at once."""

from __future__ import annotations

from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from pointwise.convolution.epilogue import ACTIVATIONS
from pointwise.costs import clouds, convolutions, kinds
from pointwise.costs.convolutions import Shape
from pointwise.costs.count import Count
from pointwise.costs.operators import shape_of
from pointwise.costs.parts import Formula, Part, applied, size_of

# --- images ---------------------------------------------------------------------------------------


def _epilogue(residual: Tensor | None, activation: str, out: Tensor) -> list[Part]:
    """What our operators do with a result before they write it."""
    parts = []
    if residual is not None:
        count = Count(additions=out.numel(), bytes_read=size_of(residual))
        parts.append(Part(kinds.ELEMENTWISE, count))
    if activation != "none":
        parts.append(Part(kinds.ACTIVATION, _activated(activation, out.numel())))
    return parts


def _activated(activation: str, numbers: int) -> Count:
    return Count(others=ACTIVATIONS[activation].cost * numbers)


def _our_shape(given, input, weight, bias, out_sizes) -> Shape:
    groups = given.get("groups", input.shape[1])
    return shape_of(input, weight, bias, given["stride"], given["padding"], given["dilation"],
                     groups, out_sizes)  # fmt: skip


def _our_kind(shape: Shape) -> str:
    return kinds.of_convolution(shape.kernel, shape.in_channels, shape.groups)


def _conv2d(given, out) -> list[Part]:
    input, weight, bias = given["input"], given["weight"], given["bias"]
    shape = _our_shape(given, input, weight, bias, out.shape[2:])
    part = applied(_our_kind(shape), convolutions.count(shape, input.element_size()), weight, bias)
    return [part, *_epilogue(given["residual"], given["activation"], out)]


def _separable_conv2d(given, out) -> list[Part]:
    input, size = given["input"], given["input"].element_size()
    depthwise, pointwise = given["depthwise"], given["pointwise"]
    first = _our_shape(given, input, depthwise, given["depthwise_bias"], out.shape[2:])
    first = first._replace(groups=input.shape[1], in_channels=input.shape[1])
    second = Shape(out.shape[0], pointwise.shape[1], pointwise.shape[0], first.out_sizes, (1, 1),
                   (1, 1), (0,) * 4, (1, 1), 1, given["bias"] is not None,
                   first.out_sizes)  # fmt: skip
    one, two = convolutions.count(first, size), convolutions.count(second, size)
    between = _activated(given["between"], one.outputs)
    one, two = convolutions.join(one, two)
    return [
        applied(kinds.DEPTHWISE, one, depthwise, given["depthwise_bias"]),
        Part(kinds.ACTIVATION, between),
        applied(kinds.POINTWISE, two, pointwise, given["bias"]),
        *_epilogue(given["residual"], given["activation"], out),
    ]


def _norm_conv2d(given, out) -> list[Part]:
    """The norm of what comes in, the convolution, and mean and variance of what comes out."""
    z, weight = given["z"], given["weight"]
    result = out[0]
    shape = _our_shape(given, z, weight, None, result.shape[2:])
    part = applied(_our_kind(shape), convolutions.count(shape, z.element_size()), weight)
    statistics = Count(
        multiplications=result.numel(), additions=3 * result.numel(), outputs=2 * len(out[1])
    )
    parts = [part, Part(kinds.NORM, statistics)]
    if given["mean"] is not None:
        before = Count(multiplications=z.numel(), additions=2 * z.numel(), others=z.numel())
        parts.append(Part(kinds.NORM, before, (given["scale"], given["shift"])))
    return parts


def _norm_act(given, out) -> list[Part]:
    numbers = out.numel()
    count = Count(
        multiplications=numbers,
        additions=2 * numbers,
        outputs=numbers,
        bytes_read=size_of(given["z"]),
        bytes_written=size_of(out),
    )
    part = Part(kinds.NORM, count, (given["scale"], given["shift"]))
    return [part, *_epilogue(given["residual"], given["activation"], out)]


# --- clouds ---------------------------------------------------------------------------------------


def table_of_call(given, points: int, cells: int) -> clouds.Table:
    """Of real neighbours what they are, of neighbours without values the most they could be."""
    row_start, pairs = given["row_start"], given["pairs"]
    if isinstance(row_start, FakeTensor) or row_start.is_meta:
        return clouds.largest_table(points, row_start.shape[0] - 1, cells, pairs.shape[0])
    return clouds.count_table(row_start, pairs, points, cells)


def _cell_conv(given, out) -> list[Part]:
    x, weight, bias = given["features"], given["weight"], given["bias"]
    table = table_of_call(given, x.shape[0], weight[0, 0].numel())
    count = clouds.count_cells(table, x.shape[1], weight.shape[0], given["mean"], bias is not None,
                               x.element_size())  # fmt: skip
    return [applied(kinds.CELL, count, weight, bias)]


def _cell_depthwise_conv(given, out) -> list[Part]:
    x, weight = given["features"], given["weight"]
    table = table_of_call(given, x.shape[0], weight[0].numel())
    count = clouds.count_cells_depthwise(table, x.shape[1], given["mean"], x.element_size())
    return [applied(kinds.CELL_DEPTHWISE, count, weight)]


def _cell_separable_conv(given, out) -> list[Part]:
    x, depthwise, pointwise = given["features"], given["depthwise"], given["pointwise"]
    table = table_of_call(given, x.shape[0], depthwise[0].numel())
    size = x.element_size()
    first = clouds.count_cells_depthwise(table, x.shape[1], given["mean"], size)
    second = clouds.count_matrix(table.queries, pointwise.shape[1], pointwise.shape[0],
                                 given["bias"] is not None, size)  # fmt: skip
    first, second = convolutions.join(first, second)
    return [
        applied(kinds.CELL_DEPTHWISE, first, depthwise),
        applied(kinds.POINTWISE, second, pointwise, given["bias"]),
    ]


def _pointwise_conv(given, out) -> list[Part]:
    x, weight, bias = given["features"], given["weight"], given["bias"]
    count = clouds.count_matrix(x.shape[0], weight.shape[1], weight.shape[0], bias is not None,
                                x.element_size())  # fmt: skip
    return [applied(kinds.POINTWISE, count, weight, bias)]


def _search(given, out) -> list[Part]:
    """Neighbours and voxels: no fixed number of operations, only what is read and written."""
    found = [x for x in out if isinstance(x, Tensor)]
    read = {id(x): size_of(x) for x in given.values() if isinstance(x, Tensor)}
    count = Count(
        outputs=sum(x.numel() for x in found),
        bytes_read=sum(read.values()),
        bytes_written=sum(map(size_of, found)),
    )
    return [Part(kinds.SEARCH, count)]


FORMULAS: dict[str, Formula] = {
    "pointwise::conv2d": _conv2d,
    "pointwise::separable_conv2d": _separable_conv2d,
    "pointwise::norm_conv2d": _norm_conv2d,
    "pointwise::norm_act": _norm_act,
    "pointwise::cell_conv": _cell_conv,
    "pointwise::cell_depthwise_conv": _cell_depthwise_conv,
    "pointwise::cell_separable_conv": _cell_separable_conv,
    "pointwise::pointwise_conv": _pointwise_conv,
    "pointwise::cell_search": _search,
    "pointwise::voxel_grid": _search,
}
"""By the operators' names."""

WITHOUT_ARITHMETIC = ("pointwise::cell_search", "pointwise::voxel_grid")
"""Operators whose formula knows their bytes only: to be listed as not counted."""
