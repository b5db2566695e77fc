"""What a function launches, noted while it runs: so that it can be launched again without it.

The Python that prepares a launch takes far longer than a small convolution does, and what it comes
to is the same for all tensors of the same shapes but for addresses. So ``replay`` runs a function
once under a ``Recording``, which learns of every launch and of every memory that is asked for, and
from then on launches the same with other addresses.

That would be wrong in silence where the function does anything else to numbers. So a recording
watches: an operation of PyTorch that is more than a view, and a launch that reads what was neither
given nor made meanwhile, spoil it, and nothing is replayed. An address may stand in a table only
where its ``Layout`` says that there is one: a difference of two addresses nobody would notice.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pointwise.engine.cpu.layout import Arguments


class Place(NamedTuple):
    """An address: so many bytes behind where a tensor, given or made, begins."""

    tensor: int  # those that are given come first, then what was made
    offset: int


class Step(NamedTuple):
    """A launch."""

    kernel: Any
    arguments: Arguments
    programs: int


class Recording(TorchDispatchMode):
    """The launches of a function of the ``given`` tensors, in order, and the memory it asks for."""

    def __init__(self, given: Sequence[Tensor]) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.tensors: list[Tensor] = list(given)
        self.given = len(given)
        self.spoiled = ""
        """Why it cannot be replayed."""
        self._spans: list[tuple[int, int, int]] = []  # of the tensors, by where they begin

    def spoil(self, why: str) -> None:
        self.spoiled = self.spoiled or why

    def __torch_dispatch__(self, call, types, args=(), kwargs=None):
        result = call(*args, **(kwargs or {}))
        if call in _MAKERS:
            self.make(result)
        elif not call.is_view:
            self.spoil(f"PyTorch's {call} computes something")
        return result

    def make(self, tensor: Tensor) -> None:
        """Notes memory that was asked for, and keeps it, so that no other gets the same address."""
        if tensor.numel():
            self.tensors.append(tensor)

    def launch(self, kernel: Any, arguments: Arguments, programs: int) -> None:
        self.steps.append(Step(kernel, arguments, programs))

    def place(self, operand: Tensor) -> Place:
        """Where an operand lies; raises LookupError where nobody knows."""
        address = operand.data_ptr()
        if len(self._spans) != len(self.tensors):
            numbered = enumerate(self.tensors)
            self._spans = sorted((*span(tensor), number) for number, tensor in numbered)
        found = bisect_right(self._spans, address, key=lambda each: each[0])
        # One without numbers may begin where another one does.
        for begin, end, number in reversed(self._spans[:found]):
            if begin <= address < end:
                return Place(number, address - begin)
            if begin < end:
                break
        raise LookupError("an operand is neither given nor made by the function")

    def uses(self) -> dict[int, tuple[int, int]]:
        """The first and the last step that a tensor is an operand of, for all that are."""
        found: dict[int, tuple[int, int]] = {}

        def note(step: int, arguments: Arguments) -> None:
            for _, operand in arguments.addresses():
                if isinstance(operand, Arguments):
                    note(step, operand)
                elif isinstance(operand, Tensor):
                    number = self.place(operand).tensor
                    first, _ = found.get(number, (step, step))
                    found[number] = first, step

        for number, step in enumerate(self.steps):
            note(number, step.arguments)
        return found


_MAKERS = {
    torch.ops.aten.empty.memory_format,
    torch.ops.aten.empty_strided.default,
    torch.ops.aten.new_empty.default,
    torch.ops.aten.new_empty_strided.default,
    torch.ops.aten.empty_like.default,
}


def span(tensor: Tensor) -> tuple[int, int]:
    """The addresses of a tensor, from its first number to behind its last."""
    begin = tensor.data_ptr()
    if tensor.numel() == 0:
        return begin, begin
    last = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    return begin, begin + (last + 1) * tensor.element_size()


def are_apart(given: Sequence[Tensor]) -> bool:
    """Whether every tensor has memory, and none of it is another's: else nobody could tell them."""
    spans = sorted(map(span, given))
    behind = [begin for begin, _ in spans[1:]]
    return all(begin < end for begin, end in spans) and all(
        end <= begin for (_, end), begin in zip(spans, behind, strict=False)
    )


def is_constant(operand: Any) -> bool:
    """Whether an operand is the same in every run: an array that was made not to be written."""
    return isinstance(operand, np.ndarray) and not operand.flags.writeable


_here = threading.local()


def current() -> Recording | None:
    """The recording that is made in this thread."""
    return getattr(_here, "recording", None)


@contextmanager
def recording(given: Sequence[Tensor]) -> Iterator[Recording]:
    """Records what is launched meanwhile in this thread."""
    made = Recording(given)
    _here.recording = made
    try:
        with made:
            yield made
    finally:
        _here.recording = None
