"""Whether tensors are still what they were: their memory, versions, and numbers of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import is_
from typing import Any

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


@host()
def checksum(address, size):
    """A number that changes with any of the ``size`` bytes at an address, and with their order."""
    total = np.uint64(size)
    words = size // 4
    for i in range(words):
        word = np.uint32(peek(address + 4 * i, np.int32(0)))
        total += np.uint64(word) * np.uint64(2 * i + 1)
    for i in range(4 * words, size):
        total += np.uint64(np.uint8(peek(address + i, np.int8(0)))) * np.uint64(2 * i + 1)
    return total


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


class Snapshot:
    """Whether tensors are still what they were: in the same memory, unwritten, the same values.

    Versions say when a tensor was written to; up to twice ``count`` samples of each, when it was
    written to through ``tensor.data``, which versions do not count. Inference tensors have none,
    and a checksum of all their numbers instead. (Another tensor with the same memory, version and
    samples is as good as the same.) Keeps no tensor alive. For tensors where ``why_unseen`` has no
    reason.
    """

    def __init__(self, tensors: Sequence[Tensor], count: int = 61) -> None:
        self._counted = not any(tensor.is_inference() for tensor in tensors)
        self._state = self._now(tensors)
        self._samples = Samples(tensors, count)

    def is_still(self, tensors: Sequence[Tensor]) -> bool:
        try:
            return self._now(tensors) == self._state and self._samples.are_same()
        except RuntimeError:  # an inference tensor in place of one that counted its versions
            return False

    def _now(self, tensors: Sequence[Tensor]) -> tuple[list[int], list[int]]:
        if self._counted:
            versions = [tensor._version for tensor in tensors]
        else:
            versions = [_checksum(x) if x.is_inference() else x._version for x in tensors]
        return versions, [tensor.data_ptr() for tensor in tensors]


class State:
    """Whether what something was made of is still the same.

    ``things`` are to be the same objects, tensors among them also to hold what they held
    (``Snapshot``); ``numbers`` are to be equal. Keeps the things alive.
    """

    def __init__(self, things: Sequence[Any], numbers: Sequence[Any] = ()) -> None:
        self._things, self._numbers = list(things), list(numbers)
        self._tensors = [thing for thing in things if isinstance(thing, Tensor)]
        self._snapshot = Snapshot(self._tensors)

    def is_still(self, things: Sequence[Any], numbers: list[Any] | None = None) -> bool:
        return (
            len(things) == len(self._things)
            and all(map(is_, things, self._things))
            and (numbers or []) == self._numbers
            and self._snapshot.is_still(self._tensors)
        )


def _checksum(tensor: Tensor) -> int:
    """Of all memory from a tensor's first number to its last; negative, as no version is."""
    if tensor.numel() == 0:
        return -1
    reach = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    return -2 - int(checksum(tensor.data_ptr(), (reach + 1) * tensor.element_size()))


def why_unseen(tensor: Tensor) -> str:
    """Why changes of a tensor cannot be seen; nothing where they can."""
    if tensor.layout != torch.strided or tensor.is_quantized:
        kind = "quantised" if tensor.is_quantized else f"of layout {tensor.layout}"
        return f"a parameter or buffer is {kind}, and its changes cannot be seen"
    if tensor.device.type != "cpu":
        return f"a parameter or buffer is on {tensor.device}, and not on the CPU"
    return ""


def _places(tensor: Tensor, least: int) -> Iterable[int]:
    """Addresses of some numbers, evenly from a tensor's memory, as whole words of four bytes."""
    size, count = tensor.element_size(), tensor.numel()
    if count == 0 or tensor.device.type != "cpu" or tensor.layout != torch.strided:
        return ()
    some = np.arange(0, count, max(1, count // least))
    if tensor.is_contiguous() or (
        tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    ):
        begins = some * size
    else:
        indices = np.stack(np.unravel_index(some, tuple(tensor.shape)), axis=1)
        begins = indices @ np.array(tensor.stride()) * size
    words = np.arange(0, size, 4)  # a float64 is two
    places = tensor.data_ptr() + begins[:, None] + words
    if size < 4:
        places &= -4  # the word that a smaller number lies in
    return places.ravel().tolist()
