"""What autocast does to the operators on point clouds.

Where kernels for GPUs run they compute in autocast's type, as PyTorch's convolutions do, and add up
in float32. Elsewhere they compute in float32: sums over many neighbours in half precision lose too
much.
"""

from __future__ import annotations

import torch
from torch.amp.autocast_mode import _cast  # what torch.library.register_autocast casts with

from pointwise.engine import gpu
from pointwise.engine.library import library


def follow_autocast(name: str) -> None:
    """Registers what autocast does to an operator whose first argument is a tensor."""
    torch.library.register_autocast(f"pointwise::{name}", "cpu", torch.float32, lib=library)
    operator = getattr(torch.ops.pointwise, name).default
    key = torch._C.DispatchKey.AutocastCUDA

    def cast(*arguments):
        kernels = gpu.runs_on(arguments[0].device)
        dtype = torch.get_autocast_dtype("cuda") if kernels else torch.float32
        with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(key)):
            return operator(*_cast(arguments, "cuda", dtype))

    operator.py_impl(key)(cast)
    library.impl(name, lambda _, *arguments: cast(*arguments), "AutocastCUDA", with_keyset=True)
