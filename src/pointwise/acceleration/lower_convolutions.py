"""From the vocabulary to launches: convolutions and linear layers.

Each lowering returns the value it makes, or says in words why the call stays plain PyTorch. It says
so before it asks for anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from pointwise.acceleration import vocabulary
from pointwise.acceleration.lower_pixels import add_up
from pointwise.acceleration.operands import Fixed, Found, Waiting, dtype_of, why_not
from pointwise.acceleration.values import Value
from pointwise.convolution.window import Window, window
from pointwise.engine.cpu.loops import combine
from pointwise.engine.cpu.loops import images as conv_images
from pointwise.engine.cpu.loops.winograd import (
    filtering_step,
    filters_in,
    is_large,
    room_for,
    winograd_outputs,
    winograd_step,
)
from pointwise.engine.cpu.weights import Filtered, Mix
from pointwise.layers import folded

if TYPE_CHECKING:
    from pointwise.acceleration.planner import Planner


class Piece:
    """A convolution as ``layers.folded`` makes launches of it."""

    def __init__(
        self, weights: conv_images.Weights, seen: Window, channels: int, activation: str,
        multiplier: int = 1, outputs: int = 0,
    ) -> None:  # fmt: skip
        self.weights, self.window, self.multiplier = weights, seen, multiplier
        self.outputs = outputs  # of Winograd's tiles, where the weight is transformed in every run
        self.activation = activation if activation in conv_images.EPILOGUES else "none"
        self.later = "none" if activation in conv_images.EPILOGUES else activation
        self.shape = torch.Size((seen.images, channels, seen.y.points, seen.x.points))


# --- convolutions and linear layers ---------------------------------------------------------------


def _conv(plan: Planner, node: fx.Node, x: Any, weight: Any, bias: Any, residual: Any,
          stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], groups: int,
          activation: str) -> Value | Waiting | str:  # fmt: skip
    if not isinstance(weight, Fixed) or not isinstance(bias, (Fixed, type(None))):
        return "its weight is not a parameter"
    if isinstance(residual, Fixed) or isinstance(x, Fixed):
        return "an operand is a constant"
    why = why_not(x, residual, activation=activation)
    if why:
        return why
    sizes, dtype = plan.constants.like(weight.node)
    if dtype != dtype_of(x):
        return f"its weight is {dtype}"
    shape = x.piece.shape if isinstance(x, Waiting) else x.shape
    stencil = conv_images.is_stencil(sizes, groups)
    if len(shape) != 4 or shape[1] != sizes[1] * groups:
        return "its input does not fit"  # and PyTorch says so
    multiplier = sizes[0] // shape[1] if stencil else 1
    leads_to_mix = stencil and residual is None and _leads_to_mix(plan, node)
    if multiplier > 1 and not leads_to_mix:
        return "a depth multiplier without a pointwise convolution behind it"
    seen = window(shape[0], shape[2:], sizes[2:], stride, padding, dilation)
    if seen.y.points < 1 or seen.x.points < 1:
        return "its kernel does not fit into the image"
    key = None if bias is None else bias.node
    weights: conv_images.Weights
    outputs = winograd_outputs(seen, sizes[1], sizes[0], groups, dtype)
    large = outputs > 0 and is_large(sizes[1], sizes[0], dtype)
    if outputs and not large:
        weights = plan.constants.filtered(weight.node, key, outputs)
    else:
        weights = plan.constants.packed(weight.node, key, groups)
    piece: Any = Piece(weights, seen, sizes[0], activation, multiplier, outputs if large else 0)
    if outputs:
        plan.ways[node] = f", Winograd {outputs}×{outputs}"
    residual = plan.settled(residual)
    if residual is not None and residual.shape != piece.shape:
        return "a residual of another shape"
    if multiplier > 1:
        image = plan.settled(x)
        return Waiting(image, piece, lambda plan: _turned(plan, image, piece))
    if leads_to_mix and piece.later == "none":
        if _is_mix_waiting(x):  # for all three
            return Waiting(x.x, piece, lambda plan: _one(plan, plan.settled(x), piece, None), x)
        image = plan.settled(x)
        return Waiting(image, piece, lambda plan: _one(plan, image, piece, None))
    if residual is None and _is_mix_waiting(x) and stencil:
        return _three(plan, x, piece, None, None)
    if isinstance(x, Waiting) and x.value is None and folded.is_separable(x.piece, piece):
        if x.piece.multiplier > 1:
            return _behind_parts(plan, x, piece, residual)
        if x.before is not None:
            return _three(plan, x.before, x.piece, piece, residual)
        if folded.are_better_joined(x.piece, piece):
            return _two(plan, x, piece, residual)
    if residual is None and piece.later == "none" and _leads_to_inverted(plan, node, piece):
        image = plan.settled(x)
        return Waiting(image, piece, lambda plan: _one(plan, image, piece, None))
    return _one(plan, plan.settled(x), piece, residual)


def _leads_to_mix(plan: Planner, node: fx.Node) -> bool:
    """Whether all that reads a depthwise convolution is a pointwise one."""
    if len(node.users) != 1:
        return False
    user: Any = next(iter(node.users))
    if user.target is not vocabulary.conv or user.args[0] is not node or user.args[3] is node:
        return False
    weight = user.args[1]
    if weight not in plan.constants.fixed or user.args[7] != 1:
        return False
    return plan.constants.like(weight)[0][2:] == (1, 1)


def _leads_to_inverted(plan: Planner, node: fx.Node, piece: Any) -> bool:
    """Whether a depthwise and maybe a pointwise convolution come behind, better in one loop."""
    one = _reader(plan, node, piece, stencil=True)
    if one is None or one[0].args[3] is not None or not folded.can_be_first(piece, one[1]):
        return False
    if one[1].later != "none" or not _leads_to_mix(plan, one[0]):
        return True
    two = _reader(plan, *one, stencil=False)
    return two is not None and folded.are_better_joined(one[1], two[1])


def _is_mix_waiting(x: Any) -> bool:
    """Whether a convolution waits for a depthwise one behind it."""
    return isinstance(x, Waiting) and x.value is None and isinstance(x.piece.weights, Mix)


def _reader(plan: Planner, node: fx.Node, piece: Any, stencil: bool) -> tuple[fx.Node, Any] | None:
    """The convolution, a stencil or not, that alone reads a node, and what will be made of it."""
    user: Any = next(iter(node.users)) if len(node.users) == 1 else None
    if user is None or user.target is not vocabulary.conv or user.args[0] is not node:
        return None
    _, weight, bias, _, stride, padding, dilation, groups, activation = user.args
    if not {weight, bias} - {None} <= plan.constants.fixed:
        return None
    sizes, dtype = plan.constants.like(weight)
    if dtype != piece.weights.dtype or piece.shape[1] != sizes[1] * groups:
        return None
    if conv_images.is_stencil(sizes, groups) != stencil or (stencil and sizes[0] != groups):
        return None
    seen = window(piece.shape[0], piece.shape[2:], sizes[2:], stride, padding, dilation)
    if seen.y.points < 1 or seen.x.points < 1:
        return None
    weights = plan.constants.packed(weight, bias, groups)
    return user, Piece(weights, seen, sizes[0], activation)


def _emit(plan: Planner, x: Value, piece: Any, residual: Value | None,
          step: Callable[[Tensor, Tensor, Tensor | None], conv_images.Step],
          also: Sequence[Value] = ()) -> Value:  # fmt: skip
    """The result of ``piece`` by the launch ``step(x, out, residual)``, which ends with it."""
    residual = None if residual is None else plan.as_pixels(residual)
    out = plan.new(piece.shape, x.dtype)

    def make() -> conv_images.Step:
        given = None if residual is None else plan.real(residual)
        return step(plan.real(x), plan.real(out), given)

    return _later(plan, plan.emit(make, [x, residual, *also], out), piece.later)


def _one(plan: Planner, x: Value, piece: Any, residual: Value | None) -> Value:
    x = plan.as_pixels(x)
    if residual is not None and isinstance(piece.weights, conv_images.Taps):
        out = _one(plan, x, _without_activation(piece), None)
        return add_up(plan, combine.ADD, out, residual, _activation(piece))
    if piece.outputs:
        return _winograd(plan, x, piece, residual)
    return _emit(
        plan, x, piece, residual, lambda x, out, more: folded.step_of_one(x, piece, out, more)
    )


def _winograd(plan: Planner, x: Value, piece: Any, residual: Value | None) -> Value:
    """A 3×3 convolution behind what transforms its weight, into memory that others use too."""
    room = plan.new((room_for(piece.weights, piece.outputs),), x.dtype, pixels=False)

    def filters() -> Filtered:
        return filters_in(plan.real(room), piece.weights, piece.outputs)

    plan.emit(lambda: filtering_step(piece.weights, filters()), [], room)
    return _emit(plan, x, piece, residual,
                 lambda x, out, more: winograd_step(x, filters(), piece.window, out, more,
                                                    piece.activation), [room])  # fmt: skip


def _two(plan: Planner, waiting: Waiting, piece: Any, residual: Value | None) -> Value:
    x, first = plan.as_pixels(waiting.x), waiting.piece
    return _emit(
        plan,
        x,
        piece,
        residual,
        lambda x, out, more: folded.step_of_two(x, first, piece, out, more),
    )


def _three(plan: Planner, waiting: Waiting, one: Any, two: Any | None,
           residual: Value | None) -> Value:  # fmt: skip
    """A convolution, a depthwise one and, unless it is None, a pointwise one."""
    x, first = plan.as_pixels(waiting.x), waiting.piece
    return _emit(
        plan,
        x,
        one if two is None else two,
        residual,
        lambda x, out, more: folded.step_of_three(x, first, one, two, out, more),
    )


def _parts(plan: Planner, image: Value, piece: Any) -> Value:
    """A depthwise convolution with a depth multiplier m: result j of channel c is at j·C + c."""
    x = plan.as_pixels(image)
    wide = plan.new(piece.shape, x.dtype)
    for j in range(piece.multiplier):
        plan.emit(partial(_part, plan, x, piece, wide, j), [x], wide)
    return _later(plan, wide, piece.later)


def _part(plan: Planner, x: Value, piece: Any, wide: Value, j: int) -> conv_images.Step:
    return folded.step_of_part(plan.real(x), piece, plan.real(wide), j)


def _behind_parts(plan: Planner, waiting: Waiting, piece: Any, residual: Value | None) -> Value:
    first = waiting.piece
    wide = _parts(plan, waiting.x, first)
    return _emit(
        plan,
        wide,
        piece,
        residual,
        lambda x, out, more: folded.step_behind_parts(x, first, piece, out, more),
    )


def _turned(plan: Planner, image: Value, piece: Any) -> Value:
    """``_parts`` in PyTorch's order, where what comes behind is no plain mix after all."""
    wide = _parts(plan, image, piece)
    return plan.regrouped(wide, piece.multiplier)


def _activation(piece: Any) -> str:
    return piece.activation if piece.later == "none" else piece.later


def _without_activation(piece: Any) -> Any:
    return Piece(piece.weights, piece.window, piece.shape[1], "none")


def _later(plan: Planner, out: Value, activation: str) -> Value:
    """An activation that the kernel of a convolution does not know, in place."""
    if activation == "none":
        return out
    return plan.emit(
        lambda: combine.dense(combine.COPY, plan.real(out), plan.real(out), None, activation),
        [out], out)  # fmt: skip


def _linear(plan: Planner, node: fx.Node, x: Any, weight: Any, bias: Any, residual: Any,
            activation: str) -> Found:  # fmt: skip
    if not isinstance(weight, Fixed) or not isinstance(bias, (Fixed, type(None))):
        return "its weight is not a parameter"
    if isinstance(residual, Fixed) or isinstance(x, Fixed):
        return "an operand is a constant"
    x, residual = plan.settled(x), plan.settled(residual)
    why = why_not(x, residual, activation=activation)
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


LOWERINGS: dict[Any, Callable[..., Found | Waiting]] = {
    vocabulary.conv: _conv,
    vocabulary.linear: _linear,
}
