"""Convolutions on lines ``[N, C, L]`` as convolutions on images that are one point high.

A line becomes an image before its convolution and a line again behind it. What stands between two
of them, number by number, by channel or as zeros around, is done to the images, so that lines are
seen only where a model's own calls ask for them. All of it is a way to look at memory, and moves
nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from pointwise.acceleration import vocabulary
from pointwise.acceleration.graph import Node, call, replace, shape

aten = torch.ops.aten
_HEIGHT = 2  # the dimension of an image that a line has not

_ONE = (vocabulary.activate, vocabulary.affine)  # of one image
_TWO = (vocabulary.add, vocabulary.multiply)


def raised(graph: fx.Graph, line: Node) -> Node:
    """A line as an image, in front of what comes next."""
    image = call(graph, aten.unsqueeze.default, (line, _HEIGHT), None)
    image.meta["val"] = line.meta["val"].unsqueeze(_HEIGHT)
    return image


def lowered(graph: fx.Graph, image: Node, like: Node) -> Node:
    """An image of one line as that line, in the place of ``like``."""
    image.meta = {**like.meta, "val": like.meta["val"].unsqueeze(_HEIGHT)}
    return call(graph, aten.squeeze.dim, (image, _HEIGHT), like)


def images_for_lines(graph: fx.Graph) -> None:
    """Does to images what is done to lines between convolutions, in place."""
    for node in list(graph.nodes):
        image = _image_of(node.args[0]) if node.op == "call_function" and node.args else None
        if image is not None and _is_raised(node):
            replace(graph, node, image)
            continue
        with graph.inserting_before(node):
            new = _on_images(graph, node, image)
            if new is not None:
                replace(graph, node, lowered(graph, new, node))
                continue
            if _is_raised(node):
                _raise_padding(graph, node)
    _raise_once(graph)
    graph.eliminate_dead_code()


def _raise_once(graph: fx.Graph) -> None:
    """One image of a line that several convolutions read."""
    images: dict[Node, Node] = {}
    for node in list(graph.nodes):
        if _is_raised(node) and images.setdefault(node.args[0], node) is not node:
            replace(graph, node, images[node.args[0]])


def _image_of(node: Any) -> Any:
    """The image that a line was, if it is one of ours."""
    is_it = (
        isinstance(node, fx.Node)
        and node.target is aten.squeeze.dim
        and node.args[1] == _HEIGHT
        and len(shape(node.args[0]) or ()) == 4
        and len(shape(node) or ()) == 3
    )
    return node.args[0] if is_it else None


def _is_raised(node: Node) -> bool:
    return (
        node.target is aten.unsqueeze.default
        and node.args[1] == _HEIGHT
        and len(shape(node.args[0]) or ()) == 3
    )


def _on_images(graph: fx.Graph, node: Node, image: Any) -> Node | None:
    """A call on lines, of which at least one was an image, as a call on images."""
    if node.target in _ONE and image is not None:
        return call(graph, node.target, (image, *node.args[1:]), None)
    if node.target in _TWO:
        images = [_image_of(part) for part in node.args[:2]]
        if images == [None, None]:
            return None
        pair = zip(images, node.args[:2], strict=True)
        both = [raised(graph, line) if found is None else found for found, line in pair]
        return call(graph, node.target, (*both, *node.args[2:]), None)
    if image is not None and node.target is aten.slice.Tensor and node.args[1] == 2:
        return call(graph, node.target, (image, 3, *node.args[2:]), None)
    if image is not None and _is_padding(node):
        return call(graph, node.target, (image, [*node.args[1], 0, 0], *node.args[2:]), None)
    return None


def _is_padding(node: Any) -> bool:
    return node.target is aten.constant_pad_nd.default and len(node.args[1]) == 2


def _raise_padding(graph: fx.Graph, node: Node) -> None:
    """Zeros around a line that then becomes an image: around the image instead."""
    line: Any = node.args[0]
    if line.op == "call_function" and _is_padding(line):
        image = raised(graph, line.args[0])
        arguments = (image, [*line.args[1], 0, 0], *line.args[2:])
        replace(graph, node, call(graph, line.target, arguments, node))
