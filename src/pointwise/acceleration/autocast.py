"""Accelerated models under autocast to bfloat16: on kernels, where the machine has its products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from pointwise.acceleration.plans import key_of
from pointwise.engine.cpu import pairs
from pointwise.engine.eager import why_not_now

_MOST = 8  # kinds of inputs whose types of results are kept


class UnderAutocast:
    """A model with products of bfloat16, made when first asked for, and the types of its results.

    What is between products stays float32, and results are rounded to the types that PyTorch gives,
    which are those of a first run in plain PyTorch.
    """

    def __init__(self) -> None:
        self._types: dict[tuple, list[torch.dtype | None]] = {}
        self._twins: list[Any] = []  # in a list, so as not to be a submodule

    def run(self, model: Any, inputs: Sequence[Any]) -> list[Any] | None:
        """The results for inputs in a row; None where something else than autocast is in the way,
        or this machine has no products of bfloat16.
        """
        if pairs.WHY_NOT or torch.get_autocast_dtype("cpu") != torch.bfloat16:
            return None
        with torch.autocast("cpu", enabled=False):
            key = why_not_now() or key_of(inputs)
        if isinstance(key, str):
            return None
        types = self._types.get(key)
        if types is None:
            model.inputs.check(inputs)
            found = model.run_plain(inputs)
            types = [x.dtype if isinstance(x, Tensor) else None for x in found]
            if len(self._types) >= _MOST:
                self._types.clear()
            self._types[key] = types
        if not self._twins:
            self._twins.append(model.in_bf16())
        args, kwargs = pytree.tree_unflatten(inputs, model.inputs.spec)
        with torch.autocast("cpu", enabled=False):
            found = pytree.tree_leaves(self._twins[0](*args, **kwargs))
        return [x if dtype is None else x.to(dtype) for x, dtype in zip(found, types, strict=True)]
