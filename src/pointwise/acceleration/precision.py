"""``accelerate(…, precision="int8")``: an accelerated model in bytes, and what that cost."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.utils import _pytree as pytree

from pointwise.acceleration.quantise import asked_for, chosen, in_bytes
from pointwise.acceleration.ranges import watch
from pointwise.engine.cpu.gemm_int8 import HAS_VNNI

if TYPE_CHECKING:
    from pointwise.acceleration.module import Accelerated


@dataclass(frozen=True)
class Cost:
    """What bytes cost on the calibration data, against the same model in float32."""

    samples: int
    error: float  # of the first result: √(Σ (bytes - float32)² / Σ float32²)
    agreement: float | None  # share of the samples (or pixels) whose best class is the same
    accuracy: tuple[float, float] | None  # share of the labels met: in float32, in bytes

    def __str__(self) -> str:
        parts = [f"int8 on {self.samples} calibration samples: relative error {self.error:.2%}"]
        if self.agreement is not None:
            parts.append(f"same best class for {self.agreement:.1%}")
        if self.accuracy is not None:
            before, after = self.accuracy
            parts.append(f"accuracy {before:.1%} in float32, {after:.1%} in int8")
        return ", ".join(parts)

    def as_plain(self) -> dict[str, Any]:
        return asdict(self)


def cost_of(plain: dict[str, Any] | None) -> Cost | None:
    """The inverse of ``as_plain``, from JSON."""
    if plain is None:
        return None
    accuracy = plain["accuracy"]
    return Cost(**{**plain, "accuracy": None if accuracy is None else tuple(accuracy)})


def to_int8(found: Accelerated, calibration: Iterable[Any], inputs: int) -> Accelerated:
    """The accelerated model in bytes where that pays; see ``accelerate``."""
    batches = _batches(found, calibration, inputs)
    graph, tensors = found._graph, found._constants.tensors()
    nodes = chosen(graph, tensors)
    if not nodes:
        raise ValueError(
            "accelerate: precision='int8' has nothing to work on: no convolution of this model "
            "is in float32, without groups or depthwise, and followed by nothing, ReLU or ReLU6. "
            "Leave precision out"
        )
    flat = [pytree.tree_leaves(given) for given, _ in batches]
    seen = watch(graph, list(tensors.values()), flat, asked_for(nodes))
    new = found._with(*in_bytes(graph, tensors, nodes, seen))
    new.cost = _cost(found, new, batches)
    if not HAS_VNNI:
        warnings.warn(
            "pointwise: this machine has no AVX512-VNNI; precision='int8' gives the same results "
            "as where there is one, but is slower than float32",
            stacklevel=3,
        )
    return new


def _batches(
    found: Accelerated, calibration: Iterable[Any], inputs: int
) -> list[tuple[tuple, Tensor | None]]:
    """Inputs and labels of each batch."""
    if isinstance(calibration, Tensor) or not isinstance(calibration, Iterable):
        raise TypeError(
            "accelerate: calibration must be a DataLoader or a list of batches, got "
            f"{type(calibration).__name__}; give [x] for a single batch x"
        )
    batches: list[tuple[tuple, Tensor | None]] = []
    for item in calibration:
        args = tuple(item) if isinstance(item, (tuple, list)) else (item,)
        labels = None
        if len(args) == inputs + 1 and isinstance(args[-1], Tensor):
            args, labels = args[:-1], args[-1]
        leaves, spec = pytree.tree_flatten((args, {}))
        if spec != found._in_spec:
            raise ValueError(
                f"accelerate: a batch of calibration data must be the model's {inputs} input(s), "
                f"as in the example, and labels behind them if there are any, got {len(args)} "
                f"part(s) of types {[type(part).__name__ for part in args]}"
            )
        found._check(leaves)
        batches.append((args, labels))
    if not batches:
        raise ValueError("accelerate: calibration has no batches; int8 needs examples of the data")
    return batches


def _cost(before: Accelerated, after: Accelerated, batches: list) -> Cost:
    """Runs both models on all batches."""
    samples = votes = same = labelled = 0
    right = [0, 0]
    error = total = 0.0
    for args, labels in batches:
        one, other = (_first(model(*args)) for model in (before, after))
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
    return Cost(
        samples,
        (error / total) ** 0.5 if total else 0.0,
        same / votes if votes else None,
        (right[0] / labelled, right[1] / labelled) if labelled else None,
    )


def _first(results: Any) -> Tensor | None:
    """The first result that is of floats."""
    parts = pytree.tree_leaves(results)
    return next((x for x in parts if isinstance(x, Tensor) and x.is_floating_point()), None)
