"""How an operator becomes known to PyTorch: its schema, its kernels and the shapes it gives."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable
from types import SimpleNamespace

import torch

from pointwise.engine import gpu
from pointwise.engine.eager import is_unseen

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
    cuda: Callable | None = None,
) -> None:
    """An operator by its schema: CPU kernel, plain PyTorch for other devices, shapes alone.

    ``cuda`` is the form on GPUs; where its kernels cannot run, the plain form does, with a warning,
    and where it gives None, because PyTorch's own is faster.
    ``check`` refuses arguments by what can be known without values (and is not asked twice about
    the same shapes, types and numbers), ``check_values`` by values; the forms themselves are called
    with what is right. An operator without them checks for itself.
    """
    name = schema.split("(")[0]
    # PyTorch lets None pass for any tensor.
    given = schema[len(name) + 1 : schema.index(") ->")].split(", ")
    needed = [(i, each.split()[1]) for i, each in enumerate(given) if each.startswith("Tensor ")]

    sound: set[tuple] = set()  # what arguments were like that passed

    def checked(function: Callable) -> Callable:
        @functools.wraps(function)
        def call(*arguments):
            like = tuple(map(_signature, arguments))
            if like not in sound:
                for place, required in needed:
                    if arguments[place] is None:
                        raise TypeError(f"{name}: {required} must be a tensor, got None")
                if check is not None:
                    check(*arguments)
                if len(sound) >= _MOST:
                    sound.clear()
                sound.add(like)
            if check_values is not None:
                check_values(*arguments)
            return function(*arguments)

        return untraced(call)

    @functools.wraps(fake)
    def foreseen(*arguments):
        # Sizes that are open are not compared: that would fix them in the graph.
        if check is not None and not any(map(_is_open, arguments)):
            check(*arguments)
        return fake(*arguments)

    library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    on_cpu = checked(cpu)
    library.impl(name, on_cpu, "CPU")
    library.impl(name, checked(plain), "CompositeExplicitAutograd")
    if cuda is not None:
        on_gpu[name] = checked(_where_it_can(cuda, plain))
        library.impl(name, on_gpu[name], "CUDA")
    torch.library.register_fake(f"pointwise::{name}", foreseen, lib=library)
    setattr(ops, name, _quick(getattr(torch.ops.pointwise, name), on_cpu))
    setattr(at_once, name, on_cpu)


def _where_it_can(cuda: Callable, plain: Callable) -> Callable:
    """The form on GPUs, or the plain one where no kernel runs on the device that was given."""

    @functools.wraps(cuda)
    def call(*arguments):
        device = next(each.device for each in arguments if isinstance(each, torch.Tensor))
        if why := gpu.why_not(device):
            _warn_once(str(device), why)
            return plain(*arguments)
        found = cuda(*arguments)
        return plain(*arguments) if found is None else found

    return call


@functools.lru_cache
def _warn_once(device: str, why: str) -> None:
    warnings.warn(
        f"pointwise: no kernels on {device}, only PyTorch's own, which take longer: {why}",
        stacklevel=2,
    )


on_gpu: dict[str, Callable] = {}
"""The forms of the operators on GPUs with their checks; for tests, which run them interpreted."""

ops = SimpleNamespace()
"""``torch.ops.pointwise``; called past PyTorch's dispatcher, which takes as long as a small
convolution, where nobody would notice."""

at_once = SimpleNamespace()
"""The CPU forms of the operators with their checks, for arguments that are ``is_unseen``."""


def _quick(operator: Callable, on_cpu: Callable) -> Callable:
    def call(*arguments):
        return on_cpu(*arguments) if is_unseen(arguments) else operator(*arguments)

    return call


_MOST = 4096  # kinds of arguments that an operator remembers


def _signature(argument):
    """All that ``check`` may look at."""
    if isinstance(argument, torch.Tensor):
        return argument.shape, argument.dtype, argument.device, argument.layout
    return tuple(argument) if isinstance(argument, list) else argument


def _is_open(argument) -> bool:
    """Whether a size is not known yet."""
    if isinstance(argument, torch.Tensor):
        argument = argument.shape
    if isinstance(argument, (tuple, list)):
        return any(isinstance(size, torch.SymInt) for size in argument)
    return isinstance(argument, torch.SymInt)
