"""The first layers of a network, a few images of a batch at a time.

There images are large: what one layer writes of a whole batch is out of the cache before the next
one reads it. Of a few images, a micro-batch, it is not, and takes less memory. The layers behind,
whose weights are larger than their images, run once for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from pointwise.acceleration import lower_attention, lower_copies, lower_pixels, vocabulary
from pointwise.acceleration.buffers import Buffer, Value, empty, is_pixels, strides_of
from pointwise.acceleration.builder import Deferred, MicroBatches, dtype_of
from pointwise.acceleration.constants import Constants
from pointwise.acceleration.layouts import Layouts
from pointwise.acceleration.plan import PlainCall, Plan
from pointwise.acceleration.planner import Planner, Unplannable
from pointwise.engine.cpu.launch import threads

_CACHE = 1024 * 1024  # bytes of a core's own
_MOST = 32  # micro-batches: each has launches of its own

# What divides, joins or regroups images, of whatever dimension.
_OF_MORE = (
    vocabulary.planes,
    vocabulary.volumes,
    *lower_attention.LOWERINGS,
    *lower_copies.LOWERINGS,
    *lower_pixels.DIVIDED,
)


class Unlike(Exception):
    """Some images of a batch do not run as one image did."""


@dataclass(frozen=True)
class Head:
    """The calls from a graph's only image to ``last``, which alone is read behind them."""

    input: fx.Node
    nodes: frozenset[fx.Node]
    last: fx.Node
    images: int  # of a micro-batch
    count: int  # of micro-batches


def make(graph: fx.Graph, constants: Constants, inputs: Sequence[Any]) -> Plan:
    """The plan of a graph for inputs like these. Raises ``Unplannable``."""
    with torch.no_grad(), torch.inference_mode(False):
        layouts = Layouts(graph, constants, inputs)
        with suppress(Unlike, Unplannable):
            if head := find(Planner(graph, constants, layouts), inputs):
                return _HeadPlanner(graph, constants, layouts, head).plan(inputs)
        return Planner(graph, constants, layouts).plan(inputs)


class _HeadPlanner(Planner):
    """Plans a graph whose head runs in micro-batches. Raises ``Unlike`` where that cannot be."""

    def __init__(self, graph: fx.Graph, constants: Constants, layouts: Layouts, head: Head) -> None:
        super().__init__(graph, constants, layouts)
        self._head = head

    def visit(self, node: fx.Node) -> None:
        if node not in self._head.nodes:
            self.call(node)
        elif node is self._head.last:
            self.micro_batches = _run(self, self._head)


def find(trial: Planner, inputs: Sequence[Any]) -> Head | None:
    """Tries a graph's calls with one image, as far as a batch of them does not fit into the cache.

    None where there are no two launches that could run so. ``trial`` is of no use afterwards.
    """
    fixed = trial.constants.fixed
    places = [node for node in trial.graph.nodes if node.op == "placeholder" and node not in fixed]
    tensors = [x for x in zip(places, inputs, strict=True) if isinstance(x[1], Tensor)]
    if len(tensors) != 1 or tensors[0][1].dim() != 4:
        return None
    input, batch = tensors[0]
    images, room = len(batch), _CACHE * threads()
    if images < 2 * threads():  # threads would have to share images
        return None
    one = (1, *batch.shape[1:])
    pixels = empty(one, strides_of(one, (0, 2, 3, 1)), batch.dtype)
    trial.env[input], trial.slots = Value(pixels, Buffer(0, 0)), 1
    members, most, found = {input}, 0, None
    for node in trial.graph.nodes:
        reads = set(node.all_input_nodes) - fixed
        if not trial.knows(node) or not reads <= members or not _is_of_each(node, trial.env):
            continue
        between = [_bytes(trial.env[part]) for part in reads - {input}]
        if between and images * max(between) <= room:
            break
        trial.call(node)
        members.add(node)
        if any(isinstance(step, PlainCall) for step in trial.steps):
            break
        most = max(most, _bytes(trial.env[node]))
        if len(trial.steps) > 1 and _is_image(trial.env[node]) and _alone(node, members, input):
            found = node, frozenset(members - {input}), most
    if found is None:
        return None
    last, nodes, most = found
    several = _several(images, most)
    return Head(input, nodes, last, several, images // several) if several else None


def _is_of_each(node: fx.Node, env: dict[fx.Node, Any]) -> bool:
    """Whether a call does to each image what it does to a batch: dimension 0 stays what it is."""
    args: Any = node.args
    if node.target in _OF_MORE:
        return False
    if node.target is vocabulary.reduce:
        return 0 not in args[2]
    if node.target is vocabulary.softmax:
        return args[1] > 0 or args[1] == -1
    if node.target is vocabulary.chain:  # others would be combined with other dimensions
        ranks = {len(_shape(env[part])) for part in args[0] if part in env}
        return len(ranks) == 1
    return True


def _shape(value: Any) -> torch.Size:
    return value.prepared.shape if isinstance(value, Deferred) else value.shape


def _several(images: int, most: int) -> int:
    """How many images at a time: one for each thread, more where they fit into the cache.

    ``most`` is what a layer writes of one; 0 where the batch is not to be divided.
    """
    sizes = [n for n in range(-(-images // _MOST), images) if images % n == 0]
    if not sizes:
        return 0
    fewest = next((n for n in sizes if n >= threads()), sizes[-1])
    return max(n for n in sizes if n == fewest or n * most <= _CACHE * threads())


def _bytes(value: Any) -> int:
    return int(_shape(value).numel()) * dtype_of(value).itemsize


def _is_image(value: Any) -> bool:
    return isinstance(value, Value) and value.buffer.slot is None and is_pixels(value.fake)


def _alone(last: fx.Node, members: set[fx.Node], input: fx.Node) -> bool:
    """Whether nobody else reads any of the others."""
    return all(set(node.users) <= members for node in members - {last, input})


def _run(plan: Planner, head: Head) -> MicroBatches:
    """The launches of a head into a plan, and its result into ``plan.env``.

    Raises ``Unlike`` where they are not what they were for one image.
    """
    given = plan.env[head.input]
    whole = plan.as_pixels(given)
    shape = (head.images, *whole.shape[1:])
    some = Value(empty(shape, whole.fake.stride(), whole.dtype), whole.buffer)
    first, plan.env[head.input] = len(plan.steps), some
    for node in plan.graph.nodes:
        if node in head.nodes:
            plan.joins_by_copy = node is head.last
            plan.call(node)
    plan.joins_by_copy = False
    plan.env[head.input], one = given, plan.env[head.last]
    if not _is_image(one) or any(isinstance(step, PlainCall) for step in plan.steps[first:]):
        raise Unlike
    shape = (whole.shape[0], *one.shape[1:])
    out = Value(empty(shape, strides_of(shape, (0, 2, 3, 1)), one.dtype), one.buffer)
    end = len(plan.steps)
    # What goes in and comes out is needed by every micro-batch.
    out.buffer.size *= head.count
    out.buffer.born, whole.buffer.dies = first, end - 1
    out.buffer.is_rigid = whole.buffer.is_rigid = True
    plan.env[head.last] = out
    return MicroBatches(first, end, head.count, {some: whole, one: out})
