"""Single numbers from many places in memory: whether any of them has changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from pointwise.engine.cpu.launch import host
from pointwise.engine.cpu.vector import peek


@host()
def read(places, numbers):
    """The 32 bits at each address, to ``numbers``."""
    for i in range(len(places)):
        numbers[i] = peek(places[i], np.int32(0))


@host()
def are_same(places, numbers):
    """Whether the 32 bits at each address are still those of ``numbers``."""
    changed = np.int32(0)
    for i in range(len(places)):  # all of them: no branch has to wait for memory
        changed |= peek(places[i], np.int32(0)) ^ numbers[i]
    return changed == 0


class Samples:
    """Some numbers of each of some tensors, and whether they are still the same.

    For those who write to ``tensor.data``, which a tensor's version does not count. Of a change to
    many values, ``count`` samples of each tensor do not miss anything (up to twice as many are
    taken, and of a small tensor all). Reads addresses: they must still be the tensors' when asked.
    """

    def __init__(self, tensors: Sequence[Tensor], count: int = 61) -> None:
        places = [place for tensor in tensors for place in _places(tensor, count)]
        self._places = np.array(places, dtype=np.int64)
        self._numbers = np.empty(len(places), dtype=np.int32)
        read(self._places, self._numbers)

    def are_same(self) -> bool:
        return are_same(self._places, self._numbers)


def _places(tensor: Tensor, least: int) -> Iterable[int]:
    """Addresses of some numbers, evenly from a tensor's memory."""
    size, count = tensor.element_size(), tensor.numel()
    if size < 4 or count == 0 or tensor.device.type != "cpu" or tensor.layout != torch.strided:
        return ()
    dense = tensor.is_contiguous() or (
        tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    )
    if not dense:
        count = 1
    some = np.arange(0, count, max(1, count // least))
    words = np.arange(0, size, 4)  # a float64 is two
    return (tensor.data_ptr() + some[:, None] * size + words).ravel().tolist()
