"""Memory for large results, kept for the next one of the same size when a result is dropped.

The system hands out fresh memory page by page, as it is first written, at about half a microsecond
for 4 KB: a tenth of a training step, which asks for the same sizes in every step. What is kept is
at most about half as much again as was ever in use at once; ``release`` gives it back.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pointwise.convolution.window import Window
from pointwise.engine.cpu import record

LARGE = 1 << 20  # smaller ones come from the allocator's own store
_HUGE_PAGE = 1 << 21
_SPARE = 64 << 20

_dtypes = {torch.float32: "<f4", torch.float64: "<f8"}
_free: dict[int, list[_Block]] = {}
_mapped = 0  # bytes, in use or not
_peak = 0  # the most that was ever in use


class _Block:
    """Some private memory of the process."""

    def __init__(self, size: int) -> None:
        global _mapped
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self.size = size
        self.memory = mmap.mmap(-1, size + _HUGE_PAGE, flags=flags)
        begin = np.frombuffer(self.memory, np.uint8).ctypes.data
        self.address = -(-begin // _HUGE_PAGE) * _HUGE_PAGE
        whole = size // _HUGE_PAGE * _HUGE_PAGE  # what is left would take a page of 2 MB
        if whole and hasattr(mmap, "MADV_HUGEPAGE"):
            self.memory.madvise(mmap.MADV_HUGEPAGE, self.address - begin, whole)
        _mapped += size

    def __del__(self) -> None:
        global _mapped
        _mapped -= self.size


class _Lease:
    """A block while a tensor uses it: NumPy keeps this object as long as it needs the memory."""

    def __init__(self, block: _Block, count: int, kind: str) -> None:
        self.block = block
        self.__array_interface__ = {
            "shape": (count,), "typestr": kind, "data": (block.address, False), "version": 3
        }  # fmt: skip

    def __del__(self) -> None:
        # Single operations on lists and dictionaries, which no thread can come between.
        _free.setdefault(self.block.size, []).append(self.block)


def _take(size: int) -> _Block:
    global _peak
    try:
        return _free[size].pop()
    except (KeyError, IndexError):
        pass
    unused = sum(size * len(blocks) for size, blocks in list(_free.items()))
    _peak = max(_peak, _mapped - unused + size)
    if _mapped + size > _peak + _peak // 2 + _SPARE:
        _free.clear()
    return _Block(size)


def release() -> None:
    """Gives back to the system what is kept and not in use."""
    _free.clear()


def empty(shape: tuple[int, ...] | torch.Size, dtype: torch.dtype) -> Tensor:
    """``torch.empty``, of memory that comes back when the tensor is dropped."""
    count: int = prod(shape)
    size = count * dtype.itemsize
    if size < LARGE or dtype not in _dtypes or not hasattr(mmap, "MAP_ANONYMOUS"):
        return torch.empty(shape, dtype=dtype)
    lease: Any = _Lease(_take(-(-size // 4096) * 4096), count, _dtypes[dtype])
    made = torch.from_numpy(np.asarray(lease)).view(shape)
    if (recording := record.current()) is not None:
        recording.make(made)
    return made


def empty_image(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """The same for an image ``[N, C, H, W]``, channels_last."""
    images, channels, height, width = shape
    if images * channels * height * width * dtype.itemsize < LARGE:
        return torch.empty(tuple(shape), dtype=dtype, memory_format=torch.channels_last)
    return empty((images, height, width, channels), dtype).permute(0, 3, 1, 2)


def empty_result(window: Window, channels: int, dtype: torch.dtype) -> Tensor:
    """The same for what a convolution reads through a window: ``channels`` of its points."""
    return empty_image((window.images, channels, window.y.points, window.x.points), dtype)
