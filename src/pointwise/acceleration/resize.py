"""Resizing in a graph of Dynamo's, as one call.

AOTAutograd resolves it into index arithmetic, in which nobody sees any more what it is. So before
that it becomes a call of an operator of ours, which AOTAutograd leaves as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from pointwise.acceleration.graph import Node, call, replace
from pointwise.engine.library import library

aten = torch.ops.aten
_NAME = "resize"


def _resized(
    x: Tensor,
    size: Sequence[int] | None,
    scales: Sequence[float] | None,
    mode: str,
    align_corners: bool | None,
) -> Tensor:
    """An image in another size, as ``interpolate`` has it."""
    return F.interpolate(x, size, scales, mode, align_corners)  # type: ignore[arg-type]


library.define(
    f"{_NAME}(Tensor x, SymInt[]? size, float[]? scales, str mode, bool? align_corners) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)
library.impl(_NAME, _resized, "CompositeExplicitAutograd")
torch.library.register_fake(f"pointwise::{_NAME}", _resized, lib=library)

resize = torch.ops.pointwise.resize.default

_NAMES = ("input", "size", "scale_factor", "mode", "align_corners", "recompute_scale_factor",
          "antialias")  # fmt: skip
_CALLS = {
    "nearest": aten.upsample_nearest2d.vec,
    "nearest-exact": aten._upsample_nearest_exact2d.vec,
    "bilinear": aten.upsample_bilinear2d.vec,
}


def keep_resizing(graph: fx.GraphModule) -> None:
    """Puts ``resize`` in the place of ``interpolate``, where there is a kernel for it."""
    for node in list(graph.graph.nodes):
        given = _given(node)
        if given is None:
            continue
        size, scales = (_twice(given.get(name)) for name in ("size", "scale_factor"))
        arguments = (given["input"], size, scales, given.get("mode", "nearest"),
                     given.get("align_corners"))  # fmt: skip
        with graph.graph.inserting_before(node):
            new = call(graph.graph, resize, arguments, node)
        replace(graph.graph, node, new)
    graph.recompile()


def _given(node: Node) -> dict[str, Any] | None:
    """The arguments of a call of ``interpolate`` that is one of ours."""
    if node.op != "call_function" or node.target is not F.interpolate:
        return None
    given = dict(zip(_NAMES, node.args, strict=False)) | node.kwargs
    image = given["input"].meta.get("example_value")
    is_image = isinstance(image, Tensor) and image.dim() == 4 and image.is_floating_point()
    is_other = given.get("recompute_scale_factor") or given.get("antialias")
    return None if not is_image or is_other or given.get("mode", "nearest") not in _CALLS else given


def _twice(each: Any) -> Any:
    """One number for both dimensions."""
    return each if each is None or isinstance(each, (list, tuple)) else [each, each]


def resizing(graph: fx.Graph, node: Node, x: Node, size: Any, scales: Any, mode: str,
             align_corners: bool | None) -> Node:  # fmt: skip
    """``resize`` as the call that torch.export has for it."""
    corners = (bool(align_corners),) if mode == "bilinear" else ()
    return call(graph, _CALLS[mode], (x, size, *corners, scales), node)
