"""What lowerings are given: values, constants, and convolutions that wait for the next one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from pointwise.acceleration import vocabulary
from pointwise.acceleration.values import Value
from pointwise.convolution import epilogue
from pointwise.engine.cpu.by_dtype import ZEROS
from pointwise.engine.cpu.loops import images as conv_images

if TYPE_CHECKING:
    from pointwise.acceleration.planner import Planner

Found = Value | str
"""What a lowering makes, or in words why the call stays plain PyTorch."""


@dataclass(frozen=True)
class Fixed:
    """An operand that is a constant."""

    node: fx.Node


@dataclass(eq=False)
class Waiting:
    """A convolution that the one behind it may do on the way.

    A depthwise one may do so for the one ``before`` it, and hand both on.
    """

    x: Value
    piece: Any
    make: Callable[[Planner], Value]  # it alone
    before: Waiting | None = None
    value: Value | None = None

    def settle(self, plan: Planner) -> Value:
        if self.value is None:
            self.value = self.make(plan)
        return self.value


def describe(node: fx.Node) -> str:
    """What a call is, for people to read."""
    if "what" in node.meta:
        return node.meta["what"]
    name = getattr(node.target, "__name__", str(node.target))
    if node.target not in vocabulary.FUNCTIONS.values():
        return str(node.target).removesuffix(".default")
    extra = ""
    if node.target is vocabulary.conv:
        weight = node.args[1].meta.get("val") if isinstance(node.args[1], fx.Node) else None
        if weight is not None:
            groups: Any = node.args[7]
            name = _kind(weight.shape, groups)
    if node.target in (vocabulary.conv, vocabulary.linear) and node.args[3] is not None:
        extra = " + residual"
    last = node.args[-1]
    if isinstance(last, str) and last != "none":
        extra += f" + {last}"
    return name.replace("_", " ") + extra


def _kind(sizes: Sequence[int], groups: int) -> str:
    high, wide = sizes[2:]
    if conv_images.is_stencil(sizes, groups):
        return f"depthwise conv {high}×{wide}"
    name = "pointwise conv" if high * wide == 1 else f"conv {high}×{wide}"
    return name if groups == 1 else f"grouped {name}"


def why_not(*operands: Any, activation: str = "none") -> str | None:
    values = [x for x in operands if isinstance(x, (Value, Waiting))]
    dtypes = {dtype_of(x) for x in values}
    if not values or any(isinstance(x, Fixed) for x in operands):
        return "an operand is a constant"
    if len(dtypes) != 1 or not dtypes <= set(ZEROS):
        names = " and ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
        return f"kernels take float32 and float64, not {names}"
    if any(isinstance(x, Value) and x.fake.numel() == 0 for x in values):
        return "there is nothing to compute"
    return epilogue.why_not(activation, *dtypes)


def dtype_of(x: Any) -> torch.dtype:
    return x.dtype if isinstance(x, Value) else x.x.dtype
