"""What users can get wrong, one function per rule: what was given, what is right, how to mend it.

``caller`` is the function the user called, so that the message begins with their own words. Checks
of values (rather than shapes) are skipped while a graph is being traced: there are no values yet,
and the operators check again when they run. Sizes of tensors are read as
``shape[0]``: ``len`` would fix the number of points of an exported graph.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from numbers import Real

import torch
from torch import Tensor

LARGEST = 2**31 - 1
"""Of strides, paddings, dilations, kernels and channels: beyond, addresses would overflow."""

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def describe(tensor) -> str:
    """A tensor as a message shows it: shape, type and device."""
    if not isinstance(tensor, Tensor):
        return type(tensor).__name__
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')} on {tensor.device}"


def positions(caller: str, name: str, points) -> None:
    """``points`` is a tensor [N, 3] of float32 or float64."""
    if not isinstance(points, Tensor) or points.dim() != 2 or points.shape[1] != 3:
        raise ValueError(f"{caller}: {name} must be a tensor [N, 3], got {describe(points)}")
    _dense(caller, name, points)
    precise(caller, name, points)


def precise(caller: str, name: str, given: Tensor) -> None:
    """``given`` is of a type that the kernels compute in."""
    if given.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"{caller}: {name} must be float32 or float64, got {describe(given)}; "
            f"convert with {name}.float()"
        )


def _dense(caller: str, name: str, given: Tensor) -> None:
    """``given`` has memory with strides."""
    if given.layout != torch.strided:
        raise TypeError(
            f"{caller}: {name} must be dense, got {describe(given)} with layout {given.layout}; "
            f"convert with {name}.to_dense()"
        )


def offsets(caller: str, name: str, given, count: int, values: bool = True) -> None:
    """``given`` is int64 [B+1], starts at 0, never falls, and ends at ``count``.

    Without ``values``, only what can be known without reading them is checked.
    """
    if not isinstance(given, Tensor) or given.dim() != 1 or given.dtype != torch.int64:
        raise ValueError(f"{caller}: {name} must be an int64 tensor [B+1], got {describe(given)}")
    _dense(caller, name, given)
    if given.shape[0] == 0:
        raise ValueError(f"{caller}: {name} is empty; one cloud of N points is [0, N]")
    if not values or torch.compiler.is_compiling():
        return
    given = given.cpu()  # one wait for a GPU instead of three
    if int(given[0]) != 0 or int(given[-1]) != count or bool((given.diff() < 0).any()):
        shown = given.tolist() if len(given) <= 6 else [*given[:3].tolist(), "…", int(given[-1])]
        raise ValueError(
            f"{caller}: {name} must start at 0, never fall and end at the number of points "
            f"{count}, got {shown}"
        )


def finite(caller: str, name: str, index: int, row) -> None:
    """Refuses the point at ``index`` (negative: all are finite)."""
    if index >= 0:
        raise ValueError(
            f"{caller}: {name}[{index}] is {[float(value) for value in row]}; coordinates must be "
            f"finite: drop such points first, as in {name}[{name}.isfinite().all(1)]"
        )


def kernel(caller: str, cell_size, kernel_size, dilation) -> None:
    """A positive cell size, an odd kernel size, a dilation of at least 1."""
    length(caller, "cell_size", cell_size)
    if not whole(kernel_size) or kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(
            f"{caller}: kernel_size must be an odd whole number, so that a cell lies on the point "
            f"itself, got {kernel_size!r}"
        )
    if not whole(dilation) or dilation < 1:
        raise ValueError(f"{caller}: dilation must be a whole number from 1, got {dilation!r}")
    if (kernel_size**3 - 1).bit_length() > 31:
        raise ValueError(
            f"{caller}: kernel_size must be at most 1289, for {kernel_size:,}³ cells do not fit "
            "the 32 bits of a neighbour"
        )
    if dilation > LARGEST or not kernel_size * dilation * float(cell_size) < math.inf:
        raise ValueError(
            f"{caller}: dilation={dilation} with cell_size={cell_size!r} reaches too far; dilation "
            f"must be at most {LARGEST:,}, and the kernel's extent a finite number"
        )


def length(caller: str, name: str, given) -> None:
    """``given`` is a positive number whose reciprocal is finite."""
    is_number = isinstance(given, Real) and not isinstance(given, bool)
    if not is_number or not sys.float_info.min <= given <= sys.float_info.max:
        raise ValueError(
            f"{caller}: {name} must be a positive length in the unit of the points, got {given!r}"
        )


def table_width(caller: str, points: int, kernel_size: int) -> None:
    """A pair is 32 bits: enough of them for the kernel cell and for the point's index."""
    need = (kernel_size**3 - 1).bit_length() + max(1, (points - 1).bit_length())
    if need > 32:
        raise ValueError(
            f"{caller}: {points:,} points with kernel_size={kernel_size} need {need} bits per "
            f"neighbour and there are 32; cut the cloud into blocks or use a smaller kernel"
        )


