"""Inference: a convolution with its batch norm folded into the weight, packed once, run as one.

With fixed statistics, batch norm is a factor and a shift for each channel, which the weight and the
bias of the convolution before it can take over. What the kernels read is kept until one of the
tensors it came from changes.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from pointwise import conv2d
from pointwise.epilogue import finish, fold
from pointwise.functional.padding import resolve
from pointwise.gathers.window import Window, window

_kept: WeakKeyDictionary[nn.Module, tuple[list, conv2d.Mix | conv2d.Taps]] = WeakKeyDictionary()


class Folded:
    """A convolution and its norm as kernels take them, for an input of a certain shape."""

    def __init__(self, conv: nn.Conv2d, norm: nn.Module | None, window: Window) -> None:
        self.weights = _weights(conv, norm)
        self.window = window

    @property
    def shape(self) -> torch.Size:
        """Of the result."""
        window, weights = self.window, self.weights
        if isinstance(weights, conv2d.Mix):
            channels = weights.groups * weights.columns
        else:
            channels = weights.weight.shape[1]
        return torch.Size((window.images, channels, window.y.points, window.x.points))


def folded(
    input: Tensor,
    conv: nn.Conv2d,
    norm: nn.Module | None,
    activation: str | None,
    residual: Tensor | None,
) -> Folded | None:
    """What is to be run, or None where the modules have to run one by one.

    So it is in training, where gradients are wanted, on other devices, under autocast, while a
    graph is traced, with hooks on the modules, and for input that does not fit: their own code says
    so best.
    """
    if torch.compiler.is_compiling() or not _is_plain(input) or input.dim() != 4:
        return None
    needs_grad = torch.is_grad_enabled() and (
        input.requires_grad or (residual is not None and residual.requires_grad)
    )
    if needs_grad:
        return None
    found = behind(input.shape, input.dtype, conv, norm, activation)
    if found is None or residual is None:
        return found
    shape = (input.shape[0], conv.out_channels, found.window.y.points, found.window.x.points)
    fits = residual.shape == shape and residual.dtype == input.dtype
    return found if fits and _is_plain(residual) else None


def behind(
    shape: torch.Size,
    dtype: torch.dtype,
    conv: nn.Conv2d,
    norm: nn.Module | None,
    activation: str | None,
) -> Folded | None:
    """``folded`` for an input of which only shape and type are known."""
    if (
        shape[1] != conv.in_channels
        or dtype != conv.weight.dtype
        or dtype not in (torch.float32, torch.float64)
        or (torch.is_grad_enabled() and conv.weight.requires_grad)
        or torch.is_autocast_enabled("cpu")
        or not _is_ordinary(conv)
        or not _is_fixed(norm)
        or (activation or "none") not in conv2d.EPILOGUES
    ):
        return None
    stencil = conv2d.is_stencil(conv.weight.shape, conv.groups)
    if stencil and conv.out_channels != conv.in_channels:
        return None  # a depth multiplier
    padding = tuple(conv.padding) if isinstance(conv.padding, list) else conv.padding
    seen = _window(shape[0], shape[2], shape[3], conv.kernel_size, conv.stride, padding,
                   conv.dilation)  # fmt: skip
    return None if seen is None else Folded(conv, norm, seen)


def run(
    input: Tensor, what: Folded, activation: str | None, residual: Tensor | None = None
) -> Tensor:
    """``activation(norm(conv(input)) + residual)``."""
    input = input.contiguous(memory_format=torch.channels_last)
    named = activation or "none"
    if isinstance(what.weights, conv2d.Mix):
        if residual is not None:
            residual = residual.contiguous(memory_format=torch.channels_last)
        return conv2d.mixed(input, what.weights, what.window, residual, named)
    if residual is None:
        return conv2d.depthwise(input, what.weights, what.window, named)
    return finish(conv2d.depthwise(input, what.weights, what.window), residual, named)


def run_pair(
    input: Tensor,
    first: Folded,
    between: str | None,
    second: Folded,
    activation: str | None,
    residual: Tensor | None = None,
) -> Tensor | None:
    """Both in one tile loop, or None where that is impossible or slower."""
    if not isinstance(first.weights, conv2d.Taps) or not isinstance(second.weights, conv2d.Mix):
        return None
    if second.weights.groups > 1 or not second.window.is_identity:
        return None
    if not conv2d.is_better_joined(first.window, second.weights):
        return None
    input = input.contiguous(memory_format=torch.channels_last)
    if residual is not None:
        residual = residual.contiguous(memory_format=torch.channels_last)
    return conv2d.separable(input, first.weights, second.weights, first.window, residual,
                            between or "none", activation or "none")  # fmt: skip


def forget(conv: nn.Module) -> None:
    """Drops what is kept of a convolution."""
    _kept.pop(conv, None)


def _is_plain(x: Tensor) -> bool:
    """Whether ``x`` is an ordinary tensor in memory that nobody is tracing."""
    return (
        type(x) in (Tensor, nn.Parameter)
        and x.device.type == "cpu"
        and not torch._C._functorch.is_functorch_wrapped_tensor(x)  # type: ignore[attr-defined]
        and torch._C._len_torch_dispatch_stack() == 0
        and not torch.jit.is_tracing()
        and not torch.onnx.is_in_onnx_export()
    )


def _is_ordinary(conv: nn.Conv2d) -> bool:
    """Whether calling ``conv`` does what its weight, bias and numbers say, and nothing else."""
    from pointwise.layers.images import Conv2d

    return (
        type(conv).forward in (nn.Conv2d.forward, Conv2d.forward)
        and conv.padding_mode == "zeros"
        and getattr(conv, "activation", None) is None
        and not has_hooks(conv)
    )


def _is_fixed(norm: nn.Module | None) -> bool:
    """Whether ``norm`` is a batch norm with fixed statistics, or none at all."""
    if norm is None:
        return True
    return (
        isinstance(norm, nn.BatchNorm2d)
        and type(norm).forward is nn.BatchNorm2d.forward
        and not norm.training
        and norm.running_mean is not None
        and not has_hooks(norm)
    )


def has_hooks(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or hooks._global_forward_hooks
        or hooks._global_forward_pre_hooks
    )


@lru_cache(maxsize=4096)
def _window(images, height, width, kernel, stride, padding, dilation) -> Window | None:
    try:
        edges = resolve("", padding, (height, width), kernel, stride, dilation)
    except ValueError:
        return None
    found = window(images, (height, width), kernel, stride, edges, dilation)
    return found if found.y.points > 0 and found.x.points > 0 and height * width > 0 else None


def _weights(conv: nn.Conv2d, norm: nn.Module | None) -> conv2d.Mix | conv2d.Taps:
    tensors = [conv.weight, conv.bias]
    if norm is not None:
        tensors += [norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.eps]
    state = [_state(tensor) for tensor in tensors]
    kept = _kept.get(conv)
    if kept is not None and _same(kept[0], state):
        return kept[1]
    with torch.no_grad():
        weight, bias = fold(conv.weight, conv.bias, norm)
        weight = weight.detach()
        packed: conv2d.Mix | conv2d.Taps
        if conv2d.is_stencil(weight.shape, conv.groups):
            packed = conv2d.taps(weight, bias)
        else:
            packed = conv2d.mix(weight, bias, conv.groups)
    if not any(isinstance(tensor, Tensor) and tensor.is_inference() for tensor in tensors):
        _kept[conv] = (state, packed)  # of inference tensors, nobody knows when they change
    return packed


def _state(tensor) -> tuple:
    """What changes when a tensor does: which it is, its version, where it lies, how it begins.

    The last is for those who write to ``tensor.data``, which leaves the version as it was.
    """
    if not isinstance(tensor, Tensor):
        return (tensor,)
    if tensor.is_inference() or tensor.numel() * tensor.element_size() < 4:
        return (tensor, 0, 0, 0)
    address = tensor.data_ptr()
    return tensor, tensor._version, address, ctypes.c_int32.from_address(address).value


def _same(one: list[tuple], other: list[tuple]) -> bool:
    return len(one) == len(other) and all(
        a[0] is b[0] and a[1:] == b[1:] if len(a) == 4 else a == b
        for a, b in zip(one, other, strict=True)
    )
