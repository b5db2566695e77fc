"""A convolution with its norm and activation, and whether calling it is only what that says.

The fused kernels compute ``activation(norm(conv(x)))`` from parameters and numbers. Whatever else a
module does when it is called (a hook, a ``forward`` of its own, a weight computed from others) they
do not, and then the modules run one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from torch import nn
from torch.nn.modules import module as hooks

from pointwise.convolution.window import Window, window
from pointwise.functional.padding import resolve

PLAIN_FORWARDS: set[Callable] = {nn.Conv2d.forward}
"""What ``forward`` of a class is, if it is a convolution and nothing else; ours add themselves."""


class Unit(NamedTuple):
    """A convolution, its norm and its activation: ``activation(norm(conv(x)))``."""

    conv: nn.Conv2d
    norm: nn.Module | None = None
    activation: str | None = None
    own: bool = False
    """Whether the activation is the convolution's own, which is not to be applied twice."""


def is_ordinary(conv: nn.Conv2d, own: bool = False) -> bool:
    """Whether calling ``conv`` does what its weight, bias and numbers say, and nothing else.

    Its activation is something else, unless it is its ``own`` that is asked for.
    """
    return (
        type(conv).forward in PLAIN_FORWARDS
        and "forward" not in conv.__dict__
        and conv.padding_mode == "zeros"
        and conv._parameters.get("weight") is not None  # not one that is computed from others
        and (own or getattr(conv, "activation", None) is None)
        and not has_hooks(conv)
    )


def is_batch_norm(norm: nn.Module | None, conv: nn.Conv2d) -> bool:
    """Whether ``norm`` is PyTorch's batch norm, made for what comes out of ``conv``."""
    return (
        isinstance(norm, nn.BatchNorm2d)
        and type(norm).forward is nn.BatchNorm2d.forward
        and "forward" not in norm.__dict__
        and norm.num_features == conv.out_channels
        and all(
            row is None or (row.dtype == conv.weight.dtype and len(row) == conv.out_channels)
            for row in (norm.weight, norm.bias, norm.running_mean, norm.running_var)
        )
        and not has_hooks(norm)
    )


def has_hooks(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or hooks._global_forward_hooks
        or hooks._global_forward_pre_hooks
    )


def window_of(conv: nn.Conv2d, images: int, height: int, width: int) -> Window | None:
    """What a convolution reads of such images; None where its kernel does not fit into them."""
    padding = tuple(conv.padding) if isinstance(conv.padding, list) else conv.padding
    return _window(images, height, width, conv.kernel_size, conv.stride, padding, conv.dilation)


@lru_cache(maxsize=4096)
def _window(images, height, width, kernel, stride, padding, dilation) -> Window | None:
    try:
        edges = resolve("", padding, (height, width), kernel, stride, dilation)
    except ValueError:
        return None
    found = window(images, (height, width), kernel, stride, edges, dilation)
    return found if found.y.points > 0 and found.x.points > 0 and height * width > 0 else None
