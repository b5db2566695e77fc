"""Neighbours in one form, whoever found them, so that they can be compared one by one."""

from __future__ import annotations

import numpy as np
import torch
from peers import cells
from torch import Tensor

from pointwise.cloud.neighborhood import Neighborhood

_KERNEL_SIZE = 3


def triples(table: Neighborhood, queries: int) -> Tensor:
    """(query, cell, point) of the first queries, as sorted numbers ``[P]``."""
    query, cell, point = table.decode()
    first = query < queries
    return _numbered(query[first], cell[first], point[first])


def _numbered(query: Tensor, cell: Tensor, point: Tensor) -> Tensor:
    return ((query * _KERNEL_SIZE**3 + cell) * 2**32 + point).sort().values


def in_cells(
    points: Tensor, query: Tensor, point: Tensor, cell_size: float, dilation: int
) -> Tensor:
    """As ``triples``, of all candidates that lie in a cell."""
    delta = points[point] - points[query]
    inside, cell = cells(delta, cell_size, _KERNEL_SIZE, dilation)
    return _numbered(query[inside], cell, point[inside])


def of_lists(lists: list[list[int]]) -> tuple[Tensor, Tensor]:
    """(query, point) of lists of neighbours, one list per query."""
    counts = torch.tensor([len(row) for row in lists])
    query = torch.repeat_interleave(torch.arange(len(lists)), counts)
    return query, torch.tensor([j for row in lists for j in row])


def of_pairs(pairs: np.ndarray, count: int) -> tuple[Tensor, Tensor]:
    """(query, point) of pairs ``[P, 2]`` that stand for both ways, and of ``count`` with itself."""
    a, b, own = *torch.from_numpy(pairs).unbind(1), torch.arange(count)
    return torch.cat((a, b, own)), torch.cat((b, a, own))


def of_rows(starts: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """(query, point) of neighbours one behind the other, row by row."""
    return torch.repeat_interleave(torch.arange(len(starts) - 1), starts.diff()), index.long()
