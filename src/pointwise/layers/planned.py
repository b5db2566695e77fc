"""Inference of a whole run of links, planned once for each shape of input and run in one call.

A plan holds the launches with all their arguments, and two buffers that take turns between one
convolution's result and the next one's; only the last result is new memory in every run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, chain
from operator import is_
from typing import Any
from weakref import WeakKeyDictionary, WeakSet, ref

import torch
from torch import Tensor, nn

from pointwise.engine.cpu.changes import Snapshot
from pointwise.engine.cpu.launch import Program, threads
from pointwise.engine.cpu.layout import Arguments
from pointwise.engine.cpu.loops import images as conv_images
from pointwise.engine.cpu.memory import empty_image
from pointwise.layers import folded
from pointwise.layers.link import Link
from pointwise.layers.watch import Watch

_frozen: WeakSet[nn.Module] = WeakSet()
_MOST = 4  # plans of one run: so many shapes of input may take turns
_observer: Callable[[_Plan, bool], None] | None = None
_plans: WeakKeyDictionary[nn.Module, dict[tuple, _Plan]] = WeakKeyDictionary()
_known: WeakKeyDictionary[nn.Module, tuple[Watch, dict[tuple, _Plan]]] = WeakKeyDictionary()


def run(input: Tensor, links: Sequence[Link], residual: Tensor | None = None) -> Tensor | None:
    """The links one after the other, or None where they have to run one by one (``folded``)."""
    if not folded.can_run(input, residual) or not all(map(folded.is_fixed, links)):
        return None
    plans = _plans.setdefault(links[0].conv, {})
    key = (*_key(input, residual), id(links[-1].conv), len(links))
    plan = plans.get(key)
    if plan is None or not plan.is_still(links):
        plan = _make(input, links, residual)
        if plan is None:
            return None
        plans.pop(key, None)
        plans[key] = plan
        if len(plans) > _MOST:
            plans.pop(next(iter(plans)))
    return plan.run(input, residual) if plan.takes(residual) else None


def alone(conv: nn.Conv2d, input: Tensor, residual: Tensor | None = None) -> Tensor | None:
    """A convolution of ours by itself, with its own activation; None as in ``run``."""
    if torch.compiler.is_compiling():  # which would watch our dictionaries
        return None
    out = again(input, (conv,), residual)
    if out is None and not torch.is_grad_enabled():
        links = [Link(conv, None, conv.activation, own=True)]  # type: ignore[arg-type]
        out = run(input, links, residual)
        if out is not None:
            remember(input, (conv,), links, residual)
    return out


def again(
    input: Tensor, modules: Sequence[nn.Module], residual: Tensor | None = None
) -> Tensor | None:
    """``run`` of modules that ran before and have not changed since; else None."""
    if torch.compiler.is_compiling():
        return None
    known = _known.get(modules[0])
    if known is None or torch.is_grad_enabled() or not folded.can_run(input, residual):
        return None
    watch, plans = known
    plan = plans.get(_key(input, residual))
    if plan is None or not plan.takes(residual):
        return None
    first, last = modules[0], modules[-1]
    frozen = first in _frozen and last in _frozen and not (first.training or last.training)
    if not frozen and not watch.is_still(modules):
        return None
    return plan.run(input, residual)


def freeze(module: nn.Module) -> nn.Module:
    """Says that nothing in a network will change any more, so that nobody need look.

    Sets it to inference, without gradients. Every run of convolutions asks otherwise whether its
    weights are still what they were, which takes a third of a millisecond in a MobileNet. Changes
    made afterwards may go unseen; ``module.train()`` ends it.

    >>> from pointwise.networks import MobileNetV1
    >>> network = freeze(MobileNetV1(classes=10, width=0.25))
    >>> network(torch.rand(1, 3, 64, 64)).shape
    torch.Size([1, 10])
    """
    module.eval().requires_grad_(False)
    for part in module.modules():
        _known.pop(part, None)
        _frozen.add(part)
    return module


def remember(
    input: Tensor, modules: Sequence[nn.Module], links: Sequence[Link], residual: Tensor | None
) -> None:
    """Lets ``again`` find the plan that ``run`` has just used for these modules."""
    if not folded.can_run(input, residual):
        return
    first = links[0].conv
    plan = _plans.get(first, {}).get((*_key(input, residual), id(links[-1].conv), len(links)))
    if plan is None:
        return
    known = _known.get(modules[0])
    if known is None or not known[0].is_still(modules):
        known = _known[modules[0]] = (Watch(modules), {})
    known[1][_key(input, residual)] = plan
    if len(known[1]) > _MOST:
        known[1].pop(next(iter(known[1])))


@contextmanager
def observed(observer: Callable[[_Plan, bool], None]) -> Iterator[None]:
    """Lets ``observer(plan, with_residual)`` run the plans, part by part: ``plan.step(number)``.

    ``plan.parts`` says which links a part is of. For whoever measures them.
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
    """Launches for one shape of input, and the state of the parameters they were made of."""

    def __init__(
        self,
        links: Sequence[Link],
        groups: Sequence[Sequence[conv_images.Step]],
        counts: Sequence[int],
        buffers: tuple,
        residual: Tensor | None,
    ) -> None:
        steps = [step for group in groups for step in group]
        self.out = steps[-1].out
        self.parts = _parts(links, counts)
        # Where addresses stand that change: of the launches that read the input, and of the last.
        self._inputs = [_place(step, "x") for step in groups[0]]
        self._out = _place(steps[-1], "out")
        self._residual = -1 if residual is None else _place(steps[-1], "residual")
        ends = list(accumulate(len(group) for group in groups))
        self._launches = [slice(end - len(group), end)
                          for end, group in zip(ends, groups, strict=True)]  # fmt: skip
        self._steps, self._buffers = steps, buffers
        self._program = Program(steps)
        self._numbers = _numbers(links)
        self._tensors = _tensors(links)
        self._snapshot = Snapshot(self._tensors)

    def is_still(self, links: Sequence[Link]) -> bool:
        """Whether the parameters are the ones the plan was made of (``Snapshot``)."""
        tensors = _tensors(links)
        return (
            len(tensors) == len(self._tensors)
            and all(map(is_, tensors, self._tensors))
            and _numbers(links) == self._numbers
            and self._snapshot.is_still(tensors)
        )

    def takes(self, residual: Tensor | None) -> bool:
        """Whether a residual is like the result."""
        return residual is None or (
            residual.shape == self.out.shape and residual.dtype == self.out.dtype
        )

    def run(self, input: Tensor, residual: Tensor | None) -> Tensor:
        input = input.contiguous(memory_format=torch.channels_last)
        out = empty_image(self.out.shape, self.out.dtype)
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
        """Runs the launches of one part, for an observer."""
        self._program.run(self._launches[number])


