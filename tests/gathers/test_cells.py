"""The gather of the point-cloud convolution: A and its adjoint, against the oracle's loops."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch
from cases import Case, each, named, walls

from pointwise.engine.cpu.gathers import cells
from pointwise.engine.cpu.gathers.points import CELLS, Gather
from pointwise.engine.cpu.loops.points import mixed_points
from pointwise.operators import cells as operators

FEW = named("batch, down", "kernel 5, dilation 2, sum", "17 channels, float64", "duplicates")


def operands(case: Case) -> tuple:
    """Features, and a weight that passes each gathered value on: the convolution is the gather."""
    channels = case.channels[0]
    through = torch.eye(case.cells * channels, dtype=case.dtype)
    kernel = [case.kernel_size] * 3
    weight = through.view(-1, case.cells, channels).transpose(1, 2).reshape(-1, channels, *kernel)
    return case.features(), weight


def tables(case: Case) -> tuple:
    neighborhood = case.neighborhood()
    return (neighborhood.row_start, neighborhood.pairs), neighborhood.backward_table()


def gathered(case: Case) -> torch.Tensor:
    features, weight = operands(case)
    table, back = tables(case)
    return operators._cell_conv_cpu(features, weight, None, *table, *back, case.mean)


@each()
def test_gather_is_the_oracle(case, poisoned):
    expected = oracle.gather(case.features().numpy(), case.table, case.rows, case.cells, case.mean)
    found = gathered(case).numpy().reshape(expected.shape)
    oracle.assert_close(found, expected, case.terms, what="A")


@each()
def test_adjoint_is_the_oracle(case, poisoned):
    features, weight = operands(case)
    table, back = tables(case)
    a = case.gradient(len(weight))
    shape = (case.rows, case.cells, case.channels[0])
    args = (a, weight, *table, *back, case.mean, len(features))
    adjoint = operators._cell_conv_grad_input_cpu(*args).numpy()
    expected = oracle.gather_adjoint(a.numpy().reshape(shape), case.table, len(features), case.mean)
    oracle.assert_close(adjoint, expected, case.terms, what="Gᵀa")
    # ⟨Gx, a⟩ = ⟨x, Gᵀa⟩, whatever the oracle says.
    forward = float((gathered(case).double() * a.double()).sum())
    backward = float((features.double().numpy() * adjoint).sum())
    size = np.abs(a.double().numpy()).sum() + 1
    eps = torch.finfo(case.dtype).eps
    assert abs(forward - backward) <= oracle.TOLERANCE * eps * size * np.sqrt(case.terms)


@each(named("UTM", "negative", "batch"))
def test_the_table_read_mirrored_is_the_transposed_table(case):
    neighborhood = case.neighborhood()
    assert bool(neighborhood.symmetric)
    table = (neighborhood.row_start, neighborhood.pairs)
    weight, grad = case.weight(), case.gradient(case.channels[1])
    found = [
        operators._cell_conv_grad_input_cpu(grad, weight, *table, *back, case.mean, case.rows)
        for back in (neighborhood.transposed, (None, None))
    ]
    assert torch.equal(*found)


def test_a_table_that_cannot_be_mirrored_is_refused():
    (case,) = named("batch, down")
    neighborhood = case.neighborhood()
    table = (neighborhood.row_start, neighborhood.pairs)
    grad = case.gradient(case.channels[1])
    with pytest.raises(ValueError, match="20 rows in the table for 90 points; only where"):
        torch.ops.pointwise.cell_conv_grad_input(
            grad, case.weight(), *table, None, None, True, len(case.points)
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@each(FEW)
def test_cell_shares(case, dtype):
    (row_start, pairs), _ = tables(case)
    bits = max(1, (len(case.points) - 1).bit_length())
    shares = cells.cell_shares(row_start, pairs, bits, case.cells, dtype)
    counts = torch.zeros(case.rows, case.cells, dtype=dtype)
    np.add.at(counts.numpy(), tuple(case.table[:, :2].T), 1)
    assert torch.equal(shares, torch.where(counts > 0, 1 / counts, 0))


def test_cell_shares_of_more_rows_than_one_program():
    case = Case("counted in parts", walls(5000), cell_size=0.02)
    neighborhood = case.neighborhood()
    assert len(case.points) > cells._ROWS
    args = (neighborhood.row_start, neighborhood.pairs, 13, case.cells, torch.float64)
    shares = cells.cell_shares(*args)
    query, cell, _ = neighborhood.decode()
    counts = torch.bincount(query * case.cells + cell, minlength=shares.numel()).view_as(shares)
    assert torch.equal(shares, torch.where(counts > 0, 1 / counts.double(), 0))


def test_the_highest_bit_of_a_pair_is_no_sign():
    pairs = torch.tensor([(124 << 25) | 3, 5], dtype=torch.int64).to(torch.uint32).view(torch.int32)
    shares = cells.cell_shares(torch.tensor([0, 1, 2]), pairs, 25, 125, torch.float32)
    assert shares[0].tolist() == [0] * 124 + [1]


@pytest.mark.parametrize("rows_given", [0, 1])
def test_no_rows_no_channels(rows_given):
    row_start = torch.zeros(rows_given + 1, dtype=torch.int64)
    none = torch.zeros(0, dtype=torch.int32)
    gather = Gather(CELLS, torch.zeros(4, 0), rows_given, row_start, none, 2, cells=27)
    assert mixed_points(gather, torch.zeros(0, 3), None).tolist() == [[0.0] * 3] * rows_given
