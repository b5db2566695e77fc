"""Calls that torch.export need not take apart to find out what shapes they give.

With open sizes that takes up to a second for each: resizing and batch norms are resolved into tens
of calls, and each asks about strides and broadcasting. As operators of ours they are one. Of
activations, which take up to 50 ms each that way, it is known that they give what they take.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pointwise.acceleration.resize import resize, resized
from pointwise.engine.library import library

_NAME = "fixed_norm"


def _normed(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    eps: float,
) -> Tensor:
    """A batch norm by statistics that are given."""
    return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps)


library.define(
    f"{_NAME}(Tensor x, Tensor? weight, Tensor? bias, Tensor mean, Tensor variance, float eps)"
    " -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)
library.impl(_NAME, _normed, "CompositeExplicitAutograd")
torch.library.register_fake(f"pointwise::{_NAME}", lambda x, *_: torch.empty_like(x), lib=library)

fixed_norm = torch.ops.pointwise.fixed_norm.default


class WholeCalls(TorchFunctionMode):
    """Traces such calls as they are."""

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.interpolate and (arguments := resized(args, kwargs)) is not None:
            return resize(*arguments)
        if func is F.batch_norm and (arguments := _fixed(*args, **kwargs)) is not None:
            return fixed_norm(*arguments)
        return func(*args, **kwargs)


def _fixed(x: Tensor, mean: Any, variance: Any, weight: Any = None, bias: Any = None,
           training: bool = False, momentum: float = 0.1,
           eps: float = 1e-5) -> tuple | None:  # fmt: skip
    """The arguments of ``fixed_norm``; None where it is none."""
    of_one_type = all(row is None or row.dtype == x.dtype for row in (mean, variance, weight, bias))
    if training or mean is None or variance is None or x.dim() < 2 or not of_one_type:
        return None
    return x, weight, bias, mean, variance, eps


aten = torch.ops.aten
_AS_THEY_TAKE = (aten.relu.default, aten.hardtanh.default, aten.hardswish.default,
                 aten.hardsigmoid.default, aten.silu.default, aten.gelu.default,
                 aten.leaky_relu.default, aten.elu.default, aten.mish.default)  # fmt: skip
_IN_PLACE = (aten.relu_.default, aten.hardtanh_.default, aten.hardswish_.default,
             aten.hardsigmoid_.default, aten.silu_.default, aten.leaky_relu_.default,
             aten.elu_.default, aten.mish_.default)  # fmt: skip


@contextmanager
def known_activations() -> Iterator[None]:
    """Activations give tensors like their argument, which PyTorch is told where it asks first.

    The table is PyTorch's own and not promised: without it everything works, and takes longer.
    """
    from torch._subclasses import fake_impls

    if not hasattr(fake_impls, "get_fast_op_impls"):
        yield
        return
    table = fake_impls.get_fast_op_impls()
    ours = {**dict.fromkeys(_AS_THEY_TAKE, _like), **dict.fromkeys(_IN_PLACE, _itself)}
    before = {name: table[name] for name in ours if name in table}
    table.update(ours)
    try:
        yield
    finally:
        for name in ours:
            del table[name]
        table.update(before)


def _like(mode: Any, x: Tensor, *_: Any, **__: Any) -> Tensor:
    with mode:
        return torch.empty_like(x)


def _itself(mode: Any, x: Tensor, *_: Any, **__: Any) -> Tensor:
    return x
