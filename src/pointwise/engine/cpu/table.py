"""Argument tables: what a kernel is told, as int64; floats are there as the bits of a float64."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from pointwise.engine.cpu.launch import device
from pointwise.engine.cpu.vector import number, peek


def bits(value: float) -> int:
    """A float64 as the int64 that an argument table holds."""
    return struct.unpack("<q", struct.pack("<d", value))[0]


@device
def real(arguments, index, like):
    """Entry ``index`` of an argument table that holds a float64."""
    return number(peek(arguments + 8 * index, np.float64(0)), like)


class Table:
    """A table inside a table, which names it by its address; to be kept while a kernel runs."""

    def __init__(self, entries: Sequence[int]) -> None:
        self._entries = np.array(entries, dtype=np.int64)
        self.address: int = self._entries.ctypes.data

    def data_ptr(self) -> int:
        """As of a tensor, so that a table may be an operand of a layout."""
        return self.address


def address(table: Table | None) -> int:
    """Where a table lies; 0 for none."""
    return 0 if table is None else table.address
