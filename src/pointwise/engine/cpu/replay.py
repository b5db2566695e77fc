"""Functions that are prepared once for tensors of some shapes: a call fills in addresses.

A ``replayed`` function runs once for each kind of arguments under a ``Recording`` (see ``record``),
which becomes a ``Replay``: one block of memory with everything that its launches are told, but for
addresses. A call copies the block, asks for memory, writes addresses into the copy and has it run:
what a call writes is its own, so that several threads may call at once, and no address outlives it.
What cannot be recorded runs as it is, every time.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Hashable, Sequence
from functools import wraps
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pointwise.engine.cpu import memory, record
from pointwise.engine.cpu.launch import STEP, counters_of, run_steps, threads
from pointwise.engine.cpu.layout import Arguments

_MOST = 2048
"""Kinds of arguments that a function remembers, each in a few KB."""
_LINE = 64  # bytes of a line of the cache


class _Memory(NamedTuple):
    """What results lie in, made anew in every call."""

    room: int  # numbers
    dtype: torch.dtype
    size: torch.Size | None  # of a result that is all of it, and that torch.empty can make
    format: torch.memory_format

    def empty(self) -> Tensor:
        if self.size is None:
            return memory.empty((self.room,), self.dtype)
        return torch.empty(self.size, dtype=self.dtype, memory_format=self.format)


class _Result(NamedTuple):
    """A tensor that is returned: a part of some memory."""

    memory: int
    size: torch.Size
    stride: tuple[int, ...]
    offset: int  # numbers before its first
    is_whole: bool  # it is what torch.empty made

    def of(self, made: list[Tensor]) -> Tensor:
        whole = made[self.memory]
        return whole if self.is_whole else whole.as_strided(self.size, self.stride, self.offset)


def _memory_of(whole: Tensor, result: Tensor) -> _Memory:
    """That of a tensor which was made, for the first result that lies in it."""
    begin, end = record.span(whole)
    room = (end - begin) // whole.element_size()
    for kind in (torch.contiguous_format, torch.channels_last):
        if result.dim() != 4 and kind is torch.channels_last:
            break
        is_small = room * whole.element_size() < memory.LARGE
        if is_small and room == result.numel() and result.is_contiguous(memory_format=kind):
            return _Memory(room, whole.dtype, result.shape, kind)
    return _Memory(room, whole.dtype, None, torch.contiguous_format)


class _Block:
    """Steps, their tables and their counters in one piece; where addresses go, and which.

    ``owner`` says of each tensor of the recording where it is found in a call: the number of an
    address, and bytes behind it. The block's own is the last.
    """

    def __init__(
        self, recording: record.Recording, owner: Sequence[tuple[int, int]], own: int, team: int
    ) -> None:
        self.words: list[int] = [0] * (STEP * len(recording.steps))
        self.fills: list[tuple[int, int, int]] = []
        """(place, number of an address, bytes behind it)."""
        self.constants: list[Any] = []
        """Arrays that are the same in every call."""
        self._recording, self._owner, self._own = recording, owner, own
        self._tables: dict[int, int] = {}  # by the arguments' identity
        for number, step in enumerate(recording.steps):
            first = STEP * number
            self.words[first] = step.kernel.address
            self.fills.append((first + 1, own, 8 * self._table(step.arguments)))
            self.words[first + 2] = step.programs
        self.counters = len(self.words)
        self.words += [0] * counters_of(len(recording.steps), team)

    def _table(self, arguments: Arguments) -> int:
        """Where a table begins in the block, which it is added to."""
        if id(arguments) not in self._tables:
            first = self._tables[id(arguments)] = len(self.words)
            self.words += arguments.entries
            for place, operand in arguments.addresses():
                self._fill(first + place, operand)
        return self._tables[id(arguments)]

    def _fill(self, place: int, operand: Any) -> None:
        if isinstance(operand, Arguments):
            self.fills.append((place, self._own, 8 * self._table(operand)))
        elif record.is_constant(operand):
            self.constants.append(operand)
        else:
            if not isinstance(operand, Tensor):
                raise LookupError(f"an operand is {type(operand).__name__}, and no tensor")
            tensor, offset = self._recording.place(operand)
            number, before = self._owner[tensor]
            self.fills.append((place, number, before + offset))


def _together(
    sizes: dict[int, int], uses: dict[int, tuple[int, int]]
) -> tuple[dict[int, int], int]:
    """(where each of some tensors lies in one piece of memory, how large that is), in bytes.

    Those that no step needs at the same time may lie in the same place: a run of many layers takes
    the memory of one of them, which is also more often in the cache. The largest come first.
    """
    offsets: dict[int, int] = {}
    room = 0
    placed: list[tuple[int, int, int, int]] = []  # (begin, end, first step, last step)
    for number in sorted(sizes, key=lambda each: -sizes[each]):
        size, (first, last) = sizes[number], uses.get(number, (0, -1))
        begin = 0
        for there, end, other_first, other_last in sorted(placed):
            if other_first > last or other_last < first:
                continue
            if begin + size <= there:
                break
            begin = max(begin, end)
        offsets[number] = begin
        placed.append((begin, begin + size, first, last))
        room = max(room, begin + size)
    return offsets, room


class Replay:
    """What a recorded function launched, for other tensors of the same shapes, strides and types.

    ``results`` are what the function returned: a tensor, or several and None. Raises LookupError
    where that cannot be made again.
    """

    def __init__(self, recording: record.Recording, results: Any, team: int) -> None:
        if recording.spoiled:
            raise LookupError(recording.spoiled)
        given, made = recording.given, recording.tensors[recording.given :]
        # A call has the addresses of what is given, of results, of all other memory in one, and of
        # the block.
        owner = [(number, 0) for number in range(given)] + [(-1, 0)] * len(made)
        self._is_single = isinstance(results, Tensor)
        self._memories: list[_Memory] = []
        self._results: list[_Result | None] = []
        for result in [results] if self._is_single else results:
            if result is None:
                self._results.append(None)
                continue
            tensor, offset = recording.place(result)
            whole = recording.tensors[tensor]
            if tensor < given or result.dtype != whole.dtype:
                raise LookupError("a result was given")
            if owner[tensor][0] < 0:
                owner[tensor] = (given + len(self._memories), 0)
                self._memories.append(_memory_of(whole, result))
            which, before = owner[tensor][0] - given, offset // whole.element_size()
            own = self._memories[which]
            is_whole = own.size == result.shape and result.is_contiguous(memory_format=own.format)
            form = _Result(which, result.shape, result.stride(), before, is_whole)
            self._results.append(form)
        count = given + len(self._memories)
        sizes = {
            number: -(-(end - begin) // _LINE) * _LINE
            for number, (begin, end) in enumerate(map(record.span, made), start=given)
            if owner[number][0] < 0
        }
        offsets, self._room = _together(sizes, recording.uses())
        for number, offset in offsets.items():
            owner[number] = (count, offset)
        block = _Block(recording, owner, count + 1, team)
        self._block = array("q", block.words)
        self._fills, self._counters, self._team = tuple(block.fills), 8 * block.counters, team
        self._kernels = tuple(step.kernel for step in recording.steps)
        self._constants = block.constants  # to stay where they are

    def __call__(self, given: Sequence[Tensor]) -> Any:
        made = [each.empty() for each in self._memories]
        room = memory.empty((self._room // 4,), torch.float32)
        block = self._block[:]
        here = block.buffer_info()[0]
        addresses = [tensor.data_ptr() for tensor in (*given, *made, room)]
        addresses.append(here)
        for place, number, offset in self._fills:
            block[place] = addresses[number] + offset
        run_steps(self._kernels, here, here + self._counters, self._team)
        if self._is_single:
            return self._results[0].of(made)  # type: ignore[union-attr]
        return [None if each is None else each.of(made) for each in self._results]


def replayed(function: Callable) -> Callable:
    """Marks ``function(tensors, *others)``, which is prepared once for what these are like.

    ``tensors`` are a tuple of tensors and None; the function returns a tensor or some of them. What
    it launches may depend on their shapes, strides and types, on the other arguments, which are to
    be numbers, names and tuples of them, on the number of threads, and on nothing else.
    """
    known: dict[Hashable, Any] = {}  # Replay, _ONCE or _NEVER

    @wraps(function)
    def call(tensors: tuple[Tensor | None, ...], *others: Hashable) -> Any:
        if record.current() is not None:  # its launches are another one's
            return function(tensors, *others)
        team = threads()
        like = [None if x is None else (x.shape, x.stride(), x.dtype) for x in tensors]
        key = (team, *like, *others)
        found = known.get(key)
        given = [x for x in tensors if x is not None]
        if isinstance(found, Replay):
            return found(given)
        if found is None:  # shapes that never come again are not worth it
            if len(known) >= _MOST:
                known.clear()
            known[key] = _ONCE
        if found is not _ONCE or not record.are_apart(given):
            return function(tensors, *others)
        with record.recording(given) as recording:
            results = function(tensors, *others)
        try:
            replay = Replay(recording, results, team) if threads() == team else _ONCE
            known[key] = replay
        except LookupError:
            known[key] = _NEVER
        return results

    _all.append(known)
    return call


_ONCE, _NEVER = object(), object()
"""Of arguments that were seen once, and of those that cannot be recorded."""
_all: list[dict] = []


def forget() -> None:
    """Has every function prepared anew."""
    for known in _all:
        known.clear()
