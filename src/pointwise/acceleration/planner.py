"""A graph, and shapes of its inputs, to a plan: which kernels, in which memory, and what is plain.

Goes through the graph once with tensors that have no memory (of the device "meta"). What ``lower``
knows becomes launches; views become other ways to read a buffer; everything else stays the PyTorch
call it is.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, fx

from pointwise.acceleration import lower_convolutions, lower_int8, lower_pixels, stretch
from pointwise.acceleration.constants import Constants
from pointwise.acceleration.operands import Fixed, Waiting, describe
from pointwise.acceleration.plan import Native, Part, Plain, Plan
from pointwise.acceleration.report import Entry, path_of
from pointwise.acceleration.values import (
    Buffer,
    Value,
    arrange,
    empty,
    is_pixels,
    new_arena,
    order_of,
    strides_of,
)
from pointwise.engine.cpu.loops.images import Step

aten = torch.ops.aten
_FOREVER = 1 << 60
PLAIN = "PyTorch's own"  # why a call that no kernel knows is none

LOWERINGS = {**lower_convolutions.LOWERINGS, **lower_pixels.LOWERINGS, **lower_int8.LOWERINGS}


# What a plan, which lays tensors out as it likes, would answer otherwise.
_OF_MEMORY = (
    aten.as_strided.default, aten.sym_stride.default, aten.sym_stride.int, aten.stride.default,
    aten.stride.int, aten.sym_storage_offset.default, aten.storage_offset.default,
    aten.is_contiguous.default, aten.is_contiguous.memory_format,
)  # fmt: skip


class Unplannable(Exception):
    """Says why a graph has to run as plain PyTorch as a whole."""


def make(graph: fx.Graph, constants: Constants, inputs: Sequence[Any]) -> Plan:
    """The plan of a graph for inputs like these. Raises ``Unplannable``."""
    with torch.no_grad(), torch.inference_mode(False):
        with suppress(stretch.Unlike, Unplannable):
            if found := stretch.find(Planner(graph, constants), inputs):
                return Planner(graph, constants).plan(inputs, found)
        return Planner(graph, constants).plan(inputs)


class Planner:
    def __init__(self, graph: fx.Graph, constants: Constants) -> None:
        self.graph, self.constants = graph, constants
        self.env: dict[fx.Node, Any] = {}
        self.steps: list[Native | Plain] = []
        self.buffers: list[Buffer] = []
        self.copies: dict[tuple[Value, tuple[int, ...]], Value] = {}
        self.slots = 0
        self.arena = torch.empty(0)
        self.stand_ins: dict[int, tuple[Tensor, int]] = {}
        self.report: list[Entry] = []
        self.waiting: dict[Waiting, Entry] = {}
        self.ways: dict[fx.Node, str] = {}  # how calls run that could run otherwise, in words
        self.turns: stretch.Turns | None = None
        self.turn = 0

    # --- the graph, node by node ---

    def plan(self, inputs: Sequence[Any], first: stretch.Stretch | None = None) -> Plan:
        """The plan, with calls of ``first`` in turns. Raises ``Unlike`` where that cannot be."""
        given = iter(inputs)
        for node in self.graph.nodes:
            if node in self.constants.fixed:
                continue
            if node.op == "placeholder":
                self.env[node] = self._input(next(given))
            elif node.op == "output":
                return self._finish(node)
            elif first is None or node not in first.nodes:
                self.call(node)
            elif node is first.last:
                self.turns = stretch.run(self, first)
        raise AssertionError("a graph without an output")

    def _input(self, value: Any) -> Any:
        slot, self.slots = self.slots, self.slots + 1
        if not isinstance(value, Tensor):
            return value
        return Value(empty(value.shape, value.stride(), value.dtype), Buffer(0, slot))

    def knows(self, node: fx.Node) -> bool:
        """Whether a call is one of those that may run as kernels."""
        return node.op == "call_function" and node.target in LOWERINGS

    def call(self, node: fx.Node) -> None:
        """Launches of one call of the graph, or a plain one."""
        if node.op != "call_function":
            raise Unplannable(f"{node.op} of {node.target}")
        if node.target is operator.getitem and isinstance(self._at(node.args[0]), (list, tuple)):
            self.env[node] = self._at(node.args[0])[node.args[1]]
            return
        lowered = LOWERINGS.get(node.target)
        why = PLAIN
        if lowered is not None:
            found = lowered(self, node, *(self._map(part, self._operand) for part in node.args))
            if not isinstance(found, str):
                self.env[node] = found
                self._note(node)
                return
            why = found
        self._plain(node, why)

    def _note(self, node: fx.Node) -> None:
        """A call that runs as a kernel; two in one where it took in the one it waited for."""
        what, before = describe(node) + self.ways.get(node, ""), self._at(node.args[0])
        if isinstance(before, Waiting) and before.value is None:
            first = self.waiting.pop(before)
            self.report.remove(first)
            what = f"{first.what} → {what}"
        self.report.append(Entry(path_of(node), what, True, ""))
        found = self.env[node]
        if isinstance(found, Waiting):
            self.waiting[found] = self.report[-1]

    def _at(self, part: Any) -> Any:
        return self.env.get(part) if isinstance(part, fx.Node) else part

    def _operand(self, node: fx.Node) -> Any:
        """What a call is given: a value of the plan, or a constant's tensor as ``Fixed``."""
        if node in self.constants.fixed:
            return Fixed(node)
        return self.env[node]

    def _map(self, part: Any, function: Callable[[fx.Node], Any]) -> Any:
        if isinstance(part, fx.Node):
            return function(part)
        if isinstance(part, (list, tuple)):
            return type(part)(self._map(item, function) for item in part)
        if isinstance(part, dict):
            return {name: self._map(item, function) for name, item in part.items()}
        if isinstance(part, slice):
            return slice(*(self._map(x, function) for x in (part.start, part.stop, part.step)))
        return part

    # --- PyTorch's own calls ---

    def _plain(self, node: fx.Node, why: str) -> None:
        target: Any = node.target
        if isinstance(target, torch._ops.HigherOrderOperator):
            raise Unplannable(f"control flow ({target})")
        if isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable:
            raise Unplannable(f"{target} writes to its arguments")
        if target in (aten.view.default, aten._unsafe_view.default):
            target = aten.reshape.default  # which also takes what lies otherwise in memory
        if target in _OF_MEMORY:
            raise Unplannable(f"{target} depends on how tensors lie in memory")
        settle = self._settle if _takes_any_layout(target) else self._laid_out
        args, kwargs = (self._map(part, settle) for part in (node.args, node.kwargs))
        try:
            fakes = [self._map_values(part, _fake) for part in (args, kwargs)]
            out = target(*fakes[0], **fakes[1])
        except Exception as error:
            raise Unplannable(f"{target}: {_line(error)}") from error
        if not _has_tensors(out):
            self.env[node] = out
            return
        values = [part for part in _flat((args, kwargs)) if isinstance(part, Value)]
        slot = self.slots
        found = [self._result(part, values, slot + i) for i, part in enumerate(_list(out))]
        whole = isinstance(out, Tensor)
        self.env[node] = found[0] if whole else found
        if all(isinstance(part, Value) and part.buffer.slot is None for part in found):
            return  # views of the arena
        self.slots += len(found)
        for value in values:
            value.buffer.dies = len(self.steps)
        laid = [(tuple(part.shape), part.stride()) if isinstance(part, Tensor) else None
                for part in _list(out)]  # fmt: skip
        self.steps.append(Plain(target, args, kwargs, slot, laid, whole))
        self.report.append(Entry(path_of(node), describe(node), False, why))

    def _result(self, part: Any, operands: Sequence[Value], slot: int) -> Any:
        """One result of a plain call: another view of the arena, or whatever comes in its slot."""
        if not isinstance(part, Tensor):
            return part
        for value in operands:
            if value.buffer.slot is None and _share(part, value.fake):
                return Value(part, value.buffer)
        return Value(_fake(part), Buffer(0, slot))

    def _settle(self, node: fx.Node) -> Any:
        """An operand of a plain call: constants as tensors, what waits is made."""
        if node in self.constants.fixed:
            return self.constants.value(node)
        found = self.env[node]
        return self.settled(found)

    def _laid_out(self, node: fx.Node) -> Any:
        """An operand that lies in memory as it does in eager PyTorch: some calls ask for that."""
        value, order = self._settle(node), node.meta.get("order")
        if not isinstance(value, Value) or order is None or len(order) != len(value.shape):
            return value
        strides = strides_of(value.shape, order)
        own = value.fake.stride()
        sizes = zip(value.shape, own, strides, strict=True)
        if all(size == 1 or a == b for size, a, b in sizes):
            return value
        return self._copied(value, strides)

    def _map_values(self, part: Any, function: Callable) -> Any:
        if isinstance(part, (list, tuple)):
            return type(part)(self._map_values(item, function) for item in part)
        if isinstance(part, dict):
            return {name: self._map_values(item, function) for name, item in part.items()}
        return function(part)

    # --- what lowerings ask for ---

    def settled(self, value: Any) -> Any:
        """A value that is there; one that waits for the convolution behind it is made now."""
        return value.settle(self) if isinstance(value, Waiting) else value

    def new(self, shape: Sequence[int], dtype: torch.dtype, pixels: bool = True) -> Value:
        """Room for a result: an image, channels_last, or anything else in PyTorch's order."""
        order = (0, 2, 3, 1) if pixels and len(shape) == 4 else range(len(shape))
        return self._room(shape, strides_of(shape, order), dtype)

    def _room(self, shape: Sequence[int], strides: Sequence[int], dtype: torch.dtype) -> Value:
        fake = empty(shape, strides, dtype)
        buffer = Buffer(fake.numel() * fake.element_size())
        self.buffers.append(buffer)
        return Value(fake, buffer)

    def as_pixels(self, value: Value) -> Value:
        """An image with its channels last, copied where it is not so already."""
        if is_pixels(value.fake):
            return value
        return self._copied(value, strides_of(value.shape, (0, 2, 3, 1)))

    def as_rows(self, value: Value) -> Value:
        """A tensor in PyTorch's order, copied where it is not so already."""
        if value.fake.is_contiguous():
            return value
        return self._copied(value, strides_of(value.shape, range(len(value.shape))))

    def _copied(self, value: Value, strides: tuple[int, ...]) -> Value:
        """The same numbers with other strides."""
        if (value, strides) not in self.copies:
            out = self._room(value.shape, strides, value.dtype)
            self._write(out, [value], Plain(_copy, (out, value), {}, None, [], True))
            self.copies[value, strides] = out
        return self.copies[value, strides]

    def regrouped(self, value: Value, groups: int) -> Value:
        """Images whose channel j·C + c, for j of so many groups, becomes channel c·groups + j."""
        images, channels, height, width = value.shape
        out = self.new(value.shape, value.dtype)
        sizes = (images, height * width, groups, channels // groups)
        parts = empty(sizes, strides_of(sizes, range(4)), value.dtype)
        sizes = (*sizes[:2], sizes[3], groups)
        turned = empty(sizes, strides_of(sizes, range(4)), value.dtype).mT
        views = Value(turned, out.buffer), Value(parts, value.buffer)
        self._write(views[0], [views[1]], Plain(_copy, views, {}, None, [], True))
        return out

    def fixed(self, found: Any) -> Tensor | None:
        """The tensor of a constant."""
        return None if found is None else self.constants.value(found.node)

    def emit(self, make: Callable[[], Any], reads: Sequence[Value | None], out: Value) -> Value:
        """One more launch; ``make`` is called as soon as there is an arena."""
        self._write(out, reads, Native(make))
        return out

    def _write(self, out: Value, reads: Sequence[Value | None], step: Native | Plain) -> None:
        now = len(self.steps)
        for value in (*reads, out):
            if value is not None:
                value.buffer.dies = now
        if out.buffer.born < 0:
            out.buffer.born = now
        self.steps.append(step)

    # --- results ---

    def _finish(self, node: fx.Node) -> Plan:
        results = list(node.args[0]) if isinstance(node.args[0], (list, tuple)) else [node.args[0]]
        orders = node.meta.get("orders") or [None] * len(results)
        parts: list[Part] = []
        for result, order in zip(results, orders, strict=True):
            if isinstance(result, fx.Node) and result in self.constants.fixed:
                parts.append(Part(self.constants.value(result), None, self.constants.owns(result)))
                continue
            value = self.settled(self.env[result]) if isinstance(result, fx.Node) else result
            if not isinstance(value, Value):
                parts.append(Part(value, None, False))
                continue
            if order is None or len(order) != len(value.shape):  # of squeezed ones
                order = order_of(value.fake.stride(), value.shape)
            strides = strides_of(value.shape, order)
            value.buffer.dies = _FOREVER
            parts.append(Part(value, strides, value.buffer.slot is None))
        self.arena = new_arena(arrange([buffer for buffer in self.buffers if buffer.born >= 0]))
        return Plan(
            self._made(), parts, self.real, self.stand_ins, self.arena, self.slots, self.report
        )

    def _made(self) -> list[Step | Plain]:
        """The steps with their addresses, those that run in turns once for each."""
        first, end, count = 0, 0, 0
        if self.turns is not None:
            first, end, count = self.turns.first, self.turns.end, self.turns.count
        made = [_make(step) for step in self.steps[:first]]
        for self.turn in range(count):
            made += [_make(step) for step in self.steps[first:end]]
        return made + [_make(step) for step in self.steps[end:]]

    def real(self, value: Value) -> Tensor:
        """A value's tensor, as soon as there is an arena."""
        whole = None if self.turns is None else self.turns.wholes.get(value)
        tensor = (whole or value).real(self.arena)
        if whole is not None:
            images = value.shape[0]
            tensor = tensor[self.turn * images : (self.turn + 1) * images]
        if value.buffer.slot is not None:
            self.stand_ins[tensor.data_ptr()] = tensor, value.buffer.slot
        return tensor


def _make(step: Native | Plain) -> Step | Plain:
    return step.make() if isinstance(step, Native) else step


# Reductions and the like, which take tensors as they lie.
_ANY_LAYOUT = {aten.mean.dim, aten.sum.dim_IntList, aten.amax.default, aten.amin.default,
               aten._softmax.default, aten.softmax.int, aten.cat.default, aten.clone.default,
               aten.var.correction, aten.constant_pad_nd.default, aten._to_copy.default,
               aten.reshape.default, aten.flip.default, aten.bmm.default, aten.mm.default,
               aten.addmm.default, aten.index.Tensor, aten.copy.default}  # fmt: skip


def _takes_any_layout(target: Any) -> bool:
    """Whether a call does not mind how its operands lie in memory."""
    return not isinstance(target, torch._ops.OpOverload) or (
        target in _ANY_LAYOUT or target.is_view or torch.Tag.pointwise in target.tags
    )


def _copy(out: Tensor, x: Tensor) -> None:
    out.copy_(x)


def _fake(part: Any) -> Any:
    """An argument or a result without its memory."""
    if isinstance(part, Value):
        return part.fake
    if isinstance(part, torch.device):
        return torch.device("meta")
    return part.to("meta") if isinstance(part, Tensor) else part


def _flat(part: Any) -> list[Any]:
    if isinstance(part, (list, tuple)):
        return [x for item in part for x in _flat(item)]
    if isinstance(part, dict):
        return [x for item in part.values() for x in _flat(item)]
    return [part]


def _list(out: Any) -> list[Any]:
    return list(out) if isinstance(out, (list, tuple)) else [out]


def _has_tensors(out: Any) -> bool:
    return any(isinstance(part, Tensor) for part in _flat(out))


def _share(out: Any, other: Tensor) -> bool:
    """Whether a result lies in the memory of an operand."""
    return any(
        isinstance(part, Tensor) and part.untyped_storage()._cdata == other.untyped_storage()._cdata
        for part in _flat(out)
    )


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:120] if lines else type(error).__name__