def _place(step: Any, name: str) -> int:
    """Where the address of an operand stands in a launch's table."""
    if isinstance(step.arguments, Arguments):
        return step.arguments.layout.places[name]
    return {"x": 0, "out": step.place, "residual": step.residual}[name]


_Part = tuple[ref, "ref | None", "str | None"]


def _parts(links: Sequence[Link], counts: Sequence[int]) -> list[list[_Part]]:
    """The links of each step; weakly, since plans are kept by a convolution."""
    every: list[_Part] = [
        (ref(conv), None if norm is None else ref(norm), activation)
        for conv, norm, activation, *_ in links
    ]
    ends = list(accumulate(counts))
    return [every[end - count : end] for end, count in zip(ends, counts, strict=True)]


def _tensors(links: Sequence[Link]) -> list[Any]:
    """All parameters and statistics, in an order; what is not there is left out."""
    found: list[Any] = []
    for conv, norm, *_ in links:
        found.append(conv._parameters.values())
        if norm is not None:
            found.append(norm._parameters.values())
            found.append((norm.running_mean, norm.running_var))
    return [tensor for tensor in chain.from_iterable(found) if tensor is not None]


def _numbers(links: Sequence[Link]) -> list[tuple]:
    """Everything else that a link is made of."""
    return [
        (conv.stride, conv.padding, conv.dilation, conv.groups, norm and norm.eps, activation)
        for conv, norm, activation, _own in links
    ]


def _make(input: Tensor, links: Sequence[Link], residual: Tensor | None) -> _Plan | None:
    """A plan, or None where a link cannot be part of one."""
    found: list[folded.Folded] = []
    shape = input.shape
    for link in links:
        what = folded.fold_link(shape, input.dtype, link)
        if what is None or 0 in what.shape:
            return None
        found.append(what)
        shape = what.shape
    if residual is not None and (
        isinstance(found[-1].weights, conv_images.Taps)
        or residual.shape != shape
        or residual.dtype != input.dtype
    ):
        return None  # a stencil takes none, and a wrong one gets its error elsewhere
    buffers = _two_buffers(found, input.dtype)
    groups: list[list[conv_images.Step]] = []  # each reads one buffer and writes the other
    counts: list[int] = []
    x, first = input.contiguous(memory_format=torch.channels_last), 0
    while first < len(found):
        one, *rest = found[first : first + 3]
        multiplied = one.multiplier > 1
        if multiplied and not (rest and folded.is_separable(one, rest[0])):
            return None
        count = 2 if multiplied else folded.in_one_loop(one, *rest)
        end = first + count
        more = residual if end == len(found) else None
        wide = _view(buffers[len(groups) % 2], one.shape)
        out = _view(buffers[(len(groups) + multiplied) % 2], found[end - 1].shape)
        if multiplied:
            groups += folded.steps_of_multiplied(x, one, rest[0], wide, out, more)
        else:
            groups.append([folded.step_of(x, found[first:end], out, more)])
        counts += [1, 1] if multiplied else [count]
        x, first = out, end
    return _Plan(links, groups, counts, buffers, residual)


def _two_buffers(found: Sequence[folded.Folded], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    most = max(what.shape.numel() for what in found)
    return torch.empty(most, dtype=dtype), torch.empty(most, dtype=dtype)


def _view(buffer: Tensor, shape: torch.Size) -> Tensor:
    """The beginning of a buffer as an image, channels_last."""
    images, channels, height, width = shape
    flat = buffer[: shape.numel()].view(images, height, width, channels)
    return flat.permute(0, 3, 1, 2)
