"""A plan: what runs for inputs of one shape, with all addresses but those of inputs worked out.

Neighbouring launches run in one call. What lies between is in one arena, laid out beforehand;
results are copied out of it, so that nothing a caller holds is ever written to again.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pointwise.acceleration.buffers import Value, new_arena, strides_of
from pointwise.acceleration.report import Entry
from pointwise.acceleration.watch import KERNELS, Step, Watch
from pointwise.engine.cpu.launch import Launch, Program
from pointwise.engine.cpu.loops import planes

Work = Callable[[list[Any]], None]
"""Does something with the tensors of a run: its inputs, then what plain calls give."""


@dataclass(frozen=True, eq=False)
class NativeCall:
    """A launch; ``make`` is called as soon as there is an arena."""

    make: Callable[[], Any]


@dataclass(frozen=True, eq=False)
class PlainCall:
    """A call of PyTorch's. ``laid`` is the shape and the strides that each result should have."""

    target: Callable
    args: tuple
    kwargs: dict[str, Any]
    slot: int | None
    laid: list[tuple | None]
    whole: bool  # one result, and not several


@dataclass(frozen=True, eq=False)
class Output:
    """One of a graph's results: copied to new memory with these ``strides``, or as it is."""

    value: Any
    strides: tuple[int, ...] | None
    copied: bool


class Plan:
    """Runs again and again; runs in several threads wait for each other.

    ``stand_ins`` are tensors that launches were made with, each in place of one of a slot.
    """

    def __init__(
        self,
        made: Sequence[Launch | PlainCall],
        parts: Sequence[Output],
        real: Callable[[Value], Tensor],
        stand_ins: Sequence[tuple[Tensor, int]],
        arena: Tensor,
        slots: int,
        entries: Sequence[Entry],
    ) -> None:
        self.entries = tuple(entries)
        self.why = ""  # nothing of it runs as a kernel
        self._real = real
        self._stand_ins = {_storage(tensor): slot for tensor, slot in stand_ins}
        self._arena, self._slots = arena, slots
        launches = [step for step in made if isinstance(step, Launch)]
        self._scratch = _share_scratch(launches)
        self.bytes = arena.numel() + self._scratch.numel()
        self._fetched = {slot for step in launches for _, slot, _ in self._of_slots(step)}
        self._steps: list[Step] = []
        run: list[Launch] = []
        for step in made:
            if isinstance(step, Launch):
                if step.programs > 0:
                    run.append(step)
                continue
            self._end(run)
            self._steps.append(Step(_name(step.target), self._call(step)))
        self._end(run)
        self._owned = {
            part.untyped_storage().data_ptr()
            for step in made
            if isinstance(step, PlainCall)
            for part in _tensors((step.args, step.kwargs))
        }
        self._parts = [self._result(part) for part in parts]
        self._watch = Watch(self._steps)
        self._lock = threading.Lock()
        del self._real, self._stand_ins

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        """The graph's results, in memory of their own."""
        with self._lock:
            slots = [*inputs, *[None] * (self._slots - len(inputs))]
            if self._watch.ended:
                for _, work in self._steps:
                    work(slots)
            elif (said := self._watch.run(slots)) and not self.why:
                warnings.warn(f"pointwise: {said}", stacklevel=4)
            return [part(slots) for part in self._parts]

    def times(self) -> dict[str, float]:
        """Seconds of a run by what they are spent in; empty before the second run."""
        return self._watch.times()

    def _end(self, run: list[Launch]) -> None:
        """A call for the launches so far."""
        if not run:
            return
        program = Program(run)
        patches = [
            (table, place, slot, begin)
            for step, table in zip(run, program.tables, strict=True)
            for place, slot, begin in self._of_slots(step)
        ]
        run.clear()

        def work(slots: list[Any]) -> None:
            for table, place, slot, begin in patches:
                table[place] = slots[slot].data_ptr() + begin
            with program.lock:
                program.run()

        self._steps.append(Step(KERNELS, work))

    def _of_slots(self, step: Launch) -> list[tuple[int, int, int]]:
        """(where an address stands in its table, of which slot, how many bytes behind it)."""
        if step.arguments is None:
            return []
        layout, operands = step.arguments.layout, step.arguments.operands
        return [
            (layout.places[name], self._stand_ins[key], _begin(operand))
            for name, operand in zip(layout.pointers, operands, strict=True)
            if isinstance(operand, Tensor) and (key := _storage(operand)) in self._stand_ins
        ]

    def _call(self, step: PlainCall) -> Work:
        args, kwargs = _bound(step.args, self._real), _bound(step.kwargs, self._real)
        target, slot = step.target, step.slot
        if slot is None:  # into the arena
            return lambda slots: target(*args(slots))
        if step.whole:
            wanted = step.laid[0] if slot in self._fetched else None

            def one(slots: list[Any]) -> None:
                slots[slot] = _as_laid(target(*args(slots), **kwargs(slots)), wanted)

            return one

        def several(slots: list[Any]) -> None:
            for i, out in enumerate(target(*args(slots), **kwargs(slots))):
                place = slot + i
                wanted = step.laid[i] if place in self._fetched else None
                slots[place] = _as_laid(out, wanted)

        return several

    def _result(self, part: Output) -> Callable[[list[Any]], Any]:
        value, strides = part.value, part.strides
        if isinstance(value, Value) and value.buffer.slot is not None:
            slot, owned = value.buffer.slot, self._owned
            if not owned:
                return lambda slots: slots[slot]

            def apart(slots: list[Any]) -> Tensor:
                """Plain calls may give a part of a constant, which callers must not write to."""
                found = slots[slot]
                return found.clone() if found.untyped_storage().data_ptr() in owned else found

            return apart
        if isinstance(value, Value):
            assert strides is not None
            tensor = self._real(value)
            shape, dtype = tensor.shape, tensor.dtype
            if _is_turned(tensor, strides):
                return _turned(tensor, strides)

            def copy(slots: list[Any]) -> Tensor:
                return torch.empty_strided(shape, strides, dtype=dtype).copy_(tensor)

            return copy
        if part.copied:
            return lambda slots: value.clone()
        return lambda slots: value


