"""From the vocabulary to launches: whether a call can run as a kernel here, and which.

Each lowering returns the value it makes, or says in words why the call stays plain PyTorch. It says
so before it asks for anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from pointwise import conv_images
from pointwise.acceleration import steps, vocabulary
from pointwise.acceleration.values import Value, is_pixels
from pointwise.engine.cpu import combine, pool
from pointwise.engine.cpu.by_dtype import ZEROS
from pointwise.gathers.window import Window, window
from pointwise.layers import folded

if TYPE_CHECKING:
    from pointwise.acceleration.planner import _Planner as Planner

Found = Value | str


@dataclass(frozen=True)
class Fixed:
    """An operand that is a constant."""

    node: fx.Node


class Piece:
    """A convolution as ``layers.folded`` makes launches of it."""

    def __init__(self, weights: conv_images.Weights, seen: Window, channels: int, activation: str):
        self.weights, self.window = weights, seen
        self.activation = activation if activation in conv_images.EPILOGUES else "none"
        self.later = "none" if activation in conv_images.EPILOGUES else activation
        self.shape = torch.Size((seen.images, channels, seen.y.points, seen.x.points))


@dataclass(eq=False)
class Waiting:
    """A depthwise convolution that the pointwise one behind it may do on the way."""

    x: Value
    piece: Any
    value: Value | None = None

    def settle(self, plan: Planner) -> Value:
        if self.value is None:
            self.value = _one(plan, self.x, self.piece, None)
        return self.value


def describe(node: fx.Node) -> str:
    """What a call is, for people to read."""
    if "what" in node.meta:
        return node.meta["what"]
    name = getattr(node.target, "__name__", str(node.target))
    if node.target not in vocabulary.FUNCTIONS.values():
        return str(node.target).removesuffix(".default")
    extra = ""
    if node.target is vocabulary.conv:
        weight = node.args[1].meta.get("val") if isinstance(node.args[1], fx.Node) else None
        if weight is not None:
            name = _kind(weight.shape, node.args[7])
    if node.target in (vocabulary.conv, vocabulary.linear) and node.args[3] is not None:
        extra = " + residual"
    last = node.args[-1]
    if isinstance(last, str) and last != "none":
        extra += f" + {last}"
    return name.replace("_", " ") + extra


def _kind(sizes: Sequence[int], groups: int) -> str:
    high, wide = sizes[2:]
    if conv_images.is_stencil(sizes, groups):
        return f"depthwise conv {high}×{wide}"
    name = "pointwise conv" if high * wide == 1 else f"conv {high}×{wide}"
    return name if groups == 1 else f"grouped {name}"


# --- what does not run as a kernel ----------------------------------------------------------------


def _why_not(*operands: Any, activation: str = "none") -> str | None:
    values = [x for x in operands if isinstance(x, (Value, Waiting))]
    dtypes = {_dtype(x) for x in values}
    if not values or any(isinstance(x, Fixed) for x in operands):
        return "an operand is a constant"
    if len(dtypes) != 1 or not dtypes <= set(ZEROS):
        names = " and ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
        return f"kernels take float32 and float64, not {names}"
    if any(isinstance(x, Value) and x.fake.numel() == 0 for x in values):
        return "there is nothing to compute"
    if activation == "gelu" and dtypes == {torch.float64}:
        return "gelu in float64"
    return None


def _dtype(x: Any) -> torch.dtype:
    return x.dtype if isinstance(x, Value) else x.x.dtype


# --- convolutions and linear layers ---------------------------------------------------------------


def _conv(plan: Planner, node: fx.Node, x: Any, weight: Any, bias: Any, residual: Any,
          stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], groups: int,
          activation: str) -> Value | Waiting | str:  # fmt: skip
    if not isinstance(weight, Fixed) or not isinstance(bias, (Fixed, type(None))):
        return "its weight is not a parameter"
    if isinstance(residual, Fixed) or isinstance(x, Fixed):
        return "an operand is a constant"
    why = _why_not(x, residual, activation=activation)
    if why:
        return why
    sizes, dtype = plan.constants.like(weight.node)
    if dtype != _dtype(x):
        return f"its weight is {dtype}"
    shape = x.piece.shape if isinstance(x, Waiting) else x.shape
    stencil = conv_images.is_stencil(sizes, groups)
    if stencil and sizes[0] != shape[1]:
        return "depth multiplier"
    if len(shape) != 4 or shape[1] != sizes[1] * groups:
        return "its input does not fit"  # and PyTorch says so
    seen = window(shape[0], shape[2:], sizes[2:], stride, padding, dilation)
    if seen.y.points < 1 or seen.x.points < 1:
        return "its kernel does not fit into the image"
    weights = plan.constants.packed(weight.node, None if bias is None else bias.node, groups)
    piece: Any = Piece(weights, seen, sizes[0], activation)
    residual = plan.settled(residual)
    if residual is not None and residual.shape != piece.shape:
        return "a residual of another shape"
    if stencil and residual is None and piece.later == "none" and _leads_to_mix(plan, node):
        return Waiting(plan.settled(x), piece)
    if isinstance(x, Waiting) and x.value is None and folded.are_better_joined(x.piece, piece):
        return _two(plan, x, piece, residual)
    return _one(plan, plan.settled(x), piece, residual)


def _leads_to_mix(plan: Planner, node: fx.Node) -> bool:
    """Whether all that reads a depthwise convolution is a pointwise one."""
    if len(node.users) != 1:
        return False
    (user,) = node.users
    if user.target is not vocabulary.conv or user.args[0] is not node or user.args[3] is node:
        return False
    weight = user.args[1]
    if weight not in plan.constants.fixed or user.args[7] != 1:
        return False
    return plan.constants.like(weight)[0][2:] == (1, 1)


def _one(plan: Planner, x: Value, piece: Any, residual: Value | None) -> Value:
    x = plan.as_pixels(x)
    if residual is not None and isinstance(piece.weights, conv_images.Taps):
        out = _one(plan, x, _without_activation(piece), None)
        return _sum(plan, combine.ADD, out, residual, _activation(piece))
    residual = None if residual is None else plan.as_pixels(residual)
    out = plan.new(piece.shape, x.dtype)

    def make() -> conv_images.Step:
        given = None if residual is None else plan.real(residual)
        return folded.step_of_one(plan.real(x), piece, plan.real(out), given)

    return _later(plan, plan.emit(make, [x, residual], out), piece.later)


def _two(plan: Planner, waiting: Waiting, piece: Any, residual: Value | None) -> Value:
    x, first = plan.as_pixels(waiting.x), waiting.piece
    residual = None if residual is None else plan.as_pixels(residual)
    out = plan.new(piece.shape, x.dtype)

    def make() -> conv_images.Step:
        given = None if residual is None else plan.real(residual)
        return folded.step_of_two(plan.real(x), first, piece, plan.real(out), given)

    return _later(plan, plan.emit(make, [x, residual], out), piece.later)


def _activation(piece: Any) -> str:
    return piece.activation if piece.later == "none" else piece.later


def _without_activation(piece: Any) -> Any:
    return Piece(piece.weights, piece.window, piece.shape[1], "none")


def _later(plan: Planner, out: Value, activation: str) -> Value:
    """An activation that the kernel of a convolution does not know, in place."""
    if activation == "none":
        return out
    return plan.emit(
        lambda: steps.dense(combine.COPY, plan.real(out), plan.real(out), None, activation),
        [out], out)  # fmt: skip


def _linear(plan: Planner, node: fx.Node, x: Any, weight: Any, bias: Any, residual: Any,
            activation: str) -> Found:  # fmt: skip
    if not isinstance(weight, Fixed) or not isinstance(bias, (Fixed, type(None))):
        return "its weight is not a parameter"
    if isinstance(residual, Fixed) or isinstance(x, Fixed):
        return "an operand is a constant"
    x, residual = plan.settled(x), plan.settled(residual)
    why = _why_not(x, residual, activation=activation)
    if why:
        return why
    sizes, dtype = plan.constants.like(weight.node)
    if dtype != x.dtype or x.shape[-1] != sizes[1]:
        return "its input does not fit"
    shape = (*x.shape[:-1], sizes[0])
    if residual is not None and tuple(residual.shape) != shape:
        return "a residual of another shape"
    key = None if bias is None else bias.node
    weights = plan.constants.packed_matrix(weight.node, key)
    rows = x.fake.numel() // x.shape[-1]
    seen = window(rows, (1, 1), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1))
    piece: Any = Piece(weights, seen, sizes[0], activation)
    x = plan.as_rows(x)
    residual = None if residual is None else plan.as_rows(residual)
    out = plan.new(shape, x.dtype, pixels=False)

    def make() -> conv_images.Step:
        given = None if residual is None else _as_images(plan.real(residual))
        return folded.step_of_one(
            _as_images(plan.real(x)), piece, _as_images(plan.real(out)), given
        )

    return _later(plan, plan.emit(make, [x, residual], out), piece.later)


def _as_images(x: Tensor) -> Tensor:
    """Rows as images of one pixel each."""
    return x.view(-1, x.shape[-1])[:, :, None, None]


# --- number by number -----------------------------------------------------------------------------


def _activate(plan: Planner, node: fx.Node, x: Any, activation: str) -> Found:
    x = plan.settled(x)
    why = _why_not(x, activation=activation)
    if why:
        return why
    x = _dense(plan, x)
    out = _like(plan, x)
    return plan.emit(
        lambda: steps.dense(combine.COPY, plan.real(x), plan.real(out), None, activation),
        [x], out)  # fmt: skip


def _binary(how: int) -> Callable[..., Found]:
    def lowering(plan: Planner, node: fx.Node, x: Any, y: Any, activation: str) -> Found:
        x, y = plan.settled(x), plan.settled(y)
        why = _why_not(x, y, activation=activation)
        if why:
            return why
        if x.shape != y.shape:
            return "shapes differ"
        return _sum(plan, how, x, y, activation)

    return lowering


def _sum(plan: Planner, how: int, x: Value, y: Value, activation: str) -> Value:
    if len(x.shape) == 4 and (is_pixels(x.fake) or is_pixels(y.fake)):
        x, y = plan.as_pixels(x), plan.as_pixels(y)
    elif x.fake.stride() != y.fake.stride() or not _is_dense(x.fake):
        x, y = plan.as_rows(x), plan.as_rows(y)
    out = _like(plan, x)
    return plan.emit(
        lambda: steps.dense(how, plan.real(x), plan.real(out), plan.real(y), activation),
        [x, y], out)  # fmt: skip


def _is_dense(fake: Tensor) -> bool:
    return fake.is_contiguous() or is_pixels(fake)


def _dense(plan: Planner, x: Value) -> Value:
    return x if _is_dense(x.fake) else plan.as_rows(x)


def _like(plan: Planner, x: Value) -> Value:
    """Room for a result that lies in memory as x does."""
    return plan.new(x.shape, x.dtype, pixels=is_pixels(x.fake))


def _scale(plan: Planner, node: fx.Node, x: Any, factor: Any, activation: str) -> Found:
    x, factor = plan.settled(x), plan.settled(factor)
    why = _why_not(x, factor, activation=activation)
    if why:
        return why
    if tuple(factor.shape) != (*x.shape[:2], 1, 1):
        return "shapes differ"
    x, factor = plan.as_pixels(x), plan.as_rows(factor)
    out = plan.new(x.shape, x.dtype)
    images, channels, height, width = x.shape
    row = channels * x.fake.element_size()
    return plan.emit(
        lambda: steps.by_rows(combine.SCALE, plan.real(x), plan.real(out), plan.real(factor), None,
                              activation, images * height * width, channels, row, height * width),
        [x, factor], out)  # fmt: skip


def _affine(plan: Planner, node: fx.Node, x: Any, factor: Any, shift: Any,
            activation: str) -> Found:  # fmt: skip
    if not isinstance(factor, Fixed) or not isinstance(shift, Fixed):
        return "its factors are not parameters"
    x = plan.settled(x)
    why = _why_not(x, activation=activation)
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
    channels = x.shape[1]
    size = x.fake.element_size()
    return plan.emit(
        lambda: steps.by_rows(combine.AFFINE, plan.real(x), plan.real(out), times, plus,
                              activation, x.fake.numel() // channels, channels, channels * size),
        [x], out)  # fmt: skip


# --- images ---------------------------------------------------------------------------------------


def _mean(plan: Planner, node: fx.Node, x: Any, keep: bool) -> Found:
    x = plan.settled(x)
    why = _why_not(x)
    if why:
        return why
    x = plan.as_pixels(x)
    shape = (*x.shape[:2], 1, 1) if keep else x.shape[:2]
    out = plan.new(shape, x.dtype)
    return plan.emit(lambda: steps.mean(plan.real(x), plan.real(out)), [x], out)


def _pool(plan: Planner, node: fx.Node, kind: int, x: Value, kernel: Sequence[int],
          stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int],
          of: int) -> Found:  # fmt: skip
    height, width = plan.shape_of(node.target, x, node.args[1:])[2:]
    edges = []
    for size, points, k, step, edge, spread in zip(
        x.shape[2:], (height, width), kernel, stride, padding, dilation, strict=True
    ):
        # As far behind the image as the last window reaches.
        edges += [edge, max(0, (points - 1) * step + (k - 1) * spread + 1 - size - edge)]
    seen = window(x.shape[0], x.shape[2:], kernel, stride, edges, dilation)
    if (seen.y.points, seen.x.points) != (height, width):
        seen = Window(x.shape[0], *_with_points(seen, height, width))
    x = plan.as_pixels(x)
    out = plan.new((*x.shape[:2], height, width), x.dtype)
    return plan.emit(
        lambda: steps.pooled(plan.real(x), plan.real(out), seen, kind, of), [x], out
    )  # fmt: skip


def _with_points(seen: Window, *points: int):
    from dataclasses import replace

    return (
        replace(axis, points=count) for axis, count in zip((seen.y, seen.x), points, strict=True)
    )


def _max_pool(plan, node, x, kernel, stride, padding, dilation, ceil) -> Found:
    x = plan.settled(x)
    why = _why_not(x)
    return why or _pool(plan, node, pool.LARGEST, x, kernel, stride, padding, dilation, 0)


def _avg_pool(plan, node, x, kernel, stride, padding, ceil, with_padding, divisor) -> Found:
    x = plan.settled(x)
    why = _why_not(x)
    if why:
        return why
    if ceil and with_padding and divisor is None and any(padding):
        return "means over padding and beyond it"
    if ceil and with_padding and divisor is None:
        with_padding = False  # what lies beyond the image does not count
    of = divisor or (kernel[0] * kernel[1] if with_padding else 0)
    return _pool(plan, node, pool.MEAN, x, kernel, stride, padding, (1, 1), of)


def _join(plan: Planner, node: fx.Node, xs: Sequence[Any]) -> Found:
    if any(isinstance(x, Fixed) for x in xs):
        return "an operand is a constant"
    values = [plan.settled(x) for x in xs]
    why = _why_not(*values)
    if why:
        return why
    first = values[0].shape
    if any((x.shape[0], *x.shape[2:]) != (first[0], *first[2:]) for x in values):
        return "shapes differ"
    values = [plan.as_pixels(x) for x in values]
    channels = sum(x.shape[1] for x in values)
    out = plan.new((first[0], channels, *first[2:]), values[0].dtype)
    begin = 0
    for x in values:
        plan.emit(_copy_channels(plan, x, out, begin, channels), [x], out)
        begin += x.shape[1]
    return out


def _copy_channels(plan: Planner, x: Value, out: Value, begin: int, channels: int):
    rows, own = x.fake.numel() // x.shape[1], x.shape[1]
    size = x.fake.element_size()

    def make() -> conv_images.Step:
        target = plan.real(out)[:, begin:]
        return steps.by_rows(combine.COPY, plan.real(x), target, None, None, "none", rows, own,
                             channels * size)  # fmt: skip

    return make


def _channel_norm(plan: Planner, node: fx.Node, x: Any, weight: Any, bias: Any, eps: float,
                  pixels: bool = True) -> Found:  # fmt: skip
    if not all(isinstance(part, (Fixed, type(None))) for part in (weight, bias)):
        return "its factors are not parameters"
    x = plan.settled(x)
    why = _why_not(x)
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
        lambda: steps.normed(plan.real(x), plan.real(out), rows, columns, gain, shift, eps),
        [x], out)  # fmt: skip


def _layer_norm(plan: Planner, node: fx.Node, *arguments: Any) -> Found:
    return _channel_norm(plan, node, *arguments, pixels=False)


LOWERINGS: dict[Any, Callable] = {
    vocabulary.conv: _conv,
    vocabulary.linear: _linear,
    vocabulary.activate: _activate,
    vocabulary.add: _binary(combine.ADD),
    vocabulary.multiply: _binary(combine.MULTIPLY),
    vocabulary.scale: _scale,
    vocabulary.affine: _affine,
    vocabulary.mean: _mean,
    vocabulary.max_pool: _max_pool,
    vocabulary.avg_pool: _avg_pool,
    vocabulary.join: _join,
    vocabulary.layer_norm: _layer_norm,
    vocabulary.channel_norm: _channel_norm,
}
