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


def define(
    schema: str,
    cpu: Callable,
    plain: Callable,
    fake: Callable,
    check: Callable | None = None,
    check_values: Callable | None = None,
) -> None:
    """An operator by its schema: CPU kernel, plain PyTorch for other devices, shapes alone.

    ``check`` refuses arguments by what can be known without values, ``check_values`` by values; the
    forms themselves are called with what is right. An operator without them checks for itself.
    """
    name = schema.split("(")[0]
    # PyTorch lets None pass for any tensor.
    given = schema[len(name) + 1 : schema.index(") ->")].split(", ")
    needed = [(i, each.split()[1]) for i, each in enumerate(given) if each.startswith("Tensor ")]

    def checked(function: Callable) -> Callable:
        @functools.wraps(function)
        def call(*arguments):
            for place, required in needed:
                if arguments[place] is None:
                    raise TypeError(f"{name}: {required} must be a tensor, got None")
            for each in (check, check_values):
                if each is not None:
                    each(*arguments)
            return function(*arguments)

        return untraced(call)

    @functools.wraps(fake)
    def foreseen(*arguments):
        # Sizes that are open are not compared: that would fix them in the graph.
        if check is not None and not any(map(_is_open, arguments)):
            check(*arguments)
        return fake(*arguments)

    library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    library.impl(name, checked(cpu), "CPU")
    library.impl(name, checked(plain), "CompositeExplicitAutograd")
    torch.library.register_fake(f"pointwise::{name}", foreseen, lib=library)


def _is_open(argument) -> bool:
    """Whether a size is not known yet."""
    if isinstance(argument, torch.Tensor):
        argument = argument.shape
    if isinstance(argument, (tuple, list)):
        return any(isinstance(size, torch.SymInt) for size in argument)
    return isinstance(argument, torch.SymInt)