def features(caller: str, given, points: int) -> None:
    """``given`` is a floating tensor [N, C] with one row for each point."""
    if not isinstance(given, Tensor) or given.dim() != 2:
        raise ValueError(
            f"{caller}: features must be a tensor [N={points}, C], got {describe(given)}"
        )
    if given.dtype not in FLOATS:
        raise TypeError(
            f"{caller}: features must be floating point, got {describe(given)}; "
            "convert with features.float()"
        )
    if given.shape[0] != points:
        raise ValueError(
            f"{caller}: features must have one row for each of the {points} points, "
            f"got {describe(given)}"
        )


def weight(caller: str, name: str, given, expected: tuple, words: str) -> None:
    """``given`` has the shape ``expected`` (None: any size), which ``words`` spell out."""
    fits = isinstance(given, Tensor) and given.dim() == len(expected)
    if fits:
        fits = all(e is None or n == e for n, e in zip(given.shape, expected, strict=True))
    if not fits:
        raise ValueError(f"{caller}: {name} must be {words}, got {describe(given)}")


def not_empty(caller: str, name: str, given: Tensor) -> None:
    """No size of ``given`` is 0."""
    if 0 in given.shape:
        raise ValueError(f"{caller}: no size of {name} may be 0, got {describe(given)}")


def alike(caller: str, **tensors) -> None:
    """All are dense, with the type and device of the first (None is passed over)."""
    given = [(n, t) for n, t in tensors.items() if t is not None]
    for name, tensor in given:
        _dense(caller, name, tensor)
    (first_name, first), *rest = given
    for name, tensor in rest:
        if tensor.dtype != first.dtype:
            raise TypeError(
                f"{caller}: {name} is {describe(tensor)} but {first_name} is {describe(first)}; "
                f"convert one, as in {name}.to({first_name}.dtype)"
            )
        same_device(caller, name, tensor, first_name, first)


def same_device(caller: str, name: str, given: Tensor, first_name: str, first: Tensor) -> None:
    """``given`` is where the first tensor is."""
    if given.device != first.device:
        raise ValueError(
            f"{caller}: {name} is on {given.device} but {first_name} is on {first.device}; "
            f"move one, as in {name}.to({first_name}.device)"
        )


def one_of(caller: str, name: str, given, choices: tuple[str, ...]) -> None:
    """``given`` is one of ``choices``."""
    if not isinstance(given, str) or given not in choices:
        shown = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{caller}: {name} must be one of {shown}, got {given!r}")


def image(caller: str, given, dimensions: int) -> None:
    """``given`` is a floating tensor [N, C, *sizes] or [C, *sizes] with as many sizes."""
    sizes = {1: "L", 2: "H, W", 3: "D, H, W"}[dimensions]
    if not isinstance(given, Tensor) or given.dim() not in (dimensions + 1, dimensions + 2):
        raise ValueError(
            f"{caller}: input must be a tensor [N, C, {sizes}] or [C, {sizes}], "
            f"got {describe(given)}"
        )
    if given.dtype not in FLOATS:
        raise TypeError(
            f"{caller}: input must be floating point, got {describe(given)}; "
            "convert with input.float()"
        )


def whole(value) -> bool:
    """Whether ``value`` is a whole number (a bool is none, a size that is traced is one)."""
    return isinstance(value, (int, torch.SymInt)) and not isinstance(value, bool)


