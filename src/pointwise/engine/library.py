"""How an operator becomes known to PyTorch: its schema, its kernels and the shapes it gives."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable
from types import SimpleNamespace

import torch

from pointwise.engine import gpu
from pointwise.engine.eager import is_unseen, wants_gradients

library = torch.library.Library("pointwise", "DEF")


def untraced(function):
    """Keeps Dynamo out of ``function``, also where the caller's graph breaks.

    It would trace the arrays whose addresses the kernels are given, and leave them dangling.
    """

    disabled = None

    @functools.wraps(function)
    def call(*arguments):
        nonlocal disabled
        # Dynamo takes a second to import, and microseconds to be disabled: not for nothing.
        dynamo = sys.modules.get("torch._C._dynamo.eval_frame")
        if dynamo is None or dynamo.get_eval_frame_callback() is None:
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

    def allow(*arguments) -> None:
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

    def checked(function: Callable) -> Callable:
        @functools.wraps(function)
        def call(*arguments):
            allow(*arguments)
            return own(function(*arguments))

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
    if cuda is not None:
        on_gpu[name] = checked(_where_it_can(cuda, plain))
        library.impl(name, on_gpu[name], "CUDA")
    torch.library.register_fake(f"pointwise::{name}", foreseen, lib=library)
    setattr(at_once, name, untraced(cpu))
    setattr(ops, name, _quick(name, getattr(torch.ops.pointwise, name), untraced(allow)))


def differentiate(name: str, backward: Callable, setup_context: Callable) -> None:
    """The gradients of an operator, as ``torch.library.register_autograd`` takes them."""
    torch.library.register_autograd(
        f"pointwise::{name}", backward, setup_context=setup_context, lib=library
    )
    on_cpu = getattr(at_once, name)

    def forward(ctx, *arguments):
        result = own(on_cpu(*arguments))
        setup_context(ctx, arguments, result)
        return result

    # PyTorch makes such a function too, and calls it in four times as long.
    parts = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    function = type(f"pointwise_{name}", (torch.autograd.Function,), parts)

    def call(*arguments):
        return function.apply(*arguments) if wants_gradients(arguments) else on_cpu(*arguments)  # type: ignore[attr-defined]

    setattr(at_once, name, call)
    _differentiable.add(name)


def own(result):
    """The same memory as tensors of its own: PyTorch lets nobody write to a view that a function
    of ours returns, as ``relu_`` behind a convolution would."""
    if isinstance(result, tuple):
        return tuple(map(own, result))
    return result.data if isinstance(result, torch.Tensor) and result._is_view() else result


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
"""The CPU forms of the operators, with their gradients where they have been given some, for
arguments that are ``is_unseen`` and have been checked."""


def _quick(name: str, operator: Callable, allow: Callable) -> Callable:
    def call(*arguments):
        if is_unseen(arguments) and (name in _differentiable or not wants_gradients(arguments)):
            allow(*arguments)
            return getattr(at_once, name)(*arguments)
        return operator(*arguments)

    return call


_differentiable: set[str] = set()


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
