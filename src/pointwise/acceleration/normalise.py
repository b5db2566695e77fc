"""From ATen calls to the planner's vocabulary: one name for what ATen can say in several ways."""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

import pointwise.operators  # noqa: F401  (registers torch.ops.pointwise)
from pointwise.acceleration import vocabulary, volumes, writes
from pointwise.acceleration.graph import Node, call, replace, same, shape
from pointwise.acceleration.lines import lowered, raised
from pointwise.acceleration.resize import resize, resizing
from pointwise.acceleration.transposed import between, transposed
from pointwise.acceleration.whole import fixed_norm
from pointwise.convolution.epilogue import ACTIVATIONS, LEAKS
from pointwise.engine.cpu.by_dtype import ZEROS

aten = torch.ops.aten


def normalise(graph: fx.Graph) -> None:
    """Rewrites what is known, in place; leaves everything else as it is."""
    for node in list(graph.nodes):
        rewrite = _REWRITES.get(node.target) if node.op == "call_function" else None
        if rewrite is None or not _is_ours(node):
            continue
        with graph.inserting_before(node):
            new = rewrite(graph, node, *arguments_of(node))
        if new is not None:
            replace(graph, node, new)
    graph.eliminate_dead_code()


def _is_ours(node: Node) -> bool:
    """Whether a call works on what kernels take: numbers of one floating type, in memory."""
    values = [node.meta.get("val"), *(part.meta.get("val") for part in node.all_input_nodes)]
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    return bool(tensors) and all(
        value.dtype in ZEROS and value.device.type == "cpu" and value.layout is torch.strided
        for value in tensors
    )


