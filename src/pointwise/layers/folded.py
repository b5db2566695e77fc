"""Inference: a convolution with its batch norm folded into the weight, packed once, run as one.

With fixed statistics, batch norm is a factor and a shift for each channel, which the weight and the
bias of the convolution before it can take over. What the kernels read is kept until one of the
tensors it came from changes.

Modules run one by one instead in training, where gradients are wanted, on other devices, under
autocast, while a graph is traced, with hooks on the modules, and for input that does not fit: their
own code says so best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as hooks

from pointwise.convolution.epilogue import fold
from pointwise.convolution.window import Window, window
from pointwise.engine.cpu.changes import Snapshot
from pointwise.engine.cpu.cut import is_better_joined
from pointwise.engine.cpu.loops import images as conv_images
from pointwise.engine.cpu.loops.inverted import inverted_step, is_better_in_one
from pointwise.engine.cpu.loops.winograd import winograd_step
from pointwise.engine.cpu.weights import Filtered
from pointwise.functional.padding import resolve
from pointwise.layers.link import Link

_kept: WeakKeyDictionary[nn.Module, tuple[list[Any], conv_images.Weights]] = WeakKeyDictionary()


class Folded:
    """A link as kernels take it, for an input of a certain shape."""

    def __init__(self, link: Link, window: Window) -> None:
        self.weights = _weights(link.conv, link.norm)
        self.window = window
        self.activation = link.activation or "none"
        shape = (window.images, link.conv.out_channels, window.y.points, window.x.points)
        self.shape = torch.Size(shape)  # of the result
        stencil = isinstance(self.weights, conv_images.Taps)
        self.multiplier = link.conv.out_channels // link.conv.in_channels if stencil else 1


def fold_link(shape: torch.Size, dtype: torch.dtype, link: Link) -> Folded | None:
    """A link for inputs of this shape, or None where it has to run as the modules it is of."""
    conv, _norm, activation, _own = link
    if (
        shape[1] != conv.in_channels
        or dtype != conv.weight.dtype
        or dtype not in (torch.float32, torch.float64)
        or (activation or "none") not in conv_images.EPILOGUES
        or not is_plain(conv.weight)
    ):
        return None
    seen = window_of(conv, shape[0], shape[2], shape[3])
    return None if seen is None else Folded(link, seen)


def are_better_joined(one: Folded, two: Folded) -> bool:
    """Whether two links can run in one tile loop, and are faster so."""
    return (
        is_separable(one, two) and one.multiplier == 1 and is_better_joined(two.weights)  # type: ignore[arg-type]
    )


def is_separable(one: Folded, two: Folded) -> bool:
    """Whether two links are a depthwise convolution and a pointwise one of all its channels."""
    return (
        isinstance(one.weights, conv_images.Taps)
        and isinstance(two.weights, conv_images.Mix)
        and two.weights.groups == 1
        and two.window.is_identity
    )


def can_be_first(first: Folded, one: Folded) -> bool:
    """Whether a convolution had better run with the depthwise one behind it."""
    return (
        isinstance(first.weights, conv_images.Mix)
        and isinstance(one.weights, conv_images.Taps)
        and one.multiplier == first.weights.groups == 1
        and is_better_joined(first.weights)
        and is_better_in_one(one.window, first.weights.columns, first.weights.dtype.itemsize)
    )


def in_one_loop(*links: Folded) -> int:
    """How many of the next links, up to three, had better run in one tile loop."""
    if len(links) > 2 and can_be_first(*links[:2]) and are_better_joined(*links[1:3]):
        return 3
    return 2 if len(links) > 1 and are_better_joined(*links[:2]) else 1


def step_of(
    x: Tensor, links: Sequence[Folded], out: Tensor, residual: Tensor | None
) -> conv_images.Step:
    """The launch of one, two or three links, as many as ``in_one_loop`` says."""
    if len(links) == 3:
        return step_of_three(x, links[0], links[1], links[2], out, residual)
    if len(links) == 2:
        return step_of_two(x, links[0], links[1], out, residual)
    return step_of_one(x, links[0], out, residual)


def step_of_one(x: Tensor, what: Folded, out: Tensor, residual: Tensor | None) -> conv_images.Step:
    """The launch of one link; a stencil takes no residual."""
    if isinstance(what.weights, Filtered):
        return winograd_step(x, what.weights, what.window, out, residual, what.activation)
    assert isinstance(what.weights, (conv_images.Mix, conv_images.Taps))
    if isinstance(what.weights, conv_images.Mix):
        return conv_images.mixed_step(x, what.weights, what.window, out, residual, what.activation)
    return conv_images.depthwise_step(x, what.weights, what.window, out, what.activation)


def step_of_two(
    x: Tensor, one: Folded, two: Folded, out: Tensor, residual: Tensor | None
) -> conv_images.Step:
    """The launch of a depthwise and a pointwise link in one tile loop."""
    assert isinstance(one.weights, conv_images.Taps)
    assert isinstance(two.weights, conv_images.Mix)
    return conv_images.separable_step(x, one.weights, two.weights, one.window, out, residual,
                                 one.activation, two.activation)  # fmt: skip


def step_of_three(
    x: Tensor, first: Folded, one: Folded, two: Folded | None, out: Tensor, residual: Tensor | None
) -> conv_images.Step:
    """The launch of a convolution, a depthwise one and maybe a pointwise one in one tile loop."""
    assert isinstance(first.weights, conv_images.Mix)
    assert isinstance(one.weights, conv_images.Taps)
    last = None if two is None else two.weights
    assert last is None or isinstance(last, conv_images.Mix)
    activations = first.activation, one.activation, "none" if two is None else two.activation
    return inverted_step(x, first.weights, first.window, one.weights, one.window, last, out,
                         residual, activations)  # fmt: skip


def steps_of_multiplied(
    x: Tensor, one: Folded, two: Folded, wide: Tensor, out: Tensor, residual: Tensor | None
) -> tuple[list[conv_images.Step], list[conv_images.Step]]:
    """The launches of a depthwise link with a depth multiplier m, and of the pointwise one behind.

    Launch j of m writes the j-th result of every channel, so that channels stay side by side for
    the stencil, and nothing is repeated. ``wide`` then holds them in the order j·C + c, and not
    c·m + j as the modules have it, and the mix reads its weight in that order too.
    """
    steps = [step_of_part(x, one, wide, j) for j in range(one.multiplier)]
    return steps, [step_behind_parts(wide, one, two, out, residual)]


def step_of_part(x: Tensor, one: Folded, wide: Tensor, j: int) -> conv_images.Step:
    """Launch j of ``steps_of_multiplied``."""
    assert isinstance(one.weights, conv_images.Taps)
    many, channels = one.multiplier, x.shape[1]
    own = conv_images.Taps(one.weights.weight[:, j::many].contiguous(),
                           one.weights.bias[j::many].contiguous())  # fmt: skip
    part = wide[:, j * channels : (j + 1) * channels]
    return conv_images.depthwise_step(x, own, one.window, part, one.activation)


def step_behind_parts(
    wide: Tensor, one: Folded, two: Folded, out: Tensor, residual: Tensor | None
) -> conv_images.Step:
    """The mix of ``steps_of_multiplied``."""
    assert isinstance(two.weights, conv_images.Mix)
    many, channels = one.multiplier, wide.shape[1] // one.multiplier
    packed = two.weights.packed.unflatten(2, (channels, many)).transpose(2, 3).flatten(2, 3)
    mix = replace(two.weights, packed=packed.contiguous())
    return conv_images.mixed_step(wide, mix, two.window, out, residual, two.activation)


def can_run(input: Tensor, residual: Tensor | None) -> bool:
    """Whether tensors are what kernels take, and nobody wants their gradients."""
    if torch.compiler.is_compiling() or not is_plain(input) or input.dim() != 4:
        return False
    if residual is not None and not is_plain(residual):
        return False
    if torch.is_autocast_enabled("cpu"):
        return False
    return not torch.is_grad_enabled() or not (
        input.requires_grad or (residual is not None and residual.requires_grad)
    )


def is_fixed(link: Link) -> bool:
    """Whether a link is a convolution with fixed statistics or no norm, without gradients."""
    conv, norm, _activation, own = link
    return (
        is_ordinary(conv, own)
        and (norm is None or _has_fixed_statistics(norm, conv))
        and not (torch.is_grad_enabled() and _wants_grad(conv, norm))
    )


def is_plain(x: Tensor) -> bool:
    """Whether ``x`` is an ordinary tensor in memory that nobody is tracing."""
    return (
        type(x) in (Tensor, nn.Parameter)
        and x.device.type == "cpu"
        and not torch._C._functorch.is_functorch_wrapped_tensor(x)  # type: ignore[attr-defined]
        and torch._C._len_torch_dispatch_stack() == 0
        and forward_ad._current_level < 0
        and not torch.jit.is_tracing()
        and not torch.onnx.is_in_onnx_export()
    )


def is_ordinary(conv: nn.Conv2d, own: bool = False) -> bool:
    """Whether calling ``conv`` does what its weight, bias and numbers say, and nothing else.

    Its activation is something else, unless it is its ``own`` that is asked for.
    """
    from pointwise.layers.images import Conv2d

    return (
        type(conv).forward in (nn.Conv2d.forward, Conv2d.forward)
        and "forward" not in conv.__dict__
        and conv.padding_mode == "zeros"
        and conv._parameters.get("weight") is not None  # not one that is computed from others
        and (own or getattr(conv, "activation", None) is None)
        and not has_hooks(conv)
    )


def _has_fixed_statistics(norm: nn.Module, conv: nn.Conv2d) -> bool:
    return is_batch_norm(norm, conv) and not norm.training and norm.running_mean is not None


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


def _wants_grad(*modules: nn.Module | None) -> bool:
    return any(
        parameter.requires_grad
        for module in modules
        if module is not None
        for parameter in module.parameters(recurse=False)
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
    """What a convolution sees of such images; None where its kernel does not fit into them."""
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


class _Source:
    """A tensor as it was when a weight was folded; ``is_still`` says whether it has changed since.

    Seen are another tensor in its place, and whatever a ``Snapshot`` tells.
    """

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor
        if isinstance(tensor, Tensor):
            self.snapshot = Snapshot([tensor])

    def is_still(self, tensor: Any) -> bool:
        if not isinstance(tensor, Tensor):
            return tensor == self.tensor
        return tensor is self.tensor and self.snapshot.is_still([tensor])


def _are_still(sources: list[_Source], tensors: list[Any]) -> bool:
    return len(sources) == len(tensors) and all(
        source.is_still(tensor) for source, tensor in zip(sources, tensors, strict=True)
    )


def _weights(conv: nn.Conv2d, norm: nn.Module | None) -> conv_images.Weights:
    tensors: list[Any] = [conv.weight, conv.bias]
    if norm is not None:
        tensors += [norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.eps]
    kept = _kept.get(conv)
    if kept is not None and _are_still(kept[0], tensors):
        return kept[1]
    with torch.no_grad():
        weight, bias = fold(conv.weight, conv.bias, norm)
        weight = weight.detach()
        packed: conv_images.Weights
        if conv_images.is_stencil(weight.shape, conv.groups):
            packed = conv_images.taps(weight, bias)
        else:
            packed = conv_images.mix(weight, bias, conv.groups)
    _kept[conv] = ([_Source(tensor) for tensor in tensors], packed)
    return packed
