"""Tables of neighbours, checked before a kernel follows them: whoever made them, on any device.

A table says which rows of the features to read and which cells of the weight to use, so one that
was made for other points, or written to since, would read memory that belongs to others.
"""

from __future__ import annotations

from torch import Tensor

from pointwise import checks
from pointwise.convolution import cells as definition
from pointwise.convolution.cells import index_bits
from pointwise.engine import found
from pointwise.engine.cpu.search import tables


def check(caller: str, row_start: Tensor, pairs: Tensor, points: int, cells: int) -> None:
    """Every pair names one of the ``points`` and one of the ``cells``, row by row, cell by cell."""
    bits = index_bits(points)
    if bits + (cells - 1).bit_length() <= 32 and _is_sound(row_start, pairs, bits, points, cells):
        return
    raise ValueError(
        f"{caller}: row_start {checks.describe(row_start)} and pairs {checks.describe(pairs)} "
        f"are no table of {points:,} points and {cells} kernel cells: row_start must rise from "
        "0 to the number of pairs, and every pair name a point and a cell, in the order of the "
        "cells; take both from one Neighborhood of these points"
    )


def _is_sound(row_start: Tensor, pairs: Tensor, bits: int, points: int, cells: int) -> bool:
    if pairs.device.type == "cpu":
        return tables.is_sound(row_start, pairs, bits, points, cells)
    if found.is_sound(row_start, pairs, points, cells):
        return True
    sound = bool(definition.is_sound(row_start, pairs, bits, points, cells))  # a wait
    if sound:
        found.remember(row_start, pairs, points, cells)
    return sound
