"""Transposed convolutions as convolutions whose results lie between one another.

Of a stride s, every s-th result reads the same points with the same taps: s phases, each of them a
convolution of the small image. All phases are one convolution with s times as many channels, whose
results are then put between one another. On lines that moves nothing, since channels lie side by
side in memory; images are copied once.
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


def _along(kernel: int, stride: int, padding: int, more: int) -> _Way | None:
    """None where points would have to be cut off instead of padded."""
    first, taps = vocabulary.phase_taps(kernel, stride, padding)
    beyond = kernel - stride - 2 * padding + more  # how many results there are but stride · points
    rounds = -(-beyond // stride)
    after = rounds + taps - 1 + first
    if first > 0 or after < 0:
        return None
    return _Way(taps, -first, after, rounds * stride - beyond)


def transposed(
    graph: fx.Graph, node: Node, x: Node, weight: Node, bias: Node | None, stride: Sequence[int],
    padding: Sequence[int], more: Sequence[int],
) -> Node | None:  # fmt: skip
    """An image's transposed convolution, without groups and dilation, in front of ``node``.

    ``more`` is the output padding. None where it stays what it is.
    """
    sizes = shape(weight)[1:]
    if not all(type(size) is int for size in sizes):
        return None
    ways = [_along(*each) for each in zip(sizes[1:], stride, padding, more, strict=True)]
    if any(way is None for way in ways):
        return None
    y, x_way = cast(list[_Way], ways)
    kernel = call(graph, vocabulary.phases_weight, (weight, tuple(stride), tuple(padding)), None)
    count = stride[0] * stride[1]
    kernel.meta["val"] = weight.meta["val"].new_empty(
        count * sizes[0], shape(weight)[0], y.taps, x_way.taps
    )
    row = None if bias is None else call(graph, vocabulary.phases_bias, (bias, count), None)
    edges = (y.before, y.after, x_way.before, x_way.after)
    arguments = (x, kernel, row, None, (1, 1), edges, (1, 1), 1, "none")
    phases = call(graph, vocabulary.conv, arguments, None)
    out = between(graph, phases, (*stride, sizes[0]))
    for dim, way in ((2, y), (3, x_way)):
        if way.spare:
            out = call(graph, aten.slice.Tensor, (out, dim, 0, -way.spare, 1), None)
    return out


def between(graph: fx.Graph, phases: Node, parts: tuple[int, ...]) -> Node:
    """``[N, sy · sx · C, H, W]`` as ``[N, C, H · sy, W · sx]``."""
    apart = call(graph, aten.unflatten.int, (phases, 1, list(parts)), None)
    turned = call(graph, aten.permute.default, (apart, [0, 4, 1, 5, 2, 3]), None)
    for first in (3, 1):
        turned = call(graph, aten.flatten.using_ints, (turned, first, first + 1), None)
    return call(graph, aten.permute.default, (turned, [0, 3, 1, 2]), None)
