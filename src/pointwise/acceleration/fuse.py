"""What runs as one: norms and factors into weights, activations and sums into convolutions.

All passes work on a graph in the planner's vocabulary, in place. A node is taken into the one
before it only where nobody else reads what lies between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from pointwise.acceleration import vocabulary
from pointwise.acceleration.attention import attentions
from pointwise.acceleration.chains import chains
from pointwise.acceleration.constants import constant_nodes
from pointwise.acceleration.graph import Node, call, replace, same, shape
from pointwise.acceleration.lines import images_for_lines
from pointwise.acceleration.volumes import images_for_volumes
from pointwise.convolution.problem import is_depthwise

aten = torch.ops.aten

_MIXES = (vocabulary.conv, vocabulary.linear)
_RESIDUAL = 3  # its place among the arguments of both
_WITH_ACTIVATION = (vocabulary.conv, vocabulary.linear, vocabulary.add, vocabulary.multiply,
                    vocabulary.scale, vocabulary.affine)  # fmt: skip


def fuse(graph: fx.Graph, constants: set[Node]) -> None:
    """All passes. ``constants`` are the placeholders that stay as they are from call to call."""
    drop_copies(graph)
    images_for_lines(graph)
    images_for_volumes(graph)
    channels_first(graph)
    name_activations(graph)
    graph.eliminate_dead_code()  # what is dead still counts as a user
    attentions(graph)
    fixed = constant_nodes(graph, constants)
    for node in _nodes(graph):
        handler = _HANDLERS.get(node.target) if node.op == "call_function" else None
        if handler is not None and node not in fixed:
            handler(graph, node, fixed)
    excitations(graph, fixed)
    graph.eliminate_dead_code()
    chains(graph, fixed)
    graph.eliminate_dead_code()


def _nodes(graph: fx.Graph) -> list[Node]:
    return list(graph.nodes)


# --- making it visible ----------------------------------------------------------------------------

_COPIES = (aten.clone.default, aten.dropout.default, aten.alias.default, aten.detach.default,
           aten.lift_fresh_copy.default, aten.contiguous.default)  # fmt: skip


def drop_copies(graph: fx.Graph) -> None:
    """Copies that only the graph itself reads are not needed: nothing in it is written to."""
    for node in _nodes(graph):
        if node.target not in _COPIES or (
            node.target is aten.dropout.default and node.args[2] is not False
        ):
            continue
        if not _leads_out(node) and not _is_seen_elsewhere(node.args[0]):
            replace(graph, node, node.args[0])


def is_view(node: Node) -> bool:
    target = node.target
    return isinstance(target, torch._ops.OpOverload) and (
        target.is_view or target in (aten._unsafe_view.default, aten.reshape.default)
    )


def _leads_out(node: Node) -> bool:
    """Whether a node, or a view of it, is a result of the graph."""
    return any(
        user.op == "output" or (is_view(user) and _leads_out(user))
        or user.target in (*_COPIES, aten.reshape.default)
        for user in node.users
    )  # fmt: skip


def _is_seen_elsewhere(node: Any) -> bool:
    """Whether a node is an input, or a view of one."""
    while isinstance(node, fx.Node) and is_view(node):
        node = node.args[0]
    return not isinstance(node, fx.Node) or node.op != "call_function"


def channels_first(graph: fx.Graph) -> None:
    """Layer norms and linear layers between ``permute(0, 2, 3, 1)`` and its inverse, as of images.

    They become norms over channels and pointwise convolutions, and the permutations cancel out:
    in memory, an image has its channels last in any case.
    """
    _undo_flattening(graph)
    for node in _nodes(graph):
        if node.op != "call_function" or not node.args:
            continue
        if node.target is aten.mul.Tensor and _turns(node.args[1], [0, 2, 3, 1]):
            node.args = (node.args[1], node.args[0])
        before = node.args[0]
        if not _turns(before, [0, 2, 3, 1]):
            continue
        if _turns(node, [0, 3, 1, 2]):
            replace(graph, node, before.args[0])
            continue
        with graph.inserting_before(node):
            new = _on_channels(graph, node, before.args[0])
            if new is None:
                continue
            value = node.meta["val"]
            new.meta = {**node.meta, "val": value.permute(0, 3, 1, 2)}
            back = call(graph, aten.permute.default, (new, [0, 2, 3, 1]), node)
        replace(graph, node, back)


def _turns(node: Any, order: list[int]) -> bool:
    if not isinstance(node, fx.Node) or node.target is not aten.permute.default:
        return False
    dims: Any = node.args[1]
    return len(shape(node) or ()) == 4 and [dim % 4 for dim in dims] == order


def _on_channels(graph: fx.Graph, node: Node, x: Any) -> Node | None:
    """A call on ``[N, H, W, C]`` as one on ``x [N, C, H, W]``."""
    if node.target is vocabulary.layer_norm:
        return call(graph, vocabulary.channel_norm, (x, *node.args[1:]), None)
    if node.target is vocabulary.activate:
        return call(graph, vocabulary.activate, (x, node.args[1]), None)
    if node.target is vocabulary.linear and node.args[_RESIDUAL] is None:
        _, weight, bias, _, activation = node.args
        kernel = call(graph, vocabulary.as_kernel, (weight,), None)
        kernel.meta["val"] = weight.meta["val"][:, :, None, None]
        arguments = (x, kernel, bias, None, (1, 1), (0, 0, 0, 0), (1, 1), 1, activation)
        return call(graph, vocabulary.conv, arguments, None)
    if node.target is aten.mul.Tensor and isinstance(node.args[1], fx.Node):
        other = node.args[1]  # one factor for each channel
        if len(shape(other) or ()) == 1 and same(shape(other), shape(node)[-1:]):
            wide = call(graph, aten.view.default, (other, [1, -1, 1, 1]), None)
            wide.meta["val"] = other.meta["val"].view(1, -1, 1, 1)
            return call(graph, aten.mul.Tensor, (x, wide), None)
    return None


def _undo_flattening(graph: fx.Graph) -> None:
    """``view(linear(view(x, [M, C])), [..., D])``, as ATen says it, is ``linear(x)``."""
    for node in _nodes(graph):
        if node.target is not vocabulary.linear or len(node.users) != 1:
            continue
        before, (after,) = node.args[0], node.users
        views = (aten.view.default, aten._unsafe_view.default, aten.reshape.default)
        if before.target not in views or after.target not in views:
            continue
        x = before.args[0]
        wide, out = shape(x) or (), shape(after) or ()
        if len(wide) > 2 and same(wide[:-1], out[:-1]) and same(wide[-1:], shape(before)[-1:]):
            with graph.inserting_before(after):
                new = call(graph, vocabulary.linear, (x, *node.args[1:]), after)
            replace(graph, after, new)


def name_activations(graph: fx.Graph) -> None:
    """``x · sigmoid(x)`` and the like, written out by hand, under their names."""
    for node in _nodes(graph):
        x, rest = None, node.args[1:2]
        if node.target is aten.div.Tensor and rest == (6,):
            x, name = _argument_of_relu6(node.args[0]), "hardsigmoid"
            if x is None and getattr(node.args[0], "target", None) is vocabulary.multiply:
                x, name = _factor(node.args[0], _argument_of_relu6), "hardswish"
        elif node.target is vocabulary.multiply:
            x, name = _factor(node, lambda part: _activated(part, "sigmoid")), "silu"
            if x is None:
                x = _factor(node, lambda part: _activated(part, "hardsigmoid"))
                name = "hardswish"
        if x is not None:
            with graph.inserting_before(node):
                new = call(graph, vocabulary.activate, (x, name), node)
            replace(graph, node, new)


def _factor(node: Node, inside: Callable[[Any], Any]) -> Any:
    """x of a product ``x · f(x)``, where ``inside`` finds x in f(x)."""
    a, b = node.args[:2]
    return a if inside(b) is a else b if inside(a) is b else None


def _activated(node: Any, name: str) -> Any:
    is_it = getattr(node, "target", None) is vocabulary.activate and node.args[1] == name
    return node.args[0] if is_it else None


def _argument_of_relu6(node: Any) -> Any:
    """x of ``relu6(x + 3)``."""
    added = _activated(node, "relu6")
    is_it = getattr(added, "target", None) is aten.add.Tensor and added.args[1:] == (3,)
    return added.args[0] if is_it and not added.kwargs else None


# --- into the convolution before ------------------------------------------------------------------


def _is_alone(node: Any, user: Node) -> bool:
    """Whether ``user`` is the only one that reads a node."""
    return isinstance(node, fx.Node) and list(node.users) == [user]


def _has_no_activation(node: Any) -> bool:
    return isinstance(node, fx.Node) and node.target in _WITH_ACTIVATION and node.args[-1] == "none"


def _is_bare(node: Any) -> bool:
    """Whether a node is a convolution or linear layer with nothing behind it."""
    return (
        isinstance(node, fx.Node)
        and node.target in _MIXES
        and node.args[_RESIDUAL] is None
        and node.args[-1] == "none"
    )


def _fold_affine(graph: fx.Graph, node: Node, fixed: set[Node]) -> None:
    """A factor and a shift for each channel."""
    x, factor, shift, _ = node.args
    if _takes_factor(x, node, fixed) and factor in fixed and shift in fixed:
        weight, bias = x.args[1:3]
        with graph.inserting_before(node):
            new_weight = call(graph, vocabulary.scaled_weight, (weight, factor), None)
            new_weight.meta["val"] = weight.meta["val"]
            new_bias = call(graph, vocabulary.shifted_bias, (weight, bias, factor, shift), None)
            new = call(graph, x.target, (x.args[0], new_weight, new_bias, *x.args[3:]), node)
        fixed.update((new_weight, new_bias))
        _swap(graph, node, x, new)
        return
    with graph.inserting_before(node):  # both are float64 (norm_factor, norm_shift)
        parts = [
            call(graph, vocabulary.as_type, (part, _source(part)), None) for part in (factor, shift)
        ]
    value = node.meta["val"]
    for new, old in zip(parts, (factor, shift), strict=True):
        new.meta["val"] = value.new_empty(value.shape[1])
        if old in fixed:
            fixed.add(new)
    node.args = (x, *parts, node.args[3])


def _takes_factor(x: Any, node: Node, fixed: set[Node]) -> bool:
    """Whether a convolution or linear layer can take in what is done to each of its channels."""
    if not (_is_bare(x) and _is_alone(x, node)):
        return False
    if x.target is vocabulary.linear and len(shape(x) or ()) != 2:
        return False  # the channels that a norm means are not the last dimension
    return x.args[1] in fixed and (x.args[2] is None or x.args[2] in fixed)


def _source(part: Node) -> Any:
    """A tensor of the model's type that a norm's factor or shift came from."""
    return part.args[1]


def _fold_factor(graph: fx.Graph, node: Node, fixed: set[Node]) -> None:
    """``conv(x) · factor`` with one constant for each channel, as layer scale has it."""
    x, factor = node.args[:2]
    if x in fixed:
        x, factor = factor, x
    if factor not in fixed or not (_is_bare(x) and _is_alone(x, node)) or x.args[1] not in fixed:
        return
    out, thin = shape(x), shape(factor)
    if out is None or thin is None or not same(out, shape(node) or ()):
        return
    if x.args[2] is not None and x.args[2] not in fixed:
        return
    channel = 1 if x.target is vocabulary.conv else len(out) - 1
    place = channel - (len(out) - len(thin))
    if place < 0 or not all(str(n) == "1" for i, n in enumerate(thin) if i != place):
        return
    if str(thin[place]) != str(out[channel]):
        return
    weight, bias = x.args[1:3]
    with graph.inserting_before(node):
        new_weight = call(graph, vocabulary.scaled_weight, (weight, factor), None)
        new_weight.meta["val"] = weight.meta["val"]
        new_bias = bias
        if bias is not None:
            new_bias = call(graph, vocabulary.scaled_bias, (bias, factor), None)
            fixed.add(new_bias)
        after = node.args[2] if node.target is vocabulary.scale else "none"
        arguments = (x.args[0], new_weight, new_bias, *x.args[3:-1], after)
        new = call(graph, x.target, arguments, node)
    fixed.add(new_weight)
    _swap(graph, node, x, new)


def _swap(graph: fx.Graph, node: Node, before: Node, new: Node) -> None:
    replace(graph, node, new)
    graph.erase_node(before)


def _take_activation(graph: fx.Graph, node: Node, fixed: set[Node]) -> None:
    x, name = node.args
    if not (_is_alone(x, node) and _has_no_activation(x)):
        return
    with graph.inserting_before(node):
        new = call(graph, x.target, (*x.args[:-1], name), node)
    _swap(graph, node, x, new)


def _take_sum(graph: fx.Graph, node: Node, fixed: set[Node]) -> None:
    """``conv(x) + y``: y is where the convolution begins to add up."""
    if _merge(graph, node, fixed):
        return
    order = {part: i for i, part in enumerate(graph.nodes)}
    found = [part for part in node.args[:2] if _takes_residual(part, node, fixed)]
    if not found or node.args[0] is node.args[1]:
        return
    x = max(found, key=lambda part: order[part])
    y = node.args[1] if x is node.args[0] else node.args[0]
    arguments = (*x.args[:_RESIDUAL], y, *x.args[_RESIDUAL + 1 : -1], node.args[-1])
    with graph.inserting_before(node):
        new = call(graph, x.target, arguments, node)
    _swap(graph, node, x, new)


def _takes_residual(part: Any, node: Node, fixed: set[Node]) -> bool:
    if not (_is_bare(part) and _is_alone(part, node) and part.args[1] in fixed):
        return False
    if part.target is vocabulary.linear:
        return True
    sizes = shape(part.args[1])
    return sizes is not None and not is_depthwise(sizes, part.args[7])


# --- squeeze and excitation -----------------------------------------------------------------------


def excitations(graph: fx.Graph, fixed: set[Node]) -> None:
    """``x · gate(conv(conv(mean(x))))`` as one call."""
    for node in _nodes(graph):
        if node.target is not vocabulary.scale:
            continue
        x, gate, activation = node.args
        if not _is_product_of_means(gate, node, fixed):
            continue
        hidden = gate.args[0]
        if not _is_product_of_means(hidden, gate, fixed):
            continue
        mean = hidden.args[0]
        if not _is_alone(mean, hidden) or mean.target is not vocabulary.mean:
            continue
        if mean.args != (x, True):
            continue
        parts = (x, *hidden.args[1:3], *gate.args[1:3], hidden.args[-1], gate.args[-1])
        with graph.inserting_before(node):
            new = call(graph, vocabulary.squeeze_excite, (*parts, activation), node)
        replace(graph, node, new)


def _is_product_of_means(node: Any, user: Node, fixed: set[Node]) -> bool:
    """Whether a node, which ``user`` alone reads, is a pointwise convolution of 1 × 1 images."""
    if not _is_alone(node, user) or node.target is not vocabulary.conv:
        return False
    _, weight, bias, residual, stride, padding, _, groups, _ = node.args
    return (
        weight in fixed
        and (bias is None or bias in fixed)
        and residual is None
        and groups == 1
        and tuple(stride) == (1, 1)
        and not any(padding)
        and same((shape(weight) or ())[2:], (1, 1))
    )


def _take_padding(graph: fx.Graph, node: Node, fixed: set[Node]) -> None:
    """Zeros around an image, put there before the convolution."""
    x = node.args[0]
    if getattr(x, "target", None) is not aten.constant_pad_nd.default or len(x.args[1]) != 4:
        return
    if (x.args[2] if len(x.args) > 2 else 0) != 0 or x.kwargs:
        return
    left, right, top, bottom = x.args[1]
    if not all(type(part) is int and part >= 0 for part in x.args[1]):
        return
    more = (top, bottom, left, right)
    edges = tuple(a + b for a, b in zip(node.args[5], more, strict=True))
    node.args = (x.args[0], *node.args[1:5], edges, *node.args[6:])


def _take_end(graph: fx.Graph, node: Node, fixed: set[Node]) -> None:
    """Points at the end of each line that are left out, as after padding for causality."""
    x, dim, start, end, *rest = node.args
    if dim != 3 or start not in (0, None) or type(end) is not int or end >= 0:
        return
    if rest not in ([], [1]) or not (_is_bare(x) and _is_alone(x, node)):
        return
    if x.target is not vocabulary.conv or x.args[4][1] != 1:
        return
    top, bottom, left, right = x.args[5]
    if right + end < 0:
        return
    edges = (top, bottom, left, right + end)
    with graph.inserting_before(node):
        new = call(graph, x.target, (*x.args[:5], edges, *x.args[6:]), node)
    _swap(graph, node, x, new)


# --- convolutions beside one another --------------------------------------------------------------


def _merge(graph: fx.Graph, node: Node, fixed: set[Node]) -> bool:
    """``conv(x) + conv(x)`` as one, its weight the sum: of models that are trained in branches.

    The smaller kernel stands in the middle of the larger one. A batch norm of x is a convolution
    whose weight is its factors.
    """
    main, other = sorted(node.args[:2], key=lambda part: -_extent(part))
    if node.args[0] is node.args[1] or not _is_branch(main, node, fixed):
        return False
    x, weight, bias, _, stride, padding, dilation, groups, _ = main.args
    with graph.inserting_before(node):
        if _is_norm_beside(other, main, node, fixed):
            more = call(graph, vocabulary.norm_weight, (weight, other.args[1], groups), None)
            more_bias, offset = other.args[2], tuple((k - 1) // 2 for k in shape(weight)[2:])
        elif _is_branch(other, node, fixed) and _fits_into(other, main):
            more, more_bias = other.args[1:3]
            offset = tuple(padding[i] - other.args[5][i] for i in (0, 2))
        else:
            return False
        both = call(graph, vocabulary.merged_weight, (weight, more, *offset), None)
        both.meta["val"] = weight.meta["val"]
        both_bias = bias if more_bias is None else more_bias
        if bias is not None and more_bias is not None:
            both_bias = call(graph, vocabulary.merged_bias, (bias, more_bias), None)
        arguments = (x, both, both_bias, None, stride, padding, dilation, groups, node.args[2])
        new = call(graph, vocabulary.conv, arguments, node)
    fixed.update({more, both, both_bias} - {None})
    replace(graph, node, new)
    for part in (main, other):  # neither reads the other
        graph.erase_node(part)
    return True


def _extent(part: Any) -> int:
    """How many taps a convolution's kernel has; 0 of what is none."""
    if getattr(part, "target", None) is not vocabulary.conv:
        return 0
    sizes = shape(part.args[1]) or (0, 0, 0, 0)
    return sizes[2] * sizes[3]


