"""Calls that put pixels elsewhere: resizing, padding, turning round.

Where each pixel of a result comes from is what the call itself makes of an image of coordinates, so
that PyTorch's conventions are asked for and not repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from pointwise.acceleration import vocabulary
from pointwise.acceleration.buffers import Value, are_parts
from pointwise.acceleration.builder import Builder, Found, why_not
from pointwise.engine.cpu.loops import resample

aten = torch.ops.aten


def _moved(plan: Builder, node: fx.Node, x: Any, *rest: Any) -> Found:
    """Whole pixels of ``x [N, C, H, W]``, each row and each column of the result apart."""
    x = plan.settled(x)
    why = why_not(x) or _why_not(node, x, rest)
    if why:
        return why
    given, fill = rest, 0.0
    if node.target is aten.constant_pad_nd.default:
        fill = float(rest[1]) if len(rest) > 1 else 0.0
        given = (rest[0], -1.0)  # of coordinates, what is no pixel
    rows, columns = _coordinates(node.target, x.shape, given, x.dtype)
    shape = (*x.shape[:2], len(rows), len(columns))
    if not rows.numel() or not columns.numel():
        return "there is nothing to compute"
    x = plan.as_parts(x)
    out = plan.new(shape, x.dtype)
    places = rows.long(), columns.long()
    return plan.emit(
        lambda: resample.copied(plan.real(x), plan.real(out), *places, fill), [x], out, [x, out]
    )


def _turned(plan: Builder, node: fx.Node, x: Any, *rest: Any) -> Found:
    """``_moved``, also of pixels whose channels are the last dimension."""
    x = plan.settled(x)
    dims = rest[-1] if rest and isinstance(rest[-1], (list, tuple)) else ()
    if isinstance(x, Value) and len(x.shape) == 4 and {dim % 4 for dim in dims} <= {1, 2}:
        image = Value(x.fake.permute(0, 3, 1, 2), x.buffer)
        if are_parts(image.fake):
            found = _moved(plan, node, image, *rest[:-1], [dim % 4 + 1 for dim in dims])
            if isinstance(found, str):
                return found
            return Value(found.fake.permute(0, 2, 3, 1), found.buffer)
    return _moved(plan, node, x, *rest)


def _resized(plan: Builder, node: fx.Node, x: Any, *rest: Any) -> Found:
    """Between the four neighbours."""
    x = plan.settled(x)
    why = why_not(x) or _why_not(node, x, rest)
    if why:
        return why
    rows, columns = _coordinates(node.target, x.shape, rest, torch.float64)
    x = plan.as_parts(x)
    out = plan.new((*x.shape[:2], len(rows), len(columns)), x.dtype)
    return plan.emit(
        lambda: resample.between(plan.real(x), plan.real(out), rows, columns), [x], out, [x, out]
    )


def _why_not(node: fx.Node, x: Any, rest: tuple) -> str | None:
    if len(x.shape) != 4:
        return "not an image"
    if node.kwargs:
        return "arguments by name"
    parts = [each if isinstance(each, (list, tuple)) else [each] for each in rest]
    if not all(isinstance(part, (int, float, str, type(None))) for each in parts for part in each):
        return "arguments that are no numbers"
    is_pad = node.target in (aten.constant_pad_nd.default, aten.pad.default)
    if is_pad and len(rest[0]) > 4:
        return "padding of more than pixels"
    turns: dict[Any, int] = {aten.flip.default: 0, aten.roll.default: 1}
    dims = turns.get(node.target)  # the place of the dimensions
    if dims is not None and (len(rest) <= dims or not {d % 4 for d in rest[dims]} <= {2, 3}):
        return "not of pixels"
    return None


def _coordinates(target: Any, shape: torch.Size, rest: tuple, dtype: torch.dtype) -> list[Tensor]:
    """From where each row and each column comes."""
    height, width = shape[2:]
    y, x = torch.arange(height, dtype=dtype), torch.arange(width, dtype=dtype)
    image = torch.stack((y[:, None].expand(-1, width), x.expand(height, -1)))[None]
    out = target(image, *rest)[0]
    if out.numel() == 0:
        return [torch.empty(0)] * 2
    return [out[0].amax(1), out[1].amax(0)]  # the same everywhere, but where there is no pixel


def _shuffled(plan: Builder, node: fx.Node, x: Any, groups: int) -> Found:
    x = plan.settled(x)
    why = why_not(x)
    if why:
        return why
    if len(x.shape) != 4 or x.shape[1] % groups:
        return "its groups do not fit"
    x = plan.as_parts(x)
    out = plan.new(x.shape, x.dtype)
    places = torch.arange(x.shape[1]).view(groups, -1).t().flatten()
    return plan.emit(lambda: resample.picked(plan.real(x), plan.real(out), places), [x], out, [x])


_COPIES = (
    aten.constant_pad_nd.default, aten.pad.default, aten.reflection_pad2d.default,
    aten.replication_pad2d.default,
    aten.upsample_nearest2d.default, aten.upsample_nearest2d.vec,
    aten._upsample_nearest_exact2d.default, aten._upsample_nearest_exact2d.vec,
)  # fmt: skip

LOWERINGS: dict[Any, Callable[..., Found]] = {
    **dict.fromkeys(_COPIES, _moved),
    aten.flip.default: _turned,
    aten.roll.default: _turned,
    aten.upsample_bilinear2d.default: _resized,
    aten.upsample_bilinear2d.vec: _resized,
    vocabulary.shuffle: _shuffled,
}
