"""Weights in the order in which the microkernel reads them."""

from __future__ import annotations

import torch
from torch import Tensor

from pointwise.engine.cpu.vector import REGISTER_BYTES


def padded_columns(columns: int, dtype: torch.dtype) -> int:
    """``columns`` rounded up to whole registers."""
    width = REGISTER_BYTES // dtype.itemsize
    return -(-columns // width) * width


def pack(matrix: Tensor) -> Tensor:
    """``[K, C]`` as ``[C / lanes, K, lanes]``, with zeros behind the last column."""
    depth, columns = matrix.shape
    width = REGISTER_BYTES // matrix.dtype.itemsize
    padded = padded_columns(columns, matrix.dtype)
    wide = torch.zeros(depth, padded, dtype=matrix.dtype) if padded != columns else matrix
    if padded != columns:
        wide[:, :columns] = matrix
    return wide.reshape(depth, padded // width, width).permute(1, 0, 2).contiguous()


def pad_row(row: Tensor) -> Tensor:
    """A bias ``[C]`` with zeros up to whole registers."""
    padded = torch.zeros(padded_columns(len(row), row.dtype), dtype=row.dtype)
    padded[: len(row)] = row
    return padded
