"""``accelerate(…, precision=…)``: an accelerated model in int8 or bf16, and what that costs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from pointwise.acceleration import mixed
from pointwise.acceleration.arguments import Given, called
from pointwise.acceleration.bf16 import between_bf16
from pointwise.acceleration.module import Accelerated
from pointwise.acceleration.quantisation_cost import QuantisationCost
from pointwise.acceleration.quantise import asked_for, chosen, in_bytes
from pointwise.acceleration.ranges import PERCENTILE, watch

Batch = tuple[Given, Tensor | None]
"""Inputs, and labels if there are any."""


def to_int8(
    found: Accelerated,
    calibration: Iterable[Any],
    inputs: int,
    tolerance: float | None = None,
    percentile: float = PERCENTILE,
) -> Accelerated:
    """The accelerated model in int8 where that is faster, within a ``tolerance`` if there is one;
    see ``accelerate``.
    """
    batches = _batches(found, calibration, inputs)
    graph, tensors = found._graph, found._constants.tensors()
    nodes = chosen(graph, tensors)
    if not nodes:
        raise ValueError(
            "accelerate: there is nothing that int8 could work on: no convolution of this model "
            "is in float32, without groups or depthwise, and followed by nothing, ReLU or ReLU6. "
            "Leave precision out"
        )
    flat = [found.inputs.flat(*given) for given, _ in batches]
    seen = watch(graph, list(tensors.values()), flat, asked_for(nodes), percentile)

    def made(some: set[fx.Node]) -> Accelerated:
        new = found.with_graph(*in_bytes(graph, tensors, some, seen))
        cost = _cost(found, new, batches)
        part = "" if some == nodes else f" in {len(some)} of {len(nodes)} convolutions"
        new.cost = replace(cost, precision=f"int8{part}")
        return new

    if tolerance is None:
        return made(nodes)
    ordered = mixed.by_error(graph, tensors, nodes, seen, flat[0])
    new = mixed.within(tolerance, ordered, made, partial(chosen, graph, tensors))
    if isinstance(new, float):
        raise ValueError(
            f"accelerate: no convolution can be in int8 with a relative error of at most "
            f"{tolerance:g}: the least that was found is {new:.2g}. Ask for a larger tolerance, "
            "or leave precision out"
        )
    return new


def to_bf16(found: Accelerated, example: Given, calibration: Iterable[Any] | None) -> Accelerated:
    """The accelerated model with products of bfloat16; see ``accelerate``."""
    data = "example" if calibration is None else "calibration"
    batches: list[Batch] = [(example, None)]
    if calibration is not None:
        batches = _batches(found, calibration, sum(map(len, example)))
    new = found.in_bf16()
    if new is found:
        raise ValueError(
            "accelerate: precision='bf16' has nothing to work on: no linear layer of this model, "
            "and no convolution without groups, is in float32. Leave precision out"
        )
    new.cost = replace(_cost(found, new, batches), precision="bf16", data=data)
    return new


def of_bf16(found: Accelerated, model: nn.Module, example: Given) -> Accelerated:
    """A model in bfloat16 of ``found``, the same in float32: with products of bfloat16.

    What is between them stays float32, and is not rounded again.
    """
    args, kwargs = example
    inputs = [_dtype(x) for x in found.inputs.flat(args, kwargs)]
    with torch.no_grad():
        results = [_dtype(x) for x in pytree.tree_leaves(called(model, example))]
    new = found.in_bf16()
    graph = between_bf16(new._graph, inputs, results)
    return found.with_types(graph, new._constants.tensors(), inputs)


def _dtype(x: Any) -> torch.dtype | None:
    return x.dtype if isinstance(x, Tensor) else None


def _batches(found: Accelerated, calibration: Iterable[Any], inputs: int) -> list[Batch]:
    """Inputs and labels of each batch."""
    if isinstance(calibration, Tensor) or not isinstance(calibration, Iterable):
        raise TypeError(
            "accelerate: calibration must be a DataLoader or a list of batches, got "
            f"{type(calibration).__name__}; give [x] for a single batch x"
        )
    batches: list[Batch] = []
    for item in calibration:
        args = tuple(item) if isinstance(item, (tuple, list)) else (item,)
        labels = None
        if len(args) == inputs + 1 and isinstance(args[-1], Tensor):
            args, labels = args[:-1], args[-1]
        try:
            leaves = found.inputs.flat(args, {})
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"accelerate: a batch of calibration data must be the model's {inputs} input(s), "
                f"as in the example, and labels behind them if there are any, got {len(args)} "
                f"part(s) of types {[type(part).__name__ for part in args]}"
            ) from error
        found.inputs.check(leaves)
        batches.append(((args, {}), labels))
    if not batches:
        raise ValueError("accelerate: calibration has no batches; it takes examples of the data")
    return batches


def _cost(before: Accelerated, after: Accelerated, batches: list) -> QuantisationCost:
    """Compares both models on all batches."""
    samples = votes = same = labelled = 0
    right = [0, 0]
    error = total = 0.0
    for given, labels in batches:
        one, other = (_first(called(model, given)) for model in (before, after))
        if one is None or other is None:
            continue
        samples += len(one) if one.dim() else 1
        error += (other.double() - one.double()).square().sum().item()
        total += one.double().square().sum().item()
        if one.dim() in (2, 4) and one.shape[1] > 1:
            best = [x.argmax(1) for x in (one, other)]
            votes += best[0].numel()
            same += int((best[0] == best[1]).sum())
            if labels is not None and labels.shape == best[0].shape:
                labelled += labels.numel()
                right = [r + int((b == labels).sum()) for r, b in zip(right, best, strict=True)]
    return QuantisationCost(
        samples,
        (error / total) ** 0.5 if total else 0.0,
        same / votes if votes else None,
        (right[0] / labelled, right[1] / labelled) if labelled else None,
    )


def _first(results: Any) -> Tensor | None:
    """The first result that is of floats."""
    parts = pytree.tree_leaves(results)
    return next((x for x in parts if isinstance(x, Tensor) and x.is_floating_point()), None)
