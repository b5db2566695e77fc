"""The first layers of a network, a few images of a batch at a time.

There images are large: what one layer writes of a whole batch is out of the cache before the next
one reads it. Of a few images it is not, and takes less memory. The layers behind, whose weights are
larger than their images, run once for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, fx

from pointwise.acceleration.operands import Waiting, dtype_of
from pointwise.acceleration.plan import Plain
from pointwise.acceleration.values import Buffer, Value, empty, is_pixels, strides_of
from pointwise.engine.cpu.launch import threads

if TYPE_CHECKING:
    from pointwise.acceleration.planner import Planner

_CACHE = 1024 * 1024  # bytes of a core's own
_MOST = 32  # turns: each has launches of its own


class Unlike(Exception):
    """Some images of a batch do not run as one image did."""


@dataclass(frozen=True)
class Stretch:
    """The calls from a graph's only image to ``last``, which alone is read behind them."""

    input: fx.Node
    nodes: frozenset[fx.Node]
    last: fx.Node
    images: int  # at a time
    turns: int


@dataclass(frozen=True, eq=False)
class Turns:
    """Steps ``first … end`` of a plan, which run ``count`` times.

    ``wholes`` are batches, and the values that stand for some images of them, others in each turn.
    """

    first: int
    end: int
    count: int
    wholes: dict[Value, Value]


def find(trial: Planner, inputs: Sequence[Any]) -> Stretch | None:
    """Tries a graph's calls with one image, as far as a batch of them does not fit into the cache.

    None where there are no two launches to run in turns. ``trial`` is of no use afterwards.
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
        if not trial.knows(node) or not reads <= members:
            continue
        between = [_bytes(trial.env[part]) for part in reads - {input}]
        if between and images * max(between) <= room:
            break
        trial.call(node)
        members.add(node)
        if any(isinstance(step, Plain) for step in trial.steps):
            break
        most = max(most, _bytes(trial.env[node]))
        if len(trial.steps) > 1 and _is_image(trial.env[node]) and _alone(node, members, input):
            found = node, frozenset(members - {input}), most
    if found is None:
        return None
    last, nodes, most = found
    several = _several(images, most)
    return Stretch(input, nodes, last, several, images // several) if several else None


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
    shape = value.prepared.shape if isinstance(value, Waiting) else value.shape
    return int(shape.numel()) * dtype_of(value).itemsize


def _is_image(value: Any) -> bool:
    return isinstance(value, Value) and value.buffer.slot is None and is_pixels(value.fake)


def _alone(last: fx.Node, members: set[fx.Node], input: fx.Node) -> bool:
    """Whether nobody else reads any of the others."""
    return all(set(node.users) <= members for node in members - {last, input})


def run(plan: Planner, stretch: Stretch) -> Turns:
    """The launches of a stretch into a plan, and its result into ``plan.env``.

    Raises ``Unlike`` where they are not what they were for one image.
    """
    given = plan.env[stretch.input]
    whole = plan.as_pixels(given)
    shape = (stretch.images, *whole.shape[1:])
    part = Value(empty(shape, whole.fake.stride(), whole.dtype), whole.buffer)
    first, plan.env[stretch.input] = len(plan.steps), part
    for node in plan.graph.nodes:
        if node in stretch.nodes:
            plan.call(node)
    plan.env[stretch.input], one = given, plan.env[stretch.last]
    if not _is_image(one) or any(isinstance(step, Plain) for step in plan.steps[first:]):
        raise Unlike
    shape = (whole.shape[0], *one.shape[1:])
    out = Value(empty(shape, strides_of(shape, (0, 2, 3, 1)), one.dtype), one.buffer)
    end = len(plan.steps)
    # What goes in and comes out is needed in every turn.
    out.buffer.size *= stretch.turns
    out.buffer.born, whole.buffer.dies = first, end - 1
    plan.env[stretch.last] = out
    return Turns(first, end, stretch.turns, {part: whole, one: out})
