"""Tables of neighbours that are known to be sound: a search has found them, or they were read.

To read a table on a GPU is to wait for it, which nobody wants in every call of every layer. So what
is known of a table is remembered for as long as its tensors live and are not written to. (PyTorch
counts what it writes; what is written through ``.data``, NumPy or DLPack leaves no trace, and is
not looked for here. Tables in the CPU's memory are read at every call.)
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.utils.weak import TensorWeakRef, WeakTensorKeyDictionary


class _Known(NamedTuple):
    pairs: TensorWeakRef  # the other half of the table
    writes: tuple[int | None, int | None]  # to row_start and to pairs, when this was known
    points: int
    cells: int
    symmetric: bool | None


_tables = WeakTensorKeyDictionary()  # from row_start


def remember(
    row_start: Tensor, pairs: Tensor, points: int, cells: int, symmetric: bool | None = None
) -> None:
    """The table names ``points`` and ``cells``; ``symmetric`` is what a search says of it."""
    writes = _writes(row_start), _writes(pairs)
    _tables[row_start] = _Known(TensorWeakRef(pairs), writes, points, cells, symmetric)


def is_sound(row_start: Tensor, pairs: Tensor, points: int, cells: int) -> bool:
    """Whether it is known that the table names so many points and cells, and no others."""
    known = _known(row_start, pairs)
    return known is not None and (known.points, known.cells) == (points, cells)


def symmetry(row_start: Tensor, pairs: Tensor) -> bool | None:
    """Whether the table is its own transpose; None where that is not known."""
    known = _known(row_start, pairs)
    return None if known is None else known.symmetric


def _known(row_start: Tensor, pairs: Tensor) -> _Known | None:
    known = _tables.get(row_start)
    if known is None or known.pairs() is not pairs:
        return None
    return known if known.writes == (_writes(row_start), _writes(pairs)) else None


def _writes(tensor: Tensor) -> int | None:
    """How often PyTorch has written to a tensor; inference tensors do not say."""
    return None if tensor.is_inference() else tensor._version
