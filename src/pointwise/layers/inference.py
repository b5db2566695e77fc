"""Inference of a chain of units, planned once for each shape of input and run in one call.

A plan holds the launches with all their arguments, and two buffers that take turns between one
convolution's result and the next one's; only the last result is new memory in every run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, chain
from typing import Any
from weakref import WeakKeyDictionary, WeakSet, ref

import torch
from torch import Tensor, nn

from pointwise.engine import choose
from pointwise.engine.cpu.changes import State
from pointwise.engine.cpu.launch import Launch, Program, threads
from pointwise.engine.cpu.memory import LARGE, empty_image
from pointwise.engine.eager import why_not_eager, why_not_on_gpu
from pointwise.layers import inference_gpu
from pointwise.layers.folding import is_fixed, prepare
from pointwise.layers.state import ModuleState
from pointwise.layers.unit import Unit

_frozen: WeakSet[nn.Module] = WeakSet()
_MOST = 4  # plans of one run: so many shapes of input may take turns
_observer: Callable[[_Plan, bool], None] | None = None
_plans: WeakKeyDictionary[nn.Module, dict[tuple, _Plan]] = WeakKeyDictionary()
_known: WeakKeyDictionary[nn.Module, tuple[ModuleState, dict[tuple, _Plan]]] = WeakKeyDictionary()


def run(input: Tensor, units: Sequence[Unit], residual: Tensor | None = None) -> Tensor | None:
    """The units one after the other, or None where the modules have to run one by one.

    That is in training, where gradients are wanted, on other devices, under autocast on the CPU,
    while a graph is traced, with hooks on the modules, and for input that does not fit: their own
    code says so best.
    """
    if isinstance(input, Tensor) and input.is_cuda:
        return _run_on_gpu(input, units, residual)
    if not can_run(input, residual) or not all(map(is_fixed, units)):
        return None
    plans = _plans.setdefault(units[0].conv, {})
    key = (*_key(input, residual), id(units[-1].conv), len(units))
    plan = plans.get(key)
    if plan is None or not plan.is_still(units):
        plan = _make(input, units, residual)
        if plan is None:
            return None
        plans.pop(key, None)
        plans[key] = plan
        if len(plans) > _MOST:
            plans.pop(next(iter(plans)))
    return plan.run(input, residual) if plan.takes(residual) else None


def _run_on_gpu(input: Tensor, units: Sequence[Unit], residual: Tensor | None) -> Tensor | None:
    given = (input,) if residual is None else (input, residual)
    if torch.compiler.is_compiling() or why_not_on_gpu(*given):
        return None
    if torch.is_grad_enabled() and any(x.requires_grad for x in given):
        return None
    parts = [part for unit in units for part in (unit.conv, unit.norm) if part is not None]
    frozen = all(part in _frozen and not part.training for part in parts)
    return inference_gpu.run(input, units, residual, frozen)


def can_run(input: Tensor, residual: Tensor | None) -> bool:
    """Whether tensors are what kernels take, and nobody wants their gradients."""
    given = (input,) if residual is None else (input, residual)
    if torch.compiler.is_compiling() or why_not_eager(*given) or input.dim() != 4:
        return False
    return not torch.is_grad_enabled() or not (
        input.requires_grad or (residual is not None and residual.requires_grad)
    )


def alone(conv: nn.Conv2d, input: Tensor, residual: Tensor | None = None) -> Tensor | None:
    """A convolution of ours by itself, with its own activation; None as in ``run``."""
    if torch.compiler.is_compiling():  # which would watch our dictionaries
        return None
    out = again(input, (conv,), residual)
    if out is None and not torch.is_grad_enabled():
        units = [Unit(conv, None, conv.activation, own=True)]  # type: ignore[arg-type]
        out = run(input, units, residual)
        if out is not None:
            remember(input, (conv,), units, residual)
    return out


def again(
    input: Tensor, modules: Sequence[nn.Module], residual: Tensor | None = None
) -> Tensor | None:
    """``run`` of modules that ran before and have not changed since; else None."""
    if torch.compiler.is_compiling():
        return None
    known = _known.get(modules[0])
    if known is None or torch.is_grad_enabled() or not can_run(input, residual):
        return None
    state, plans = known
    plan = plans.get(_key(input, residual))
    if plan is None or not plan.takes(residual):
        return None
    first, last = modules[0], modules[-1]
    frozen = first in _frozen and last in _frozen and not (first.training or last.training)
    if not frozen and not state.is_still(modules):
        return None
    return plan.run(input, residual)


def freeze(module: nn.Module) -> nn.Module:
    """Promises that a network will not change any more, so that its weights need no checks.

    Sets it to inference, without gradients. Otherwise every run of convolutions checks whether its
    weights have changed, which takes a third of a millisecond in a MobileNet. Changes made
    afterwards may go unseen; ``module.train()`` ends it.

    >>> from pointwise.networks import MobileNetV1
    >>> network = freeze(MobileNetV1(classes=10, width=0.25))
    >>> network(torch.rand(1, 3, 64, 64)).shape
    torch.Size([1, 10])
    """
    module.eval().requires_grad_(False)
    for part in module.modules():
        _known.pop(part, None)
        inference_gpu.forget(part)
        _frozen.add(part)
    return module


def remember(
    input: Tensor, modules: Sequence[nn.Module], units: Sequence[Unit], residual: Tensor | None
) -> None:
    """Lets ``again`` find the plan that ``run`` has just used for these modules."""
    if not can_run(input, residual):
        return
    first = units[0].conv
    plan = _plans.get(first, {}).get((*_key(input, residual), id(units[-1].conv), len(units)))
    # It may be that of the convolution alone, where what is around it runs module by module.
    if plan is None or not all(map(is_fixed, units)) or not plan.is_still(units):
        return
    known = _known.get(modules[0])
    if known is None or not known[0].is_still(modules):
        known = _known[modules[0]] = (ModuleState(modules), {})
    known[1][_key(input, residual)] = plan
    if len(known[1]) > _MOST:
        known[1].pop(next(iter(known[1])))


@contextmanager
def observed(observer: Callable[[_Plan, bool], None]) -> Iterator[None]:
    """Lets ``observer(plan, with_residual)`` run the plans, ``plan.step(number)`` one by one.

    ``plan.units[number]`` are the units that a launch computes. For whoever measures them.
    """
    global _observer
    before, _observer = _observer, observer
    try:
        yield
    finally:
        _observer = before


def _key(input: Tensor, residual: Tensor | None) -> tuple:
    return input.shape, input.dtype, threads(), residual is not None


class _Plan:
    """Launches for one shape of input, and the state of the parameters they were made of.

    ``groups`` are the launches of each step from one buffer to the next, ``counts`` how many units
    each of them computes.
    """

    def __init__(
        self,
        units: Sequence[Unit],
        groups: Sequence[Sequence[Launch]],
        counts: Sequence[int],
        with_residual: bool,
    ) -> None:
        launches = [launch for group in groups for launch in group]
        self.out = launches[-1].out
        self._is_large = self.out.numel() * self.out.element_size() >= LARGE
        self.units = _grouped(units, counts)
        ends = list(accumulate(len(group) for group in groups))
        self._steps = [slice(end - len(group), end)
                       for end, group in zip(ends, groups, strict=True)]  # fmt: skip
        self._program = Program(launches)
        # Where addresses stand that change: of the launches that read the input, and of the last.
        self._inputs = [_place(launch, "x") for launch in groups[0]]
        self._out = _place(launches[-1], "out")
        self._residual = _place(launches[-1], "residual") if with_residual else -1
        self._state = State(_tensors(units), _numbers(units))

    def is_still(self, units: Sequence[Unit]) -> bool:
        """Whether the parameters are the ones the plan was made of."""
        return self._state.is_still(_tensors(units), _numbers(units))

    def takes(self, residual: Tensor | None) -> bool:
        """Whether a residual is like the result."""
        return residual is None or (
            residual.shape == self.out.shape and residual.dtype == self.out.dtype
        )

    def run(self, input: Tensor, residual: Tensor | None) -> Tensor:
        input = input.contiguous(memory_format=torch.channels_last)
        if self._is_large:
            out = empty_image(self.out.shape, self.out.dtype)
        else:  # the same, in half the time: a tensor is quicker to read than sizes and a format
            out = torch.empty_like(self.out)
        program = self._program
        with program.lock:
            for table, place in zip(program.tables, self._inputs, strict=False):
                table[place] = input.data_ptr()
            program.tables[-1][self._out] = out.data_ptr()
            if residual is not None:
                residual = residual.contiguous(memory_format=torch.channels_last)
                program.tables[-1][self._residual] = residual.data_ptr()
            if _observer is None:
                program.run()
            else:
                _observer(self, residual is not None)
        return out

    def step(self, number: int) -> None:
        """Runs the launches that compute ``units[number]``, for an observer."""
        self._program.run(self._steps[number])


def _place(launch: Launch, name: str) -> int:
    """Where the address of an operand stands in a launch's table."""
    assert launch.arguments is not None
    return launch.arguments.layout.places[name]


