"""The plans of one graph, by what they depend on of its inputs, or why there are none.

For torch.compile's graphs and accelerated models alike.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from pointwise.acceleration.constants import Constants
from pointwise.acceleration.micro_batches import make
from pointwise.acceleration.plan import Plan
from pointwise.acceleration.planner import PLAIN, Unplannable
from pointwise.acceleration.report import Report
from pointwise.engine.cpu import pairs
from pointwise.engine.cpu.launch import threads
from pointwise.engine.eager import why_not_plain

_MOST = 8  # plans of one graph: inputs of so many shapes may alternate
_VALUES = (int, bool, str, complex, type(None))  # what may be among inputs, besides tensors, floats
_warned: set[str] = set()


def key_of(inputs: Sequence[Any]) -> tuple | str:
    """What a plan depends on, or why there cannot be one."""
    key: list[Any] = [threads()]
    for x in inputs:
        if type(x) is float:
            key.append((float, x.hex()))  # NaN too is itself, and 0.0 not -0.0
        elif isinstance(x, _VALUES):
            key.append((type(x), x))
        elif not isinstance(x, Tensor):
            return f"{type(x).__name__} is no plain tensor"
        elif why := why_not_plain(x):
            return why
        else:
            key.append((x.shape, x.stride(), x.dtype))
    return tuple(key)


def warn(why: str) -> None:
    """Once for each reason, however many graphs a model is cut into."""
    if why not in _warned:
        _warned.add(why)
        warnings.warn(f"pointwise: this runs as plain PyTorch: {why}", stacklevel=3)


class Reasons:
    """Why no plan can be made for some inputs or parameters, each reason once."""

    def __init__(self) -> None:
        self._reasons: dict[str, None] = {}

    def note(self, why: str) -> str:
        """Notes a reason, and warns of it the first time; returns it."""
        if why not in self._reasons:
            self._reasons[why] = None
            warn(why)
        return why

    def reports(self) -> list[Report]:
        return [Report((), (), 0, why) for why in list(self._reasons)]


class Plans(Reasons):
    """The latest plans of a graph by ``key_of`` of the inputs; one may be why there is none."""

    def __init__(self) -> None:
        super().__init__()
        self._plans: dict[tuple, Plan | str] = {}

    def get(self, key: tuple) -> Plan | str | None:
        return self._plans.get(key)

    def values(self) -> Iterable[Plan | str]:
        return self._plans.values()

    def make(
        self, key: tuple, graph: fx.Graph, constants: Constants, inputs: Sequence[Any]
    ) -> Plan | str:
        """Makes a plan and keeps it, in the place of the oldest where there are too many.

        To be called by one thread at a time.
        """
        self._plans[key] = plan = _planned(graph, constants, inputs)
        if len(self._plans) > _MOST:
            self._plans.pop(next(iter(self._plans)))
        return plan

    def clear(self) -> None:
        """Lets go of the plans; the reasons stay."""
        self._plans = {}

    def reports(self) -> list[Report]:
        """What became of the graph, for each shape of input so far."""
        return super().reports() + [_report(key, plan) for key, plan in list(self._plans.items())]


def _planned(graph: fx.Graph, constants: Constants, inputs: Sequence[Any]) -> Plan | str:
    """A plan, or why there is none. A warning says where nothing of it runs as a kernel."""
    try:
        plan = make(graph, constants, inputs)
    except Unplannable as reason:
        warn(str(reason))
        return str(reason)
    plan.why = _why_nothing(plan, graph, constants, inputs)
    if plan.why:
        warn(plan.why)
    return plan


def _why_nothing(plan: Plan, graph: fx.Graph, constants: Constants, inputs: Sequence[Any]) -> str:
    """Why no call of a graph with parameters runs as a kernel; empty where one does."""
    if not constants.fixed or not plan.entries or any(entry.fused for entry in plan.entries):
        return ""
    fixed = [node for node in graph.nodes if node in constants.fixed]
    tensors = [x for x in (*inputs, *map(constants.value, fixed)) if isinstance(x, Tensor)]
    for dtype in dict.fromkeys(x.dtype for x in tensors if x.is_floating_point()):
        if dtype not in (torch.float32, torch.float64):
            why = f"it computes in {dtype}, and kernels in float32 and float64"
            if dtype != torch.bfloat16:
                return why
            here = (
                "model.float() is faster here" if pairs.WHY_NOT else "accelerate runs its products"
            )
            return f"{why}; {here}"
    refused = [entry for entry in plan.entries if entry.why != PLAIN]
    if refused:
        return f"no call of it runs as a kernel; {refused[0].what}: {refused[0].why}"
    return f"no call of it is one that kernels know, such as {plan.entries[0].what}"


def _report(key: tuple, plan: Plan | str) -> Report:
    shapes = tuple(tuple(entry[0]) for entry in key[1:] if isinstance(entry[0], torch.Size))
    if isinstance(plan, str):
        return Report(shapes, (), 0, plan)
    return Report(shapes, plan.entries, plan.bytes, plan.why, plan.times())
