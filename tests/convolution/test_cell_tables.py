"""Tables of neighbours and what is done with them on no device, against the oracle."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch
from cases import each, named

from pointwise.convolution import cells

FEW = named("batch, down", "kernel 5, dilation 2, sum", "17 channels, float64", "duplicates")


def table_of(case) -> tuple[torch.Tensor, torch.Tensor, int]:
    """The oracle's table, packed: (row_start, pairs, bits)."""
    bits = cells.index_bits(len(case.points))
    query, cell, point = torch.from_numpy(case.table).T
    row_start = torch.searchsorted(query.contiguous(), torch.arange(case.rows + 1))
    return row_start, (cell << bits | point).to(torch.int32), bits


def test_index_bits():
    assert [cells.index_bits(n) for n in (0, 1, 2, 3, 4, 5, 256, 257)] == [1, 1, 1, 2, 2, 3, 8, 9]


def test_the_highest_bit_of_a_pair_is_no_sign():
    # Kernel size 5 takes 7 bits; with 25 bits of index the pair's sign bit belongs to the cell.
    pairs = torch.tensor([(124 << 25) | 3, 5], dtype=torch.int64).to(torch.uint32).view(torch.int32)
    query, cell, point = cells.decode(torch.tensor([0, 1, 2]), pairs, 25)
    assert int(pairs[0]) < 0
    assert (query.tolist(), cell.tolist(), point.tolist()) == ([0, 1], [124, 0], [3, 5])


@pytest.mark.parametrize("dilation", [1, 2])
def test_cells_are_half_open(dilation):
    # Cells of edge 0.5: each begins at its lower border, and ends before its upper one.
    x = np.array([-1.0, -0.75, -0.25, 0.0, 0.25, 0.75, 1.25])
    offset = np.stack([x, np.zeros(7), np.zeros(7)], axis=1)
    cell, mirrored = cells.cells_of(offset, 0.5, 3, dilation)
    row = np.where(cell < 0, -1, cell - 12)  # 12: the row of cells through the middle
    assert row.tolist() == {1: [-1, 0, 1, 1, 2, -1, -1], 2: [0, -1, 1, 1, -1, 2, -1]}[dilation]
    on_border = {1: [1, 2, 4], 2: [2, 5]}[dilation]
    inside = np.flatnonzero(cell >= 0)
    assert [i for i in inside if not mirrored[i]] == on_border


@each(FEW)
def test_gather_is_the_oracle(case):
    row_start, pairs, bits = table_of(case)
    found = cells.gather(case.features(), row_start, pairs, bits, case.cells, case.mean)
    expected = oracle.gather(case.features().numpy(), case.table, case.rows, case.cells, case.mean)
    oracle.assert_close(found.numpy(), expected, case.terms, what="A")


@each(FEW)
def test_depthwise_gather_is_the_oracle(case):
    row_start, pairs, bits = table_of(case)
    features, weight = case.features(), case.depthwise_weight()
    found = cells.gather_depthwise(features, weight, row_start, pairs, bits, case.mean)
    expected = oracle.depthwise(features.numpy(), case.table, case.rows, weight.numpy(), case.mean)
    oracle.assert_close(found.numpy(), expected, case.terms)


@each(FEW)
def test_the_weights_of_the_adjoint_are_the_oracle(case):
    row_start, pairs, bits = table_of(case)
    channels = case.channels[0]
    a = torch.rand(case.rows, case.cells, channels, dtype=torch.float64)
    where, point, weight = cells.adjoint_weights(
        row_start, pairs, bits, case.cells, case.mean, a.dtype
    )
    found = torch.zeros(len(case.points), channels, dtype=a.dtype)
    found.index_add_(0, point, a.flatten(0, 1)[where] * weight[:, None])
    expected = oracle.gather_adjoint(a.numpy(), case.table, len(case.points), case.mean)
    oracle.assert_close(found.numpy(), expected, case.terms)


@each(FEW)
def test_a_table_transposed_twice_is_itself(case):
    row_start, pairs, bits = table_of(case)
    query_bits = cells.index_bits(case.rows)
    there = cells.transpose(row_start, pairs, len(case.points), bits, query_bits)
    turned = oracle.turned(case.table)
    oracle.assert_same_table(*(t.numpy() for t in there), turned, len(case.points), case.rows)
    back = cells.transpose(*there, case.rows, query_bits, bits)
    assert torch.equal(back[0], row_start)
    assert torch.equal(back[1], pairs)


@each(FEW)
def test_a_table_is_sound_until_something_in_it_is_wrong(case):
    row_start, pairs, bits = table_of(case)
    points = len(case.points)
    assert cells.is_sound(row_start, pairs, bits, points, case.cells)
    assert not cells.is_sound(row_start, pairs, bits, points, int(case.table[:, 1].max()))
    assert not cells.is_sound(row_start, pairs, bits, int(case.table[:, 2].max()), case.cells)
    assert not cells.is_sound(row_start.flip(0), pairs, bits, points, case.cells)
    assert not cells.is_sound(row_start[[0, -1]], pairs, bits, points, case.cells)
