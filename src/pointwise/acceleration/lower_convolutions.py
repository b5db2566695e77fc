"""From the vocabulary to launches: convolutions and linear layers.

Each lowering returns the value it makes, or says in words why the call stays plain PyTorch. It says
so before it asks for anything. Which kernel runs a convolution, and which ones run in one loop, is
chosen by ``engine.choose``; here it is found out what lies behind one another in the graph. A
convolution that the next one may do on the way is left ``Deferred`` until that is known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor, fx

from pointwise.acceleration import vocabulary
from pointwise.acceleration.buffers import Value
from pointwise.acceleration.builder import Builder, Constant, Deferred, Found, dtype_of, why_not
from pointwise.acceleration.lower_pixels import add_up
from pointwise.convolution import epilogue
from pointwise.convolution.problem import Convolution, describe
from pointwise.engine import choose
from pointwise.engine.choose import Prepared
from pointwise.engine.cpu.launch import Launch
from pointwise.engine.cpu.loops import combine, winograd

_CONVOLUTIONS = (vocabulary.conv, vocabulary.conv_bf16)
_POINTWISE = ((1, 1), (0, 0, 0, 0), (1, 1), 1)  # stride, padding, dilation, groups


# --- what a call asks for -------------------------------------------------------------------------


def _why_not_operands(x: Any, weight: Any, bias: Any, residual: Any, activation: str) -> str | None:
    if not isinstance(weight, Constant) or not isinstance(bias, (Constant, type(None))):
        return "its weight is not a parameter"
    if isinstance(residual, Constant) or isinstance(x, Constant):
        return "an operand is a constant"
    return why_not(x, residual, activation=activation)


def _described(
    plan: Builder, shape: Sequence[int], dtype: Any, weight: fx.Node, geometry: Sequence[Any],
    activation: str, bf16: bool = False,
) -> Convolution | str:  # fmt: skip
    """A call as a convolution, or why it cannot run as one."""
    sizes, own = plan.constants.like(weight)
    if own != dtype:
        return f"its weight is {own}"
    if len(shape) != 4 or shape[1] != sizes[1] * geometry[-1]:
        return "its input does not fit"  # and PyTorch says so
    stride, padding, dilation, groups = geometry
    found = describe(shape, sizes, stride, padding, dilation, groups, dtype, activation)
    found = found._replace(bf16=bf16)
    return choose.why_not(found._replace(activation="none")) or found


def _prepared(
    plan: Builder, convolution: Convolution, weight: fx.Node, bias: fx.Node | None
) -> Prepared:
    """With its weight packed, and without an activation that its loop does not apply."""
    if epilogue.why_not(convolution.activation, convolution.dtype):
        convolution = convolution._replace(activation="none")
    choice = choose.choose(convolution, constant=True)
    packed = plan.constants.packed(weight, bias, convolution.groups, choice)
    return Prepared(convolution, choice, packed)


# --- convolutions ---------------------------------------------------------------------------------


def _conv(plan: Builder, node: fx.Node, x: Any, weight: Any, bias: Any, residual: Any,
          stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], groups: int,
          activation: str, bf16: bool = False) -> Value | Deferred | str:  # fmt: skip
    why = _why_not_operands(x, weight, bias, residual, activation)
    if why:
        return why
    shape = x.prepared.shape if isinstance(x, Deferred) else x.shape
    geometry = (stride, padding, dilation, groups)
    convolution = _described(plan, shape, dtype_of(x), weight.node, geometry, activation,
                             bf16)  # fmt: skip
    if isinstance(convolution, str):
        return convolution
    behind = convolution.is_depthwise and residual is None and _leads_to_mix(plan, node)
    if convolution.depth_multiplier > 1 and not behind:
        return "a depth multiplier without a pointwise convolution behind it"
    prepared = _prepared(plan, convolution, weight.node, None if bias is None else bias.node)
    residual = plan.settled(residual)
    if residual is not None and residual.shape != prepared.shape:
        return "a residual of another shape"
    if prepared.choice.algorithm == "winograd" or prepared.choice.bf16:
        plan.ways[node] = f", {prepared.choice}"
    late = activation if activation != prepared.convolution.activation else "none"
    return _placed(plan, node, x, prepared, residual, late, behind)


def _placed(plan: Builder, node: fx.Node, x: Any, prepared: Prepared, residual: Value | None,
            late: str, behind: bool) -> Value | Deferred:  # fmt: skip
    """A convolution among its neighbours: in one launch with them where that is better.

    ``behind`` says that a pointwise convolution reads this depthwise one, and nothing else does;
    ``late`` is an activation that no loop applies.
    """
    if prepared.convolution.depth_multiplier > 1:
        image = plan.settled(x)
        return Deferred(image, prepared, lambda plan: _in_order(plan, image, prepared, late),
                       late=late)  # fmt: skip
    if behind and late == "none":
        if _is_mix_waiting(x):  # for all three
            return Deferred(x.x, prepared, lambda plan: _alone(plan, plan.settled(x), prepared), x)
        return _wait(plan, x, prepared)
    if residual is None and _is_mix_waiting(x) and prepared.convolution.is_depthwise:
        return _launched(plan, x.x, (x.prepared, prepared), None, late)
    if isinstance(x, Deferred) and x.value is None and choose.is_separable(x.prepared, prepared):
        if x.prepared.convolution.depth_multiplier > 1:
            return _behind_multiplier(plan, x, prepared, residual, late)
        if x.before is not None and prepared.choice.bf16:  # there is no loop for all three
            return _alone(plan, plan.settled(x), prepared, residual, late)
        if x.before is not None:
            chain = (x.before.prepared, x.prepared, prepared)
            return _launched(plan, x.before.x, chain, residual, late)
        if choose.are_better_joined(x.prepared, prepared):
            return _launched(plan, x.x, (x.prepared, prepared), residual, late)
    if residual is None and late == "none" and _leads_to_inverted(plan, node, prepared):
        return _wait(plan, x, prepared)
    return _alone(plan, plan.settled(x), prepared, residual, late)


def _wait(plan: Builder, x: Any, prepared: Prepared) -> Deferred:
    image = plan.settled(x)
    return Deferred(image, prepared, lambda plan: _alone(plan, image, prepared))


def _is_mix_waiting(x: Any) -> bool:
    """Whether a convolution waits for a depthwise one behind it."""
    return isinstance(x, Deferred) and x.value is None and not x.prepared.convolution.is_depthwise


def _leads_to_mix(plan: Builder, node: fx.Node) -> bool:
    """Whether all that reads a depthwise convolution is a pointwise one."""
    user = _only_convolution_behind(node)
    if user is None or user.args[3] is node:
        return False
    weight: Any = user.args[1]
    if weight not in plan.constants.fixed or user.args[7] != 1:
        return False
    return plan.constants.like(weight)[0][2:] == (1, 1)


def _leads_to_inverted(plan: Builder, node: fx.Node, first: Prepared) -> bool:
    """Whether a depthwise and maybe a pointwise convolution come behind, better in one loop."""
    behind = _reader(plan, node, first, depthwise=True)
    if behind is None:
        return False
    user, second, late = behind
    if user.args[3] is not None or not choose.can_lead(first, second):
        return False
    if late or not _leads_to_mix(plan, user):
        return True
    last = _reader(plan, user, second, depthwise=False)
    return last is not None and choose.can_follow(second, last[1])


def _reader(
    plan: Builder, node: fx.Node, before: Prepared, depthwise: bool
) -> tuple[fx.Node, Prepared, bool] | None:
    """The convolution that alone reads a node, what is made of it, and whether it ends late."""
    user = _only_convolution_behind(node)
    if user is None:
        return None
    _, weight, bias, _, *geometry, activation = user.args
    if not {weight, bias} - {None} <= plan.constants.fixed:
        return None
    dtype = before.convolution.dtype
    bf16 = user.target is vocabulary.conv_bf16
    found = _described(plan, before.shape, dtype, weight, geometry, activation, bf16)  # type: ignore[arg-type]
    if isinstance(found, str) or found.is_depthwise != depthwise or found.depth_multiplier > 1:
        return None
    prepared = _prepared(plan, found, weight, bias)  # type: ignore[arg-type]
    return user, prepared, prepared.convolution.activation != activation


def _only_convolution_behind(node: fx.Node) -> fx.Node | None:
    """The convolution whose image a node is, if nobody else reads it."""
    user: Any = next(iter(node.users)) if len(node.users) == 1 else None
    if user is None or user.target not in _CONVOLUTIONS or user.args[0] is not node:
        return None
    return user


# --- launches -------------------------------------------------------------------------------------


def _launched(plan: Builder, x: Value, chain: Sequence[Prepared], residual: Value | None,
              late: str) -> Value:  # fmt: skip
    """The result of the convolutions of a chain, in one launch."""
    return _emit(plan, plan.as_parts(x), chain[-1], residual, late,
                 lambda x, out, more: choose.launch(x, chain, out, more))  # fmt: skip


def _emit(plan: Builder, x: Value, last: Prepared, residual: Value | None, late: str,
          launch: Callable[[Tensor, Tensor, Tensor | None], Launch],
          also: Sequence[Value] = ()) -> Value:  # fmt: skip
    """The result of ``last``, with which ``launch(x, out, residual)`` ends."""
    residual = None if residual is None else plan.as_parts(residual)
    out = plan.new(last.shape, x.dtype)

    def make() -> Launch:
        given = None if residual is None else plan.real(residual)
        return launch(plan.real(x), plan.real(out), given)

    movable = [x, out] if residual is None else [x, out, residual]
    return _late(plan, plan.emit(make, [x, residual, *also], out, movable), late)


def _alone(plan: Builder, x: Value, prepared: Prepared, residual: Value | None = None,
           late: str = "none") -> Value:  # fmt: skip
    x = plan.as_parts(x)
    if residual is not None and prepared.convolution.is_depthwise:  # its loop takes none
        activation = prepared.convolution.activation if late == "none" else late
        plain = prepared._replace(convolution=prepared.convolution._replace(activation="none"))
        return add_up(plan, combine.ADD, _alone(plan, x, plain), residual, activation)
    if prepared.choice.transformed_each_run:
        return _transformed(plan, x, prepared, residual, late)
    return _launched(plan, x, (prepared,), residual, late)


def _transformed(plan: Builder, x: Value, prepared: Prepared, residual: Value | None,
                 late: str) -> Value:  # fmt: skip
    """A 3×3 convolution behind what transforms its weight, into memory that others use too."""
    packed, outputs = prepared.weight, prepared.choice.tile_size
    room = plan.new((winograd.room_for(packed, outputs),), x.dtype, pixels=False)

    def transformed() -> Prepared:
        weight = winograd.winograd_weight_in(plan.real(room), packed, outputs)
        return prepared._replace(weight=weight, choice=choose.Choice("winograd", outputs))

    plan.emit(lambda: winograd.weight_transform_launch(packed, transformed().weight), [], room)
    return _emit(plan, x, prepared, residual, late,
                 lambda x, out, more: choose.launch(x, (transformed(),), out, more),
                 [room])  # fmt: skip


def _late(plan: Builder, out: Value, activation: str) -> Value:
    """An activation that no loop applies, in place."""
    if activation == "none":
        return out
    return plan.emit(
        lambda: combine.dense(combine.COPY, plan.real(out), plan.real(out), None, activation),
        [out], out)  # fmt: skip


# --- depth multipliers ----------------------------------------------------------------------------


def _multiplied(plan: Builder, image: Value, prepared: Prepared, late: str) -> Value:
    """A depthwise convolution with a depth multiplier: result j of channel c is at j·C + c."""
    x = plan.as_pixels(image)
    wide = plan.new(prepared.shape, x.dtype)
    for j in range(prepared.convolution.depth_multiplier):
        plan.emit(_part(plan, x, prepared, wide, j), [x], wide)
    return _late(plan, wide, late)


def _part(plan: Builder, x: Value, prepared: Prepared, wide: Value, j: int) -> Callable[[], Launch]:
    return lambda: choose.launch_of_multiplier(plan.real(x), prepared, plan.real(wide), j)


def _behind_multiplier(plan: Builder, waiting: Deferred, prepared: Prepared, residual: Value | None,
                       late: str) -> Value:  # fmt: skip
    first = waiting.prepared
    wide = _multiplied(plan, waiting.x, first, waiting.late)
    return _emit(plan, wide, prepared, residual, late,
                 lambda x, out, more: choose.launch_behind_multiplier(x, first, prepared, out,
                                                                      more))  # fmt: skip


def _in_order(plan: Builder, image: Value, prepared: Prepared, late: str) -> Value:
    """``_multiplied`` in PyTorch's order, where what comes behind is no plain mix after all."""
    wide = _multiplied(plan, image, prepared, late)
    return plan.regrouped(wide, prepared.convolution.depth_multiplier)


