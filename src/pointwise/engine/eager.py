"""Whether kernels may run on tensors here and now, or only PyTorch's own calls."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import lru_cache

import torch
from torch import Tensor
from torch.autograd import forward_ad

from pointwise.engine import gpu


def why_not_eager(*tensors: Tensor) -> str | None:
    """Why kernels cannot run on these tensors at the moment; None where they can.

    Kernels read memory, and nobody sees them do so: no tracer, no mode, no transform.
    """
    if why := why_not_now():
        return why
    for x in tensors:  # an iterator takes longer than what it asks
        if why := why_not_plain(x):
            return why
    return None


def why_not_now() -> str | None:
    """Why nothing can run as kernels at the moment, whatever the tensors are.

    torch.compile asks for itself what its graphs depend on, and calls them in modes of its own.
    """
    if torch.is_autocast_enabled("cpu"):
        return "autocast is on, and kernels compute in the types that a model has"
    return _why_watched()


def _why_watched() -> str | None:
    """Who would have to see what is computed, on whatever device; None where nobody looks."""
    if torch._C._is_tracing() or _is_exported():
        return "it is being traced"
    if torch._C._len_torch_dispatch_stack():
        return "a TorchDispatchMode is on, which kernels would not show themselves to"
    if forward_ad._current_level >= 0:
        return "gradients are wanted, in forward mode"
    return None


def _is_exported() -> bool:
    """Whether ONNX is being written; of an exporter that nobody has loaded it is not asked."""
    return _EXPORTER in sys.modules and torch.onnx.is_in_onnx_export()


_EXPORTER = "torch.onnx._internal.exporter"


def why_not_on_gpu(*tensors: Tensor) -> str | None:
    """Why kernels for GPUs cannot run on these tensors at the moment; None where they can.

    Unlike on the CPU, autocast is no reason: kernels there compute in its types.
    """
    if why := _why_watched():
        return why
    for x in tensors:
        if type(x) not in (Tensor, torch.nn.Parameter):
            return f"{type(x).__name__} is no plain tensor"
        if is_wrapped(x):
            return "one of torch.func's transforms is at work"
        if x.layout != torch.strided or x.is_conj() or x.is_neg():
            return "an input whose memory does not hold its values"
        if why := gpu.why_not(x.device):
            return why
    return None


def why_not_plain(x: Tensor) -> str | None:
    """Why a tensor is not an ordinary one, in memory with strides; None where it is."""
    if type(x) not in (Tensor, torch.nn.Parameter):
        return f"{type(x).__name__} is no plain tensor"
    if torch._C._dispatch_keys(x).raw_repr() in _ordinary():
        return None
    if is_wrapped(x):
        return "one of torch.func's transforms is at work"
    if x.is_cuda:
        return (
            f"an input on {x.device}, where the CPU's kernels do not run; there, take "
            "torch.compile's own backend, or pointwise.accelerate, which folds norms"
        )
    if x.device.type != "cpu" or x.layout != torch.strided:
        return f"an input on {x.device} with layout {x.layout}"
    if x.is_conj() or x.is_neg():
        return "an input that is to be conjugated or negated"
    return "an input whose memory does not hold its values"


@lru_cache
def _ordinary() -> frozenset[int]:
    """What PyTorch dispatches calls of a tensor by that is nothing but its memory.

    Transforms, batched gradients, negated views and zeros without memory add something to it.
    """
    with torch.inference_mode():
        inferred = torch.empty(0)
    with torch.inference_mode(False):
        plain = torch.empty(0)
    return frozenset(torch._C._dispatch_keys(x).raw_repr() for x in (plain, inferred))


def is_unseen(arguments: Iterable[object]) -> bool:
    """Whether nobody would notice that a call went past PyTorch's dispatcher, gradients included.

    No transform, mode, trace or profiler is at work. Autograd would: see ``wants_gradients``.
    """
    if torch.compiler.is_compiling() or torch.autograd._profiler_enabled():
        return False
    if torch._C._len_torch_function_stack() or why_not_now():
        return False
    if torch._C._are_functorch_transforms_active():  # of other tensors, but around this call
        return False
    for x in arguments:  # noqa: SIM110 - a generator takes longer than the question
        if isinstance(x, Tensor) and why_not_plain(x):
            return False
    return True


def wants_gradients(arguments: Iterable[object]) -> bool:
    """Whether autograd is to record a call."""
    if torch.is_grad_enabled():
        for x in arguments:
            if isinstance(x, Tensor) and x.requires_grad:
                return True
    return False


def is_wrapped(x: Tensor) -> bool:
    """Whether a tensor is that of one of torch.func's transforms, and has no memory to look at."""
    return torch._C._functorch.is_functorch_wrapped_tensor(x)  # type: ignore[attr-defined]