def _is_branch(part: Any, node: Node, fixed: set[Node]) -> bool:
    """Whether ``node`` alone reads a bare convolution whose weight and bias are constants."""
    return (
        _is_alone(part, node)
        and part.target is vocabulary.conv
        and _is_bare(part)
        and {part.args[1], part.args[2]} - {None} <= fixed
    )


def _fits_into(other: Node, main: Node) -> bool:
    """Whether two convolutions read the same points, the smaller kernel within the larger one."""
    same_way = all(other.args[i] == main.args[i] for i in (0, 4, 7))
    one, two = shape(main.args[1]), shape(other.args[1])
    if not same_way or not same(one[:2], two[:2]):
        return False
    if one[2:] != two[2:] and two[2:] != (1, 1) and other.args[6] != main.args[6]:
        return False
    if tuple(main.args[6]) != (1, 1) and one[2:] != two[2:]:
        return False
    (top, bottom, left, right), (t, b, l, r) = main.args[5], other.args[5]
    more = (top - t, bottom - b, left - l, right - r)
    spare = (one[2] - two[2], one[3] - two[3])
    return min(more) >= 0 and more[0] + more[1] == spare[0] and more[2] + more[3] == spare[1]


def _is_norm_beside(other: Any, main: Node, node: Node, fixed: set[Node]) -> bool:
    """Whether a batch norm reads what a convolution reads, which gives as many channels."""
    if not (_is_alone(other, node) and other.target is vocabulary.affine):
        return False
    x, factor, shift, activation = other.args
    sizes, (top, bottom, left, right) = shape(main.args[1]), main.args[5]
    middle = top == bottom == (sizes[2] - 1) / 2 and left == right == (sizes[3] - 1) / 2
    return (
        x is main.args[0]
        and activation == "none"
        and {factor, shift} <= fixed
        and middle
        and tuple(main.args[4]) == tuple(main.args[6]) == (1, 1)
        and same(shape(x), shape(main))
    )


def _shuffle_results(graph: fx.Graph, node: Node, fixed: set[Node]) -> None:
    """Channels in another order: made in that order."""
    x, groups = node.args
    if not (_is_alone(x, node) and x.target is vocabulary.conv and x.args[7] == 1):
        return
    if x.args[_RESIDUAL] is not None or not {x.args[1], x.args[2]} - {None} <= fixed:
        return
    with graph.inserting_before(node):
        rows = [row and call(graph, vocabulary.shuffled_rows, (row, groups), row)
                for row in x.args[1:3]]  # fmt: skip
        new = call(graph, x.target, (x.args[0], *rows, *x.args[3:]), node)
    fixed.update(row for row in rows if row is not None)
    _swap(graph, node, x, new)


_HANDLERS: dict[Any, Callable[[fx.Graph, fx.Node, set[Node]], None]] = {
    vocabulary.conv: _take_padding,
    vocabulary.affine: _fold_affine,
    aten.mul.Tensor: _fold_factor,
    vocabulary.scale: _fold_factor,
    vocabulary.activate: _take_activation,
    vocabulary.add: _take_sum,
    aten.slice.Tensor: _take_end,
    vocabulary.shuffle: _shuffle_results,
}