# --- linear layers --------------------------------------------------------------------------------


def _linear(plan: Builder, node: fx.Node, x: Any, weight: Any, bias: Any, residual: Any,
            activation: str, bf16: bool = False) -> Found:  # fmt: skip
    x, residual = plan.settled(x), plan.settled(residual)
    why = _why_not_operands(x, weight, bias, residual, activation)
    if why:
        return why
    sizes, dtype = plan.constants.like(weight.node)
    if dtype != x.dtype or x.shape[-1] != sizes[1]:
        return "its input does not fit"
    shape = (*x.shape[:-1], sizes[0])
    if residual is not None and tuple(residual.shape) != shape:
        return "a residual of another shape"
    late = activation if epilogue.why_not(activation, dtype) else "none"
    rows = (x.fake.numel() // x.shape[-1], sizes[1], 1, 1)
    convolution = describe(rows, (*sizes, 1, 1), *_POINTWISE, dtype,
                           activation if late == "none" else "none")  # fmt: skip
    convolution = convolution._replace(bf16=bf16)
    if why := choose.why_not(convolution._replace(activation="none")):
        return why
    key = None if bias is None else bias.node
    choice = choose.choose(convolution, algorithm="mixed")
    packed = plan.constants.packed_matrix(weight.node, key, choice)
    prepared = Prepared(convolution, choice, packed)
    if bf16:
        plan.ways[node] = f", {choice}"
    x = plan.as_rows(x)
    residual = None if residual is None else plan.as_rows(residual)
    out = plan.new(shape, x.dtype, pixels=False)

    def make() -> Launch:
        given = None if residual is None else _as_images(plan.real(residual))
        chain = (prepared,)
        return choose.launch(_as_images(plan.real(x)), chain, _as_images(plan.real(out)), given)

    return _late(plan, plan.emit(make, [x, residual], out), late)


def _as_images(x: Tensor) -> Tensor:
    """Rows as images of one pixel each."""
    return x.view(-1, x.shape[-1])[:, :, None, None]


LOWERINGS: dict[Any, Callable[..., Found | Deferred]] = {
    vocabulary.conv: _conv,
    vocabulary.conv_bf16: partial(_conv, bf16=True),
    vocabulary.linear: _linear,
    vocabulary.linear_bf16: partial(_linear, bf16=True),
}
