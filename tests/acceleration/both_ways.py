"""What the tests of accelerated models share: both ways to make one, and the comparison."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from pointwise.acceleration import accelerate, backend, dynamo

TOLERANCE = 1e-4  # of the largest result, as promised


def compiled(model: nn.Module, *args: Any) -> Callable:
    """Through torch.compile."""
    torch._dynamo.reset()
    dynamo._compiled.clear()
    return torch.compile(model, backend=backend)


def exported(model: nn.Module, *args: Any) -> Callable:
    """Through torch.export."""
    return accelerate(model, copy.deepcopy(args))


def assert_same(given: Any, wanted: Any) -> None:
    """The same structure, types, shapes, and numbers but for rounding."""
    one, spec = pytree.tree_flatten(given)
    other, wanted_spec = pytree.tree_flatten(wanted)
    assert spec == wanted_spec
    for a, b in zip(one, other, strict=True):
        if not isinstance(b, Tensor):
            assert a == b
            continue
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        if b.is_floating_point():
            scale = b[b.isfinite()].abs().max().item() if b.isfinite().any() else 1.0
            torch.testing.assert_close(a, b, rtol=TOLERANCE, atol=TOLERANCE * scale, equal_nan=True)
        else:
            assert torch.equal(a, b)


def assert_as_eager(model: nn.Module, faster: Callable, *args: Any) -> None:
    """Results as in eager PyTorch, and whatever happened to the inputs as well."""
    own, eager = copy.deepcopy(args), copy.deepcopy(args)
    with torch.no_grad():
        wanted = model(*eager)
        given = faster(*own)
    assert_same(given, wanted)
    assert_same(own, eager)
