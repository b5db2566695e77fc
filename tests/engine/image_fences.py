"""Run as a program: every convolution of the table between pages that may not be touched.

Tensors end where such a page begins (or begin where one ends), and so do results, scratch memory
and packed weights: a kernel that reads or writes one element too far is stopped by the machine, and
the last line printed names the case.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))

from image_cases import CASES, F32, F64, ImageCase

from pointwise.convolution.window import window
from pointwise.engine.cpu.loops import lines
from pointwise.engine.cpu.loops.depthwise import depthwise_launch
from pointwise.engine.cpu.loops.depthwise_copied import is_better_copied
from pointwise.engine.cpu.loops.mixed import mixed_launch
from pointwise.engine.cpu.loops.winograd import (
    MATRICES,
    room_for,
    weight_transform_launch,
    winograd_launch,
    winograd_weight,
    winograd_weight_in,
)
from pointwise.engine.cpu.pack import padded_columns
from pointwise.engine.cpu.weights import pack_stencil, pack_weight
from pointwise.functional import conv2d, depthwise_separable_conv2d

PAGE = mmap.PAGESIZE
_libc = ctypes.CDLL(None, use_errno=True)


def room(size: int, at_end: bool) -> tuple[mmap.mmap, int]:
    """(memory, offset) of ``size`` bytes with a forbidden page on either side."""
    pages = -(-size // PAGE)
    memory = mmap.mmap(-1, (pages + 2) * PAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for page in (0, pages + 1):
        if _libc.mprotect(ctypes.c_void_p(address + page * PAGE), PAGE, 0) != 0:
            raise OSError(ctypes.get_errno(), "mprotect")
    return memory, PAGE + (pages * PAGE - size if at_end else 0)


def fenced(tensor: torch.Tensor, at_end: bool, align: int = 1) -> torch.Tensor:
    """The same values and strides; the size of the memory rounded up to ``align`` bytes."""
    if tensor.numel() == 0:
        return tensor
    span = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    memory, offset = room(-(-span * tensor.element_size() // align) * align, at_end)
    flat = torch.frombuffer(memory, dtype=tensor.dtype, count=span, offset=offset)
    return flat.as_strided(tensor.shape, tensor.stride()).copy_(tensor)


def fence_everything(at_end: bool) -> None:
    """What PyTorch allocates for the package lies between fences too, on addresses as even as
    PyTorch's own (64 bytes)."""

    def guarded(function):
        def call(*arguments, **options):
            made = function(*arguments, **options)
            old = arguments[0] if arguments and isinstance(arguments[0], torch.Tensor) else None
            if not isinstance(made, torch.Tensor) or made.device.type != "cpu" or made is old:
                return made
            if old is not None and made.data_ptr() == old.data_ptr():  # a view
                return made
            return fenced(made.detach(), at_end, 64)

        return call

    for owner, name in ((torch, "empty"), (torch, "zeros"), (torch, "stack"),
                        (torch.Tensor, "contiguous"), (torch.Tensor, "new_empty"),
                        (torch.Tensor, "new_zeros")):  # fmt: skip
        setattr(owner, name, guarded(getattr(owner, name)))


def run(case: ImageCase, at_end: bool) -> None:
    """Forward, backward and with an epilogue; the right result, and no touching of the fences."""
    tensors: Any = (
        None if t is None else fenced(t.contiguous(), at_end)
        for t in (case.tensor(r) for r in ("input", "weight", "bias", "residual", "grad"))
    )
    x, weight, bias, residual, grad = tensors
    if x.dim() == 4:  # as the kernels take them, so that nothing is copied
        x, residual, grad = (
            fenced(t.to(memory_format=torch.channels_last), at_end) for t in (x, residual, grad)
        )
    geometry = {**case.geometry, "groups": case.groups}
    for activation in ("relu", "hardswish"):
        conv2d(x, weight, bias, **geometry, activation=activation, residual=residual)
    if case.is_depthwise:
        mix = fenced(torch.ones(17, case.channels[1], dtype=case.dtype), at_end)
        depthwise_separable_conv2d(x, weight, mix, bias, **case.geometry)
    wanted = [t for t in (x, weight, bias) if t is not None]
    for tensor in wanted:
        tensor.requires_grad_()
    out = conv2d(x, weight, bias, **geometry)
    case.check(out)
    found = torch.autograd.grad(out, wanted, grad)
    for role, slope in zip(("input", "weight", "bias"), found, strict=False):
        case.check_gradient(role, slope)


