"""What all convolutions on images, lines and volumes do: check, complete, choose the operator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

from pointwise import checks
from pointwise.convolution.epilogue import ACTIVATIONS, finish
from pointwise.convolution.shift import padding_of, shift, shift_window
from pointwise.engine.eager import is_unseen
from pointwise.engine.library import at_once
from pointwise.functional.padding import Padding, resolve
from pointwise.operators import ops

Size = int | Sequence[int]


def convolve(
    caller: str,
    dimensions: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Size,
    padding: Padding,
    dilation: Size,
    groups: int | None,
    activation: str | None,
    residual: Tensor | None,
    kind: str = "standard",
) -> Tensor:
    """``activation(convolution + bias + residual)`` in 1, 2 or 3 ``dimensions``.

    ``groups`` is None for the depthwise ``kind``, which has one for every channel.
    """
    call = _complete(caller, dimensions, input, weight, bias, stride, padding, dilation, groups,
                     activation, residual, kind)  # fmt: skip
    compute = {1: _on_line, 2: _on_image, 3: _on_volume}[dimensions]
    out = compute(*call[:-1])
    return out if input.dim() == dimensions + 2 else out.squeeze(0)


class _Call(NamedTuple):
    """A convolution with everything spelled out: an input with a batch, numbers per dimension."""

    input: Any  # the tensors
    weight: Any
    bias: Tensor | None
    residual: Tensor | None
    stride: list[int]
    edges: list[int]
    dilation: list[int]
    groups: int
    activation: str
    unseen: bool  # whether nobody would notice that PyTorch's dispatcher is passed by
    shape: tuple[int, ...]  # of the result


def _complete(
    caller: str,
    dimensions: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Size,
    padding: Padding,
    dilation: Size,
    groups: int | None,
    activation: str | None,
    residual: Tensor | None,
    kind: str,
    names: tuple[str, str] = ("weight", "bias"),
) -> _Call:
    """Checks everything; ``names`` are what the caller calls weight and bias.

    What passed with tensors of the same shapes and types is not checked again.
    """
    tensors = (input, weight, bias, residual)
    unseen = is_unseen(tensors)
    key = None
    if unseen or not _is_watched():
        key = _key(tensors, stride, padding, dilation, groups, activation, kind, caller, names[0])
    found = _passed.get(key)
    if found is None:
        call = _checked(caller, dimensions, *tensors, stride, padding, dilation, groups, activation,
                        kind, names)  # fmt: skip
        if key is not None:
            if len(_passed) >= _MOST:
                _passed.clear()
            _passed[key] = call._replace(input=None, weight=None, bias=None, residual=None)
        return call._replace(unseen=unseen)
    if input.dim() != dimensions + 2:
        input = input.unsqueeze(0)
        residual = None if residual is None else residual.unsqueeze(0)
    if weight.dim() == 2:
        weight = weight.reshape(*weight.shape, *[1] * dimensions)
    return found._replace(input=input, weight=weight, bias=bias, residual=residual, unseen=unseen)


_MOST = 4096
_passed: dict[tuple | None, _Call] = {}  # never of None


def _is_watched() -> bool:
    """Whether graphs are traced, or autocast is on."""
    return (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch.is_autocast_enabled("cpu")
        or torch.is_autocast_enabled("cuda")
    )


def _key(tensors: Sequence[Any], *placed: Any) -> tuple | None:
    """What the checks of a call depend on; None where that cannot be said.

    Numbers of other types compare alike (True and 1, say), and are checked every time.
    """
    key: list[Any] = []
    for x in tensors:
        if type(x) is Tensor or type(x) is Parameter:  # no other has sizes that are open
            key.append((x.shape, x.dtype, x.device, x.layout))
        elif x is None:
            key.append(None)
        else:
            return None
    for given in placed:
        kind = type(given)
        if kind is tuple or kind is list:
            for number in given:
                if type(number) is not int:
                    return None
            given = tuple(given)
        elif kind is not int and kind is not str and given is not None:
            return None
        key.append(given)
    return tuple(key)


def _checked(
    caller: str,
    dimensions: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    stride: Size,
    padding: Padding,
    dilation: Size,
    groups: int | None,
    activation: str | None,
    kind: str,
    names: tuple[str, str],
) -> _Call:
    with _unrecorded():
        checks.image(caller, input, dimensions)
    batched = input.dim() == dimensions + 2
    x = input if batched else input.unsqueeze(0)
    if kind == "pointwise" and isinstance(weight, Tensor) and weight.dim() == 2:
        weight = weight.reshape(*weight.shape, *[1] * dimensions)
    with _unrecorded():
        channels = x.shape[1]
        groups = channels if groups is None else groups
        checks.groups(caller, groups, channels)
        checks.kernel_weight(caller, names[0], weight, channels, groups, dimensions, kind)
        outputs = weight.shape[0]
        if bias is not None:
            checks.weight(caller, names[1], bias, (outputs,), f"[C_out={outputs}]")
        steps = checks.per_dimension(caller, "stride", stride, dimensions)
        spread = checks.per_dimension(caller, "dilation", dilation, dimensions)
        kernel = weight.shape[2:]
        edges = resolve(caller, padding, x.shape[2:], kernel, steps, spread)
        sizes = checks.output_sizes(caller, x.shape[2:], kernel, steps, edges, spread)
        named = "none" if activation is None else activation
        checks.one_of(caller, "activation", named, tuple(ACTIVATIONS))
        shape = (x.shape[0], outputs, *sizes)
        if residual is not None:
            shown = shape if batched else shape[1:]
            checks.weight(caller, "residual", residual, shown, f"like the result, {list(shown)}")
    if residual is not None:
        residual = residual if batched else residual.unsqueeze(0)
    checks.alike(caller, **{names[0]: weight, names[1]: bias})
    x, weight, bias, residual = in_autocast(x, weight, bias, residual)
    given = {"input": x, names[0]: weight, names[1]: bias, "residual": residual}
    checks.alike(caller, **given)
    return _Call(x, weight, bias, residual, steps, edges, spread, groups, named, False, shape)


def separable(
    caller: str,
    dimensions: int,
    input: Tensor,
    depthwise: Tensor,
    pointwise: Tensor,
    depthwise_bias: Tensor | None,
    bias: Tensor | None,
    stride: Size,
    padding: Padding,
    dilation: Size,
    groups: int,
    depthwise_activation: str | None,
    activation: str | None,
    residual: Tensor | None,
) -> Tensor:
    """The depthwise convolution, then the pointwise one; both at once without gradients."""
    tensors = (input, depthwise, pointwise, depthwise_bias, bias, residual)
    first = _complete(caller, dimensions, input, depthwise, depthwise_bias, stride, padding,
                      dilation, None, depthwise_activation, None, "depthwise",
                      ("depthwise", "depthwise_bias"))  # fmt: skip
    shape = first.shape if input.dim() == dimensions + 2 else first.shape[1:]
    # What lies between has a shape only, for now.
    between = first.input.new_empty(()).expand(shape)
    second = _complete(caller, dimensions, between, pointwise, bias, 1, 0, 1, groups, activation,
                       residual, "pointwise", ("pointwise", "bias"))  # fmt: skip
    unseen = first.unseen and second.unseen
    together = dimensions == 2 and groups == 1 and not _wants_grad(*tensors)
    if together and (unseen or not _is_transformed()):
        operator = at_once.separable_conv2d if unseen else torch.ops.pointwise.separable_conv2d
        out = operator(
            first.input, first.weight, second.weight, first.bias, second.bias, second.residual,
            first.stride, first.edges, first.dilation, first.activation,
            second.activation)  # fmt: skip
    else:
        compute = {1: _on_line, 2: _on_image, 3: _on_volume}[dimensions]
        middle = compute(*first[:-1])
        out = compute(*second._replace(input=middle)[:-1])
    return out if input.dim() == dimensions + 2 else out.squeeze(0)


def shift_convolve(
    caller: str,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    kernel_size: Size,
    stride: Size,
    dilation: Size,
    activation: str | None,
    residual: Tensor | None,
) -> Tensor:
    """Channels moved by the offsets of a kernel, then a pointwise convolution."""
    kernel = checks.odd_kernel(caller, kernel_size, 2)
    apart = checks.per_dimension(caller, "dilation", dilation, 2)
    checks.not_too_large(caller, "padding", *padding_of(kernel, apart))
    # To all that is checked it is a pointwise convolution with a stride: sizes are the same.
    call = _complete(caller, 2, input, weight, bias, stride, 0, 1, 1, activation, residual,
                     "pointwise")  # fmt: skip
    x, weight, bias, residual = call.input, call.weight.flatten(1), call.bias, call.residual
    geometry = kernel, call.stride, apart
    operator = ops.shift_conv2d
    if _is_transformed():
        moved = shift(x, shift_window(x.shape[0], x.shape[2:], *geometry))
        out = finish(F.conv2d(moved, call.weight, bias), residual, call.activation)
    elif _wants_grad(x, weight, bias, residual):
        out = operator(x, weight, bias, None, *geometry, "none")
        out = finish(out, residual, call.activation)
    else:
        out = operator(x, weight, bias, residual, *geometry, call.activation)
    return out if input.dim() == 4 else out.squeeze(0)


def _on_image(
    x, weight, bias, residual, stride, edges, dilation, groups, activation, unseen
) -> Tensor:
    if not unseen and _is_transformed():
        # As the operators that every runtime knows, and that torch.func can transform.
        top, bottom, left, right = edges
        x = F.pad(x, (left, right, top, bottom))
        x = F.conv2d(x, weight, bias, stride, 0, dilation, groups)
        return finish(x, residual, activation)
    operator = at_once.conv2d if unseen else torch.ops.pointwise.conv2d
    if _wants_grad(x, weight, bias, residual):
        x = operator(x, weight, bias, None, stride, edges, dilation, groups, "none")
        return finish(x, residual, activation)
    return operator(x, weight, bias, residual, stride, edges, dilation, groups, activation)


def _on_line(
    x, weight, bias, residual, stride, edges, dilation, groups, activation, unseen
) -> Tensor:
    """A line is an image with one row."""
    residual = None if residual is None else residual.unsqueeze(2)
    out = _on_image(x.unsqueeze(2), weight.unsqueeze(2), bias, residual, [1, *stride],
                    [0, 0, *edges], [1, *dilation], groups, activation, unseen)  # fmt: skip
    return out.squeeze(2)


def _on_volume(
    x, weight, bias, residual, stride, edges, dilation, groups, activation, unseen
) -> Tensor:
    """A volume is a stack of images: one convolution for each layer of the kernel, added up."""
    front, back, *inner = edges
    batch = x.shape[0]
    x = F.pad(x, (0, 0, 0, 0, front, back))
    depth = (x.shape[2] - (weight.shape[2] - 1) * dilation[0] - 1) // stride[0] + 1
    if residual is not None:
        residual = residual.transpose(1, 2).flatten(0, 1)
    last = weight.shape[2] - 1
    for layer in range(last + 1):
        first = layer * dilation[0]
        images = x[:, :, first : first + (depth - 1) * stride[0] + 1 : stride[0]]
        residual = _on_image(
            images.transpose(1, 2).flatten(0, 1), weight[:, :, layer], bias if layer == 0 else None,
            residual, stride[1:], inner, dilation[1:], groups,
            activation if layer == last else "none", unseen)  # fmt: skip
    return residual.unflatten(0, (batch, depth)).transpose(1, 2)


def _wants_grad(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(
        tensor is not None and tensor.requires_grad for tensor in tensors
    )


@contextmanager
def _unrecorded() -> Iterator[None]:
    """``torch.jit.trace`` makes tensors of sizes, to record what is done to them; not in here."""
    state = torch._C._get_tracing_state() if not torch.compiler.is_compiling() else None
    if state is None:
        yield
        return
    torch._C._set_tracing_state(None)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch._C._set_tracing_state(state)  # type: ignore[attr-defined]


def _is_transformed() -> bool:
    """Whether an export to ONNX, a trace, a torch.func or a forward derivative is at work."""
    if torch.onnx.is_in_onnx_export():
        return True
    if torch.compiler.is_compiling():
        return False
    if forward_ad._current_level >= 0 or torch.jit.is_tracing():
        return True
    return torch._C._functorch.peek_interpreter_stack() is not None  # type: ignore[attr-defined]


def in_autocast(x: Tensor, *others: Tensor | None):
    """Where autocast is on, everything in its type, as PyTorch does for its convolutions."""
    device = x.device.type
    if (
        not torch.amp.is_autocast_available(device)
        or not torch.is_autocast_enabled(device)
        or x.dtype == torch.float64
    ):
        return x, *others
    dtype = torch.get_autocast_dtype(device)
    return x.to(dtype), *(None if other is None else other.to(dtype) for other in others)
