"""Attention in a graph: PyTorch's own call of it, and what models write out by hand, as one call.

By hand it is a product, perhaps times a number, plus any terms, a softmax, and another product. It
is one call where nobody reads what lies between.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import fx

from pointwise.acceleration import vocabulary
from pointwise.acceleration.graph import Node, call, replace, same, shape
from pointwise.acceleration.normalise import arguments_of
from pointwise.engine.cpu.by_dtype import ZEROS
from pointwise.engine.cpu.loops.attention import MOST_TERMS

aten = torch.ops.aten

# So far below any score that what is added to it is lost: as good as putting it in its place.
_FAR_BELOW = -1e30


def attentions(graph: fx.Graph) -> None:
    """Rewrites attention, in place."""
    for node in list(graph.nodes):
        _product(graph, node)
    graph.eliminate_dead_code()
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        if node.target is aten.scaled_dot_product_attention.default:
            _named(graph, node)
        elif node.target is aten._scaled_dot_product_flash_attention_for_cpu.default:
            _named_for_cpu(graph, node)
        elif node.target in (vocabulary.softmax, aten._safe_softmax.default):
            _by_hand(graph, node)
    graph.eliminate_dead_code()


_VIEWS = (aten.view.default, aten.reshape.default, aten._unsafe_view.default)


def _product(graph: fx.Graph, node: Node) -> None:
    """A product of matrices with several leading dimensions, which AOTAutograd makes one of."""
    if node.target not in _VIEWS or len(shape(node) or ()) < 4:
        return
    bmm = node.args[0]
    if bmm.target is not aten.bmm.default or not same(shape(node)[-2:], shape(bmm)[-2:]):
        return
    operands = [_divided(x, shape(node)[:-2]) for x in bmm.args]
    if None not in operands:
        with graph.inserting_before(node):
            new = call(graph, aten.matmul.default, tuple(operands), node)
        replace(graph, node, new)


def _divided(x: Node, lead: Sequence[Any]) -> Node | None:
    """What ``x`` is a view of that has all the dimensions ``lead``; None where it is none."""
    if x.target not in _VIEWS:
        return None
    inner = x.args[0]
    sizes = shape(inner) or ()
    if len(sizes) < 3 or not same(sizes[:-2], lead) or not same(sizes[-2:], shape(x)[-2:]):
        return None
    if inner.target is aten.expand.default and same(sizes, shape(inner.args[0]) or ()):
        return inner.args[0]
    return inner


# --- PyTorch's own --------------------------------------------------------------------------------


def _named(graph: fx.Graph, node: Node) -> None:
    q, k, v, mask, dropout, is_causal, scale, is_grouped = arguments_of(node)
    new = _call(graph, node, node, q, k, v, mask, dropout, is_causal, scale, is_grouped)
    if new is not None:
        replace(graph, node, new)


def _named_for_cpu(graph: fx.Graph, node: Node) -> None:
    """What AOTAutograd makes of it: (the result, sums that only gradients need)."""
    firsts = [user for user in node.users if user.target is operator.getitem and user.args[1] == 0]
    if len(firsts) != len(node.users) or not firsts:
        return
    q, k, v, dropout, is_causal, mask, scale = arguments_of(node)
    new = _call(graph, node, firsts[0], q, k, v, mask, dropout, is_causal, scale, True)
    for user in firsts if new is not None else ():
        replace(graph, user, new)


def _call(graph, before, like, q, k, v, mask, dropout, is_causal, scale, is_grouped):
    dtype = like.meta["val"].dtype
    if dropout != 0 or dtype not in ZEROS or like.meta["val"].device.type != "cpu":
        return None
    if not all(isinstance(number, (int, float, type(None))) for number in (scale, is_causal)):
        return None
    with graph.inserting_before(before):
        terms = []
        if mask is not None and mask.meta["val"].dtype is torch.bool:
            mask = _from_bools(graph, mask, 0.0, -math.inf, dtype)
        if mask is not None:
            terms.append(mask)
        arguments = (q, k, v, terms, [0] * len(terms), scale, is_causal, True, is_grouped)
        return call(graph, vocabulary.attention, arguments, like)


def _from_bools(graph: fx.Graph, mask: Node, yes: float, no: float, dtype: torch.dtype) -> Node:
    new = call(graph, vocabulary.from_bools, (mask, yes, no, dtype is torch.float64), mask)
    new.meta["val"] = mask.meta["val"].to(dtype)
    return new


# --- by hand --------------------------------------------------------------------------------------


class _Term(NamedTuple):
    """What is added to scores; of a mask, the numbers where it holds and where it does not."""

    node: Node
    numbers: tuple[float, float] | None = None
    period: int = 0


@dataclass
class _Scores:
    """A product, what it is multiplied with, and what is then added."""

    product: Node
    scale: float = 1.0
    terms: list[_Term] = field(default_factory=list)


def _by_hand(graph: fx.Graph, node: Node) -> None:
    """``softmax(x @ y · scale + terms) @ v``, where ``node`` is the softmax.

    A safe one, which gives zeros where nothing is seen, is what is left of PyTorch's own call.
    """
    x, dim = node.args[:2]
    is_named = node.target is aten._safe_softmax.default
    if dim not in (-1, len(shape(node)) - 1) or len(node.users) != 1:
        return
    (last,) = node.users
    if last.target is not aten.matmul.default or last.args[0] is not node:
        return
    v, found = last.args[1], _scores(x, 0)
    if v is node or len(shape(v) or ()) < 2 or found is None or node.kwargs:
        return
    if is_named and (
        len(found.terms) > 1 or any(term.period for term in found.terms) or any(node.args[2:])
    ):
        return
    (q, by_q), (k, by_k) = map(_without_number, found.product.args)
    dtype = node.meta["val"].dtype
    with graph.inserting_before(last):
        terms = [
            term.node if term.numbers is None
            else _from_bools(graph, term.node, *term.numbers, dtype)
            for term in found.terms
        ]  # fmt: skip
        periods = [term.period for term in found.terms]
        scale = found.scale * by_q * by_k
        arguments = (q, _turned(graph, k), v, terms, periods, scale, False, is_named, False)
        new = call(graph, vocabulary.attention, arguments, last)
    replace(graph, last, new)


def _scores(x: Any, period: int) -> _Scores | None:
    """What scores are made of; None where there is anything else in it.

    With ``period``, ``x`` is scores whose first dimension is divided in two, the second so long.
    """
    if not isinstance(x, fx.Node) or x.op != "call_function" or len(x.users) != 1:
        return None
    if x.target is aten.matmul.default:
        fits = period == 0 and all(len(shape(part) or ()) > 1 for part in x.args)
        return _Scores(x) if fits else None
    if period and _period_of(x) == period:
        return _scores(x.args[0], 0)
    if period == 0 and (joined := _joined(x)):
        return _scores(x.args[0], joined)
    if (number := _number(x)) is not None:
        found = _scores(x.args[0], period)
        if found is None or found.terms:
            return None
        found.scale *= number
        return found
    for inner, term in _sums(x):
        found = _scores(inner, period)
        if found is not None and len(found.terms) < MOST_TERMS:
            found.terms.append(term._replace(period=period))
            return found
    return None


def _sums(x: Node) -> list[tuple[Any, _Term]]:
    """(what may be scores, what is added to them)."""
    if (x.target is vocabulary.add and x.args[2] == "none") or (
        x.target is aten.add.Tensor and not x.kwargs and len(x.args) == 2
    ):
        a, b = x.args[:2]
        both = shape(a) is not None and shape(b) is not None and a is not b
        return [(a, _Term(b)), (b, _Term(a))] if both else []
    if x.target is aten.masked_fill.Scalar and (number := _far_below(x.args[2])):
        return [(x.args[0], _Term(x.args[1], (number, 0.0)))]
    if x.target in (aten.where.ScalarOther, aten.where.self) and (number := _far_below(x.args[2])):
        return [(x.args[1], _Term(x.args[0], (0.0, number)))]
    return []


def _far_below(number: Any) -> float | None:
    """A number that leaves nothing of what is added to it; None of any other."""
    if isinstance(number, fx.Node) and number.target is aten.scalar_tensor.default:
        number = number.args[0]
    is_it = isinstance(number, (int, float)) and number <= _FAR_BELOW
    return float(number) if is_it else None


_TIMES = (aten.mul.Tensor, aten.mul.Scalar)
_DIVIDED = (aten.div.Tensor, aten.div.Scalar)


def _number(x: Node) -> float | None:
    """What a call multiplies all numbers with."""
    if x.target not in (*_TIMES, *_DIVIDED) or x.kwargs or len(x.args) != 2:
        return None
    number = x.args[1]
    if type(number) not in (int, float) or not number or shape(x.args[0]) is None:
        return None
    return number if x.target in _TIMES else 1 / number


def _without_number(x: Node) -> tuple[Node, float]:
    """An operand, and what its numbers were multiplied with on the way."""
    scale = 1.0
    while len(x.users) == 1 and (number := _number(x)) is not None:
        x, scale = x.args[0], scale * number
    return x, scale


def _period_of(x: Any) -> int:
    """The second of the two dimensions that a call makes of the first one; 0 where it does not."""
    if not isinstance(x, fx.Node) or x.target not in (*_VIEWS, aten.unflatten.int):
        return 0
    before, after = shape(x.args[0]), shape(x)
    if before is None or len(after) != len(before) + 1 or not same(after[2:], before[1:]):
        return 0
    sizes: Any = x.args[2 if x.target is aten.unflatten.int else 1]
    return sizes[1] if len(sizes) > 1 and type(sizes[1]) is int and sizes[1] > 0 else 0


def _joined(x: Any) -> int:
    """The second of the first two dimensions of which a call makes one; 0 where it does not."""
    if x.target not in (*_VIEWS, aten.flatten.using_ints):
        return 0
    before, after = shape(x.args[0]), shape(x)
    if before is None or len(after) != len(before) - 1 or not same(after[1:], before[2:]):
        return 0
    return _second(x.args[0])


def _second(x: Node) -> int:
    """The second dimension of what was divided, wherever what follows leaves it as it is."""
    while isinstance(x, fx.Node) and x.args:
        if (period := _period_of(x)) or not (inner := [term for term, _ in _sums(x)]):
            return period
        x = inner[0]
    return 0


def _turned(graph: fx.Graph, x: Node) -> Node:
    """The transpose of a matrix, which a transpose itself is not needed for."""
    last = {len(shape(x)) - 1, len(shape(x)) - 2}
    if x.target is aten.transpose.int and {dim % len(shape(x)) for dim in x.args[1:]} == last:
        return x.args[0]
    new = call(graph, aten.transpose.int, (x, -2, -1), x)
    new.meta["val"] = x.meta["val"].transpose(-2, -1)
    return new