def arguments_of(node: Node) -> list[Any]:
    """All arguments in the order of the schema, with its defaults."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return list(node.args)
    found = list(node.args)
    for parameter in target._schema.arguments[len(found) :]:
        found.append(node.kwargs.get(parameter.name, parameter.default_value))
    return found


def _numbers(values: Sequence[int] | int, count: int = 2) -> tuple[int, ...] | None:
    """So many whole numbers; one stands for all. None where they are not known beforehand."""
    values = [values] * count if isinstance(values, int) else list(values)
    values = values * count if len(values) == 1 else values
    if len(values) != count or not all(type(value) is int for value in values):
        return None
    return tuple(values)


# --- convolutions ---------------------------------------------------------------------------------


def _edges(padding: Any, kernel: Sequence[int], spread: Sequence[int]) -> tuple[int, ...] | None:
    """How much is around an image, before and after, by dimension; None where it is not known."""
    if not isinstance(padding, str):
        around = _numbers(padding, len(kernel))
        edges = None if around is None else tuple(edge for edge in around for _ in range(2))
        return None if edges is None or min(edges) < 0 else edges
    if padding != "same":
        return (0,) * (2 * len(kernel))
    if not all(type(k) is int for k in kernel):
        return None
    totals = [(k - 1) * d for k, d in zip(kernel, spread, strict=True)]
    return tuple(part for total in totals for part in (total // 2, total - total // 2))


def _conv_of_lines(graph, node, x, weight, bias, stride, padding, dilation, groups):
    """A convolution on lines as one on images that are one point high."""
    if len(shape(weight) or ()) != 3 or len(shape(x) or ()) != 3:
        return None
    steps, spread = _numbers(stride, 1), _numbers(dilation, 1)
    edges = spread and _edges(padding, shape(weight)[2:], spread)
    if steps is None or spread is None or edges is None:
        return None
    image, kernel = raised(graph, x), raised(graph, weight)
    arguments = (image, kernel, bias, None, (1, *steps), (0, 0, *edges), (1, *spread), groups,
                 "none")  # fmt: skip
    return lowered(graph, call(graph, vocabulary.conv, arguments, None), node)


def _conv_of_volumes(graph, node, x, weight, bias, stride, padding, dilation, groups):
    """A convolution on volumes as one on their planes."""
    if len(shape(weight) or ()) != 5 or len(shape(x) or ()) != 5:
        return None
    steps, spread = _numbers(stride, 3), _numbers(dilation, 3)
    edges = spread and _edges(padding, shape(weight)[2:], spread)
    known = (*shape(weight), groups)
    if steps is None or spread is None or edges is None:
        return None
    if not all(type(number) is int for number in known):
        return None
    return volumes.convolved(graph, node, x, weight, bias, steps, edges, spread, groups)


def _conv(graph, node, x, weight, bias, stride, padding, dilation, groups, residual=None,
          activation="none"):  # fmt: skip
    if shape(weight) is None or len(shape(weight)) != 4 or len(shape(x) or ()) != 4:
        return None
    steps, spread = _numbers(stride), _numbers(dilation)
    edges = _numbers(padding, 4) if len(padding) == 4 else None
    if steps is None or spread is None or edges is None or min(edges) < 0:
        return None
    arguments = (x, weight, bias, residual, steps, edges, spread, groups, activation)
    return call(graph, vocabulary.conv, arguments, node)


def _around(padding: Sequence[int] | int) -> list[int]:
    top, left = padding if not isinstance(padding, int) and len(padding) == 2 else (padding,) * 2
    return [top, top, left, left] if isinstance(top, int) and isinstance(left, int) else []


def _convolution(graph, node, x, weight, bias, stride, padding, dilation, transposed, more, groups):
    if transposed:
        return _transposed(graph, node, x, weight, bias, stride, padding, more, groups, dilation)
    if len(shape(weight) or ()) == 3:
        return _conv_of_lines(graph, node, x, weight, bias, stride, padding, dilation, groups)
    if len(shape(weight) or ()) == 5:
        return _conv_of_volumes(graph, node, x, weight, bias, stride, padding, dilation, groups)
    padding = padding * 2 if len(padding) == 1 else padding
    return _conv(graph, node, x, weight, bias, stride, _around(padding), dilation, groups)


def _transposed(graph, node, x, weight, bias, stride, padding, more, groups, dilation):
    dims = len(shape(weight) or ()) - 2
    if dims not in (1, 2) or len(shape(x) or ()) != dims + 2 or type(groups) is not int:
        return None
    numbers: Any = [_numbers(values, dims) for values in (stride, padding, more, dilation)]
    if any(each is None or min(each) < 0 for each in numbers):
        return None
    steps, edges, ends, spread = numbers
    if dims == 2:
        new = transposed(graph, node, x, weight, bias, steps, edges, ends, groups, spread)
        if new is not None:
            new.meta = dict(node.meta)
        return new
    image, kernel = raised(graph, x), raised(graph, weight)
    new = transposed(graph, node, image, kernel, bias, (1, *steps), (0, *edges), (0, *ends), groups,
                     (1, *spread))  # fmt: skip
    return new and lowered(graph, new, node)


def _conv2d(graph, node, x, weight, bias, stride, padding, dilation, groups):
    padding = padding * 2 if not isinstance(padding, int) and len(padding) == 1 else padding
    return _conv(graph, node, x, weight, bias, stride, _around(padding), dilation, groups)


def _conv2d_named(graph, node, x, weight, bias, stride, padding, dilation, groups):
    spread, kernel = _numbers(dilation), (shape(weight) or ())[2:]
    edges = None if spread is None or len(kernel) != 2 else _edges(padding, kernel, spread)
    return edges and _conv(graph, node, x, weight, bias, stride, edges, dilation, groups)


def _own_conv2d(graph, node, x, weight, bias, residual, stride, padding, dilation, groups,
                activation):  # fmt: skip
    return _conv(graph, node, x, weight, bias, stride, padding, dilation, groups, residual,
                 activation)  # fmt: skip


def _own_separable(graph, node, x, depthwise, pointwise, depthwise_bias, bias, residual, stride,
                   padding, dilation, between, activation):  # fmt: skip
    value, weight = node.meta.get("val"), shape(depthwise)
    if value is None or weight is None or len(shape(pointwise) or ()) != 4:
        return None
    first = _conv(graph, node, x, depthwise, depthwise_bias, stride, padding, dilation, weight[0],
                  None, between)  # fmt: skip
    if first is None:
        return None
    first.meta["val"] = value.new_empty(value.shape[0], weight[0], *value.shape[2:])
    return call(graph, vocabulary.conv,
                (first, pointwise, bias, residual, (1, 1), (0, 0, 0, 0), (1, 1), 1, activation),
                node)  # fmt: skip


# --- linear layers --------------------------------------------------------------------------------


def _linear(graph, node, x, weight, bias):
    if len(shape(weight) or ()) != 2 or len(shape(x) or ()) < 2:
        return None
    return call(graph, vocabulary.linear, (x, weight, bias, None, "none"), node)


def _turned(graph, matrix):
    turned = call(graph, aten.t.default, (matrix,), None)
    turned.meta["val"] = matrix.meta["val"].t()
    return turned


def _addmm(graph, node, bias, x, matrix, beta, alpha):
    if beta != 1 or alpha != 1 or len(shape(bias) or ()) != 1:
        return None
    return _linear(graph, node, x, _turned(graph, matrix), bias)


def _mm(graph, node, x, matrix):
    return _linear(graph, node, x, _turned(graph, matrix), None)


# --- norms ----------------------------------------------------------------------------------------


def _first(graph, node, new) -> None:
    """Puts ``new`` in the place of the first of several results; the others must be unused."""
    for user in list(node.users):
        new.meta = dict(user.meta)
        replace(graph, user, new)


def _only_first_is_used(node) -> bool:
    return all(user.target is operator.getitem and user.args[1] == 0 for user in node.users)


def _batch_norm(graph, node, x, weight, bias, mean, variance, _, eps):
    if not _only_first_is_used(node) or len(shape(x) or ()) < 2 or mean is None:
        return
    factor = call(graph, vocabulary.norm_factor, (weight, variance, eps), None)
    shift = call(graph, vocabulary.norm_shift, (bias, mean, factor), None)
    new = call(graph, vocabulary.affine, (x, factor, shift, "none"), None)
    _first(graph, node, new)


def _batch_norm_call(graph, node, x, weight, bias, mean, variance, training, _, eps, __):
    if training or mean is None or variance is None or len(shape(x) or ()) < 2:
        return None
    factor = call(graph, vocabulary.norm_factor, (weight, variance, eps), None)
    shift = call(graph, vocabulary.norm_shift, (bias, mean, factor), None)
    return call(graph, vocabulary.affine, (x, factor, shift, "none"), node)


def _group_norm(graph, node, x, groups, weight, bias, eps, *_):
    """A norm over groups of channels and all pixels, as a factor and a shift for each channel."""
    rank = len(shape(x) or ())
    if rank not in (3, 4, 5) or type(groups) is not int:
        return None
    image = raised(graph, x) if rank == 3 else volumes.flattened(graph, x) if rank == 5 else x
    terms = call(graph, vocabulary.norm_terms, (image, groups, weight, bias, eps), None)
    value = image.meta["val"]
    terms.meta["val"] = value.new_empty(value.shape[0], 2, value.shape[1], 1, 1)
    out = x if rank == 5 else image
    for place, target in enumerate((aten.mul.Tensor, aten.add.Tensor)):
        part = call(graph, vocabulary.part, (terms, place), None)
        part.meta["val"] = terms.meta["val"].select(1, place)
        if rank == 5:
            part = call(graph, aten.unsqueeze.default, (part, -1), part)
            part.meta["val"] = part.meta["val"].unsqueeze(-1)
        value = out.meta["val"]
        out = call(graph, target, (out, part), None)
        out.meta = {**node.meta, "val": value}
    return lowered(graph, out, node) if rank == 3 else out


def _native_group_norm(graph, node, x, weight, bias, _, __, ___, groups, eps):
    if not _only_first_is_used(node):
        return
    new = _group_norm(graph, x, x, groups, weight, bias, eps)
    if new is not None:
        _first(graph, node, new)


def _instance_norm(graph, node, x, weight, bias, mean, variance, own, _, eps, __):
    if not own or type((shape(x) or (0, 0))[1]) is not int:
        return None
    return _group_norm(graph, node, x, shape(x)[1], weight, bias, eps)


def _norm_of_each_image(graph, node, x, weight, bias, training, _, eps):
    """An instance norm as AOTAutograd says it: batch norm of ``[1, N · C, H, W]``, without any
    statistics but those of the batch."""
    (first, *more) = [user for user in node.users if user.users] or [None]
    if x.target not in _VIEWS or not training or more or first.args[1] != 0:
        return
    image, ends = x.args[0], list(first.users)
    channels = shape(image)[1] if shape(image) else None
    if not same(shape(x)[:1], (1,)) or type(channels) is not int:
        return
    if not all(end.target in _VIEWS and same(shape(end), shape(image)) for end in ends):
        return
    rows = [_before_repeat(row) for row in (weight, bias)]
    if any(row is not None and not same(shape(row), (channels,)) for row in rows):
        return
    new = _group_norm(graph, ends[0], image, channels, *rows, eps)
    for end in ends if new is not None else ():
        end.replace_all_uses_with(new)


def _before_repeat(row):
    return row.args[0] if getattr(row, "target", None) is aten.repeat.default else row


def _own_layer_norm(graph, x, sizes, weight, bias, eps, like):
    inputs = shape(x)
    if inputs is not None and 1 < len(sizes) == len(inputs) - 1 and like is not None:
        return _norm_of_images(graph, like, x, weight, bias, eps)
    if inputs is None or len(sizes) != 1 or len(inputs) < 2 or type(inputs[-1]) is not int:
        return None
    return call(graph, vocabulary.layer_norm, (x, weight, bias, eps), like)


def _norm_of_images(graph, node, x, weight, bias, eps):
    """A layer norm over all but the batch: a norm of one group, and a factor for each number."""
    new = _group_norm(graph, node, x, 1, None, None, eps)
    for row, target in ((weight, aten.mul.Tensor), (bias, aten.add.Tensor)):
        if new is not None and row is not None:
            new = call(graph, target, (new, row), node)
            new.meta["val"] = x.meta["val"]
    return new


def _native_layer_norm(graph, node, x, sizes, weight, bias, eps):
    if not _only_first_is_used(node):
        return
    new = _own_layer_norm(graph, x, sizes, weight, bias, eps, x)
    if new is not None:
        _first(graph, node, new)


def _layer_norm(graph, node, x, sizes, weight, bias, eps, _):
    return _own_layer_norm(graph, x, sizes, weight, bias, eps, node)


# --- number by number -----------------------------------------------------------------------------


def _activation(name: str):
    def rewrite(graph, node, x, *_):
        return call(graph, vocabulary.activate, (x, name), node)

    return rewrite


_CLAMPS = {
    row.bounds: name for name, row in ACTIVATIONS.items() if row.bounds is not None and row.cost
}


def _within(graph, node, x, low=None, high=None):
    bounds = (-math.inf if low is None else low, math.inf if high is None else high)
    name = _CLAMPS.get(bounds)
    return None if name is None else call(graph, vocabulary.activate, (x, name), node)


def _gelu(graph, node, x, approximate):
    return _activation("gelu")(graph, node, x) if approximate == "none" else None


def _elu(graph, node, x, alpha, scale, input_scale):
    return _activation("elu")(graph, node, x) if alpha == scale == input_scale == 1 else None


_LEAKY = {leak: name for name, leak in LEAKS.items()}


def _leaky_relu(graph, node, x, leak):
    name = _LEAKY.get(leak)
    return None if name is None else _activation(name)(graph, node, x)


def _neutral(number: float, rewrite: Callable | None = None):
    """What ``number`` leaves as it is, and otherwise ``rewrite``."""

    def with_number(graph, node, x, y, *rest):
        same_type = isinstance(x, fx.Node) and shape(x) is not None and _alike(node, x)
        if same_type and type(y) in (int, float) and y == number:
            return x
        return None if rewrite is None else rewrite(graph, node, x, y, *rest)

    return with_number


def _add(graph, node, x, y, alpha):
    a, b = shape(x), shape(y)
    if alpha != 1 or a is None or b is None or not same(a, b) or not _alike(node, x, y):
        return None
    return call(graph, vocabulary.add, (x, y, "none"), node)


def _multiply(graph, node, x, y):
    a, b = shape(x), shape(y)
    if a is None or b is None or not _alike(node, x, y):
        return None
    if same(a, b):
        return call(graph, vocabulary.multiply, (x, y, "none"), node)
    for this, other in ((x, y), (y, x)):
        wide, thin = shape(this), shape(other)
        if len(wide) == len(thin) == 4 and same(thin, (*wide[:2], 1, 1)):
            return call(graph, vocabulary.scale, (this, other, "none"), node)
    return None


def _alike(*nodes: Node) -> bool:
    return len({node.meta["val"].dtype for node in nodes}) == 1


# --- images ---------------------------------------------------------------------------------------


def _as_strided(graph, node, x, sizes, strides, offset):
    """A tensor with its own strides; pooling of channels_last images says so (of 1×1 images)."""
    value = x.meta["val"]
    sizes, strides = (
        [part.meta["val"] if isinstance(part, fx.Node) else part for part in numbers]
        for numbers in (sizes, strides)
    )
    if offset not in (None, 0) or not same(sizes, value.shape):
        return None
    own = zip(value.shape, value.stride(), strides, strict=True)
    return x if all(str(a) == str(b) for size, a, b in own if str(size) != "1") else None


def _mean(graph, node, x, dims, keep, dtype):
    is_image = len(shape(x) or ()) == 4 and dtype is None and dims is not None
    if is_image and sorted(dim % 4 for dim in dims) == [2, 3]:
        return call(graph, vocabulary.mean, (x, keep), node)
    return _reduced("mean")(graph, node, x, dims, keep, dtype)


def _reduced(name: str):
    def rewrite(graph, node, x, dims=None, keep=False, dtype=None):
        rank = len(shape(x) or ())
        dims = [dims] if type(dims) is int else dims
        dims = dims or list(range(rank))  # none are all
        if dtype is not None or rank == 0 or not _alike(node, x):
            return None
        return call(graph, vocabulary.reduce, (x, name, sorted(dim % rank for dim in dims), keep),
                    node)  # fmt: skip

    return rewrite


def _norm_of(graph, node, x, order, dims=None, keep=False, dtype=None):
    if order not in (2, None):
        return None
    return _reduced("norm")(graph, node, x, dims, keep, dtype)


def _softmax(graph, node, x, dim, rest):
    """``rest`` is a type to convert to, or, in the call that is left of it, whether to."""
    if rest not in (None, False) or not shape(x) or not _alike(node, x):
        return None
    return call(graph, vocabulary.softmax, (x, dim), node)


def _adaptive_mean(graph, node, x, sizes):
    dims = len(shape(x) or ()) - 2
    if dims not in (2, 3) or _numbers(sizes, dims) != (1,) * dims:
        return None
    if dims == 3:
        return call(graph, vocabulary.reduce, (x, "mean", [2, 3, 4], True), node)
    return call(graph, vocabulary.mean, (x, True), node)


def _max_pool(graph, node, x, kernel, stride, padding, dilation, ceil):
    if len(shape(x) or ()) == 5:
        found = [_numbers(each, 3) for each in (kernel, stride or kernel, padding, dilation)]
        return volumes.pooled(graph, node, vocabulary.max_pool, x, found, (ceil,))
    found = [_numbers(values) for values in (kernel, stride or kernel, padding, dilation)]
    if len(shape(x) or ()) != 4 or None in found:
        return None
    return call(graph, vocabulary.max_pool, (x, *found, ceil), node)


def _max_pool_with_indices(graph, node, *arguments):
    if node.users and _only_first_is_used(node):
        new = _max_pool(graph, next(iter(node.users)), *arguments)
        if new is not None:
            _first(graph, node, new)


def _avg_pool(graph, node, x, kernel, stride, padding, ceil, with_padding, divisor):
    if len(shape(x) or ()) == 5:
        found = [_numbers(each, 3) for each in (kernel, stride or kernel, padding)]
        if ceil or divisor is not None or (found[2] != (0, 0, 0) and not with_padding):
            return None  # a mean of means is another one
        return volumes.pooled(graph, node, vocabulary.avg_pool, x, found, (False, True, None))
    found = [_numbers(values) for values in (kernel, stride or kernel, padding)]
    if len(shape(x) or ()) != 4 or None in found:
        return None
    return call(graph, vocabulary.avg_pool, (x, *found, ceil, with_padding, divisor), node)


_PADS = {"reflect": aten.reflection_pad2d.default, "replicate": aten.replication_pad2d.default}


def _pad(graph, node, x, edges, mode, value):
    """Numbers around an image, under the name that the next convolution looks for."""
    if not all(type(edge) is int for edge in edges):
        return None
    if mode != "constant":
        known = _PADS.get(mode) if len(edges) == len(shape(x) or ()) == 4 else None
        return known and call(graph, known, (x, edges), node)
    if not any(edges):
        return x
    return call(graph, aten.constant_pad_nd.default, (x, edges, value or 0), node)


def _no_pad(graph, node, x, edges, value):
    return x if all(type(edge) is int and edge == 0 for edge in edges) else None


def _slice(graph, node, x, dim, start, end, step):
    """Of all there is, and of what has just been written there, nothing is left to do."""
    whole = shape(x)
    if x.target is aten.slice_scatter.default:
        _, source, *where = arguments_of(x)
        if [str(part) for part in where] == [str(part) for part in (dim, start, end, step)]:
            return source
    if whole is None:
        return None
    ends = end is None or (type(end) is int and end == sys.maxsize)
    size = whole[dim]
    reaches = ends or (type(size) is int and type(end) is int and end >= size)
    if start in (0, None) and step == 1 and reaches:
        return x
    return writes.slice_of(graph, x, dim, start, end, step)


_VIEWS = (aten.view.default, aten._unsafe_view.default, aten.reshape.default)


def _shuffle(graph, node, x, *_):
    """A view of the channels as groups, transposed, and a view of the image again."""
    if getattr(x, "target", None) is aten.clone.default:
        x = x.args[0]
    if getattr(x, "target", None) is not aten.transpose.int or set(x.args[1:3]) != {1, 2}:
        return None
    apart = x.args[0]
    image = apart.args[0] if apart.target in _VIEWS else None
    sizes = shape(apart)
    if len(shape(image) or ()) != 4 or not same(shape(image), shape(node)) or len(sizes) != 5:
        return None
    if type(sizes[1]) is not int or not same((sizes[0], *sizes[3:]),
                                             (shape(image)[0], *shape(image)[2:])):  # fmt: skip
        return None
    return call(graph, vocabulary.shuffle, (image, sizes[1]), node)


def _shuffle_pixels(graph, node, x, factor):
    """Channels ``c·r² + i·r + j`` as channel c of pixel (i, j) of a block."""
    sizes: Any = shape(node) or ()
    if len(sizes) != 4 or type(sizes[1]) is not int:
        return None
    turned = call(graph, vocabulary.shuffle, (x, sizes[1]), x)
    out = between(graph, turned, (factor, factor, sizes[1]))
    out.meta = dict(node.meta)
    return out


def _gather_pixels(graph, node, x, factor):
    """The other way round."""
    channels = shape(x)[1] if shape(x) else None
    if len(shape(node) or ()) != 4 or type(channels) is not int:
        return None
    parts = x
    for dim in (2, 4):  # [N, C, H, r, W, r]
        parts = call(graph, aten.unflatten.int, (parts, dim, [-1, factor]), None)
    turned = call(graph, aten.permute.default, (parts, [0, 2, 4, 3, 5, 1]), None)
    turned = call(graph, aten.flatten.using_ints, (turned, 3, 5), None)
    turned = call(graph, aten.permute.default, (turned, [0, 3, 1, 2]), None)
    turned.meta = dict(node.meta)
    return call(graph, vocabulary.shuffle, (turned, factor * factor), node)


def _copied(graph, node, x, y, *_):
    """What is written over all of ``x`` is what is read there."""
    return y if same(shape(x) or (), shape(y) or (0,)) and _alike(x, y) else None


def _cat(graph, node, xs, dim=0):
    if len(shape(node) or ()) != 4 or dim % 4 != 1 or not _alike(node, *xs):
        return None
    if any(len(shape(x) or ()) != 4 for x in xs):
        return None
    return call(graph, vocabulary.join, (list(xs),), node)


_REWRITES: dict[Any, Callable] = {
    aten.convolution.default: _convolution,
    aten.conv2d.default: _conv2d,
    aten.conv2d.padding: _conv2d_named,
    aten.conv3d.default: _conv_of_volumes,
    aten.conv3d.padding: _conv_of_volumes,
    aten.conv1d.default: _conv_of_lines,
    aten.conv1d.padding: _conv_of_lines,
    aten.conv_transpose1d.default: _transposed,
    aten.conv_transpose2d.input: _transposed,
    torch.ops.pointwise.conv2d.default: _own_conv2d,
    torch.ops.pointwise.separable_conv2d.default: _own_separable,
    aten.linear.default: _linear,
    aten.addmm.default: _addmm,
    aten.mm.default: _mm,
    aten._native_batch_norm_legit_no_training.default: _batch_norm,
    aten.batch_norm.default: _batch_norm_call,
    fixed_norm: lambda graph, node, x, weight, bias, mean, variance, eps: _batch_norm_call(
        graph, node, x, weight, bias, mean, variance, False, 0.0, eps, False
    ),
    aten.native_layer_norm.default: _native_layer_norm,
    aten.group_norm.default: _group_norm,
    aten.native_group_norm.default: _native_group_norm,
    aten.instance_norm.default: _instance_norm,
    aten._native_batch_norm_legit.no_stats: _norm_of_each_image,
    aten.layer_norm.default: _layer_norm,
    **{  # ATen's names are the table's; what is no call of ATen's comes as the calls it is made of
        getattr(aten, name).default: _activation(name)
        for name in ACTIVATIONS
        if hasattr(aten, name)
    },
    aten.gelu.default: _gelu,
    aten.elu.default: _elu,
    aten.leaky_relu.default: _leaky_relu,
    aten.hardtanh.default: _within,
    aten.clamp.default: _within,
    aten.clamp_min.default: _within,
    aten.add.Tensor: _neutral(0, _add),
    aten.sub.Tensor: _neutral(0),
    aten.mul.Tensor: _neutral(1, _multiply),
    aten.div.Tensor: _neutral(1),
    aten.slice.Tensor: _slice,
    aten.select.int: writes.selected_from,
    aten.slice_scatter.default: writes.with_slice,
    aten.select_scatter.default: writes.with_selected,
    aten.as_strided.default: _as_strided,
    aten.mean.dim: _mean,
    aten.mean.default: lambda graph, node, x, dtype: _reduced("mean")(graph, node, x, dtype=dtype),
    aten.sum.default: lambda graph, node, x, dtype: _reduced("sum")(graph, node, x, dtype=dtype),
    aten.sum.dim_IntList: _reduced("sum"),
    aten.amax.default: _reduced("amax"),
    aten.amin.default: _reduced("amin"),
    aten.linalg_vector_norm.default: _norm_of,
    aten.norm.ScalarOpt_dim: _norm_of,
    aten.softmax.int: _softmax,
    aten._softmax.default: _softmax,
    aten.adaptive_avg_pool2d.default: _adaptive_mean,
    aten._adaptive_avg_pool2d.default: _adaptive_mean,
    aten.max_pool2d.default: _max_pool,
    aten.max_pool2d_with_indices.default: _max_pool_with_indices,
    aten.avg_pool2d.default: _avg_pool,
    aten.max_pool3d.default: _max_pool,
    aten.max_pool3d_with_indices.default: _max_pool_with_indices,
    aten.avg_pool3d.default: _avg_pool,
    aten.adaptive_avg_pool3d.default: _adaptive_mean,
    aten._adaptive_avg_pool3d.default: _adaptive_mean,
    aten.cat.default: _cat,
    aten.copy.default: _copied,
    **dict.fromkeys((*_VIEWS, aten.flatten.using_ints), _shuffle),
    aten.channel_shuffle.default: lambda graph, node, x, groups: (
        call(graph, vocabulary.shuffle, (x, groups), node) if len(shape(x) or ()) == 4 else None
    ),
    aten.pixel_shuffle.default: _shuffle_pixels,
    aten.pixel_unshuffle.default: _gather_pixels,
    resize: resizing,
    aten.pad.default: _pad,
    aten.constant_pad_nd.default: _no_pad,
}
