"""Ranks for every layer: for an error in each, or for a budget over all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Choice:
    """A rank of a layer (None: as it is) with its cost and its squared relative error."""

    cost: int
    error: float
    rank: int | None


def for_error(errors: Sequence[float], error: float) -> int | None:
    """The smallest rank whose error (``errors`` begin with that of rank 1) is small enough."""
    return next((rank for rank, each in enumerate(errors, 1) if each <= error), None)


def choices(errors: Sequence[float], once: int, standard: int) -> list[Choice]:
    """The choices of a layer that are worth their cost, by rising cost.

    ``once`` is the cost of rank 1, ``standard`` of the convolution as it is, which has no error.
    They are the lower convex hull of error over cost, so that a greedy search, which takes the best
    step of any layer again and again, finds the best choices.
    """
    every = [
        Choice(once * rank, error**2, rank)
        for rank, error in enumerate(errors, 1)
        if once * rank < standard
    ]
    hull: list[Choice] = []
    for choice in [*every, Choice(standard, 0.0, None)]:
        if hull and hull[-1].error <= choice.error:
            continue  # dearer, and no better
        while len(hull) > 1 and _gain(hull[-2], hull[-1]) <= _gain(hull[-2], choice):
            hull.pop()
        hull.append(choice)
    return hull


def within(layers: Mapping[str, Sequence[Choice]], budget: int) -> dict[str, Choice]:
    """One choice for each layer, together at most ``budget``, with little error in sum.

    All begin with their cheapest; then, as long as there is something left that can be paid, the
    step that saves most squared error for each unit of cost is taken. That is the Lagrangian's
    solution, and then some steps more out of what remains.
    """
    at = dict.fromkeys(layers, 0)
    left = budget - sum(layer[0].cost for layer in layers.values())
    while True:
        steps = {
            name: (layers[name][place], layers[name][place + 1])
            for name, place in at.items()
            if place + 1 < len(layers[name])
            and layers[name][place + 1].cost - layers[name][place].cost <= left
        }
        if not steps:
            return {name: layers[name][place] for name, place in at.items()}
        name = max(steps, key=lambda each: _gain(*steps[each]))
        here, there = steps[name]
        left -= there.cost - here.cost
        at[name] += 1


def _gain(here: Choice, there: Choice) -> float:
    """Squared error saved for each unit of cost."""
    return (here.error - there.error) / (there.cost - here.cost)
