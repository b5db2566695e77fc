"""Who lies in which kernel cell of whom: built once, used by every layer that shares it."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pointwise import checks
from pointwise.cloud.kdtree import kdtree_search
from pointwise.convolution.cells import decode, index_bits, transpose
from pointwise.engine import found
from pointwise.engine.library import untraced

# The package registers torch.ops.pointwise.
from pointwise.operators import requirements, tables

SEARCHES = ("grid", "kdtree")


@dataclass
class Neighborhood:
    """The neighbours of each query, by kernel cell, for one cell size, kernel size and dilation.

    ``row_start [Nq+1]`` int64 and ``pairs [P]`` int32: row i holds, for each neighbour of query i,
    ``cell << index_bits | point`` in ascending order; cell ``(z·k + y)·k + x`` counts from the
    lowest corner. Four bytes per pair. A backward pass reads the same table backwards where
    the points are their own queries and none lies on the border of another's cell
    (``symmetric``); otherwise it needs the transposed table, four more.

    A table that was replaced or written to (through PyTorch; ``.data`` and NumPy leave no trace)
    is used as it is, forward and backward; nothing is searched again for it.
    """

    points: Tensor  # [Np, 3]
    point_offsets: Tensor  # [B+1]
    queries: Tensor  # [Nq, 3]
    query_offsets: Tensor  # [B+1]
    cell_size: float
    kernel_size: int
    dilation: int
    search: str = "grid"
    row_start: Tensor = field(init=False)
    pairs: Tensor = field(init=False)
    symmetric: Tensor = field(init=False)  # bool, no dimensions
    _transposed: tuple[Tensor, Tensor] | None = field(default=None, init=False, repr=False)
    _found: tuple | None = field(init=False, repr=False)  # the state of which the two above hold

    def __post_init__(self) -> None:
        self.row_start, self.pairs, self.symmetric = self._table(transposed=False)
        self._found = self._state()

    def _table(self, transposed: bool) -> tuple[Tensor, Tensor, Tensor]:
        where = (self.points, self.point_offsets, self.queries, self.query_offsets)
        how = (float(self.cell_size), self.kernel_size, self.dilation, transposed)
        if self.search == "kdtree":
            return kdtree_search(*where, *how)
        return torch.ops.pointwise.cell_search(*where, *how)

    def _state(self) -> tuple[tuple, ...]:
        """The table and what it was found from, each with its count of writes where there is one.

        A count says nothing of a graph that is being traced, and inference tensors have none.
        """
        tensors = (self.row_start, self.pairs, self.points, self.point_offsets, self.queries,
                   self.query_offsets)  # fmt: skip
        traced = torch.compiler.is_compiling()
        counts = tuple(None if traced or t.is_inference() else t._version for t in tensors)
        how = (self.cell_size, self.kernel_size, self.dilation, self.search)
        return tensors, counts, how

    def _is_as_found(self) -> bool:
        """Whether the table is still that which a search of these points finds."""
        if self._found is None:
            return False
        (tensors, counts, how), (others, other_counts, other_how) = self._found, self._state()
        return (
            how == other_how
            and all(a is b for a, b in zip(tensors, others, strict=True))
            and all(a == b or None in (a, b) for a, b in zip(counts, other_counts, strict=True))
        )

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_found": self._is_as_found()}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._found = self._state() if state["_found"] else None  # a copy counts its own writes

    def to(self, device: torch.device | str) -> Neighborhood:
        """The same on another device, or this one if it is there: nothing is searched again."""
        moved: dict[int, Tensor] = {}  # points that are their own queries stay the same tensor

        def there(tensor: Tensor) -> Tensor:
            return moved.setdefault(id(tensor), tensor.to(device))

        own = {name: value for name, value in self.__dict__.items() if isinstance(value, Tensor)}
        if all(there(tensor) is tensor for tensor in own.values()):
            return self
        copied = copy.copy(self)
        copied.__dict__.update({name: there(tensor) for name, tensor in own.items()})
        if self._transposed is not None:
            row_start, pairs = map(there, self._transposed)
            copied._transposed = row_start, pairs
        copied._found = None
        if self._is_as_found():
            copied._found = copied._state()
            copied._remember(self._is_symmetric())
            if copied._transposed is not None:
                found.remember(*copied._transposed, len(self.queries), self.cells)
        return copied

    @property
    def transposed(self) -> tuple[Tensor, Tensor]:
        """The transposed table: for each point, the queries it is a neighbour of."""
        if not self._is_as_found():
            return _transpose(self.row_start, self.pairs, self.points, self.kernel_size)
        if self._transposed is None:
            self._transposed = self._table(transposed=True)[:2]
        return self._transposed

    def backward_table(self) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """What the operators need for the features' gradient: nothing where ``symmetric``."""
        if torch.compiler.is_compiling() or not self._is_as_found() or not self._is_symmetric():
            return self.transposed
        return None, None

    def _is_symmetric(self) -> bool:
        """What ``symmetric`` says, without waiting for a GPU that has said it already."""
        if self.symmetric.device.type == "cpu":
            return bool(self.symmetric)
        known = found.symmetry(self.row_start, self.pairs)
        if known is None:
            known = bool(self.symmetric)
            self._remember(known)
        return known

    def _remember(self, symmetric: bool) -> None:
        found.remember(self.row_start, self.pairs, len(self.points), self.cells, symmetric)

    @property
    def cells(self) -> int:
        """M = k³, the number of kernel cells."""
        return self.kernel_size**3

    def decode(self) -> tuple[Tensor, Tensor, Tensor]:
        """(query, cell, point) of every pair, each ``[P]`` int64."""
        return decode(self.row_start, self.pairs, index_bits(len(self.points)))

    def __repr__(self) -> str:
        mean = len(self.pairs) / max(1, len(self.queries))
        return (
            f"Neighborhood({len(self.queries):,} queries among {len(self.points):,} points, "
            f"cell_size={self.cell_size:g}, kernel_size={self.kernel_size}, "
            f"dilation={self.dilation}: {len(self.pairs):,} pairs, {mean:.1f} per query)"
        )


@untraced
def _transpose(
    row_start: Tensor, pairs: Tensor, points: Tensor, kernel_size: int
) -> tuple[Tensor, Tensor]:
    """The transpose of a table that no search has found, read from the table itself."""
    requirements.table("Neighborhood", points, row_start, pairs)
    tables.check("Neighborhood", row_start, pairs, len(points), kernel_size**3)
    checks.table_width("Neighborhood", len(row_start) - 1, kernel_size)
    bits = index_bits(len(points)), index_bits(len(row_start) - 1)
    return transpose(row_start, pairs, len(points), *bits)