_LEAST = 4096  # numbers; a launch of its own takes as long as to copy as many


def _is_turned(tensor: Tensor, strides: Sequence[int]) -> bool:
    """Whether a result is an image with its channels last that PyTorch would have planes of."""
    if tensor.dim() != 4 or tensor.numel() < _LEAST or not planes.is_worth_it(tensor):
        return False
    is_last = tensor.permute(0, 2, 3, 1).is_contiguous() and not tensor.is_contiguous()
    return is_last and tuple(strides) == strides_of(tensor.shape, range(4))


def _turned(tensor: Tensor, strides: Sequence[int]) -> Callable[[list[Any]], Tensor]:
    """Copies planes of an image into memory of their own, by a kernel."""
    launch = planes.planes(tensor, tensor)  # where to, each run says
    program = Program([launch])
    assert launch.arguments is not None
    table, place = program.tables[0], launch.arguments.layout.places["out"]

    def turn(slots: list[Any]) -> Tensor:
        out = torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype)
        with program.lock:
            table[place] = out.data_ptr()
            program.run()
        return out

    return turn


def _name(target: Callable) -> str:
    """A call in words."""
    if target is copy_:
        return "copies to another order in memory"
    name = str(target) if isinstance(target, torch._ops.OpOverload) else target.__name__
    return name.removesuffix(".default").removeprefix("_")


def copy_(out: Tensor, x: Tensor) -> None:
    """The numbers of a tensor in the memory of another."""
    out.copy_(x)


def _as_laid(out: Any, wanted: tuple | None) -> Any:
    """A result with the strides that a kernel expects; PyTorch may lay it out otherwise."""
    if wanted is None or not isinstance(out, Tensor) or out.stride() == wanted[1]:
        return out
    return torch.empty_strided(*wanted, dtype=out.dtype).copy_(out)


def _bound(part: Any, real: Callable[[Value], Tensor]) -> Callable[[list[Any]], Any]:
    """How to get at an argument: tensors of the arena are always the same."""
    if isinstance(part, Value):
        if part.buffer.slot is not None:
            slot = part.buffer.slot
            return lambda slots: slots[slot]
        tensor = real(part)
        return lambda slots: tensor
    if isinstance(part, (list, tuple)):
        found, kind = [_bound(item, real) for item in part], type(part)
        if not any(map(_changes, part)):
            always = kind(item([]) for item in found)
            return lambda slots: always
        return lambda slots: kind(item(slots) for item in found)
    if isinstance(part, dict):
        named = {name: _bound(item, real) for name, item in part.items()}
        return lambda slots: {name: item(slots) for name, item in named.items()}
    return lambda slots: part


def _tensors(part: Any) -> list[Tensor]:
    """The constants among the arguments of a plain call."""
    if isinstance(part, dict):
        part = list(part.values())
    if isinstance(part, (list, tuple)):
        return [x for item in part for x in _tensors(item)]
    return [part] if isinstance(part, Tensor) else []


def _changes(part: Any) -> bool:
    if isinstance(part, (list, tuple)):
        return any(map(_changes, part))
    return isinstance(part, Value) and part.buffer.slot is not None


def _share_scratch(steps: Sequence[Launch]) -> Tensor:
    """One piece of memory for what launches write for themselves: they run one after another."""
    own = [(step, step.operand("scratch")) for step in steps]
    own = [(step, scratch) for step, scratch in own if scratch is not None]
    shared = new_arena(max((scratch.numel() for _, scratch in own), default=0))
    for step, _ in own:
        step.patch(scratch=shared)
    return shared


def _storage(tensor: Tensor) -> int:
    """Whose memory a tensor reads."""
    return tensor.untyped_storage()._cdata


def _begin(tensor: Tensor) -> int:
    """How many bytes behind the beginning of its memory a tensor begins."""
    return int(tensor.storage_offset()) * tensor.element_size()
