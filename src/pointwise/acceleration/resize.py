"""Resizing as one call of an operator of ours, in whatever a model is traced with.

AOTAutograd resolves it into index arithmetic, in which nobody sees any more what it is, and
torch.export works out the shape of its result by doing so, which takes a second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def _foreseen(x: Tensor, size: Any, scales: Any, mode: str, align_corners: Any) -> Tensor:
    if size is None:
        size = [_times(*each) for each in zip(x.shape[2:], scales, strict=True)]
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    form = torch.channels_last if last else torch.contiguous_format
    return torch.empty((*x.shape[:2], *size), dtype=x.dtype, device=x.device, memory_format=form)


def _times(size: Any, scale: float) -> Any:
    return size * int(scale) if scale == int(scale) else torch.sym_int(size * scale)


library.define(
    f"{_NAME}(Tensor x, SymInt[]? size, float[]? scales, str mode, bool? align_corners) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)
library.impl(_NAME, _resized, "CompositeExplicitAutograd")
torch.library.register_fake(f"pointwise::{_NAME}", _foreseen, lib=library)

resize = torch.ops.pointwise.resize.default

_NAMES = ("input", "size", "scale_factor", "mode", "align_corners", "recompute_scale_factor",
          "antialias")  # fmt: skip
_CALLS = {
    "nearest": aten.upsample_nearest2d.vec,
    "nearest-exact": aten._upsample_nearest_exact2d.vec,
    "bilinear": aten.upsample_bilinear2d.vec,
}


def resized(args: tuple, kwargs: Mapping[str, Any]) -> tuple | None:
    """The arguments of ``resize`` for those of ``interpolate``; None where it is none of ours."""
    given = {**dict(zip(_NAMES, args, strict=False)), **kwargs}
    image = given["input"]
    if isinstance(image, fx.Node):
        image = image.meta.get("example_value")
    is_image = isinstance(image, Tensor) and image.dim() == 4 and image.is_floating_point()
    is_other = given.get("recompute_scale_factor") or given.get("antialias")
    size, scales = (_twice(given.get(name)) for name in ("size", "scale_factor"))
    corners, mode = given.get("align_corners"), given.get("mode", "nearest")
    wrong = (size is None) == (scales is None) or (corners is not None and mode != "bilinear")
    if not is_image or is_other or mode not in _CALLS or wrong:  # and PyTorch says what is
        return None
    return given["input"], size, scales, mode, corners


def keep_resizing(graph: fx.GraphModule) -> None:
    """Puts ``resize`` in the place of ``interpolate`` in a graph of Dynamo's."""
    for node in list(graph.graph.nodes):
        if node.op != "call_function" or node.target is not F.interpolate:
            continue
        arguments = resized(node.args, node.kwargs)
        if arguments is not None:
            with graph.graph.inserting_before(node):
                new = call(graph.graph, resize, arguments, node)
            replace(graph.graph, node, new)
    graph.recompile()


def _twice(each: Any) -> Any:
    """One number for both dimensions."""
    return each if each is None or isinstance(each, (list, tuple)) else [each, each]


def resizing(graph: fx.Graph, node: Node, x: Node, size: Any, scales: Any, mode: str,
             align_corners: bool | None) -> Node:  # fmt: skip
    """``resize`` as the call that torch.export has for it."""
    corners = (bool(align_corners),) if mode == "bilinear" else ()
    return call(graph, _CALLS[mode], (x, size, *corners, scales), node)
