"""Whether a model cuts images into windows, as Swin and its kin do.

Every such cut asks of a trace with open sizes whether they can be divided so, in terms of all cuts
before: it takes minutes. With sizes that are fixed it takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from pointwise.acceleration.arguments import Given, called

aten = torch.ops.aten
_VIEWS = (aten.view.default, aten._unsafe_view.default, aten._reshape_alias.default)
_FEW = 4  # a pixel shuffle or two cost little


def cuts_windows(model: nn.Module, example: Given) -> bool:
    """Found out by running the model once."""
    with torch.no_grad(), _Cuts() as cuts:
        try:
            called(model, example)
        except Exception:  # and whoever traces it says why
            return False
    return cuts.count > _FEW


class _Cuts(TorchDispatchMode):
    """Counts views that divide two dimensions at once, or more."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in _VIEWS and isinstance(args[0], Tensor):
            self.count += divided(args[0].shape, out.shape) > 1
        return out


def divided(before: Sequence[int], after: Sequence[int]) -> int:
    """How many dimensions a view divides into several."""
    found, parts = 0, [size for size in after if size != 1]
    for size in before:
        product = count = 1
        while parts and product < size and size % (product * parts[0]) == 0:
            product *= parts.pop(0)
            count += 1
        if product != size:  # dimensions are put together here
            return found
        found += count > 2
    return found