def run_winograd(dtype: torch.dtype, at_end: bool) -> None:
    """Winograd's loop, for images that tiles do not divide."""
    lanes = padded_columns(1, dtype)
    for size, c_in, c_out in (((1, 1), 1, 1), ((9, 7), 3, 5), ((6, 30), 9, 2)):
        x = torch.rand(2, c_in * lanes, *size, dtype=dtype).to(memory_format=torch.channels_last)
        x = fenced(x, at_end)
        weight = torch.rand(c_out * lanes, c_in * lanes, 3, 3, dtype=dtype)
        bias = torch.rand(c_out * lanes, dtype=dtype)
        seen = window(2, size, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1))
        expected = F.conv2d(x, weight, bias, padding=1).to(memory_format=torch.channels_last)
        for m in MATRICES:
            packed = pack_weight(weight, bias)
            packed = replace(packed, packed=fenced(packed.packed, at_end))
            room = winograd_weight_in(torch.zeros(room_for(packed, m), dtype=dtype), packed, m)
            room = replace(room, packed=fenced(room.packed, at_end))
            weight_transform_launch(packed, room).run()
            for filters in (winograd_weight(weight, bias, m), room):
                out = fenced(torch.zeros_like(expected), at_end)
                winograd_launch(x, filters, seen, out).run()
                torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)


def run_by_shape(at_end: bool) -> None:
    """Loops that only images of some shapes have: few channels and long rows, many channels."""
    for channels, columns, groups, size, stride in (
        (3, 32, 1, (9, 131), 2),
        (1, 9, 1, (5, 70), 1),
        (1024, 1024, 1024, (3, 4), 1),
        (1026, 1026, 1026, (5, 3), 2),
    ):
        x = torch.rand(2, channels, *size)
        wide = x.new_zeros(2, *size, 2048 if channels == 1026 else channels).permute(0, 3, 1, 2)
        x = fenced(wide[:, -channels:].copy_(x), at_end)
        weight = fenced(torch.rand(columns, channels // groups, 3, 3), at_end)
        seen = window(2, size, (3, 3), (stride, stride), (1, 1, 1, 1), (1, 1))
        expected = F.conv2d(x, weight, None, stride, 1, 1, groups)
        out = fenced(expected.to(memory_format=torch.channels_last), at_end)
        if groups == 1:
            assert lines.is_better(x, seen, 1, columns)
            mixed_launch(x, pack_weight(weight, None), seen, out.fill_(torch.nan)).run()
        else:
            assert is_better_copied(x)
            depthwise_launch(x, pack_stencil(weight, None), seen, out.fill_(torch.nan)).run()
        torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)


def main(side: str) -> None:
    at_end = side == "end"
    for case in CASES:  # the oracle's loops need no fences
        _ = case.expected, case.expected_gradients
    fence_everything(at_end)
    for case in CASES:
        print(case, flush=True)
        run(case, at_end)
    for dtype in (F32, F64):
        print("winograd", dtype, flush=True)
        run_winograd(dtype, at_end)
    print("loops by shape", flush=True)
    run_by_shape(at_end)
    print("all", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "touch":  # to see that the fences are there
        memory, offset = room(64, at_end=True)
        flat = torch.frombuffer(memory, dtype=torch.uint8, count=64, offset=offset)
        ctypes.memset(flat.data_ptr(), 1, 64)
        print("inside", flush=True)
        ctypes.memset(flat.data_ptr() + 64, 1, 1)
        print("outside", flush=True)
    else:
        main(sys.argv[1])
