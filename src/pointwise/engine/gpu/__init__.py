"""Kernels for GPUs, written in Triton: whether they can run on a device, and if not, why.

The modules here have the names of their twins in ``engine.cpu`` and import Triton; the operators
import them when a tensor on a GPU is met, so that nothing here is needed without one. Triton's
interpreter (``TRITON_INTERPRET=1``) runs the same kernels on CPU tensors: so they are tested where
there is no GPU.
"""

from __future__ import annotations

import importlib.util
import os
from functools import lru_cache

import torch

OLDEST = (8, 0)
"""The least compute capability of a device that the kernels are written for (Ampere)."""


def is_interpreted() -> bool:
    """Whether Triton runs its kernels by its interpreter, on tensors in the CPU's memory."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def why_not(device: torch.device) -> str | None:
    """Why no kernel runs on a device; None where kernels do."""
    if not _has_triton():
        return "Triton is not installed; CUDA builds of torch bring it, or: pip install triton"
    if is_interpreted():
        return None
    return _why_not_device(device)


@lru_cache
def _has_triton() -> bool:
    """To look for what is not installed takes as long as a small kernel: once is enough."""
    return importlib.util.find_spec("triton") is not None


def runs_on(device: torch.device) -> bool:
    """Whether a device is a GPU, and kernels run on it."""
    return device.type == "cuda" and why_not(device) is None


# As torch.compiler.assume_constant_result says to Dynamo, which it would import.
runs_on._dynamo_marked_constant = True  # type: ignore[attr-defined]


@lru_cache
def _why_not_device(device: torch.device) -> str | None:
    if device.type != "cuda":
        return f"they run on CUDA devices, not on {device}"
    if torch.version.hip is not None:
        return "they are written for NVIDIA's devices, and were never run on AMD's"
    capability = torch.cuda.get_device_capability(device)
    if capability < OLDEST:
        has, needs = (".".join(map(str, each)) for each in (capability, OLDEST))
        return (
            f"{torch.cuda.get_device_name(device)} has compute capability {has}, and they need "
            f"{needs}"
        )
    return None


def in_tf32() -> bool:
    """Whether PyTorch's own convolutions may multiply float32 in TF32, by its switch."""
    try:
        return torch.backends.cudnn.allow_tf32
    except RuntimeError:  # set for convolutions alone, which this switch then does not know
        return torch.backends.cudnn.conv.fp32_precision == "tf32"  # type: ignore[attr-defined]
