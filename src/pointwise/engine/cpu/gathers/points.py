"""The gathers of points: their own features, or those of their neighbours, cell by cell."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pointwise.engine.cpu.device import device
from pointwise.engine.cpu.gathers import cells, cells_depthwise, cells_shift, identity
from pointwise.engine.cpu.layout import Arguments, Layout

IDENTITY, CELLS, CELLS_DEPTHWISE, CELLS_SHIFT = range(4)

GATHER = Layout("Gather", "kind x_row channels rows", table=cells.CELLS)


@dataclass
class Gather:
    """What is read for each row: the kind of gather and its operands (contiguous CPU tensors)."""

    kind: int
    x: Tensor  # [Np, C]
    rows: int
    row_start: Tensor | None = None  # [rows + 1] int64
    pairs: Tensor | None = None  # [P] int32
    bits: int = 0
    mode: int = cells.SUM
    mirrored: bool = False  # read the table as its own transpose: cell m stands for cell M-1-m
    shares: Tensor | None = None  # [Np, M], for ADJOINT_OF_MEAN
    cells: int = 1
    weight: Tensor | None = None  # [M, C], for CELLS_DEPTHWISE

    @property
    def width(self) -> int:
        """K, the number of gathered values in a row."""
        return self.x.shape[1] * (self.cells if self.kind == CELLS else 1)

    def arguments(self) -> Arguments:
        """The gather's part of a kernel's argument table; ``x`` itself is the kernel's."""
        table = cells.CELLS(
            row_start=self.row_start,
            pairs=self.pairs,
            shares=self.shares,
            weight=self.weight,
            bits=self.bits,
            mode=self.mode,
            cells=self.cells,
            mirrored=int(self.mirrored),
        )
        channels = self.x.shape[1]
        x_row = channels * self.x.element_size()
        return GATHER(kind=self.kind, x_row=x_row, channels=channels, rows=self.rows, table=table)


@device
def fill(target, target_row, first, rows, x, gather, like):
    """Gathers rows ``first … first + rows`` of ``x`` into ``target``."""
    x_row, channels = gather.x_row, gather.channels
    if gather.kind == CELLS:
        cells.fill(target, target_row, first, rows, x, x_row, channels, gather.table, like)
    elif gather.kind == CELLS_DEPTHWISE:
        cells_depthwise.fill(
            target, target_row, first, rows, x, x_row, channels, gather.table, like
        )
    elif gather.kind == CELLS_SHIFT:
        cells_shift.fill(target, target_row, first, rows, x, x_row, channels, gather.table, like)
    else:
        identity.fill(target, target_row, first, rows, x, x_row, channels, like)
