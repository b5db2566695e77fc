"""Transposed convolutions as convolutions whose results lie between one another.

Of a stride s, every s-th result reads the same points with the same taps: s phases, each of them a
convolution of the small image. All phases are one convolution with s times as many channels, whose
results are then put between one another. On lines that moves nothing, since channels lie side by
side in memory; images are copied once. Of several groups, each phase is a convolution of its own,
so that its channels come in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import fx

from pointwise.acceleration import vocabulary
from pointwise.acceleration.graph import Node, call, shape

aten = torch.ops.aten


class _Way(NamedTuple):
    """One dimension of the convolution whose results are the phases."""

    taps: int
    before: int  # padding
    after: int
    spare: int  # results behind the last that is wanted
    dilation: int = 1


def _along(kernel: int, stride: int, padding: int, more: int, dilation: int) -> _Way | None:
    """None where points would have to be cut off instead of padded."""
    reach = dilation * (kernel - 1)
    if stride == 1:  # the taps the other way round
        edges = (reach - padding, reach - padding + more)
        return _Way(kernel, *edges, 0, dilation) if min(edges) >= 0 else None
    kernel = reach + 1
    first, taps = vocabulary.phase_taps(kernel, stride, padding)
    beyond = kernel - stride - 2 * padding + more  # how many results there are but stride · points
    rounds = -(-beyond // stride)
    after = rounds + taps - 1 + first
    if first > 0 or after < 0:
        return None
    return _Way(taps, -first, after, rounds * stride - beyond)


def transposed(
    graph: fx.Graph, node: Node, x: Node, weight: Node, bias: Node | None, stride: Sequence[int],
    padding: Sequence[int], more: Sequence[int], groups: int, dilation: Sequence[int],
) -> Node | None:  # fmt: skip
    """An image's transposed convolution, in front of ``node``; None where it stays what it is.

    ``more`` is the output padding.
    """
    inputs, columns, *kernel = shape(weight)
    if not all(type(size) is int for size in (inputs, columns, *kernel)):
        return None
    each = zip(kernel, stride, padding, more, dilation, strict=True)
    ways = [_along(*one) for one in each]
    if any(way is None for way in ways):
        return None
    y, x_way = cast(list[_Way], ways)
    count, channels = stride[0] * stride[1], columns * groups
    geometry = (tuple(stride), tuple(padding), tuple(dilation), groups)
    weights = call(graph, vocabulary.phases_weight, (weight, *geometry), None)
    weights.meta["val"] = weight.meta["val"].new_empty(
        count * channels, inputs // groups, y.taps, x_way.taps
    )
    edges = (y.before, y.after, x_way.before, x_way.after)
    rest = (None, (1, 1), edges, (1, 1) if count > 1 else (y.dilation, x_way.dilation), groups)

    def convolved(kernel: Node, row: Node | None) -> Node:
        return call(graph, vocabulary.conv, (x, kernel, row, *rest, "none"), None)

    if groups == 1:
        row = None if bias is None else call(graph, vocabulary.phases_bias, (bias, count), None)
        phases = convolved(weights, row)
    else:
        parts = [_rows(graph, weights, i * channels, channels) for i in range(count)]
        each_phase = [convolved(part, bias) for part in parts]
        phases = call(graph, vocabulary.join, (each_phase,), None) if count > 1 else each_phase[0]
    out = between(graph, phases, (*stride, channels)) if count > 1 else phases
    for dim, way in ((2, y), (3, x_way)):
        if way.spare:
            out = call(graph, aten.slice.Tensor, (out, dim, 0, -way.spare, 1), None)
    return out


def _rows(graph: fx.Graph, weight: Node, first: int, count: int) -> Node:
    rows = call(graph, aten.narrow.default, (weight, 0, first, count), None)
    rows.meta["val"] = weight.meta["val"].narrow(0, first, count)
    return rows


def between(graph: fx.Graph, phases: Node, parts: tuple[int, ...]) -> Node:
    """``[N, sy · sx · C, H, W]`` as ``[N, C, H · sy, W · sx]``."""
    apart = call(graph, aten.unflatten.int, (phases, 1, list(parts)), None)
    turned = call(graph, aten.permute.default, (apart, [0, 4, 1, 5, 2, 3]), None)
    for first in (3, 1):
        turned = call(graph, aten.flatten.using_ints, (turned, first, first + 1), None)
    return call(graph, aten.permute.default, (turned, [0, 3, 1, 2]), None)
