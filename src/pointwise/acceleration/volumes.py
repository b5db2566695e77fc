"""Convolutions on volumes ``[N, C, D, H, W]`` as convolutions on images, the planes of volumes.

The taps along the depth become channels: of each plane of the result, the planes that it reads are
put beside one another, and an image's convolution does the rest, with all that images have. What
stands between two of them, number by number or by channel, is done to the images. Kernels that are
one plane deep move nothing: in memory, a volume with its channels last is its planes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from pointwise.acceleration import vocabulary
from pointwise.acceleration.graph import Node, call, replace, shape

aten = torch.ops.aten

_ONE = (vocabulary.activate, vocabulary.affine)  # of one image
_TWO = (vocabulary.add, vocabulary.multiply)


def convolved(
    graph: fx.Graph, node: Node, x: Node, weight: Node, bias: Node | None, stride: Sequence[int],
    edges: Sequence[int], dilation: Sequence[int], groups: int,
) -> Node:  # fmt: skip
    """A convolution of volumes, in front of ``node``; ``edges`` are before and after, by axis."""
    out, inputs, deep, high, wide = shape(weight)
    sizes = shape(node)
    way = (deep, stride[0], tuple(edges[:2]), dilation[0])
    images = _call(graph, vocabulary.planes, (x, *way, groups),
                   (sizes[0] * sizes[2], inputs * groups * deep, *shape(x)[3:]), x)  # fmt: skip
    kernel = _call(graph, vocabulary.planes_weight, (weight,), (out, inputs * deep, high, wide),
                   weight)  # fmt: skip
    arguments = (images, kernel, bias, None, tuple(stride[1:]), tuple(edges[2:]),
                 tuple(dilation[1:]), groups, "none")  # fmt: skip
    return lowered(graph, call(graph, vocabulary.conv, arguments, None), x, node)


def raised(graph: fx.Graph, volume: Node) -> Node:
    """The planes of volumes as images."""
    images, channels, deep, high, wide = shape(volume)
    sizes = (images * deep, channels, high, wide)
    return _call(graph, vocabulary.planes, (volume, 1, 1, (0, 0), 1, 1), sizes, volume)


def lowered(graph: fx.Graph, images: Node, source: Node, like: Node) -> Node:
    """Images as planes of volumes, in the place of ``like``; as many as ``source`` has."""
    count, channels, deep, high, wide = shape(like)
    images.meta = {**like.meta, "val": like.meta["val"].new_empty(
        (count * deep, channels, high, wide))}  # fmt: skip
    return call(graph, vocabulary.volumes, (images, size_of(graph, source, 0)), like)


def flattened(graph: fx.Graph, volume: Node) -> Node:
    """Volumes as images whose lines are planes."""
    images, channels, deep, high, wide = shape(volume)
    return _call(graph, aten.flatten.using_ints, (volume, 3, 4),
                 (images, channels, deep, high * wide), volume)  # fmt: skip


def pooled(
    graph: fx.Graph, node: Node, pool: Any, x: Node, way: Sequence[Any], rest: tuple
) -> Node | None:
    """A pool of volumes: of planes first, then along the depth.

    ``way`` has its kernel, stride, padding and so on, each of three numbers.
    """
    if None in way:
        return None
    count, channels, _, high, wide = shape(node)
    deep = shape(x)[2]
    planes = call(graph, pool, (raised(graph, x), *(each[1:] for each in way), *rest), None)
    between = call(graph, vocabulary.volumes, (planes, size_of(graph, x, 0)), node)
    for part, sizes in ((planes, (count * deep, channels)), (between, (count, channels, deep))):
        part.meta = {**node.meta, "val": x.meta["val"].new_empty((*sizes, high, wide))}
    if [each[0] for each in way[:3]] == [1, 1, 0]:
        return between
    lines = call(graph, pool, (flattened(graph, between),
                               *((each[0], int(i != 2)) for i, each in enumerate(way)), *rest),
                 None)  # fmt: skip
    lines.meta = {**node.meta, "val": x.meta["val"].new_empty(
        (count, channels, shape(node)[2], high * wide))}  # fmt: skip
    rows = [-1, size_of(graph, between, 4)]
    return call(graph, aten.unflatten.int, (lines, 3, rows), node)


def size_of(graph: fx.Graph, x: Node, dim: int) -> Any:
    """A size as a number, or as a call that asks for it."""
    size = shape(x)[dim]
    if type(size) is int:
        return size
    if dim == 0 and _images_of(x) is not None:
        return x.args[1]
    asked = call(graph, aten.sym_size.int, (x, dim), None)
    asked.meta["val"] = size
    return asked


def _call(graph: fx.Graph, function: Any, arguments: tuple, sizes: tuple, like: Node) -> Node:
    new = call(graph, function, arguments, None)
    new.meta["val"] = like.meta["val"].new_empty(sizes)
    return new


def images_for_volumes(graph: fx.Graph) -> None:
    """Does to images what is done to volumes between convolutions, in place."""
    for node in list(graph.nodes):
        if node.op != "call_function" or not node.args:
            continue
        images = _images_of(node.args[0])
        if images is not None and _is_raised(node):
            replace(graph, node, images)
            continue
        if images is not None and node.target is aten.sym_size.int and node.args[1] == 0:
            count = node.args[0].args[1]
            if isinstance(count, fx.Node):
                replace(graph, node, count)
            continue
        with graph.inserting_before(node):
            new = _on_images(graph, node)
            if new is not None:
                replace(graph, node, lowered(graph, new, node.args[0], node))
    graph.eliminate_dead_code()


def _images_of(node: Any) -> Any:
    """The images that are the planes of volumes, if they are ours."""
    is_it = isinstance(node, fx.Node) and node.target is vocabulary.volumes
    return node.args[0] if is_it else None


def _is_raised(node: Node) -> bool:
    return node.target is vocabulary.planes and node.args[1:] == (1, 1, (0, 0), 1, 1)


def _on_images(graph: fx.Graph, node: Node) -> Node | None:
    """A call on volumes as a call on images, where they were images or a kernel wants them so."""
    parts = node.args[:1] if node.target in _ONE else node.args[:2] if node.target in _TWO else ()
    images = [_images_of(part) for part in parts]
    is_norm = node.target is vocabulary.affine and len(shape(node) or ()) == 5
    if not any(images) and not is_norm:
        return None
    both = [raised(graph, part) if found is None else found
            for found, part in zip(images, parts, strict=True)]  # fmt: skip
    return call(graph, node.target, (*both, *node.args[len(parts) :]), None)
