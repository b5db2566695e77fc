"""A graph, and shapes of its inputs, to a plan: which kernels, in which memory, and what is plain.

Goes through the graph once with tensors that have no memory (of the device "meta"). What ``lower``
knows becomes launches; views become other ways to read a buffer; everything else stays the PyTorch
call it is.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from pointwise.acceleration import (
    lower_attention,
    lower_chains,
    lower_convolutions,
    lower_copies,
    lower_int8,
    lower_moves,
    lower_pixels,
    lower_reductions,
    lower_volumes,
    vocabulary,
)
from pointwise.acceleration.buffers import (
    Buffer,
    Value,
    arrange,
    empty,
    new_arena,
    order_of,
    strides_of,
)
from pointwise.acceleration.builder import Builder, Constant, Deferred
from pointwise.acceleration.constants import Constants
from pointwise.acceleration.graph import results_of
from pointwise.acceleration.layouts import Layouts
from pointwise.acceleration.plan import NativeCall, Output, PlainCall, Plan
from pointwise.acceleration.report import Entry, describe, path_of
from pointwise.engine.cpu.launch import Launch
from pointwise.messages import first_line

aten = torch.ops.aten
_FOREVER = 1 << 60
PLAIN = "PyTorch's own"  # why a call that no kernel knows is none

LOWERINGS = {**lower_convolutions.LOWERINGS, **lower_pixels.LOWERINGS, **lower_chains.LOWERINGS,
             **lower_reductions.LOWERINGS, **lower_moves.LOWERINGS,
             **lower_attention.LOWERINGS, **lower_copies.LOWERINGS, **lower_volumes.LOWERINGS,
             **lower_int8.LOWERINGS}  # fmt: skip


# What a plan, which lays tensors out as it likes, would answer otherwise.
_OF_MEMORY = (
    aten.as_strided.default, aten.sym_stride.default, aten.sym_stride.int, aten.stride.default,
    aten.stride.int, aten.sym_storage_offset.default, aten.storage_offset.default,
    aten.is_contiguous.default, aten.is_contiguous.memory_format,
)  # fmt: skip


class Unplannable(Exception):
    """Says why a graph has to run as plain PyTorch as a whole."""


class Planner(Builder):
    """Goes through a graph once, node by node."""

    def __init__(self, graph: fx.Graph, constants: Constants, layouts: Layouts) -> None:
        super().__init__(constants)
        self.graph, self.layouts = graph, layouts
        self.env: dict[fx.Node, Any] = {}
        self.slots = 0
        self.report: list[Entry] = []
        self.waiting: dict[Deferred, Entry] = {}

    # --- the graph, node by node ---

    def plan(self, inputs: Sequence[Any]) -> Plan:
        """The plan for inputs like these. Raises ``Unplannable``."""
        given = iter(inputs)
        for node in self.graph.nodes:
            if node in self.constants.fixed:
                continue
            if node.op == "placeholder":
                self.env[node] = self._input(next(given))
            elif node.op == "output":
                return self._finish(node)
            else:
                self.visit(node)
        raise AssertionError("a graph without an output")

    def visit(self, node: fx.Node) -> None:
        """One call, in its turn."""
        self.call(node)

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
            before = len(self.steps)
            found = lowered(self, node, *(self._map(part, self._operand) for part in node.args))
            if not isinstance(found, str):
                self.env[node] = found
                made = len(self.steps) > before or isinstance(found, Deferred)
                if made and node.target not in _VIEWS:
                    self._note(node)
                return
            why = found
        self._plain(node, why)

    def _note(self, node: fx.Node) -> None:
        """A call that runs as a kernel; two in one where it took in the one it waited for."""
        what, before = describe(node) + self.ways.get(node, ""), self._at(node.args[0])
        if isinstance(before, Deferred) and before.value is None:
            first = self.waiting.pop(before)
            self.report.remove(first)
            what = f"{first.what} → {what}"
        self.report.append(Entry(path_of(node), what, True, ""))
        found = self.env[node]
        if isinstance(found, Deferred):
            self.waiting[found] = self.report[-1]

    def _at(self, part: Any) -> Any:
        return self.env.get(part) if isinstance(part, fx.Node) else part

    def _operand(self, node: fx.Node) -> Any:
        """What a call is given: a value of the plan, or a constant's tensor as ``Constant``."""
        if node in self.constants.fixed:
            return Constant(node)
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
        if target in _RESHAPES and self._reshaped(node, target):
            return
        settle = self._settle if _takes_any_layout(target) else self._laid_out
        args, kwargs = (self._map(part, settle) for part in (node.args, node.kwargs))
        try:
            fakes = [self._map_values(part, _fake) for part in (args, kwargs)]
            out = target(*fakes[0], **fakes[1])
        except Exception as error:
            raise Unplannable(f"{target}: {first_line(error, 120)}") from error
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
            value.buffer.dies, value.buffer.is_rigid = len(self.steps), True
        laid = [(tuple(part.shape), part.stride()) if isinstance(part, Tensor) else None
                for part in _list(out)]  # fmt: skip
        self.steps.append(PlainCall(target, args, kwargs, slot, laid, whole))
        self.report.append(Entry(path_of(node), describe(node), False, why))

    def _reshaped(self, node: fx.Node, target: Any) -> bool:
        """What is no view as it lies, as a view of a copy in PyTorch's order."""
        if node.kwargs or not isinstance(node.args[0], fx.Node):
            return False
        x = self._settle(node.args[0])
        if not isinstance(x, Value) or x.buffer.slot is not None or x.fake.numel() == 0:
            return False
        rest = self._map(node.args[1:], self._settle)
        try:
            is_view = _share(target(x.fake, *rest), x.fake)
        except Exception:  # and PyTorch says why
            return False
        x = x if is_view else self.as_rows(x)
        x.buffer.is_rigid = True
        self.env[node] = Value(target(x.fake, *rest), x.buffer)
        return True

    def _result(self, part: Any, operands: Sequence[Value], slot: int) -> Any:
        """One result of a plain call: another view of the arena, or whatever comes in its slot."""
        if not isinstance(part, Tensor):
            return part
        for value in operands:
            if value.buffer.slot is None and _share(part, value.fake):
                value.buffer.is_rigid = True
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
        value, order = self._settle(node), self.layouts.of(node)
        if not isinstance(value, Value) or order is None or len(order) != len(value.shape):
            return value
        strides = strides_of(value.shape, order)
        own = value.fake.stride()
        sizes = zip(value.shape, own, strides, strict=True)
        if all(size == 1 or a == b for size, a, b in sizes):
            return value
        return self.copied(value, strides)

    def _map_values(self, part: Any, function: Callable) -> Any:
        if isinstance(part, (list, tuple)):
            return type(part)(self._map_values(item, function) for item in part)
        if isinstance(part, dict):
            return {name: self._map_values(item, function) for name, item in part.items()}
        return function(part)

    # --- results ---

    def _finish(self, node: fx.Node) -> Plan:
        outputs: list[Output] = []
        for result, order in zip(results_of(node), self.layouts.results(), strict=True):
            if isinstance(result, fx.Node) and result in self.constants.fixed:
                outputs.append(
                    Output(self.constants.value(result), None, self.constants.owns(result))
                )
                continue
            value = self.settled(self.env[result]) if isinstance(result, fx.Node) else result
            if not isinstance(value, Value):
                outputs.append(Output(value, None, False))
                continue
            if order is None or len(order) != len(value.shape):  # of squeezed ones
                order = order_of(value.fake.stride(), value.shape)
            strides = strides_of(value.shape, order)
            value.buffer.dies = _FOREVER
            outputs.append(Output(value, strides, value.buffer.slot is None))
        self.arena = new_arena(arrange([buffer for buffer in self.buffers if buffer.born >= 0]))
        return Plan(
            self._made(), outputs, self.real, self.stand_ins, self.arena, self.slots, self.report
        )

    def _made(self) -> list[Launch | PlainCall]:
        """The steps with their addresses, those of micro-batches once for each."""
        first, end, count = 0, 0, 0
        if self.micro_batches is not None:
            first, end = self.micro_batches.first, self.micro_batches.end
            count = self.micro_batches.count
        made = [_make(step) for step in self.steps[:first]]
        for self.batch in range(count):
            made += [_make(step) for step in self.steps[first:end]]
        return made + [_make(step) for step in self.steps[end:]]


def _make(step: NativeCall | PlainCall) -> Launch | PlainCall:
    return step.make() if isinstance(step, NativeCall) else step


# What is only read otherwise, of what may have been waiting.
_VIEWS = {*lower_pixels.DIVIDED, vocabulary.part, vocabulary.volumes}
_RESHAPES = (aten.reshape.default, aten.flatten.using_ints, aten.unflatten.int)

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
