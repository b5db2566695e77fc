"""Whether our kernel runs a convolution of images on a GPU, or PyTorch's own; and why not ours.

Standard and pointwise convolutions are cuDNN's and cuBLAS's. Of the depthwise ones, and of both
halves of a separable one at once, the faster side runs: by a table that ``pointwise bench
gpu_choice`` measures on the device and keeps in the user's cache, for each device, PyTorch and
Triton; for what it has not measured, and without it, by a rule. Batches are in neither: a new size
of batch changes nothing, and nothing is ever measured in between.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from pointwise.atomic import replacing
from pointwise.convolution.problem import Convolution
from pointwise.engine.gpu import in_tf32

FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT = "forward", "input gradient", "weight gradient"
SEPARABLE = "separable"
TASKS = (FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT, SEPARABLE)

_HALF = (torch.bfloat16, torch.float16)
_TYPES = (*_HALF, torch.float32, torch.float64)
_LARGEST = 2**31 - 1
_SEPARABLE_COLUMNS = 512
"""Up to so many results of a point, the stencil is computed twice at most."""

_forced: bool | None = None

Times = Mapping[str, tuple[float, float]]
"""By ``key_of``: milliseconds of our kernel, and of PyTorch's."""


@lru_cache(maxsize=4096)
def why_not(convolution: Convolution, task: str = FORWARD) -> str | None:
    """Why no kernel of ours computes that of a convolution; None where one does.

    Of a ``SEPARABLE``, the convolution is the depthwise half.
    """
    window = convolution.window
    if window.y.points < 1 or window.x.points < 1:
        return "its kernel does not fit into the image"
    if convolution.shape.numel() == 0:
        return "there is nothing to compute"
    if convolution.dtype not in _TYPES:
        name = str(convolution.dtype).removeprefix("torch.")
        return f"kernels on GPUs take floating point numbers up to 64 bits, not {name}"
    if not convolution.is_depthwise:
        return "results that read more than one channel are cuDNN's and cuBLAS's"
    if task == SEPARABLE:
        if convolution.dtype == torch.float64:
            return "float64 has no kernel of both halves"
        if convolution.depth_multiplier > 1:
            return "a depth multiplier has no kernel of both halves"
    return _why_too_large(convolution)


def _why_too_large(convolution: Convolution) -> str | None:
    """Kernels count pixels, and the numbers of a row of them, in 32 bits."""
    reach = 0
    for axis in convolution.window[1:]:
        reach = max(reach, axis.points * axis.stride + abs(axis.padding) + axis.size,
                    axis.taps * axis.dilation)  # fmt: skip
        row = max(axis.size, axis.points) + axis.taps * axis.dilation + abs(axis.padding)
        reach = max(reach, row * convolution.out_channels)
    points = convolution.window.points * max(2, convolution.out_channels // 16)
    if max(reach, points) > _LARGEST:
        return "its pixels are more than kernels on GPUs count"
    return None


def runs(
    convolution: Convolution, task: str, device: torch.device, follows: bool = False,
    columns: int = 0,
) -> bool:  # fmt: skip
    """Whether our kernel runs, and not PyTorch's own.

    ``follows`` says that an activation or a residual follows, which PyTorch would do in a pass of
    its own; ``columns`` are the results of a point of a separable convolution.
    """
    if why_not(convolution, task) is not None:
        return False
    if _forced is not None:
        return _forced
    times = _table(device).get(key_of(convolution, task, columns))
    if times is not None:
        ours, theirs = times
        return ours < theirs
    return _is_likely(convolution, task, follows, columns)


def _is_likely(convolution: Convolution, task: str, follows: bool, columns: int) -> bool:
    """What is to be expected without a measurement.

    On an H100, PyTorch's depthwise convolution takes 1.6 to 2.1 times as long as its bytes at 3 × 3
    in bfloat16, 6 times at 7 × 7, and its gradients 3 to 10 times: there is room above the former
    only where a pass is saved.
    """
    if convolution.dtype == torch.float64:
        return False
    if task == SEPARABLE:
        fast = convolution.dtype in _HALF or in_tf32()
        return fast and columns <= _SEPARABLE_COLUMNS
    if task == FORWARD and convolution.window.taps <= 9:
        return follows
    return True


@contextmanager
def forced(ours: bool) -> Iterator[None]:
    """Our kernels wherever there is one, or nowhere: for measurements and tests."""
    global _forced
    before, _forced = _forced, ours
    try:
        yield
    finally:
        _forced = before


# --- the table ------------------------------------------------------------------------------------


def key_of(convolution: Convolution, task: str, columns: int = 0) -> str:
    """What times are kept by: everything but the batch."""
    y, x = convolution.window.y, convolution.window.x
    name = str(convolution.dtype).removeprefix("torch.")
    to = f" to {columns}" if task == SEPARABLE else ""
    return (
        f"{task} {name} {y.taps}x{x.taps} stride {y.stride}x{x.stride} dilation "
        f"{y.dilation}x{x.dilation} of {y.size}x{x.size}x{convolution.in_channels} to "
        f"{y.points}x{x.points}x{convolution.out_channels}{to}"
    )


def path_of(device: torch.device) -> Path:
    """Where the table of a device is kept: in the user's cache folder."""
    folder = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    words = f"{name} torch {torch.__version__} triton {_triton()}"
    return Path(folder, "pointwise", f"gpu {re.sub(r'[^A-Za-z0-9.+ -]', '_', words)}.json")


def remember(device: torch.device, times: Times) -> Path:
    """Adds to a device's table, and returns its path; the file appears whole or not at all."""
    path = path_of(device)
    found = dict(sorted((_read(path) | dict(times)).items()))
    with replacing(path) as part:
        part.write_text(json.dumps({"milliseconds": found}, indent=1) + "\n", encoding="utf-8")
    _table.cache_clear()
    return path


@cache
def _table(device: torch.device) -> dict[str, tuple[float, float]]:
    return _read(path_of(device))


def _read(path: Path) -> dict[str, tuple[float, float]]:
    """A table; empty where there is none. One that cannot be read is passed over, and said."""
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))["milliseconds"]
        return {str(key): (float(ours), float(theirs)) for key, (ours, theirs) in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        warnings.warn(
            f"pointwise: {path} cannot be read ({error}), and a rule chooses between kernels; "
            "delete it, and measure again: pointwise bench gpu_choice",
            stacklevel=2,
        )
        return {}


def _triton() -> str:
    try:
        return version("triton")
    except PackageNotFoundError:
        return "none"