def positive(caller: str, name: str, given) -> None:
    """``given`` is a whole number from 1."""
    if not whole(given) or given < 1:
        raise ValueError(f"{caller}: {name} must be a whole number from 1, got {given!r}")
    not_too_large(caller, name, given)


def not_too_large(caller: str, name: str, *given) -> None:
    """Whole numbers that addresses can be computed with."""
    if any(isinstance(n, int) and n > LARGEST for n in given):
        raise ValueError(f"{caller}: {name} must be at most {LARGEST:,}, got {max(given)}")


def outputs(caller: str, out_channels, groups: int) -> None:
    """``out_channels`` is a positive multiple of the groups."""
    if not whole(out_channels) or out_channels < 1 or out_channels % groups:
        raise ValueError(
            f"{caller}: out_channels must be a multiple of groups={groups}, got {out_channels!r}"
        )
    not_too_large(caller, "out_channels", out_channels)


def groups(caller: str, given, channels: int) -> None:
    """``given`` is a number of groups that divides the channels."""
    if not whole(given) or given < 1 or channels % given:
        raise ValueError(
            f"{caller}: groups must be a whole number that divides the {channels} channels of the "
            f"input, got {given!r}"
        )


def kernel_weight(
    caller: str, name: str, given, channels: int, groups: int, dimensions: int, kind: str
) -> None:
    """``given`` is ``[C_out, C_in/groups, *kernel]``, and C_out a multiple of the groups."""
    per_group = channels // groups
    sizes = {1: "k", 2: "kh, kw", 3: "kd, kh, kw"}[dimensions]
    if kind == "pointwise":
        shape: tuple = (None, per_group, *[1] * dimensions)
        words = f"[C_out, C_in/groups={per_group}] or the same with{' 1' * dimensions} behind"
    else:
        shape = (None, per_group, *[None] * dimensions)
        words = f"[C_out, C_in/groups={per_group}, {sizes}]"
        if kind == "depthwise":
            words = f"[C·m, 1, {sizes}] for C={channels} channels and a depth multiplier m"
    weight(caller, name, given, shape, words)
    if given.shape[0] % groups or 0 in given.shape:
        what = f"the {channels} channels" if kind == "depthwise" else f"groups={groups}"
        raise ValueError(
            f"{caller}: the first size of {name} must be a multiple of {what} and no size may be "
            f"0, got {describe(given)}"
        )


def per_dimension(caller: str, name: str, given, dimensions: int) -> list[int]:
    """A whole number from 1 for each dimension; one number stands for all."""
    numbers = [given] * dimensions if whole(given) else given
    if (
        not isinstance(numbers, Sequence)
        or len(numbers) != dimensions
        or not all(whole(n) and n >= 1 for n in numbers)
    ):
        raise ValueError(
            f"{caller}: {name} must be a whole number from 1, or {dimensions} of them, "
            f"got {given!r}"
        )
    not_too_large(caller, name, *numbers)
    return list(numbers)


def odd_kernel(caller: str, given, dimensions: int) -> list[int]:
    """An odd whole number for each dimension; one number stands for all."""
    numbers = per_dimension(caller, "kernel_size", given, dimensions)
    if any(n % 2 == 0 for n in numbers):
        raise ValueError(
            f"{caller}: kernel_size must be odd, so that one offset is the pixel itself, "
            f"got {given!r}"
        )
    return numbers


def output_sizes(caller: str, sizes, kernel, stride, edges, dilation) -> list[int]:
    """The sizes of a convolution's result; refuses an image that the kernel does not fit into."""
    found = []
    for i, (size, k, step, spread) in enumerate(zip(sizes, kernel, stride, dilation, strict=True)):
        extent = (k - 1) * spread + 1
        padded = size + edges[2 * i] + edges[2 * i + 1]
        if size < 1 or padded < extent:
            raise ValueError(
                f"{caller}: an image of {' × '.join(map(str, sizes))} pixels is too small for a "
                f"kernel of {' × '.join(map(str, kernel))} with dilation {list(dilation)} and "
                f"padding {list(edges)}; pad more, or use a larger image"
            )
        found.append((padded - extent) // step + 1)
    return found
