"""From the vocabulary to launches: everything but convolutions and linear layers.

Each lowering returns the value it makes, or says in words why the call stays plain PyTorch. It says
so before it asks for anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx

from pointwise.acceleration import vocabulary
from pointwise.acceleration.buffers import Value, are_parts, is_pixels
from pointwise.acceleration.builder import Builder, Constant, Found, why_not
from pointwise.convolution.window import Axis, Window, window
from pointwise.engine.cpu.by_dtype import ZEROS
from pointwise.engine.cpu.launch import Launch
from pointwise.engine.cpu.loops import combine, excite, layer_norm, pool

aten = torch.ops.aten


def _activate(plan: Builder, node: fx.Node, x: Any, activation: str) -> Found:
    x = plan.settled(x)
    why = why_not(x, activation=activation)
    if why:
        return why
    x = _dense(plan, x)
    out = _like(plan, x)
    return plan.emit(
        lambda: combine.dense(combine.COPY, plan.real(x), plan.real(out), None, activation),
        [x], out)  # fmt: skip


def _binary(how: int) -> Callable[..., Found]:
    def lowering(plan: Builder, node: fx.Node, x: Any, y: Any, activation: str) -> Found:
        x, y = plan.settled(x), plan.settled(y)
        why = why_not(x, y, activation=activation)
        if why:
            return why
        if x.shape != y.shape:
            return "shapes differ"
        return add_up(plan, how, x, y, activation)

    return lowering


def add_up(plan: Builder, how: int, x: Value, y: Value, activation: str) -> Value:
    if len(x.shape) == 4 and (is_pixels(x.fake) or is_pixels(y.fake)):
        x, y = plan.as_pixels(x), plan.as_pixels(y)
    elif x.fake.stride() != y.fake.stride() or not _is_dense(x.fake):
        x, y = plan.as_rows(x), plan.as_rows(y)
    out = _like(plan, x)
    return plan.emit(
        lambda: combine.dense(how, plan.real(x), plan.real(out), plan.real(y), activation),
        [x, y], out)  # fmt: skip


def _is_dense(fake: Tensor) -> bool:
    return fake.is_contiguous() or is_pixels(fake)


def _dense(plan: Builder, x: Value) -> Value:
    return x if _is_dense(x.fake) else plan.as_rows(x)


def _like(plan: Builder, x: Value) -> Value:
    """Room for a result that lies in memory as x does."""
    return plan.new(x.shape, x.dtype, pixels=is_pixels(x.fake))


def _scale(plan: Builder, node: fx.Node, x: Any, factor: Any, activation: str) -> Found:
    x, factor = plan.settled(x), plan.settled(factor)
    why = why_not(x, factor, activation=activation)
    if why:
        return why
    if tuple(factor.shape) != (*x.shape[:2], 1, 1):
        return "shapes differ"
    x, factor = plan.as_pixels(x), plan.as_rows(factor)
    out = plan.new(x.shape, x.dtype)
    return plan.emit(
        lambda: combine.scale(plan.real(x), plan.real(out), plan.real(factor), activation),
        [x, factor], out)  # fmt: skip


def _squeeze_excite(plan: Builder, node: fx.Node, x: Any, narrow: Any, narrow_bias: Any, wide: Any,
                    wide_bias: Any, inner: str, gate: str, last: str) -> Found:  # fmt: skip
    x = plan.settled(x)
    why = next(filter(None, (why_not(x, activation=name) for name in (inner, gate, last))), None)
    if why:
        return why
    sizes, dtype = plan.constants.like(narrow.node)
    if dtype != x.dtype or x.shape[1] != sizes[1]:
        return "its input does not fit"
    parts = (narrow, narrow_bias, wide, wide_bias)
    nodes: list[Any] = [None if part is None else part.node for part in parts]
    weights = plan.constants.packed_excitation(*nodes)
    image = plan.as_pixels(x)
    between = plan.new(excite.room(x.shape[0], x.shape[1], weights), x.dtype)
    plan.emit(
        lambda: excite.squeeze(plan.real(image), plan.real(between), weights), [image], between
    )
    # Where nobody else reads x, nor anything that it is a view of, its place is as good as any.
    source: Any = node.args[0]
    made = image is not x or source.target in vocabulary.FUNCTIONS.values()
    alone = made and len(source.users) == 1 and image.buffer.slot is None
    out = image if alone else plan.new(image.shape, image.dtype)
    return plan.emit(
        lambda: excite.excite(plan.real(image), plan.real(between), weights, plan.real(out),
                              (inner, gate, last)),
        [image, between], out)  # fmt: skip


def _affine(plan: Builder, node: fx.Node, x: Any, factor: Any, shift: Any,
            activation: str) -> Found:  # fmt: skip
    if not isinstance(factor, Constant) or not isinstance(shift, Constant):
        return "its factors are not parameters"
    x = plan.settled(x)
    why = why_not(x, activation=activation)
    if why:
        return why
    if len(x.shape) not in (2, 4):
        return "neither an image nor a matrix"
    x = plan.as_pixels(x) if len(x.shape) == 4 else plan.as_rows(x)
    rows = [plan.fixed(part) for part in (factor, shift)]
    if any(row is None or row.dtype != x.dtype for row in rows):
        return "factors of another type"
    times, plus = (row.contiguous() for row in rows if row is not None)
    out = _like(plan, x)
    return plan.emit(
        lambda: combine.affine(plan.real(x), plan.real(out), times, plus, activation), [x], out
    )


# --- images ---------------------------------------------------------------------------------------


def _mean(plan: Builder, node: fx.Node, x: Any, keep: bool) -> Found:
    x = plan.settled(x)
    why = why_not(x)
    if why:
        return why
    x = plan.as_pixels(x)
    shape = (*x.shape[:2], 1, 1) if keep else x.shape[:2]
    out = plan.new(shape, x.dtype)
    return plan.emit(lambda: pool.mean(plan.real(x), plan.real(out)), [x], out)


def _pool(plan: Builder, node: fx.Node, kind: int, x: Value, kernel: Sequence[int],
          stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int],
          of: int) -> Found:  # fmt: skip
    # One channel tells the shape (on "meta", PyTorch would import sympy for that).
    function: Any = node.target
    height, width = function(torch.empty(1, 1, *x.shape[2:]), *node.args[1:]).shape[2:]
    edges = []
    for size, points, k, step, edge, spread in zip(
        x.shape[2:], (height, width), kernel, stride, padding, dilation, strict=True
    ):
        # As far behind the image as the last window reaches.
        edges += [edge, max(0, (points - 1) * step + (k - 1) * spread + 1 - size - edge)]
    seen = window(x.shape[0], x.shape[2:], kernel, stride, edges, dilation)
    if (seen.y.points, seen.x.points) != (height, width):
        seen = Window(x.shape[0], *_with_points(seen, height, width))
    x = plan.as_parts(x)
    out = plan.new((*x.shape[:2], height, width), x.dtype)
    return plan.emit(
        lambda: pool.pooled(plan.real(x), plan.real(out), seen, kind, of), [x], out, [x, out]
    )  # fmt: skip


def _with_points(seen: Window, *points: int) -> list[Axis]:
    return [
        axis._replace(points=count) for axis, count in zip((seen.y, seen.x), points, strict=True)
    ]


def _max_pool(plan, node, x, kernel, stride, padding, dilation, ceil) -> Found:
    x = plan.settled(x)
    why = why_not(x)
    return why or _pool(plan, node, pool.LARGEST, x, kernel, stride, padding, dilation, 0)


def _avg_pool(plan, node, x, kernel, stride, padding, ceil, with_padding, divisor) -> Found:
    x = plan.settled(x)
    why = why_not(x)
    if why:
        return why
    if ceil and with_padding and divisor is None and any(padding):
        return "means over padding and beyond it"
    if ceil and with_padding and divisor is None:
        with_padding = False  # what lies beyond the image does not count
    of = divisor or (kernel[0] * kernel[1] if with_padding else 0)
    return _pool(plan, node, pool.MEAN, x, kernel, stride, padding, (1, 1), of)


def _join(plan: Builder, node: fx.Node, xs: Sequence[Any]) -> Found:
    values = [plan.held(x) if isinstance(x, Constant) else plan.settled(x) for x in xs]
    why = why_not(*values)
    if why:
        return why
    values = plan.put_together(values)
    first = values[0].shape
    if any((x.shape[0], *x.shape[2:]) != (first[0], *first[2:]) for x in values):
        return "shapes differ"
    channels = sum(x.shape[1] for x in values)
    out = plan.new((first[0], channels, *first[2:]), values[0].dtype)
    begin = 0
    for x in values:
        if not plan.moved(x, out, begin):
            x = plan.as_parts(x)
            plan.emit(partial(_copy_channels, plan, x, out, begin), [x], out, [x])
        begin += x.shape[1]
    out.buffer.is_rigid = True  # others have their place in it
    return out


def _copy_channels(plan: Builder, x: Value, out: Value, begin: int) -> Launch:
    return combine.join(plan.real(x), plan.real(out), begin)


def _slice(plan: Builder, node: fx.Node, x: Any, dim: int = 0, start: Any = None, end: Any = None,
           step: int = 1) -> Found:  # fmt: skip
    """Some channels of an image."""
    x = None if node.kwargs else _divisible(plan, x, dim)
    if x is None or step != 1:
        return "PyTorch's own"
    begin, end, _ = slice(start, end).indices(x.shape[1])
    return plan.part(x, begin, end - begin) if end > begin else "there is nothing to compute"


def _split(plan: Builder, node: fx.Node, x: Any, sizes: Any, dim: int = 0) -> Any:
    """Channels of an image, so many at a time."""
    x = None if node.kwargs else _divisible(plan, x, dim)
    if x is None:
        return "PyTorch's own"
    counts = [part.shape[1] for part in x.fake.split(sizes, 1)]
    begins = [sum(counts[:i]) for i in range(len(counts))]
    return [plan.part(x, *each) for each in zip(begins, counts, strict=True)]


def _chunk(plan: Builder, node: fx.Node, x: Any, chunks: int, dim: int = 0) -> Any:
    image = _divisible(plan, x, dim)
    size = 1 if image is None else -(-image.shape[1] // chunks)
    return _split(plan, node, x, size, dim)


def _divisible(plan: Builder, x: Any, dim: int) -> Value | None:
    """An image of a plan whose channels are to be divided."""
    if isinstance(x, Constant) or dim not in (1, -3):
        return None
    x = plan.settled(x)
    if not isinstance(x, Value) or x.buffer.slot is not None or x.buffer.constant is not None:
        return None
    known = x.dtype in ZEROS and x.fake.numel() > 0 and are_parts(x.fake)
    return x if known else None


def _channel_norm(plan: Builder, node: fx.Node, x: Any, weight: Any, bias: Any, eps: float,
                  pixels: bool = True) -> Found:  # fmt: skip
    if not all(isinstance(part, (Constant, type(None))) for part in (weight, bias)):
        return "its factors are not parameters"
    x = plan.settled(x)
    why = why_not(x)
    if why:
        return why
    if pixels and len(x.shape) != 4:
        return "not an image"
    gain, shift = plan.fixed(weight), plan.fixed(bias)
    if any(row is not None and row.dtype != x.dtype for row in (gain, shift)):
        return "factors of another type"
    gain, shift = (None if row is None else row.contiguous() for row in (gain, shift))
    x = plan.as_pixels(x) if pixels else plan.as_rows(x)
    columns = x.shape[1] if pixels else x.shape[-1]
    out = _like(plan, x) if pixels else plan.new(x.shape, x.dtype, pixels=False)
    rows = x.fake.numel() // columns
    return plan.emit(
        lambda: layer_norm.normed(plan.real(x), plan.real(out), rows, columns, gain, shift, eps),
        [x], out)  # fmt: skip


def _layer_norm(plan: Builder, node: fx.Node, x: Any, weight: Any, bias: Any, eps: float) -> Found:
    return _channel_norm(plan, node, x, weight, bias, eps, pixels=False)


DIVIDED: dict[Any, Callable[..., Any]] = {
    aten.slice.Tensor: _slice,
    aten.split.Tensor: _split,
    aten.split.sizes: _split,
    aten.split_with_sizes.default: _split,
    aten.chunk.default: _chunk,
}

LOWERINGS: dict[Any, Callable[..., Found]] = {
    vocabulary.activate: _activate,
    vocabulary.add: _binary(combine.ADD),
    vocabulary.multiply: _binary(combine.MULTIPLY),
    vocabulary.scale: _scale,
    vocabulary.affine: _affine,
    vocabulary.squeeze_excite: _squeeze_excite,
    vocabulary.mean: _mean,
    vocabulary.max_pool: _max_pool,
    vocabulary.avg_pool: _avg_pool,
    vocabulary.join: _join,
    **DIVIDED,
    vocabulary.layer_norm: _layer_norm,
    vocabulary.channel_norm: _channel_norm,
}
