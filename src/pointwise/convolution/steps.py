"""Chains: what is done to numbers one after another, as a list of steps.

A step is a name and its operands, ``("multiply", 0, 1)``: a whole number is a value, of which the
first are the chain's inputs and the next what each step gives; a float is that number. The last
step's value is the result. Here every step stands in plain PyTorch; kernels are written from the
same list (``engine/cpu/loops/chain.py``).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pointwise.convolution.epilogue import ACTIVATIONS

Step = Sequence[Any]
"""``(name, operand, …)``."""

MASKS: dict[str, Callable] = {
    "less": torch.lt,
    "at_most": torch.le,
    "equal": torch.eq,
    "unequal": torch.ne,
    "both": torch.logical_and,
    "either": torch.logical_or,
    "not": torch.logical_not,
}
"""Steps whose value is true or false."""

OF_MASKS = {"both": (0, 1), "either": (0, 1), "not": (0,), "where": (0,)}
"""Which operands of a step are masks, by their places; all others are numbers."""

_FUNCTIONS: dict[str, tuple[int, Callable]] = {
    "add": (2, operator.add),
    "subtract": (2, operator.sub),
    "multiply": (2, operator.mul),
    "divide": (2, operator.truediv),
    "maximum": (2, torch.maximum),
    "minimum": (2, torch.minimum),
    "negate": (1, operator.neg),
    "abs": (1, torch.abs),
    "sqrt": (1, torch.sqrt),
    "exp": (1, torch.exp),
    "log": (1, torch.log),
    "log1p_exp": (1, F.softplus),
    "floor": (1, torch.floor),
    "ceil": (1, torch.ceil),
    "where": (3, torch.where),
}

STEPS: dict[str, tuple[int, Callable]] = {
    **_FUNCTIONS,
    **{name: (1 if name == "not" else 2, function) for name, function in MASKS.items()},
    **{name: (1, row.plain) for name, row in ACTIVATIONS.items() if row.cost},
}
"""By name: how many operands a step has, and what it is in PyTorch."""


def check(steps: Sequence[Step], inputs: int) -> None:
    """Raises ValueError for what is no chain of so many inputs, as files may hold."""
    if inputs < 1 or (inputs > 1 and not steps):
        raise ValueError("a chain has an input, and of several makes something by a step")
    masks: set[int] = set()
    place = 0
    for place, step in enumerate(steps, inputs):
        name, *operands = step
        if name not in STEPS or len(operands) != STEPS[name][0]:
            raise ValueError(f"no step of a chain is {tuple(step)!r}")
        for i, operand in enumerate(operands):
            if type(operand) is float:
                is_right = i not in OF_MASKS.get(name, ())
            else:
                there = type(operand) is int and 0 <= operand < place
                is_right = there and (operand in masks) == (i in OF_MASKS.get(name, ()))
            if not is_right:
                raise ValueError(f"a step of a chain has a wrong operand: {tuple(step)!r}")
        if all(type(operand) is float for operand in operands):
            raise ValueError(f"a step of a chain reads no value: {tuple(step)!r}")
        if name in MASKS:
            masks.add(place)
    if place in masks:
        raise ValueError("a chain's result is a number")


def run(inputs: Sequence[Tensor], steps: Sequence[Step]) -> Tensor:
    """What a chain gives, in plain PyTorch."""
    check(steps, len(inputs))
    values = list(inputs)
    for name, *operands in steps:
        given = [values[x] if type(x) is int else inputs[0].new_tensor(x) for x in operands]
        values.append(STEPS[name][1](*given))
    return values[-1]