_Weak = tuple[ref, "ref | None", "str | None"]


def _grouped(units: Sequence[Unit], counts: Sequence[int]) -> list[list[_Weak]]:
    """The units of each step; weakly, since plans are kept by a convolution."""
    weak: list[_Weak] = [
        (ref(conv), None if norm is None else ref(norm), activation)
        for conv, norm, activation, _own in units
    ]
    ends = list(accumulate(counts))
    return [weak[end - count : end] for end, count in zip(ends, counts, strict=True)]


def _tensors(units: Sequence[Unit]) -> list[Any]:
    """All parameters and statistics, in an order; what is not there is left out."""
    found: list[Any] = []
    for conv, norm, *_ in units:
        found.append(conv._parameters.values())
        if norm is not None:
            found.append(norm._parameters.values())
            found.append((norm.running_mean, norm.running_var))
    return [tensor for tensor in chain.from_iterable(found) if tensor is not None]


def _numbers(units: Sequence[Unit]) -> list[tuple]:
    """Everything else that a unit is made of."""
    return [
        (conv.stride, conv.padding, conv.dilation, conv.groups, norm and norm.eps, activation)
        for conv, norm, activation, _own in units
    ]


def _make(input: Tensor, units: Sequence[Unit], residual: Tensor | None) -> _Plan | None:
    """A plan, or None where a unit cannot be part of one."""
    chain: list[choose.Prepared] = []
    shape = input.shape
    for unit in units:
        prepared = prepare(shape, input.dtype, unit)
        if prepared is None:
            return None
        chain.append(prepared)
        shape = prepared.shape
    if residual is not None and (
        chain[-1].convolution.is_depthwise
        or residual.shape != shape
        or residual.dtype != input.dtype
    ):
        return None  # a stencil takes none, and a wrong one gets its error elsewhere
    if residual is not None:  # as ``run`` will hand it over: launches know how its pixels lie
        residual = residual.contiguous(memory_format=torch.channels_last)
    buffers = _two_buffers(chain, input.dtype)
    groups: list[list[Launch]] = []  # each reads one buffer and writes the other
    counts: list[int] = []
    x, first = input.contiguous(memory_format=torch.channels_last), 0
    while first < len(chain):
        one, *rest = chain[first : first + 3]
        multiplied = one.convolution.depth_multiplier > 1
        if multiplied and not (rest and choose.is_separable(one, rest[0])):
            return None
        count = 2 if multiplied else choose.fused(one, *rest)
        end = first + count
        added = residual if end == len(chain) else None
        out = _view(buffers[(len(groups) + multiplied) % 2], chain[end - 1].shape)
        if multiplied:
            wide = _view(buffers[len(groups) % 2], one.shape)
            many = range(one.convolution.depth_multiplier)
            groups.append([choose.launch_of_multiplier(x, one, wide, j) for j in many])
            groups.append([choose.launch_behind_multiplier(wide, one, rest[0], out, added)])
        else:
            groups.append([choose.launch(x, chain[first:end], out, added)])
        counts += [1, 1] if multiplied else [count]
        x, first = out, end
    return _Plan(units, groups, counts, residual is not None)


def _two_buffers(chain: Sequence[choose.Prepared], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    most = max(prepared.shape.numel() for prepared in chain)
    return torch.empty(most, dtype=dtype), torch.empty(most, dtype=dtype)


def _view(buffer: Tensor, shape: torch.Size) -> Tensor:
    """The beginning of a buffer as an image, channels_last."""
    images, channels, height, width = shape
    flat = buffer[: shape.numel()].view(images, height, width, channels)
    return flat.permute(0, 3, 1, 2)
