"""How an operator becomes known to PyTorch: its schema, its kernels and the shapes it gives."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable

import torch

library = torch.library.Library("pointwise", "DEF")


def untraced(function):
    """Keeps Dynamo out of ``function``, also where the caller's graph breaks.

    It would trace the arrays whose addresses the kernels are given, and leave them dangling.
    """

    disabled = None

    @functools.wraps(function)
    def call(*arguments):
        nonlocal disabled
        if "torch._dynamo" not in sys.modules:  # it takes a second to import: never for this
            return function(*arguments)
        if disabled is None:
            disabled = torch.compiler.disable(function)
        return disabled(*arguments)

    return call


def define(schema: str, cpu: Callable, plain: Callable, fake: Callable) -> None:
    """An operator by its schema: CPU kernel, plain PyTorch for other devices, shapes alone."""
    name = schema.split("(")[0]
    library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    library.impl(name, untraced(cpu), "CPU")
    library.impl(name, untraced(plain), "CompositeExplicitAutograd")
    torch.library.register_fake(f"pointwise::{name}", fake, lib=library)
